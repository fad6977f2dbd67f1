"""Which statistics does batch norm take when several processes share a batch?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adjcompress.errors import AdjCompressError
from adjcompress.running import evaluating, watching
from adjcompress.widths.channels import BatchNorm


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes; every process's gradient reaches every other's."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


class _Synchronised:
    """Batch norm over the batches of all processes: their mean, then the mean square about it. Any device.

    torch.nn.SyncBatchNorm does the same, on GPUs only, and so could not be tested or used on CPUs.
    """

    def forward(self: nn.BatchNorm2d, images: Tensor) -> Tensor:  # type: ignore[misc]
        if not self.training and self.running_mean is not None:
            return F.batch_norm(images, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        values = images.to(torch.promote_types(images.dtype, torch.float32))
        dims = [dim for dim in range(values.ndim) if dim != 1]
        shape = [1, -1] + [1] * (values.ndim - 2)
        local = torch.cat([values.sum(dims), values.new_tensor([values.numel() / values.shape[1]])])
        total = _Sum.apply(local)
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = values - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(dims)) / count
        if self.track_running_stats:
            with torch.no_grad():
                assert self.num_batches_tracked is not None and self.running_mean is not None and self.running_var is not None
                self.num_batches_tracked.add_(1)
                momentum = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.item()
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * count / (count - 1), momentum)
        normalised = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(images.dtype)


class SynchronisedBatchNorm1d(_Synchronised, nn.BatchNorm1d):
    """See `_Synchronised`."""


class SynchronisedBatchNorm2d(_Synchronised, nn.BatchNorm2d):
    """See `_Synchronised`."""


class SynchronisedBatchNorm3d(_Synchronised, nn.BatchNorm3d):
    """See `_Synchronised`."""


_COUNTERPARTS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SynchronisedBatchNorm1d,
    nn.BatchNorm2d: SynchronisedBatchNorm2d,
    nn.BatchNorm3d: SynchronisedBatchNorm3d,
}


def check_synchronisable(network: nn.Module, processes: int) -> None:
    """Refuse a batch norm with a forward of its own (timm has such): it would see its own process's batch, unnoticed."""
    for name, module in network.named_modules() if processes > 1 else ():
        if isinstance(module, tuple(_COUNTERPARTS)) and type(module) not in _COUNTERPARTS:
            raise AdjCompressError(
                f"Layer {name} is a {type(module).__name__}, whose statistics cannot be shared by {processes} processes: "
                "train this network in one process."
            )


def check_single_images(networks: Mapping[str, nn.Module], example: Tensor) -> None:
    """Refuse batches of one image where batch norm sees one value of each channel of it, which has no variance.

    `example` is one image, (1, C, H, W), of the size of the training's.
    """
    for network in networks.values():
        norms = {name: module for name, module in network.named_modules() if isinstance(module, BatchNorm)}
        with evaluating(network), watching(norms, _refuse_single_values):
            network(example.to(next(network.parameters())))


def _refuse_single_values(name: str, values: Tensor, _output: Tensor) -> None:
    if values.numel() == values.shape[1]:
        raise AdjCompressError(
            f"With steps of one image, layer {name} normalises by the variance of a single value: take --batch-size 2 or more, "
            "or larger images."
        )


@contextmanager
def synchronised_batch_norm(network: nn.Module, processes: int) -> Iterator[None]:
    """Within the block every batch norm of `network` sees the batches of all processes.

    Only the class of the modules changes, and changes back: their tensors, names and numbers stay as they are. See also
    `check_synchronisable`.
    """
    check_synchronisable(network, processes)
    changed = []
    if processes > 1:
        for module in network.modules():
            original = type(module)
            if original in _COUNTERPARTS:
                module.__class__ = _COUNTERPARTS[original]
                changed.append((module, original))
    try:
        yield
    finally:
        for module, original in changed:
            module.__class__ = original
