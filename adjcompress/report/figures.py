"""How does a run look? Plain data -> SVG: curves, accuracy against cost, latencies, widths."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from adjcompress.report.canvas import (
    FULL,
    GHOST,
    INK,
    MUTED,
    RULE,
    SMALLS,
    SURFACE,
    TEXT,
    WIDTH,
    drawing,
    panel,
    text_width,
)
from adjcompress.report.deployed import Timing
from adjcompress.report.gather import Variant
from adjcompress.report.labels import Box, place, spread
from adjcompress.report.words import TIMES, elided, milliseconds, printable, significant
from adjcompress.widths.plan import GroupWidth

MARKERS = ("s", "^", "D", "v", "p", "h", "P", "X")
_LINE = 15.0  # pixels from one line of text to the next
_LOG_FROM = 12.0  # ratio of the largest to the smallest value from which an axis is logarithmic
_ROWS = 32  # of layers in one figure


@dataclass(frozen=True)
class Curve:
    """One line over the epochs. `end`: a value that was measured once, after the last epoch."""

    name: str
    color: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]
    end: float | None = None
    dashed: bool = False


@dataclass(frozen=True)
class Dot:
    """A network in a plane of cost and accuracy; `hollow` where its accuracy was derived."""

    label: str
    color: str
    marker: str
    cost: float
    accuracy: float
    hollow: bool = False


def colors_of(names: Sequence[str]) -> dict[str, str]:
    """The full network in ink, the small ones in the palette's order: the same in all figures of a page."""
    smalls = zip((name for name in names if name != "full"), cycle(SMALLS), strict=False)
    return {"full": FULL, **dict(smalls)}


# --- over the epochs ------------------------------------------------------------------------------------------------


def curves(lines: Sequence[Curve], label: str, shown: Callable[[float], str], exact: Callable[[float], str]) -> str:
    """Lines over the epochs, each named at its end; a diamond marks what was measured at the end.

    `shown` writes the axis' values, `exact` those at the lines' ends.
    """
    names = [f"{elided(line.name, 18)} {exact(line.values[-1])}" for line in lines]

    def paint(figure: Figure) -> None:
        right = 14 + max(text_width(name, bold=True) for name in names)
        axes = panel(figure, left=48, bottom=34, right=right, top=12)
        for line in lines:
            style = (0, (3, 2)) if line.dashed else "-"
            single = "o" if len(line.epochs) == 1 else None
            axes.plot(line.epochs, line.values, color=line.color, linewidth=1.8, linestyle=style, marker=single)
            if line.end is not None:
                axes.plot(
                    line.epochs[-1], line.end, "D", color=line.color, markerfacecolor=SURFACE, markersize=6, clip_on=False
                )
        last = max(line.epochs[-1] for line in lines)
        axes.set_xlim(*((0, last) if last > 1 else (0, 2)))
        _scale_to(axes, [value for line in lines for value in (*line.values, *([line.end] if line.end is not None else []))])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(axis="y", color=RULE, linewidth=1)
        axes.set_xlabel("epoch", color=MUTED, loc="right", labelpad=2, fontsize=TEXT)
        _name_ends(axes, lines, names)

    return drawing(label, 250, paint)


def _scale_to(axes: Axes, values: Sequence[float]) -> None:
    """Limits from 0, or from just below the smallest value where 0 is far; the ticks lie within."""
    low, high = min(values), max(values)
    bottom = 0.0 if low < 0.6 * high else low - 0.25 * (high - low)
    room = (high - bottom) or abs(high) or 1.0
    axes.set_ylim(bottom, high + 0.06 * room)
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _name_ends(axes: Axes, lines: Sequence[Curve], names: Sequence[str]) -> None:
    to_pixels, box = axes.transData, axes.bbox
    ends = [to_pixels.transform((line.epochs[-1], line.values[-1])) for line in lines]
    heights = spread([float(y) for _, y in ends], _LINE, box.y0 + 4, box.y1)
    for line, name, (x, _), y in zip(lines, names, ends, heights, strict=True):
        axes.figure.text(x + 9, y, name, color=line.color, weight="bold", va="center_baseline", transform=None)


# --- accuracy against cost ------------------------------------------------------------------------------------------


def plane(
    dots: Sequence[Dot],
    accuracies: Sequence[float],
    label: str,
    cost: Callable[[float], str],
    accuracy: Callable[[float], str],
) -> str:
    """Accuracy over the logarithm of a cost, every dot with its name beside it where that has room.

    `accuracies`: those of all planes that stand side by side, which share one scale.
    """

    def paint(figure: Figure) -> None:
        axes = panel(figure, left=48, bottom=28, right=14, top=12)
        axes.set_xscale("log")
        _limit_costs(axes, [dot.cost for dot in dots], cost)
        low, high = min(accuracies), max(accuracies)
        room = high - low or high * 0.1 or 0.1
        axes.set_ylim(max(low - 0.35 * room, -0.02), min(high + 0.35 * room, 1.04))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: accuracy(value) if 0 <= value <= 1 else ""))
        axes.grid(color=RULE, linewidth=1)
        for dot in reversed(dots):  # the first on top; those below are larger, so that equal ones show
            other = dot.color == MUTED
            fill, size = (SURFACE if dot.hollow or other else dot.color), (10 if other else 7.5)
            axes.plot(dot.cost, dot.accuracy, dot.marker, color=dot.color, markerfacecolor=fill, markersize=size, mew=1.6)
        _name_dots(axes, dots)

    return drawing(label, 250, paint)


