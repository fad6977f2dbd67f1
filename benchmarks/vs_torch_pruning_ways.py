"""What is trained beside Torch-Pruning, by name: vs_torch_pruning.py says what each is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

LABELS: dict[str, Any] = {"trunk": "shared", "schedule": "constant", "small_labels": 0.5, "detach": True}
OURS: dict[str, dict[str, Any]] = {
    "adjoined": {},
    "trunk": {"trunk": "shared"},
    "labels": LABELS,
    "inner": LABELS,
}
CUTS = {"cut": "adjoined", "inner-cut": "inner"}  # each is the small network of one of ours


class Pruning(NamedTuple):
    """How Torch-Pruning cuts: after sparse learning or at once, by one threshold `everywhere` or a share of each layer."""

    sparse: bool
    everywhere: bool = False
    round_to: int | None = None  # widths are multiples of this


PRUNED = {
    "magnitude": Pruning(sparse=False),
    "magnitude-rounded": Pruning(sparse=False, round_to=8),
    "group-norm": Pruning(sparse=True),
    "group-norm-wide": Pruning(sparse=True, everywhere=True),
}
TAUGHT = {"inner-taught": "inner-cut", "magnitude-taught": "magnitude"}  # the same networks, taught by the one they came from
BEFORE = {"like": "adjoined", "alpha": 2.0, "align": 1, "inner": "*.conv1"}  # of results that do not say it
WAYS = (*OURS, *CUTS, *PRUNED, *TAUGHT)


def in_blocks(figures: Mapping[str, Any]) -> str:
    """Of which numbers the widths of ours in a result are multiples, where they were asked to be."""
    align = figures.get("align", BEFORE["align"])
    return f", widths in {align}s" * (align > 1)


def alike(way: str) -> str:
    """The name under which the network of a way is timed: several ways train the same one."""
    way = TAUGHT.get(way, way)
    way = CUTS.get(way, way)
    return "ours" if way in OURS and way != "inner" else way
