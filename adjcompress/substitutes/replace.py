"""Which layers of a network are replaced by a structured substitute, and how large is it?

A k x k convolution becomes a depthwise k x k, which keeps stride, padding and dilation, and a substituted 1x1; a 1x1
convolution becomes the substitute alone. Linear shuffle has a depthwise convolution of its own. arXiv:1906.00859.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adjcompress.errors import AdjCompressError, nearest_first, pick, shortened
from adjcompress.running import layers_run
from adjcompress.substitutes.acdc import Acdc
from adjcompress.substitutes.hashed import Hashed
from adjcompress.substitutes.layer import Substitute
from adjcompress.substitutes.low_rank import LowRank
from adjcompress.substitutes.shuffle import LinearShuffle
from adjcompress.substitutes.tensor_train import AlignedTensorTrain, TensorTrain
from adjcompress.substitutes.tucker import Tucker
from adjcompress.tensors import deployed_parameters
from adjcompress.widths.planning import named_by

SUBSTITUTES: dict[str, type[Substitute]] = {
    kind.name: kind for kind in (LowRank, LinearShuffle, TensorTrain, AlignedTensorTrain, Tucker, Hashed, Acdc)
}
_FINEST = 100_000  # shares are searched in steps of 1 / this


@dataclass(frozen=True)
class Substitution:
    """Which layers of a network are replaced, by which substitute, at which setting: plain data, kept in runs and packages."""

    substitute: str
    setting: float
    layers: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"substitute": self.substitute, "setting": self.setting, "layers": list(self.layers)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Substitution:
        return cls(data["substitute"], data["setting"], tuple(data["layers"]))


def plan_substitution(
    network: nn.Module,
    substitute: str,
    *,
    setting: float | None = None,
    parameters: int | None = None,
    layers: Sequence[str] | None = None,
    dense: Sequence[str] = (),
    example: Tensor | None = None,
) -> Substitution:
    """Choose the layers of `network`, and, where `parameters` are given, the largest setting within that many.

    By default every ungrouped convolution but the first, the classifier, squeeze-excitations and what the network's own
    `dense_layers` name; with `layers`, patterns of names, those. `dense` are patterns of layers that stay. First and last are
    the layers that run so on `example`, a batch (N, C, H, W); without one, those that are declared so. A budget that no
    setting meets, or that needs none, and a layer whose weight another layer shares, are AdjCompressErrors.
    """
    kind = pick(SUBSTITUTES, substitute, "Substitute")
    chosen = _chosen(network, layers, dense, example)
    if (setting is None) == (parameters is None):
        raise AdjCompressError(f"{substitute} needs either a setting or a number of parameters to stay within.")
    if setting is None:
        assert parameters is not None
        setting = _largest_setting(network, kind, substitute, chosen, parameters)
    for layer in chosen.values():
        kind.check(layer.in_channels, layer.out_channels, setting)
    return Substitution(substitute, setting, tuple(chosen))


def parameter_count(network: nn.Module, plan: Substitution) -> int:
    """How many parameters `network` has once `plan` is applied, in closed form."""
    kind = pick(SUBSTITUTES, plan.substitute, "Substitute")
    return _parameters(network, kind, _convolutions(network, plan.layers), plan.setting)


def apply_substitution(network: nn.Module, plan: Substitution, *, approximate: bool) -> nn.Module:
    """A copy of `network` with the plan's layers replaced: freshly drawn, or, with `approximate`, fitted to its weights."""
    kind = pick(SUBSTITUTES, plan.substitute, "Substitute")
    result = copy.deepcopy(network)
    for name, layer in _convolutions(result, plan.layers).items():
        parent, _, attribute = name.rpartition(".")
        setattr(result.get_submodule(parent), attribute, replacement(layer, kind, plan.setting, approximate))
    return result


def substitute(
    network: nn.Module,
    substitute: str,
    setting: float | None = None,
    parameters: int | None = None,
    layers: Sequence[str] | None = None,
    dense: Sequence[str] = (),
    approximate: bool = True,
    example: Tensor | None = None,
) -> nn.Module:
    """A new network with structured substitutes in place of convolutions, fitted to the weights of `network`.

    `setting` is the substitute's own: the part s of tensor_train and others, shuffle's groups, acdc's layers; or give
    `parameters` for the largest setting within that many. Everything else as in `plan_substitution`. With
    `approximate=False` the substitutes start from fresh draws, as in arXiv:1906.00859, which says more of training than of
    a trained network. Fitting acdc takes seconds a layer.
    """
    plan = plan_substitution(
        network, substitute, setting=setting, parameters=parameters, layers=layers, dense=dense, example=example
    )
    return apply_substitution(network, plan, approximate=approximate)


