"""Which entries of the full network's weights does no small network read, and how is their weight decay taken back?

They are those outside of what is kept, and those that a random mask (r_beta) takes out of every small network. While the small
networks learn alone, these entries have a gradient of zero, and decay: after four fifths of a training they were 0.03 of what
they were. All of a tensor shrink by one factor, which is known from how large they were at the start.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adjcompress.adjoined.network import AdjoinedNetwork
from adjcompress.widths.surgery import blocks, cut


def unread_scales(network: AdjoinedNetwork) -> Tensor:
    """Of every tensor in `unread_entries`, in their order, the root mean square of its unread entries, double (tensors,)."""
    tensors = dict(network.full.named_parameters())
    scales = [_scale(tensors[name], entries) for name, entries in unread_entries(network).items()]
    return torch.tensor(scales, dtype=torch.double)


def restore_unread_(network: AdjoinedNetwork, scales: Tensor) -> None:
    """Give the unread entries back the size that they had when `unread_scales` was asked, but of what is frozen."""
    tensors = dict(network.full.named_parameters())
    with torch.no_grad():
        for (name, entries), scale in zip(unread_entries(network).items(), scales.tolist(), strict=True):
            now = _scale(tensors[name], entries)
            if now > 0 and tensors[name].requires_grad:
                tensors[name].mul_(torch.where(entries.to(tensors[name].device), scale / now, 1.0))


def unread_entries(network: AdjoinedNetwork) -> dict[str, Tensor]:
    """The parameters that small networks read in part, by name: where no small network reads them, bool."""
    found = {}
    slim = {name for plan in network.plans.values() for name in plan.cuts}
    read = {small: {tensor for tensor, _ in network.shared(small)} for small in network.smalls}
    for name, parameter in network.full.named_parameters():
        readers = [small for small, tensors in read.items() if name in tensors]
        if name not in slim or not readers:
            continue
        unread = torch.ones(parameter.shape, dtype=torch.bool)
        for small in readers:
            kept, mask = network.plans[small].cuts.get(name, {}), network.mask_of(small, name)
            masked = torch.zeros_like(cut(unread, kept)) if mask is None else mask.cpu() == 0
            for there, here in blocks(unread, masked, kept):
                there &= here
        if bool(unread.any()):
            found[name] = unread
    return found


def _scale(tensor: Tensor, entries: Tensor) -> float:
    unread = torch.where(entries, tensor.detach().cpu(), 0)
    return float(torch.linalg.vector_norm(unread, dtype=torch.double) / entries.sum().double().sqrt())
