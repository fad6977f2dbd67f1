"""What does a run's folder say of the search for its widths?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adjcompress.errors import AdjCompressError
from adjcompress.report.deployed import number
from adjcompress.report.words import printable
from adjcompress.training import Run
from adjcompress.training.run import PLAN, SEARCH, read_log
from adjcompress.widths import WidthPlan
from adjcompress.widths.plan import GroupWidth

COSTS = {"macs": "MACs", "params": "parameters", "latency": "latency"}


@dataclass(frozen=True)
class Plan:
    """A width plan and the parts of the full network's costs that it takes, by cost."""

    name: str
    groups: tuple[GroupWidth, ...]
    parts: Mapping[str, float]


@dataclass(frozen=True)
class Searched:
    """A search: by epoch the part of every cost that was expected, and of every group's channels.

    `budgets`: the parts that were allowed. `plans`: the one that was decided on, and uniform ones beside it. `notices`: what
    its user must hear.
    """

    epochs: tuple[int, ...]
    costs: Mapping[str, tuple[float, ...]]
    budgets: Mapping[str, float]
    kept: Mapping[str, tuple[float, ...]]
    plans: tuple[Plan, ...]
    notices: tuple[str, ...]


def read_searched(run: Run, problems: list[str]) -> Searched | None:
    """The search in a run's folder; None where there was none, or, with a sentence in `problems`, where it is damaged."""
    folder = run.folder / SEARCH
    if not folder.is_dir():
        return None
    try:
        content = json.loads((run.folder / PLAN).read_text(encoding="utf-8"))
        plan, told = WidthPlan.from_json(content), content["search"]
        channels = {group.name: group.channels for group in plan.groups}
        records = [record for record in read_log(folder) if "search" in record]
        steps = [record["search"] for record in records]
        full = {name: _known(cost) for name, cost in told["full"].items()}
        return Searched(
            epochs=tuple(int(record["epoch"]) for record in records),
            costs={name: tuple(_known(step["costs"][name]["expected"]) for step in steps) for name in full},
            budgets={name: _known(cost["budget"]) for name, cost in steps[-1]["costs"].items() if "budget" in cost},
            kept={
                printable(name): tuple(_known(step["widths"][name]) / channels[name] for step in steps)
                for name in steps[-1]["widths"]
            },
            plans=(
                Plan("searched", plan.groups, {name: _known(cost) / full[name] for name, cost in told["costs"].items()}),
                *(_uniform(each, plan, full) for each in told["uniform"]),
            ),
            notices=notices_of(told),
        )
    except (AdjCompressError, OSError, KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError) as error:
        problems.append(f"The search for widths cannot be read ({type(error).__name__}: {printable(error)}).")
        return None


def notices_of(told: Mapping[str, Any]) -> tuple[str, ...]:
    """What a training's results, or a plan, say that its user must hear."""
    return tuple(printable(told[key]) for key in ("doubt", "shortcoming") if told.get(key))


def _uniform(told: Mapping[str, Any], plan: WidthPlan, full: Mapping[str, float]) -> Plan:
    groups = tuple(
        GroupWidth(group.name, group.layers, group.channels, int(kept), int(kept), kept < group.channels)
        for group, kept in zip(plan.groups, told["kept"], strict=True)
    )
    return Plan(f"alpha {told['alpha']:g}", groups, {name: _known(cost) / full[name] for name, cost in told["costs"].items()})


def _known(value: Any) -> float:
    found = number(value)
    if found is None:
        raise ValueError(f"{value!r} is no number")
    return found