def replacement(layer: nn.Conv2d, kind: type[Substitute], setting: float, approximate: bool) -> nn.Module:
    """What stands for one convolution."""
    with torch.device("meta" if layer.weight.is_meta else "cpu"):
        parts = _replacement(layer, kind, setting, approximate)
    if not layer.weight.is_meta:
        parts.to(layer.weight)
    return parts.train(layer.training)


def _replacement(layer: nn.Conv2d, kind: type[Substitute], setting: float, approximate: bool) -> nn.Module:
    inputs, outputs, has_bias = layer.in_channels, layer.out_channels, layer.bias is not None
    kernel, stride, dilation = _pair(layer.kernel_size), _pair(layer.stride), _pair(layer.dilation)
    weight = layer.weight.detach().float().cpu() if approximate else None
    depthwise: nn.Conv2d | None = None
    substituted: Substitute
    if issubclass(kind, LinearShuffle):
        padding = layer.padding if isinstance(layer.padding, str) else _pair(layer.padding)
        substituted = shuffle = kind(inputs, outputs, setting, stride, has_bias, kernel, padding, dilation, layer.padding_mode)
        if weight is not None:
            shuffle.approximate_kernel_(weight)
    elif is_pointwise(layer):
        substituted = kind(inputs, outputs, setting, stride, has_bias)
        if weight is not None:
            substituted.approximate_(weight.flatten(1))
    else:
        substituted, depthwise = kind(inputs, outputs, setting, (1, 1), has_bias), _depthwise(layer)
        if weight is not None:
            spatial, matrix = separated(weight)
            depthwise.weight.data.copy_(spatial[:, None])
            substituted.approximate_(matrix)
    if layer.bias is not None and not layer.bias.is_meta:
        assert substituted.bias is not None
        substituted.bias.data.copy_(layer.bias.detach())
    return substituted if depthwise is None else nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=substituted))


def is_pointwise(layer: nn.Conv2d) -> bool:
    """Whether a convolution is a matrix applied at every pixel that it looks at."""
    return _pair(layer.kernel_size) == (1, 1) and layer.padding in ((0, 0), "valid", "same")


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    return value[0], value[1]


