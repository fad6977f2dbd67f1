"""Does cutting a plan's channels do what masking them would?

Channel groups come from tracing, and a network may do with its channels what no trace shows. So a plan is tried out once,
on a copy with random values in double precision: the sliced network must compute what the full one computes when every
layer is kept from seeing the channels that go.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adjcompress.errors import AdjCompressError, first_line
from adjcompress.running import CANNOT_RUN
from adjcompress.tensors import copied_with, tensors_of
from adjcompress.widths.channels import BatchNorm, Convolution, is_selection, running_modules
from adjcompress.widths.plan import WidthPlan
from adjcompress.widths.surgery import slice_model

_TOLERANCE = 1e-8  # of the largest activation; double precision leaves about 1e-13


def check_slices(network: nn.Module, plan: WidthPlan, example: Tensor) -> None:
    """Raise an AdjCompressError that names the first layer at which `plan` and masking differ, or that does not run.

    `example` is one batch (N, C, H, W). Layers that normalise over channels (layer norm) see fewer of them in the small
    network, which is no fault: where the plan cuts such layers, only the shapes are checked.
    """
    full = randomised(network)
    small = slice_model(full, plan)
    images = _shown(example[:1]).to(next(full.parameters()).device).double()
    expected, found = _outputs(_masked(full, plan), images, plan), _outputs(small, images, None)
    if _cuts_layer_norms(network, plan):
        return
    for name, values in found.items():
        scale = expected[name].abs().max().clamp(min=1e-300)
        if not (values - expected[name]).abs().max() <= _TOLERANCE * scale:
            raise AdjCompressError(
                f"Layer {name or 'the network itself'} cannot be cut: there the sliced network differs from the masked full "
                "one, so something before it moves channels in a way that tracing does not show. Keep it whole with --keep."
            )


def _shown(example: Tensor) -> Tensor:
    """The example, or, where it is all zeros, of which only the shape counts, one drawn from 0..1."""
    return example if bool(example.any()) else torch.rand(example.shape, generator=torch.Generator().manual_seed(0))


def randomised(network: nn.Module) -> nn.Module:
    """A copy, double and in evaluation mode, in which no difference hides behind a zero.

    Batch norms pass every channel on, and tensors that are all one number, as biases and scales begin, vary.
    """
    floating = {name: tensor for name, tensor in tensors_of(network).items() if tensor.is_floating_point()}
    doubles = {name: tensor.to(torch.double, copy=True) for name, tensor in floating.items()}  # of doubles, too
    copied = copied_with(network, doubles).double().eval()
    random = torch.Generator().manual_seed(0)
    for module in copied.modules():
        if isinstance(module, BatchNorm):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 1.5),
            ):
                if tensor is not None:
                    tensor.data.copy_(torch.rand(tensor.shape, generator=random) * (high - low) + low)
        else:
            for tensor in module.parameters(recurse=False):
                if tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
                    tensor.data.add_(torch.rand(tensor.shape, generator=random).to(tensor) * 0.5)
    return copied


def _masked(full: nn.Module, plan: WidthPlan) -> nn.Module:
    """`full`, each of whose layers sees zeros in place of the input channels that the plan cuts."""
    device = next(full.parameters()).device
    for name, module in full.named_modules():
        tensor, dim = (f"{name}.selection" if is_selection(module) else f"{name}.weight"), 1
        if 1 not in plan.cuts.get(tensor, {}) or (isinstance(module, Convolution) and module.groups > 1):
            continue
        channel_dim = -1 if isinstance(module, nn.Linear) else 1
        mask = torch.zeros(plan.shapes[tensor][dim], dtype=torch.double, device=device)
        for start, stop in plan.cuts[tensor][dim]:
            mask[start:stop] = 1

        def hide(_module: nn.Module, inputs: Any, mask: Tensor = mask, channel_dim: int = channel_dim) -> Any:
            shape = [1] * inputs[0].ndim
            shape[channel_dim] = -1
            return (inputs[0] * mask.view(shape), *inputs[1:])

        module.register_forward_pre_hook(hide)
    return full


def _outputs(network: nn.Module, images: Tensor, plan: WidthPlan | None) -> dict[str, Tensor]:
    """Outputs of every convolution and linear layer, in order of execution; of a full network, the kept channels."""
    outputs: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if not isinstance(module, (*Convolution, nn.Linear)):
            continue
        kept = plan.cuts.get(f"{name}.weight", {}).get(0) if plan else None

        def record(_module: Any, _inputs: Any, output: Tensor, name: str = name, kept: Any = kept) -> None:
            dim = -1 if isinstance(_module, nn.Linear) else 1
            parts = [output.narrow(dim, start, stop - start) for start, stop in kept] if kept else [output]
            outputs[name] = torch.cat(parts, dim).clone()  # a copy: activations may work in place

        module.register_forward_hook(record)
    with torch.no_grad(), running_modules(network) as running:
        try:
            outputs[""] = network(images)
        except CANNOT_RUN as error:
            raise AdjCompressError(
                f"Layer {running[-1] or 'the network itself'} cannot be cut: the sliced network does not run there "
                f"({first_line(error)}). Keep it whole with --keep."
            ) from error
    return outputs


def _cuts_layer_norms(network: nn.Module, plan: WidthPlan) -> bool:
    return any(isinstance(module, nn.LayerNorm) and f"{name}.weight" in plan.cuts for name, module in network.named_modules())
