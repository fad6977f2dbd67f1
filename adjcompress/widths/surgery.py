"""How is a plan applied?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adjcompress.errors import AdjCompressError
from adjcompress.tensors import copied_with, tensors_of
from adjcompress.widths.channels import BatchNorm, Convolution
from adjcompress.widths.plan import Range, WidthPlan


def slice_model(network: nn.Module, plan: WidthPlan) -> nn.Module:
    """A dense copy of `network` with the channels that `plan` keeps; `network` is unchanged.

    Weights, biases, batch-norm statistics, layer scales: whatever the plan names is cut, and the layers' own numbers
    (in_channels, groups, ...) follow. A plan for another network raises an AdjCompressError.
    """
    check_plan(network, plan)
    tensors = tensors_of(network)
    with torch.no_grad():
        small = copied_with(network, {name: cut(tensors[name], kept).clone() for name, kept in plan.cuts.items()})
    for name, module in small.named_modules():
        renumber_(module, network.get_submodule(name))
    return small


def cut(tensor: Tensor, kept: Mapping[int, tuple[Range, ...]]) -> Tensor:
    """The kept ranges of a tensor, by dimension; differentiable; a view where the memory allows.

    The result is dense in the layout of `tensor` (channels last, or not): a layer that meets strided weights may choose
    another algorithm, and its last bit would differ from that of the extracted network.
    """
    channels_last = tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
    for dim, ranges in kept.items():
        parts = [tensor.narrow(dim, start, stop - start) for start, stop in ranges]
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts, dim)
    return tensor.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def blocks(whole: Tensor, part: Tensor, kept: Mapping[int, tuple[Range, ...]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Where the entries of `part` = cut(whole, kept) lie: pairs of views of both, of the same shape, which cover the part."""
    if not kept:
        yield whole, part
        return
    (dim, ranges), rest = next(iter(kept.items())), dict(list(kept.items())[1:])
    begin = 0
    for start, stop in ranges:
        yield from blocks(whole.narrow(dim, start, stop - start), part.narrow(dim, begin, stop - start), rest)
        begin += stop - start


def renumber_(module: nn.Module, original: Any) -> None:
    """Set a cut layer's own numbers from its tensors; `original` is the layer before."""
    if isinstance(module, Convolution):
        if original.groups > 1:  # whole groups were cut
            module.groups = original.groups * module.weight.shape[0] // original.out_channels
        module.out_channels = module.weight.shape[0]
        module.in_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, BatchNorm):
        sizes = [tensor for tensor in (module.weight, module.running_mean) if tensor is not None]
        module.num_features = sizes[0].shape[0] if sizes else module.num_features
    elif isinstance(module, nn.LayerNorm) and module.weight is not None:
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.GroupNorm) and module.weight is not None:
        module.num_groups = original.num_groups * module.weight.shape[0] // original.num_channels
        module.num_channels = module.weight.shape[0]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.shape[0]


def check_plan(network: nn.Module, plan: WidthPlan) -> None:
    """Refuse a plan that was made for a network with other tensors."""
    tensors = tensors_of(network)
    for name, shape in plan.shapes.items():
        have = tuple(tensors[name].shape) if name in tensors else None
        if have != shape:
            raise AdjCompressError(
                f"The width plan is for another network: {name} is {shape} there and "
                f"{have or 'missing'} in this {type(network).__name__}. Make a plan for it with plan_widths."
            )