def _limit_costs(axes: Axes, costs: Sequence[float], shown: Callable[[float], str]) -> None:
    """Room for the names on both sides, and ticks at 1, 2, 5 times powers of ten, as many as have room."""
    low, high = min(costs), max(costs)
    room = max(math.log10(high / low) * 0.3, 0.3)
    low, high = low / 10**room, high * 10**room
    axes.set_xlim(low, high)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if len(ticks) <= 6:
            break
    axes.xaxis.set_major_locator(FixedLocator(ticks[:: math.ceil(len(ticks) / 6)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))


def _name_dots(axes: Axes, dots: Sequence[Dot]) -> None:
    points = [tuple(float(value) for value in axes.transData.transform((dot.cost, dot.accuracy))) for dot in dots]
    names = [elided(dot.label, 22) for dot in dots]
    bold = [dot.color != MUTED for dot in dots]
    sizes = [(text_width(name, heavy) + 2, _LINE) for name, heavy in zip(names, bold, strict=True)]
    bounds = Box(axes.bbox.x0, axes.bbox.y0, axes.bbox.x1 + 10, axes.bbox.y1 + 8)
    for dot, name, heavy, (x, y), found in zip(dots, names, bold, points, place(points, sizes, bounds), strict=True):  # type: ignore[arg-type]
        if found is None:
            continue
        axes.figure.text(
            (found.box.left + found.box.right) / 2,
            (found.box.bottom + found.box.top) / 2,
            name,
            color=dot.color,
            weight="bold" if heavy else "normal",
            ha="center",
            va="center_baseline",
            transform=None,
        )
        if found.leader:
            start = [a + (b - a) * 0.3 for a, b in zip((x, y), found.leader, strict=True)]
            ends = axes.transData.inverted().transform([start, found.leader])
            axes.plot(ends[:, 0], ends[:, 1], color=dot.color, linewidth=0.8)


# --- latencies ------------------------------------------------------------------------------------------------------


def intervals(timings: Sequence[Timing], together: Sequence[Timing], colors: Mapping[str, str], label: str) -> str:
    """A row for each timing: a bar from the minimum to p90 with a gap at the median, and a line on to p99.

    `together`: all timings whose figures stand side by side; they share one axis and its margins.
    """
    left, right = (
        12 + max(text_width(text(timing), bold=True) for timing in together) for text in (_latency_name, _latency_note)
    )
    low, high = _latency_limits(together)

    def paint(figure: Figure) -> None:
        axes = panel(figure, left=left, bottom=26, right=right, top=6)
        if high / low > _LOG_FROM:
            axes.set_xscale("log")
            axes.set_xlim(low / 1.15, high * 1.15)
            _ticks_on_log(axes, low / 1.15, high * 1.15)
        else:
            axes.set_xlim(0, high * 1.03)
            axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} ms"))
        axes.grid(axis="x", color=RULE, linewidth=1)
        axes.set_ylim(len(timings) - 0.5, -0.5)
        axes.yaxis.set_major_locator(NullLocator())
        for row, timing in enumerate(timings):
            color = colors.get(timing.name or "", MUTED)
            start, median = timing.min_ms or timing.p50_ms, timing.p50_ms
            axes.plot([start, timing.p99_ms or median], [row, row], color=color, linewidth=1.6)
            axes.plot([start, timing.p90_ms or median], [row, row], color=color, linewidth=10, solid_capstyle="butt")
            axes.plot([median, median], [row - 0.2, row + 0.2], color=SURFACE, linewidth=1.6, solid_capstyle="butt")
            y = axes.transData.transform((median, row))[1]
            text = {"va": "center_baseline", "transform": None}
            figure.text(0, y, _latency_name(timing), color=color, weight="bold", **text)  # type: ignore[arg-type]
            figure.text(WIDTH, y, _latency_note(timing), color=INK, ha="right", **text)  # type: ignore[arg-type]

    return drawing(label, 34 + 27 * len(timings), paint)


def _latency_name(timing: Timing) -> str:
    return elided(timing.label, 20)


def _latency_note(timing: Timing) -> str:
    faster = timing.speedup
    return milliseconds(timing.p50_ms) + (f", {significant(faster)}{TIMES}" if faster is not None and faster != 1 else "")


def _ticks_on_log(axes: Axes, low: float, high: float) -> None:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 3) if high / low < 200 else (1,)
    ticks = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
    axes.xaxis.set_major_locator(FixedLocator(ticks[:: math.ceil(len(ticks) / 4)]))
    axes.xaxis.set_minor_locator(NullLocator())


