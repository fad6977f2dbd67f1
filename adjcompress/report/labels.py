"""Where does a label stand so that it touches no other?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_MARKER = 5.5
_DISTANCES = (8.0, 18.0, 32.0, 48.0, 66.0)


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def touches(self, other: Box) -> bool:
        return self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top

    def within(self, other: Box) -> bool:
        return self.left >= other.left and self.right <= other.right and self.bottom >= other.bottom and self.top <= other.top


@dataclass(frozen=True)
class Place:
    """A label's box; `leader`: the end of a line from its point, where it does not stand right beside it."""

    box: Box
    leader: tuple[float, float] | None


def place(points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], bounds: Box) -> list[Place | None]:
    """A place within `bounds` for the label of every point, in this order; None for one that fits nowhere.

    Labels keep clear of one another, of all points (a square of _MARKER pixels to each side) and of leaders. `sizes` are
    (width, height) of the labels.
    """
    taken = [Box(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER) for x, y in points]
    places: list[Place | None] = []
    for index, (point, size) in enumerate(zip(points, sizes, strict=True)):
        others = taken[:index] + taken[index + 1 :]
        found = next((candidate for candidate in _around(point, size) if _free(point, candidate, others, bounds)), None)
        places.append(found)
        if found is not None:
            taken.append(found.box)
            taken += [Box(x - 1, y - 1, x + 1, y + 1) for x, y in _along(point, found)]
    return places


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move positions apart to at least `gap`, as little as possible, within [low, high] where they fit; order is kept."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    gap = min(gap, (high - low) / max(len(positions) - 1, 1))
    moved = list(positions)
    floor = low
    for index in order:
        moved[index] = floor = max(moved[index], floor)
        floor += gap
    ceiling = high
    for index in reversed(order):
        moved[index] = ceiling = min(moved[index], ceiling)
        ceiling -= gap
    return moved


def _around(point: tuple[float, float], size: tuple[float, float]) -> list[Place]:
    """Boxes around a point, the nearest first."""
    (x, y), (width, height) = point, size
    places = []
    for distance in _DISTANCES:
        for right, up in _DIRECTIONS:
            centre_x = x + right * (distance + width / 2)
            centre_y = y + up * (distance + height / 2 - (2 if up and right else 0))
            box = Box(centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2)
            end = (min(max(x, box.left), box.right), min(max(y, box.bottom), box.top))
            places.append(Place(box, end if distance > _DISTANCES[0] else None))
    return places


def _along(point: tuple[float, float], place: Place) -> list[tuple[float, float]]:
    """Points on a leader, from outside the marker to the label."""
    if place.leader is None:
        return []
    (x, y), (end_x, end_y) = point, place.leader
    return [(x + (end_x - x) * part, y + (end_y - y) * part) for part in (0.35, 0.5, 0.65, 0.8, 0.95)]


def _free(point: tuple[float, float], candidate: Place, others: Sequence[Box], bounds: Box) -> bool:
    if not candidate.box.within(bounds) or any(candidate.box.touches(other) for other in others):
        return False
    dots = [Box(x - 1, y - 1, x + 1, y + 1) for x, y in _along(point, candidate)]
    return not any(dot.touches(other) for dot in dots for other in others)
