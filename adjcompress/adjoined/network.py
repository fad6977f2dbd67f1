"""How do a full and a small network live in one set of weights?

The small network is a dense network from the first step on: its convolutions and linear layers read views of the full
network's tensors, its normalisation layers are its own. Gradients reach the full weights through the slicing, so every
entry that both use is trained by both, and extraction copies the very tensors that were trained.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adjcompress.adjoined.masks import r_beta_mask
from adjcompress.errors import AdjCompressError, pick
from adjcompress.widths.channels import NORMS, Convolution
from adjcompress.widths.plan import Range, WidthPlan
from adjcompress.widths.surgery import cut, slice_model


@dataclass(frozen=True)
class RandomMask:
    """r_beta: the part `beta` of every slim layer's weights that is zero, drawn from `seed`."""

    beta: float
    seed: int = 0


class Outputs(NamedTuple):
    """Logits (N, classes) of the full network, and of every small one by name."""

    full: Tensor
    smalls: dict[str, Tensor]


# A small network's name and its views of the full network's tensors -> the tensors that it computes with.
Dressed = Callable[[str, dict[str, Tensor]], dict[str, Tensor]]


class AdjoinedNetwork(nn.Module):
    """A full network and small ones inside its weights. arXiv:2006.05624.

    `plans` says which channels each small network keeps; `full` is taken over, not copied. In the state dict are the full
    network and the small networks' own normalisation layers: weights, biases and statistics.
    """

    def __init__(self, full: nn.Module, plans: Mapping[str, WidthPlan], mask: RandomMask | None = None) -> None:
        super().__init__()
        if not plans:
            raise AdjCompressError("An adjoined network needs at least one small network: give it a width plan.")
        for name in plans:
            if "." in name or not name:
                raise AdjCompressError(f"{name!r} cannot name a small network: names have no dot and are not empty.")
        self.full = full
        self.plans = dict(plans)
        self.mask = mask
        self._mask_names: dict[tuple[str, str], str] = {}
        self.smalls = nn.ModuleDict()
        for name, plan in plans.items():
            small = slice_model(full, plan)
            if mask is not None and mask.beta > 0:
                self._register_masks_(name, small)
            self.smalls[name] = _without_shared_tensors_(small)

    def forward(self, images: Tensor) -> Outputs:
        """Logits of the full network and of every small one: (N, C, H, W) -> (N, classes) each."""
        return self._outputs(images, self._masked)

    def small_logits(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (N, classes) of the small networks alone; the full one does not run."""
        return {name: functional_call(small, self.views(name), (images,)) for name, small in self.smalls.items()}

    def _outputs(self, images: Tensor, dressed: Dressed) -> Outputs:
        """Both networks' logits, every small one with its views as `dressed` makes them of the full network's tensors."""
        if torch.compiler.is_compiling():  # the compiler joins slices and finds common work by itself
            smalls = {
                name: functional_call(small, dressed(name, self._cut(name)), (images,)) for name, small in self.smalls.items()
            }
            return Outputs(self.full(images), smalls)
        whole, cuts = self._forked()
        views = {name: dressed(name, own) for name, own in cuts.items()}
        with _FirstConvolution(self.full, whole, images) as first:
            full = functional_call(self.full, whole, (images,))
            smalls = {}
            for name, small in self.smalls.items():
                with first.reused_by(small, views[name]):
                    smalls[name] = functional_call(small, views[name], (images,))
        return Outputs(full, smalls)

    def views(self, name: str) -> dict[str, Tensor]:
        """The tensors that small network `name` shares with the full one, cut to its widths, by their names there."""
        return self._masked(name, self._cut(name))

    def _cut(self, name: str) -> dict[str, Tensor]:
        cuts = self.plans[name].cuts
        return {tensor: cut(weight, cuts[tensor]) if tensor in cuts else weight for tensor, weight in self._shared(name)}

    def _forked(self) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
        """The full network's parameters and every small network's views, tied for the backward pass by `_Fork`."""
        whole: dict[str, Tensor] = dict(self.full.named_parameters())
        views: dict[str, dict[str, Tensor]] = {}
        cut_by: dict[str, list[str]] = {}
        for name, plan in self.plans.items():
            shared = dict(self._shared(name))
            views[name] = {tensor: weight for tensor, weight in shared.items() if tensor not in plan.cuts}
            for tensor in shared:
                if tensor in plan.cuts:
                    cut_by.setdefault(tensor, []).append(name)
        for tensor, names in cut_by.items():
            # The layer's own backward makes its weight's gradient for this one use; others may share theirs.
            owned = type(self.full.get_submodule(tensor.rpartition(".")[0])) in (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
            cuts = [self.plans[name].cuts[tensor] for name in names]
            whole[tensor], *parts = _Fork.apply(whole[tensor], cuts, owned)
            for name, part in zip(names, parts, strict=True):
                views[name][tensor] = part
        return whole, views

    def _masked(self, name: str, views: dict[str, Tensor]) -> dict[str, Tensor]:
        masked = {}
        for tensor, view in views.items():
            mask = self._buffers.get(self._mask_names.get((name, tensor), ""))
            masked[tensor] = view if mask is None else view * mask
        return masked

    def extract(self, name: str) -> nn.Module:
        """Small network `name` (or "full") as a dense network of its own, in evaluation mode.

        Its tensors are copies of those that are trained: its logits equal those of the small network in training to the
        last bit.
        """
        if name == "full":
            return copy.deepcopy(self.full).eval()
        pick({known: known for known in [*self.smalls, "full"]}, name, "Small network")
        small = copy.deepcopy(self.smalls[name])
        for tensor, view in self.views(name).items():
            owner, _, attribute = tensor.rpartition(".")
            module = small.get_submodule(owner)
            delattr(module, attribute)
            module.register_parameter(attribute, nn.Parameter(view.detach().clone()))
        return small.eval()

    def _shared(self, name: str) -> list[tuple[str, Tensor]]:
        """The full network's parameters that small network `name` reads: all but those of normalisation layers."""
        own = {parameter for parameter, _ in self.smalls[name].named_parameters()}
        return [(tensor, parameter) for tensor, parameter in self.full.named_parameters() if tensor not in own]

    def _register_masks_(self, name: str, small: nn.Module) -> None:
        """Masks are redrawn from their seed, not stored: buffers outside the state dict."""
        assert self.mask is not None
        for tensor, parameter in small.named_parameters():
            if 0 in self.plans[name].cuts.get(tensor, {}) and parameter.ndim >= 2:  # a layer that is slim itself
                mask = r_beta_mask(parameter.shape, self.mask.beta, self.mask.seed, f"{name}/{tensor}")
                self._mask_names[name, tensor] = f"mask_{len(self._mask_names)}"
                self.register_buffer(self._mask_names[name, tensor], mask.to(parameter.device), persistent=False)


class _FirstConvolution:
    """Computes the network's first convolution once for all networks: its input and weights are the same [P1 Eq. 1].

    While the full network runs, the output of the layer that sees the very `images` is kept; a small network whose layer
    of that name has the same weight takes it instead of computing it again.
    """

    def __init__(self, full: nn.Module, whole: Mapping[str, Tensor], images: Tensor) -> None:
        self.full, self.whole, self.images = full, whole, images
        self.name = ""
        self.output: Tensor | None = None
        self.version = 0
        self._hooks: list[Any] = []

    def __enter__(self) -> _FirstConvolution:
        for name, module in self.full.named_modules():
            if isinstance(module, Convolution):
                self._hooks.append(module.register_forward_hook(self._keeper(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keeper(self, name: str) -> Any:
        def keep(_module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if self.output is None and inputs[0] is self.images:
                self.name, self.output, self.version = name, output, output._version

        return keep

    @contextmanager
    def reused_by(self, small: nn.Module, views: Mapping[str, Tensor]) -> Iterator[None]:
        """Within the block the small network's first convolution gives what was computed, if it would compute the same."""
        weight = f"{self.name}.weight"
        if self.output is None or views.get(weight) is not self.whole[weight] or self.output._version != self.version:
            yield  # an activation may have overwritten the output in place
            return
        output, layer = self.output, small.get_submodule(self.name)
        ordinary = layer.forward
        layer.forward = lambda images: output if images is self.images else ordinary(images)
        try:
            yield
        finally:
            del layer.forward  # the class's own again


class _Fork(torch.autograd.Function):
    """A weight, and its cuts; in the backward pass the cuts' gradients are added into the weight's where they belong.

    Plain slicing would give the same numbers, but make, for every weight and small network, a zero tensor of the full size
    and add it: 5 % of a step's time, and up to a second set of gradients in memory (benchmarks/train_step.py). `owned`: the
    weight's gradient is nobody else's and may be added to in place.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, cuts: Sequence[Mapping[int, tuple[Range, ...]]], owned: bool) -> tuple[Tensor, ...]:
        ctx.cuts, ctx.shape, ctx.owned = cuts, weight.shape, owned
        ctx.set_materialize_grads(False)
        return (weight.view_as(weight), *(cut(weight, kept) for kept in cuts))

    @staticmethod
    def backward(ctx: Any, whole: Tensor | None, *parts: Tensor | None) -> tuple[Tensor | None, None, None]:
        present = [(part, kept) for part, kept in zip(parts, ctx.cuts, strict=True) if part is not None]
        if not present:
            return whole, None, None
        total = present[0][0].new_zeros(ctx.shape) if whole is None else whole
        if whole is not None and not ctx.owned:
            total = whole.clone()
        for part, kept in present:
            _add_at_(total, part, list(kept.items()))
        return total, None, None


def _add_at_(total: Tensor, part: Tensor, kept: list[tuple[int, tuple[Range, ...]]]) -> None:
    """Add `part` to `total` at the kept ranges, dimension by dimension."""
    if not kept:
        total += part
        return
    (dim, ranges), *rest = kept
    begin = 0
    for start, stop in ranges:
        _add_at_(total.narrow(dim, start, stop - start), part.narrow(dim, begin, stop - start), rest)
        begin += stop - start


def adjoin(full: nn.Module, plans: Mapping[str, WidthPlan], mask: RandomMask | None = None) -> AdjoinedNetwork:
    """An AdjoinedNetwork of `full` and a small network for each of `plans`, by name ("alpha8")."""
    return AdjoinedNetwork(full, plans, mask)


def _without_shared_tensors_(small: nn.Module) -> nn.Module:
    """Take the shared parameters out of a sliced network; what stays are its normalisation layers.

    An empty buffer keeps each one's place for functional_call. It is not part of the state dict, holds no memory, and a
    forward without the views fails at once instead of computing with stale weights.
    """
    for module in small.modules():
        if isinstance(module, NORMS):
            continue
        for attribute, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, attribute)
            module.register_buffer(attribute, torch.empty(0, dtype=parameter.dtype, device=parameter.device), persistent=False)
    return small
