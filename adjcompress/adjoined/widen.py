"""With what does the full network begin, where a small one inside it was trained before?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adjcompress.adjoined.network import AdjoinedNetwork
from adjcompress.widths.channels import NORMS, Convolution, channel_groups, is_depthwise, is_selection
from adjcompress.widths.planning import carriers


def widen_(network: AdjoinedNetwork, name: str, example: Tensor, copies: bool = False) -> None:
    """Make the full network compute what small network `name` does, without a change to what the two share.

    The channels that the small network lacks are read by no layer: the weights from them are 0, and learn from the first
    step. What computes them stays as it is, or with `copies` becomes that of the channels that it has, in turn. The full
    network's normalisation takes over the small one's, and its other layers the buffers that are not cut. Exact for batch
    and group norm; a layer norm sees all channels. (Net2WiderNet, arXiv:1511.05641, divides the weights from a copied
    channel among its copies; here one of them is shared with the small network and must keep its own.) `example` is a batch
    (N, C, H, W).
    """
    full, plan, modules = network.full, network.plans[name], dict(network.full.named_modules())
    tensors = _tensors(full)
    example = example.to(next(full.parameters()).dtype)  # mixed precision halves images, not weights
    kept, groups = {group.name: group.kept for group in plan.groups}, channel_groups(full, example)
    with torch.no_grad():
        _take_over_own_(network, name, tensors)
        for group in groups:
            if kept[group.name] == group.channels:
                continue
            for tensor, dim, axis in carriers(full, group):
                places, layer = axis.places, modules.get(axis.layer)
                lacking = [channel for channel in places if channel >= kept[group.name]]
                gone = torch.tensor([index for channel in lacking for index in places[channel]], device=tensors[tensor].device)
                if axis.side == "in" and isinstance(layer, (*Convolution, nn.Linear)) and not is_depthwise(layer):
                    tensors[tensor].index_fill_(dim, gone, 0)
                elif copies and not (layer is not None and is_selection(layer)):
                    having = [index for channel in lacking for index in places[channel % kept[group.name]]]
                    source = tensors[tensor].index_select(dim, torch.tensor(having, device=gone.device))
                    tensors[tensor].index_copy_(dim, gone, source)


def _take_over_own_(network: AdjoinedNetwork, name: str, tensors: dict[str, Tensor]) -> None:
    """Give the full network's layers of normalisation what the small one's have, where both have a channel; and all buffers."""
    small, cuts = network.smalls[name], network.plans[name].cuts
    for tensor, own in _tensors(small).items():
        if own.numel() == 0:
            continue  # it is the full network's
        if tensor not in cuts:
            tensors[tensor].copy_(own)
        elif isinstance(small.get_submodule(tensor.rpartition(".")[0]), NORMS):
            (ranges,) = cuts[tensor].values()
            begin = 0
            for start, stop in ranges:
                tensors[tensor][start:stop].copy_(own[begin : begin + stop - start])
                begin += stop - start


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, by every name that they have."""
    return {**dict(network.named_parameters(remove_duplicate=False)), **dict(network.named_buffers(remove_duplicate=False))}
