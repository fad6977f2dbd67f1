"""The papers: a full and a small network in one set of weights, trained together."""

from adjcompress.adjoined.apart import Succession
from adjcompress.adjoined.check import check_trunk, check_widening, trunk_of
from adjcompress.adjoined.curriculum import WIDENINGS, Curriculum
from adjcompress.adjoined.loss import SCHEDULES, AdjointLoss, adjoint_loss, divergence
from adjcompress.adjoined.masks import r_beta_mask
from adjcompress.adjoined.network import AdjoinedNetwork, RandomMask, adjoin
from adjcompress.adjoined.trunk import outermost_before
from adjcompress.adjoined.unread import restore_unread_, unread_scales
from adjcompress.adjoined.widen import widen_

__all__ = [
    "SCHEDULES",
    "WIDENINGS",
    "AdjoinedNetwork",
    "AdjointLoss",
    "Curriculum",
    "RandomMask",
    "Succession",
    "adjoin",
    "adjoint_loss",
    "check_trunk",
    "check_widening",
    "divergence",
    "outermost_before",
    "r_beta_mask",
    "restore_unread_",
    "trunk_of",
    "unread_scales",
    "widen_",
]
