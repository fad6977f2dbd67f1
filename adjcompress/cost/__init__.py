"""What does a network cost?"""

from adjcompress.cost.count import Counts, LayerCount, count

__all__ = ["Counts", "LayerCount", "count"]
