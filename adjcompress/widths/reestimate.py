"""Which batch-norm statistics does a network have after its widths changed?"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from torch import Tensor, nn

from adjcompress.errors import AdjCompressError
from adjcompress.running import evaluating
from adjcompress.widths.channels import BatchNorm


def reestimate_batch_norm_(network: nn.Module, batches: Iterable[Tensor]) -> int:
    """Measure every batch norm's mean and variance anew on image batches (N, C, H, W); return how many were used.

    The statistics are reset and averaged over the batches, each by its number of images; no weight changes, and the network is
    left in the mode it was in.
    """
    norms = [module for module in network.modules() if isinstance(module, BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    used, seen, waiting = 0, 0, iter(batches)
    first = next(waiting, None)
    if first is None:
        raise AdjCompressError("Batch norm cannot be re-estimated on 0 batches: at least 1 is needed.")
    try:
        with evaluating(network):  # dropout and stochastic depth stay off: only the statistics are wanted
            for norm in norms:
                norm.reset_running_stats()
                norm.train()
            for images in itertools.chain([first], waiting):
                used, seen = used + 1, seen + len(images)
                for norm in norms:
                    norm.momentum = len(images) / seen
                network(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return used
