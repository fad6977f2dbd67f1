"""Which single weights of a small network are zero (r_beta)?

r_beta thins the weights of slim layers out: fewer parameters, no speed [P1 Eq. 2]. A file of such a network need not store
which weights are zero: the mask is drawn again from a seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from adjcompress.errors import AdjCompressError
from adjcompress.seeds import derived_seed


def r_beta_mask(shape: Sequence[int], beta: float, seed: int, name: str = "") -> Tensor:
    """A mask of 0 and 1 (float32, `shape`) with exactly round(beta * size) zeros, drawn uniformly over the whole tensor.

    Every entry of a k x k kernel is drawn on its own, 1 x 1 kernels included. The same shape, beta, seed and `name` (of
    the layer) give the same mask on every machine. arXiv:2006.05624, r_beta.
    """
    if not 0 <= beta < 1:
        raise AdjCompressError(f"--beta {beta:g} must be at least 0 and below 1: the part of the weights that is zero.")
    size = torch.Size(shape).numel()
    order = np.random.RandomState(derived_seed("mask", seed, name)).permutation(size)  # the one stream that NumPy never changes
    mask = torch.ones(size)
    mask[torch.from_numpy(order[: round(beta * size)])] = 0
    return mask.view(*shape)
