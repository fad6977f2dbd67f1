"""What does a network cost?"""

from adjcompress.cost.budget import Budget, parse_budgets
from adjcompress.cost.counting import Counts, LayerCount, count
from adjcompress.cost.grid import Grid
from adjcompress.cost.latency import (
    STEADY,
    Anchor,
    Check,
    Conditions,
    LatencyEstimate,
    LatencyTable,
    LayerLatency,
    Rest,
    Sweep,
    check_same_table,
    table_checksum,
    table_for,
)
from adjcompress.cost.layers import Layer, LayerShape, fingerprint, layer_shapes

__all__ = [
    "STEADY",
    "Anchor",
    "Budget",
    "Check",
    "Conditions",
    "Counts",
    "Grid",
    "LatencyEstimate",
    "LatencyTable",
    "Layer",
    "LayerCount",
    "LayerLatency",
    "LayerShape",
    "Rest",
    "Sweep",
    "check_same_table",
    "count",
    "fingerprint",
    "layer_shapes",
    "parse_budgets",
    "table_checksum",
    "table_for",
]
