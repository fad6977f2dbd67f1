"""The curves of accuracy.md: validation over the cost of training, a column for each kind of way.

python benchmarks/accuracy_plot.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from accuracy_ways import PROTOCOLS, results_of

COLUMNS = {  # of every way the first whose pattern it matches
    "small network first": ("first-*",),
    "several small ones": ("sandwich", "growing"),
    "one network alone, or taught": ("standard*", "small*", "distill*", "dropout", "cut*"),
    "the papers' way, its parts": ("adjoined*", "linear", "cosine", "exponential", "trunk"),
    "beside the papers' way": ("*",),
}
_LOSS_SHOWN = 6.0  # a full network that has not joined yet says nothing, at any loss
_OTHERS = {"color": "0.85", "linewidth": 0.8, "zorder": 1}
Points = tuple[list[float], list[float]]


def plot(figures: dict[str, Any], path: Path) -> None:
    """Draw the way's first seeds: accuracy of the full and the small network, and the loss, the other columns' ways in grey.

    The cost is seconds; where rows come from several machines, multiply-adds, which pass within a run as its seconds do.
    """
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    rows = first_seeds(figures["rows"])
    columns = by_column(rows)
    mixed = any(row.get("added") for row in figures["rows"])
    small = figures["small"]
    spent = "multiply-adds of training, 1e12" if mixed else "seconds of training"
    drawn: tuple[tuple[str, str, Callable[[dict[str, Any]], Points]], ...] = (
        ("full network, %", spent, lambda row: over_cost(row, "full", mixed)),
        ("small network, %", spent, lambda row: over_cost(row, small, mixed)),
        ("loss of full, or only, network", "part of the training", lambda row: losses(row, small)),
    )
    figure, grid = pyplot.subplots(
        len(drawn), len(columns), figsize=(3.2 * len(columns) + 0.6, 9.6), sharey="row", squeeze=False, layout="constrained"
    )
    for line, (words, cost, points) in zip(grid, drawn, strict=True):
        for axis, own in zip(line, columns.values(), strict=True):
            for row in rows:
                if row not in own:
                    axis.plot(*points(row), **_OTHERS)
            for row in own:
                axis.plot(*points(row), label=row["way"], linewidth=1.4)
            axis.grid(alpha=0.3)
            axis.set_xlabel(cost, fontsize=8)
        line[0].set_ylabel(f"validation: {words}", fontsize=9)
    grid[-1][0].set_ylim(0, min(_LOSS_SHOWN, 1.05 * max(max(losses(row, small)[1]) for row in rows)))
    for axis, column in zip(grid[0], columns, strict=True):
        axis.set_title(column, fontsize=10)
    for axis in grid[-1]:
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def first_seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every way the row of its lowest seed."""
    first: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: int(row["seed"])):
        first.setdefault(row["way"], row)
    return list(first.values())


def by_column(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of every column that has some."""
    found: dict[str, list[dict[str, Any]]] = {title: [] for title in COLUMNS}
    for row in rows:
        found[next(title for title, own in COLUMNS.items() if any(fnmatch(row["way"], each) for each in own))].append(row)
    return {title: own for title, own in found.items() if own}


def over_cost(row: dict[str, Any], label: str, mixed: bool) -> Points:
    """Seconds or 1e12 multiply-adds, and top-1 in per cent, of each epoch that measured this network."""
    scale = row["training_macs"] / 1e12 / row["seconds"] if mixed else 1.0
    known = [point for point in row["curve"] if label in point["accuracy"]]  # a network that waits is not measured
    return [point["seconds"] * scale for point in known], [100 * point["accuracy"][label] for point in known]


def losses(row: dict[str, Any], small: str) -> Points:
    """The part of the training that is over, and the loss, of each epoch that measured the full network, or the only one."""
    label, curve = "full" if "full" in row["test"] else small, row["curve"]
    known = [(at / len(curve), point["loss"][label]) for at, point in enumerate(curve, 1) if label in point["loss"]]
    return [at for at, _ in known], [loss for _, loss in known]


if __name__ == "__main__":
    for result in results_of(*PROTOCOLS):
        plot(json.loads(result.read_text())["figures"], result.with_suffix(".svg"))
