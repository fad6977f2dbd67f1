"""Which channels of each group does a small network keep?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from adjcompress.errors import AdjCompressError

Range = tuple[int, int]


@dataclass(frozen=True)
class GroupWidth:
    """What a plan says of one channel group: of `channels` channels the first `kept` stay.

    `asked` is channels / alpha before rounding, `layers` the convolutions and linear layers that produce the channels.
    """

    name: str
    layers: tuple[str, ...]
    channels: int
    kept: int
    asked: float
    slim: bool

    @property
    def note(self) -> str:
        if not self.slim:
            return "full width"
        return "" if self.kept == self.asked else f"rounded up from {self.asked:g}"


@dataclass(frozen=True)
class WidthPlan:
    """Which channels a small network keeps: plain data, with everything that slicing needs.

    `cuts` tells, for every tensor that loses entries, its kept ranges [start, stop) by dimension, in the full network's
    numbering; `shapes` the full shapes of these tensors, by which a plan for another network is recognised.
    """

    groups: tuple[GroupWidth, ...]
    cuts: Mapping[str, Mapping[int, tuple[Range, ...]]]
    shapes: Mapping[str, tuple[int, ...]]

    def to_json(self) -> dict[str, Any]:
        return {
            "groups": [asdict(group) for group in self.groups],
            "cuts": {name: {str(dim): ranges for dim, ranges in cut.items()} for name, cut in self.cuts.items()},
            "shapes": dict(self.shapes),
        }

    @classmethod
    def from_json(cls, data: str | Mapping[str, Any]) -> WidthPlan:
        """Read what `to_json` wrote, as text or as data."""
        try:
            content = json.loads(data) if isinstance(data, str) else data
            shapes = {name: tuple(shape) for name, shape in content["shapes"].items()}
            return cls(
                groups=tuple(_group(group) for group in content["groups"]),
                cuts={
                    name: {int(dim): _ranges(name, ranges, shapes[name][int(dim)]) for dim, ranges in cut.items()}
                    for name, cut in content["cuts"].items()
                },
                shapes=shapes,
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise AdjCompressError(f"This is no width plan: {type(error).__name__} {error}.") from error

    def __str__(self) -> str:
        """A table with a line for each group."""
        rows = [("group", "layers", "channels", "kept", "alpha", "")]
        for group in self.groups:
            alpha = f"{group.channels / group.kept:.3g}"
            rows.append((group.name, str(len(group.layers)), str(group.channels), str(group.kept), alpha, group.note))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = []
        for row in rows:
            cells = [row[0].ljust(widths[0]), *(row[column].rjust(widths[column]) for column in range(1, 5)), row[5]]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


def _ranges(name: str, ranges: Any, size: int) -> tuple[Range, ...]:
    """Ranges of a dimension of `size` entries, in their order."""
    found = tuple((start, stop) for start, stop in ranges)
    ends = [0, *(end for kept in found for end in kept), size]
    if not all(type(end) is int for end in ends):
        raise ValueError(f"{ranges} are no whole numbers, of {name}")
    if not found or any(start >= stop for start, stop in found) or ends != sorted(ends):
        raise ValueError(f"{ranges} are no ranges of the {size} entries of {name}")
    return found


def _group(data: Mapping[str, Any]) -> GroupWidth:
    group = GroupWidth(**{**data, "layers": tuple(data["layers"])})
    for number in (group.channels, group.kept):
        if not isinstance(number, int) or isinstance(number, bool):
            raise TypeError(f"{number!r} is no number of channels")
    return group
