"""The papers: a full and a small network in one set of weights, trained together."""

from adjcompress.adjoined.loss import SCHEDULES, AdjointLoss, adjoint_loss, divergence
from adjcompress.adjoined.masks import r_beta_mask
from adjcompress.adjoined.network import AdjoinedNetwork, RandomMask, adjoin

__all__ = [
    "SCHEDULES",
    "AdjoinedNetwork",
    "AdjointLoss",
    "RandomMask",
    "adjoin",
    "adjoint_loss",
    "divergence",
    "r_beta_mask",
]
