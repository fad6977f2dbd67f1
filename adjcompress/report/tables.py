"""What stands in the tables of a run's page?"""

from __future__ import annotations

from collections.abc import Sequence

from adjcompress.report.deployed import FLOAT, Bench, Timing
from adjcompress.report.gather import RunFacts, Variant
from adjcompress.report.searched import COSTS
from adjcompress.report.words import UNKNOWN, milliseconds, percent, printable, quantity, significant, times


def network_rows(run: RunFacts, found: Sequence[Variant]) -> list[dict[str, str]]:
    """Accuracies and costs of a run's networks, as they are and as they were exported."""
    full = next((variant for variant in found if (variant.network, variant.kind) == ("full", FLOAT)), None)
    return [_network_row(run, variant, full) for variant in found]


def _network_row(run: RunFacts, variant: Variant, full: Variant | None) -> dict[str, str]:
    """Each cost with its ratio to the run's full network: how many times smaller or faster this one is."""
    network = next(network for network in run.networks if network.name == variant.network)
    latency = variant.timing.p50_ms if variant.timing else None
    row = {
        "network": variant.label,
        "test": percent(network.test) if variant.kind == FLOAT else UNKNOWN,
        "validation": percent(variant.validation),
    }
    costs = {
        "parameters": (quantity(variant.parameters), variant.parameters, full and full.parameters),
        "macs": (quantity(variant.macs), variant.macs, full and full.macs),
        "bytes": (quantity(variant.bytes, "B"), variant.bytes, full and full.bytes),
        "latency": (milliseconds(latency), latency, full and full.timing and full.timing.p50_ms),
    }
    for name, (text, own, whole) in costs.items():
        row |= {name: text, f"{name}_ratio": times(whole / own) if own and whole and variant is not full else ""}
    return row


def timing_tables(run: RunFacts) -> list[tuple[str, list[dict[str, str]]]]:
    """Rows by the heading they stand under."""
    return [(heading, [_timing_row(bench, timing) for timing in timings]) for heading, bench, timings in by_setting(run)]


def _timing_row(bench: Bench, timing: Timing) -> dict[str, str]:
    speedup = UNKNOWN
    if timing.speedup is not None:
        speedup = times(timing.speedup)
        if timing.speedup_low is not None and timing.speedup_high is not None and timing.path != bench.reference:
            speedup += f" [{significant(timing.speedup_low)}, {significant(timing.speedup_high)}]"
    quantiles = (timing.min_ms, timing.p50_ms, timing.p90_ms, timing.p99_ms)
    return {
        "network": timing.label,
        "quantiles": " / ".join(UNKNOWN if value is None else significant(value) for value in quantiles),
        "runs": UNKNOWN if timing.runs is None else f"{timing.runs:,}",
        "speedup": speedup,
        "load": milliseconds(timing.load_ms),
        "first": milliseconds(timing.first_ms),
        "memory": quantity(timing.peak_memory_bytes, "B"),
        "noisy": "noisy" if timing.noisy else "",
    }


def by_setting(run: RunFacts) -> list[tuple[str, Bench, list[Timing]]]:
    """The timings of each benchmark and setting, with words for where they come from."""
    found = []
    for bench in run.deployed.benches:
        for setting in dict.fromkeys(timing.setting for timing in bench.timings):
            same = [other for other in run.deployed.benches if any(timing.setting == setting for timing in other.timings)]
            heading = setting.words if len(same) == 1 else f"{bench.label}: {setting.words}"
            found.append((heading, bench, [timing for timing in bench.timings if timing.setting == setting]))
    return found


def plan_table(run: RunFacts) -> dict[str, list[list[str]]] | None:
    """Channels that every network keeps of each group of layers; None where no widths are planned."""
    plans = {network.name: network.plan.groups for network in run.networks if network.plan is not None}
    if not plans:
        return None
    kept = {name: {group.name: group for group in groups} for name, groups in plans.items()}
    rows = []
    for group in next(iter(plans.values())):
        notes = dict.fromkeys(kept[name][group.name].note for name in plans)
        cells = [str(kept[name][group.name].kept) for name in plans]
        names = printable(", ".join(group.layers))
        rows.append([names, str(group.channels), *cells, "; ".join(note for note in notes if note)])
    return {"columns": [["layers cut together", "full", *plans, ""]], "rows": rows}


def search_plans(run: RunFacts) -> list[dict[str, str]]:
    """The parts of the costs that the plan found and uniform ones take, under the budgets."""
    if run.searched is None:
        return []
    names = run.searched.costs
    budget = {name: f"{run.searched.budgets[name]:.3f}" if name in run.searched.budgets else UNKNOWN for name in names}
    rows = [{COSTS.get(name, name): f"{plan.parts[name]:.3f}" for name in names} for plan in run.searched.plans]
    named = [{"plan": plan.name, **row} for plan, row in zip(run.searched.plans, rows, strict=True)]
    return [{"plan": "budget", **{COSTS.get(name, name): part for name, part in budget.items()}}, *named]


def overlaps(run: RunFacts) -> list[tuple[str, str, str]]:
    """Mean intersection over union of each network, on test and on validation."""
    known = [network for network in run.networks if network.validation_iou is not None or network.test_iou is not None]
    return [(network.name, percent(network.test_iou), percent(network.validation_iou)) for network in known]
