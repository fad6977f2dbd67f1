"""The papers: a full and a small network in one set of weights, trained together."""

from adjcompress.adjoined.curriculum import WIDENINGS, Curriculum
from adjcompress.adjoined.loss import SCHEDULES, AdjointLoss, adjoint_loss, divergence
from adjcompress.adjoined.masks import r_beta_mask
from adjcompress.adjoined.network import AdjoinedNetwork, RandomMask, adjoin, check_trunk
from adjcompress.adjoined.trunk import trunk_of
from adjcompress.adjoined.widen import widen_

__all__ = [
    "SCHEDULES",
    "WIDENINGS",
    "AdjoinedNetwork",
    "AdjointLoss",
    "Curriculum",
    "RandomMask",
    "adjoin",
    "adjoint_loss",
    "check_trunk",
    "divergence",
    "r_beta_mask",
    "trunk_of",
    "widen_",
]