def separated(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A kernel (O, I, kh, kw) as spatial kernels (I, kh, kw) of length 1 times a matrix (O, I): the best such product.

    For each input alone it is the leading singular pair.
    """
    by_input = weight.flatten(2).transpose(0, 1).double()  # (I, O, points)
    _, vectors = torch.linalg.eigh(by_input.transpose(1, 2) @ by_input)
    leading = vectors[:, :, -1]
    leading = leading * torch.where(leading.sum(1, keepdim=True) < 0, -1.0, 1.0)
    matrix = (by_input @ leading[:, :, None]).squeeze(2).T
    return leading.view(weight.shape[1], *weight.shape[2:]).to(weight), matrix.to(weight)


# --- which layers ---------------------------------------------------------------------------------------------------


def _chosen(
    network: nn.Module, layers: Sequence[str] | None, dense: Sequence[str], example: Tensor | None
) -> dict[str, nn.Conv2d]:
    """The convolutions to replace, by name."""
    found = {name: module for name, module in network.named_modules() if type(module) is nn.Conv2d and module.groups == 1}
    # They look at one pixel: their matrices cost next to nothing.
    squeezes = [name for name, module in network.named_modules() if "SqueezeExcit" in type(module).__name__]
    own = (*getattr(network, "dense_layers", ()), *squeezes)
    first, last = _first_and_last(network, example)
    for option, patterns in (("--substitute-layers", layers or ()), ("--dense-layers", dense)):
        for pattern in patterns:
            if not any(named_by(name, pattern) for name in found):
                near = shortened(nearest_first(pattern, found), 6)
                raise AdjCompressError(f"{option} {pattern!r} matches no convolution that can be replaced. Near it: {near}.")
    if layers is None:
        taken = [name for name in found if name not in (first, last) and not any(named_by(name, p) for p in own)]
    else:
        taken = [name for name in found if any(named_by(name, pattern) for pattern in layers)]
    chosen = {name: found[name] for name in taken if not any(named_by(name, pattern) for pattern in dense)}
    if not chosen:
        raise AdjCompressError(
            f"No layer of {type(network).__name__} is left to replace: its ungrouped convolutions are "
            f"{shortened(list(found), 6)}."
        )
    _refuse_shared(network, chosen)
    return chosen


def _first_and_last(network: nn.Module, example: Tensor | None) -> tuple[str, str]:
    """The first convolution and the classifier, "" where there is none."""
    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    order = list(layers) if example is None else layers_run(network, example)
    return next((name for name in order if isinstance(layers[name], nn.Conv2d)), ""), order[-1] if order else ""


def _refuse_shared(network: nn.Module, chosen: Mapping[str, nn.Conv2d]) -> None:
    """A weight that two layers share cannot become a substitute in one of them."""
    users: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        users.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    for name, module in chosen.items():
        others = [other for other in users[id(module.weight)] if other != name]
        if others:
            stay = " ".join(f"--dense-layers {one}" for one in (name, *others) if one in chosen)
            raise AdjCompressError(
                f"Layer {name} cannot be replaced: {shortened(others)} shares its weight. Leave it dense: {stay}."
            )


def _convolutions(network: nn.Module, names: Sequence[str]) -> dict[str, nn.Conv2d]:
    """The convolutions that a plan names; a network that lacks one is another than the plan's."""
    modules = dict(network.named_modules())
    result = {}
    for name in names:
        module = modules.get(name)
        if not isinstance(module, nn.Conv2d) or module.groups != 1:
            raise AdjCompressError(
                f"The substitution is for another network: {type(network).__name__} has no convolution {name}."
            )
        result[name] = module
    return result


def _depthwise(layer: nn.Conv2d) -> nn.Conv2d:
    channels, stride, dilation = layer.in_channels, layer.stride, layer.dilation
    result = nn.Conv2d(
        channels,
        channels,
        layer.kernel_size,  # type: ignore[arg-type]
        stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        dilation,  # type: ignore[arg-type]
        groups=channels,
        bias=False,
        padding_mode=layer.padding_mode,
    )
    nn.init.kaiming_normal_(result.weight, nonlinearity="linear")
    return result


# --- how large ------------------------------------------------------------------------------------------------------


def _parameters(network: nn.Module, kind: type[Substitute], layers: Mapping[str, nn.Conv2d], setting: float) -> int:
    return deployed_parameters(network) + sum(_of_one(layer, kind, setting) - layer.weight.numel() for layer in layers.values())


def _of_one(layer: nn.Conv2d, kind: type[Substitute], setting: float) -> int:
    """Parameters of a convolution's replacement, without bias."""
    kernel = _pair(layer.kernel_size)
    if issubclass(kind, LinearShuffle):
        return kind.parameter_count(layer.in_channels, layer.out_channels, setting, kernel)
    spatial = 0 if is_pointwise(layer) else layer.in_channels * math.prod(kernel)
    return spatial + kind.parameter_count(layer.in_channels, layer.out_channels, setting)


def _depthwise_separable(layer: nn.Conv2d) -> int:
    """Parameters of a depthwise and a dense 1x1 convolution in a convolution's place, without bias."""
    spatial = 0 if is_pointwise(layer) else layer.in_channels * math.prod(_pair(layer.kernel_size))
    return spatial + layer.in_channels * layer.out_channels


def _largest_setting(
    network: nn.Module, kind: type[Substitute], name: str, layers: Mapping[str, nn.Conv2d], parameters: int
) -> float:
    """The setting of the largest network with at most `parameters`: sizes grow with s and L, and fall with g."""
    dense = deployed_parameters(network)
    if parameters >= dense:
        raise AdjCompressError(
            f"A budget of {parameters:,} parameters is above the dense network's {dense:,}: nothing is to be replaced. "
            "Ask for less."
        )

    if not issubclass(kind, LinearShuffle):
        separable = dense + sum(_depthwise_separable(layer) - layer.weight.numel() for layer in layers.values())
        if parameters > separable:
            raise AdjCompressError(
                f"A budget of {parameters:,} parameters is above the {separable:,} of depthwise convolutions with dense 1x1 "
                f"ones on these layers, which {name} is to make smaller. Ask for less."
            )

    def within(setting: float) -> bool:
        return _parameters(network, kind, layers, setting) <= parameters

    fits: float | None
    if kind.setting_is == "groups":
        most = max(math.gcd(layer.in_channels, layer.out_channels) for layer in layers.values())
        fits = next((groups for groups in range(1, most + 1) if within(groups)), None)
        smallest = _parameters(network, kind, layers, most)
    elif kind.setting_is == "layers":
        fits, smallest = _last(lambda number: within(number), 4096), _parameters(network, kind, layers, 1)
    else:
        found = _last(lambda number: within(number / _FINEST), _FINEST)
        fits, smallest = found and found / _FINEST, _parameters(network, kind, layers, 1 / _FINEST)
    if not fits:
        raise AdjCompressError(
            f"A budget of {parameters:,} parameters is below the smallest that {name} reaches on these layers: {smallest:,}. "
            "Give a larger budget, or replace more layers."
        )
    return fits


def _last(within: Callable[[int], bool], most: int) -> int | None:
    """The largest number from 1 to `most` for which `within` holds, by bisection; None where it never does."""
    if not within(1):
        return None
    low, high = 1, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return low
