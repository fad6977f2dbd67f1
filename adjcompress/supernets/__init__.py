"""Which part of a larger graph of layers is the best network under a cost? arXiv:1706.00046."""

from adjcompress.supernets.architecture import Reach, open_gates
from adjcompress.supernets.costs import (
    Cost,
    CyclesCost,
    LatencyCost,
    MacsCost,
    MeasuredCost,
    OwnCost,
    ParametersCost,
    parts_of,
)
from adjcompress.supernets.decision import decided_gates, least
from adjcompress.supernets.distributed import Bounds, distributed_bounds, distributed_cost
from adjcompress.supernets.network import DISCONNECTED, StochasticSuperNetwork
from adjcompress.supernets.policy import advantages, gradient, policy_loss

__all__ = [
    "DISCONNECTED",
    "Bounds",
    "Cost",
    "CyclesCost",
    "LatencyCost",
    "MacsCost",
    "MeasuredCost",
    "OwnCost",
    "ParametersCost",
    "Reach",
    "StochasticSuperNetwork",
    "advantages",
    "decided_gates",
    "distributed_bounds",
    "distributed_cost",
    "gradient",
    "least",
    "open_gates",
    "parts_of",
    "policy_loss",
]
