"""Which part of a larger graph of layers is the best network under a cost? arXiv:1706.00046."""

from adjcompress.supernets.architecture import Reach, open_gates
from adjcompress.supernets.distributed import Bounds, distributed_bounds, distributed_cost

__all__ = ["Bounds", "Reach", "distributed_bounds", "distributed_cost", "open_gates"]
