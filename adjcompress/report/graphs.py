"""How is a graph of layers drawn? Plan, then paint: points and lines in a plane, then an SVG."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from adjcompress.models.graph import IMAGES, Graph
from adjcompress.report.canvas import GHOST, WIDTH, drawing, panel


@dataclass(frozen=True)
class Line:
    """What leads from one point of the drawing to another: a node of one input that one node takes, or a mere connection.

    `gate`: by which the search could close it. `kept`: whether it runs.
    """

    start: str
    end: str
    gate: str | None
    kept: bool


@dataclass(frozen=True)
class Drawing:
    """A graph in a plane: columns and rows of its points, which of them run, and the lines between them."""

    places: Mapping[str, tuple[float, float]]
    kept: frozenset[str]
    lines: tuple[Line, ...]


def drawing_of(graph: Graph, kept: Collection[str]) -> Drawing:
    """A drawing of a graph, of which the nodes `kept` run.

    A node that sums nothing and goes to one other is a line; a line that starts from a line would lose its gate, so it
    starts from a point. Points stand where the graph says; where it does not, in the column of the longest way to them.
    """
    takers: dict[str, list[str]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            takers.setdefault(name, []).append(node.name)
    as_line: set[str] = set()
    for node in graph.nodes:
        (first, *others) = node.inputs
        if not others and len(takers.get(node.name, [])) == 1 and node.place is None and first not in (*as_line, IMAGES):
            as_line.add(node.name)
    by_name = {node.name: node for node in graph.nodes}
    lines = []
    for node in (node for node in graph.nodes if node.name not in as_line):
        for name in (name for name in node.inputs if name != IMAGES):
            both = name in kept and node.name in kept
            if name in as_line:
                lines.append(Line(by_name[name].inputs[0], node.name, by_name[name].gate, both))
            else:
                lines.append(Line(name, node.name, node.gate, both))
    points = [node for node in graph.nodes if node.name not in as_line]
    return Drawing(_places(graph, [node.name for node in points], lines), frozenset(kept), _unique(lines))


def _unique(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Lines between the same points as one where they have the same gate, as a block and its projection do."""
    return tuple(dict.fromkeys(lines))


def _places(graph: Graph, points: Sequence[str], lines: Sequence[Line]) -> dict[str, tuple[float, float]]:
    known = {node.name: node.place for node in graph.nodes if node.place is not None}
    if all(name in known for name in points):
        return {name: (float(known[name][0]), float(known[name][1])) for name in points}
    column: dict[str, int] = dict.fromkeys(points, 0)
    for name in points:  # in the order in which they run
        column[name] = max((column[line.start] + 1 for line in lines if line.end == name), default=0)
    rows: dict[int, int] = {}
    places = {}
    for name in points:
        row = rows.get(column[name], 0)
        rows[column[name]] = row + 1
        places[name] = (float(column[name]), float(row))
    return places


def super_network(plan: Drawing, color: str, label: str) -> str:
    """The graph as an SVG: in `color` what runs, pale what was closed; dashed what had no gate."""
    columns = [column for column, _ in plan.places.values()]
    rows = [row for _, row in plan.places.values()]
    heights = _heights(plan)
    top, bottom = min([*rows, *heights]) - 0.4, max(rows) + 0.4
    width = max(columns) - min(columns) + 0.8
    pixels = max(90.0, min(0.8 * WIDTH, (bottom - top) / width * WIDTH))

    def paint(figure: Figure) -> None:
        axes = panel(figure, left=4, bottom=4, right=4, top=4)
        axes.set_xlim(min(columns) - 0.4, max(columns) + 0.4)
        axes.set_ylim(bottom, top)
        axes.set_axis_off()
        for kept in (False, True):  # what runs on top
            for line, height in zip(plan.lines, heights, strict=True):
                if line.kept == kept:
                    style = "-" if line.gate else (0, (2, 2))
                    axes.plot(*_path(line, height, plan), color=color if kept else GHOST, linewidth=1.6, linestyle=style)
            for name, (column, row) in plan.places.items():
                if (name in plan.kept) == kept:
                    axes.plot(column, row, "o", color=color if kept else GHOST, markersize=5)

    return drawing(label, pixels, paint)


def _heights(plan: Drawing) -> list[float]:
    """The row that each line bends up to: over points that lie between, the further the higher, and over lines beside it."""
    beside: dict[tuple[str, str], int] = {}
    found = [0.0] * len(plan.lines)
    for number in sorted(range(len(plan.lines)), key=lambda number: plan.lines[number].gate is not None):  # gates outside
        line = plan.lines[number]
        (start, row), (end, other) = plan.places[line.start], plan.places[line.end]
        rank = beside[line.start, line.end] = beside.get((line.start, line.end), -1) + 1
        over = 0.0 if abs(end - start) <= 1 else 0.45 * abs(end - start)
        found[number] = min(row, other) if row != other else row - over - 0.35 * rank
    return found


def _path(line: Line, height: float, plan: Drawing) -> tuple[list[float], list[float]]:
    """Points along a line: straight, or half an ellipse."""
    (x, y), (end, other) = plan.places[line.start], plan.places[line.end]
    if y != other or height == y:
        return [x, end], [y, other]
    angles = [math.pi * step / 24 for step in range(25)]
    return (
        [(x + end) / 2 - (end - x) / 2 * math.cos(angle) for angle in angles],
        [y + (height - y) * math.sin(angle) for angle in angles],
    )