def _latency_limits(timings: Sequence[Timing]) -> tuple[float, float]:
    values = [value for timing in timings for value in (timing.min_ms, timing.p50_ms, timing.p90_ms, timing.p99_ms) if value]
    return min(values), max(values)


# --- widths ---------------------------------------------------------------------------------------------------------


def widths(plans: Mapping[str, Sequence[GroupWidth]], colors: Mapping[str, str], label: str) -> list[str]:
    """For each channel group, in the order of the layers, a stripe for each small network before the full width in grey.

    Several figures where there are many groups; all share one scale.
    """
    groups = next(iter(plans.values()))
    kept = {name: {group.name: group.kept for group in plan} for name, plan in plans.items()}
    names = {group.name: elided(printable(group.name), 24) for group in groups}
    notes = {group.name: _width_note(group, [kept[small][group.name] for small in plans]) for group in groups}
    left, right = (10 + max(text_width(text) for text in column.values()) for column in (names, notes))
    most = max(group.channels for group in groups)
    size = math.ceil(len(groups) / math.ceil(len(groups) / _ROWS))
    parts = [groups[start : start + size] for start in range(0, len(groups), size)]
    row_height = max(18, 4 * len(plans) + 6)

    def paint(figure: Figure, part: Sequence[GroupWidth]) -> None:
        axes = panel(figure, left=left, bottom=2, right=right, top=2)
        axes.set_axis_off()
        axes.set_xlim(0, most)
        axes.set_ylim(len(part) - 0.5, -0.5)
        for row, group in enumerate(part):
            axes.barh(row, group.channels, 0.72, color=GHOST)
            for index, small in enumerate(plans):
                stripe = 0.72 / len(plans)
                top = row - 0.36 + index * stripe
                axes.barh(top, kept[small][group.name], stripe, align="edge", color=colors[small])
            y = axes.transData.transform((0, row))[1]
            figure.text(0, y, names[group.name], color=INK, va="center_baseline", transform=None)
            figure.text(WIDTH, y, notes[group.name], color=MUTED, ha="right", va="center_baseline", transform=None)

    drawn = []
    for number, part in enumerate(parts, 1):
        own_label = label if len(parts) == 1 else f"{label}, part {number} of {len(parts)}"
        drawn.append(drawing(own_label, 4 + row_height * len(part), partial(paint, part=part)))
    return drawn


def history(
    kept: Mapping[str, Sequence[float]], epochs: Sequence[int], color: str, label: str, axis: str = "epoch of the search"
) -> list[str]:
    """For each name a row, for each epoch a cell: the fuller, the larger its part in [0, 1] was."""
    names = {name: elided(name, 24) for name in kept}
    left, right = 10 + max(text_width(text) for text in names.values()), 10 + text_width("100 %")
    groups = list(kept)
    size = math.ceil(len(groups) / math.ceil(len(groups) / _ROWS))
    parts = [groups[start : start + size] for start in range(0, len(groups), size)]

    def paint(figure: Figure, part: Sequence[str]) -> None:
        axes = panel(figure, left=left, bottom=34, right=right, top=2)
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.set_ylim(len(part) - 0.5, -0.5)
        axes.set_yticks([])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel(axis, color=MUTED, loc="right", labelpad=2, fontsize=TEXT)
        for row, name in enumerate(part):
            for epoch, share in zip(epochs, kept[name], strict=True):
                axes.barh(row, 1, 0.8, left=epoch - 0.5, color=GHOST)
                axes.barh(row, 1, 0.8, left=epoch - 0.5, color=color, alpha=max(0.0, min(share, 1.0)))
            y = axes.transData.transform((0, row))[1]
            figure.text(0, y, names[name], color=INK, va="center_baseline", transform=None)
            figure.text(
                WIDTH, y, f"{100 * kept[name][-1]:.0f} %", color=MUTED, ha="right", va="center_baseline", transform=None
            )

    drawn = []
    for number, part in enumerate(parts, 1):
        own_label = label if len(parts) == 1 else f"{label}, part {number} of {len(parts)}"
        drawn.append(drawing(own_label, 38 + 18 * len(part), partial(paint, part=part)))
    return drawn


def _width_note(group: GroupWidth, kept: Sequence[int]) -> str:
    return (
        f"{group.channels} → {', '.join(str(number) for number in kept)}"
        if any(number != group.channels for number in kept)
        else str(group.channels)
    )


def dots_of(
    variants: Sequence[Variant], cost: Callable[[Variant], float | None], colors: Mapping[str, str], marker: str
) -> list[Dot]:
    """The variants of one run whose cost and accuracy are known; another run's dots are drawn in grey."""
    found = []
    for variant in variants:
        price = cost(variant)
        if price and price > 0 and variant.accuracy is not None:
            color = colors.get(variant.network, MUTED)
            found.append(Dot(variant.label, color, marker, price, variant.accuracy, variant.derived))
    return found
