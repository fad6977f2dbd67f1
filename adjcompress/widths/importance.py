"""Which channels of a trained network matter most, and how do they come first?

A width plan keeps the first channels of every group. A network that was trained without small ones in it has its best channels
anywhere: they are moved to the front, in all layers that a group ties, and the network computes what it did.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from adjcompress.errors import AdjCompressError, pick
from adjcompress.running import evaluating
from adjcompress.tensors import tensors_of
from adjcompress.widths.channels import Axis, BatchNorm, ChannelGroup, Convolution, channel_groups, is_selection
from adjcompress.widths.plan import WidthPlan
from adjcompress.widths.planning import carriers

_ROUNDING = 1e-3  # of the largest logit: what another order of the same sums may change


def order_channels_(network: nn.Module, example: Tensor, importance: str = "magnitude") -> dict[str, Tensor]:
    """Move the most important channels of every group to the front; return the order of each, (channels,), by its name.

    `importance`: "magnitude", the mean of squares over a group's layers (DepGraph, arXiv:2301.12900, Eq. 7), or "batch-norm",
    the sum of its batch norms' absolute scales (Network Slimming, arXiv:1708.06519). Channels that are cut in pieces move in
    whole pieces. Groups tied to a layer without weights that picks channels (the CIFAR ResNets' shortcuts) stay as they are,
    and so do those of which no layer tells anything. Outputs change by rounding alone; a network that would compute something
    else is an AdjCompressError. `example` is a batch (N, C, H, W).
    """
    score = pick(IMPORTANCES, importance, "--importance")
    orders = {}
    modules = dict(network.named_modules())
    with torch.enable_grad():
        groups = channel_groups(network, example)
    for group in groups:
        scores = score(network, group)
        if scores is None or _is_picked_from(modules, group):
            continue
        orders[group.name] = _order(scores, group.quantum)
    if not orders:
        raise AdjCompressError(f"--importance {importance}: {type(network).__name__} has no channels that it can order.")
    changed = [group for group in groups if group.name in orders]
    _check_order(network, changed, orders, example, importance)
    for group in changed:
        _reorder_(network, group, orders[group.name])
    return orders


def kept_by_place(network: nn.Module, plan: WidthPlan, example: Tensor, importance: str) -> tuple[str, ...]:
    """The groups that a plan cuts and `order_channels_` leaves as they are: the first of their channels are kept."""
    score = pick(IMPORTANCES, importance, "--importance")
    cut = {group.name for group in plan.groups if group.kept < group.channels}
    modules = dict(network.named_modules())
    with torch.enable_grad():
        groups = channel_groups(network, example)
    return tuple(
        group.name
        for group in groups
        if group.name in cut and (_is_picked_from(modules, group) or score(network, group) is None)
    )


def magnitude(network: nn.Module, group: ChannelGroup) -> Tensor | None:
    """The mean over the tensors that carry a group of the sum of squares of each channel's entries, (channels,)."""
    tensors, modules, found = dict(network.named_parameters()), dict(network.named_modules()), []
    for name, dim, axis in carriers(network, group):
        layer = modules.get(axis.layer)
        if name.endswith(".weight") and isinstance(layer, (*Convolution, nn.Linear, *BatchNorm)) and name in tensors:
            entries = tensors[name].detach().double().movedim(dim, 0)
            squares = entries.square().reshape(len(entries), -1).sum(1)
            found.append(_by_channel(group, axis, squares))
    return torch.stack(found).mean(0) if found else None


def batch_norm_scale(network: nn.Module, group: ChannelGroup) -> Tensor | None:
    """The sum over a group's batch norms of the absolute scale of each channel, (channels,); None where it has none."""
    modules, found = dict(network.named_modules()), []
    for axis in group.axes:
        module = modules.get(axis.layer)
        if isinstance(module, BatchNorm) and module.affine:
            found.append(_by_channel(group, axis, module.weight.detach().double().abs()))
    return torch.stack(found).sum(0) if found else None


IMPORTANCES: dict[str, Callable[[nn.Module, ChannelGroup], Tensor | None]] = {
    "magnitude": magnitude,
    "batch-norm": batch_norm_scale,
}


def _is_picked_from(modules: Mapping[str, nn.Module], group: ChannelGroup) -> bool:
    """Whether a layer without weights picks some of a group's channels by their places."""
    return any(is_selection(modules[axis.layer]) for axis in group.axes if axis.layer in modules)


def _by_channel(group: ChannelGroup, axis: Axis, values: Tensor) -> Tensor:
    """Values by position of a layer's side, summed into the group's channels."""
    index, channel = (torch.tensor(numbers, device=values.device) for numbers in (axis.index, axis.channel))
    return values.new_zeros(group.channels).index_add_(0, channel, values[index])


def _order(scores: Tensor, quantum: int) -> Tensor:
    """Channels from the most important on, in whole pieces of `quantum`; equals stay in their order."""
    pieces = scores.view(-1, quantum)
    first = pieces.sum(1).argsort(descending=True, stable=True)
    return torch.arange(len(scores), device=scores.device).view(-1, quantum)[first].flatten()


def _check_order(
    network: nn.Module, groups: Sequence[ChannelGroup], orders: Mapping[str, Tensor], example: Tensor, importance: str
) -> None:
    """Refuse a network that would compute something else: one whose layers mix channels, or hold them, in unknown ways."""
    trial = copy.deepcopy(network)
    with evaluating(trial):
        images = torch.randn(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
        before = trial(images)
        for group in groups:
            _reorder_(trial, group, orders[group.name])
        after = trial(images)
    if not float((after - before).abs().max()) <= _ROUNDING * float(before.abs().max()):
        raise AdjCompressError(
            f"--importance {importance} does not fit {type(network).__name__}: a layer that is not known holds or mixes its "
            "channels, so that in another order they would compute something else. Leave --importance out."
        )


def _reorder_(network: nn.Module, group: ChannelGroup, order: Tensor) -> None:
    tensors = tensors_of(network)
    wanted = order.tolist()
    for name, dim, axis in carriers(network, group):
        places = axis.places
        source = torch.arange(tensors[name].shape[dim])
        for channel, taken in enumerate(wanted):
            for into, out_of in zip(places.get(channel, []), places.get(taken, []), strict=True):
                source[into] = out_of
        with torch.no_grad():
            tensors[name].copy_(tensors[name].index_select(dim, source.to(tensors[name].device)))
