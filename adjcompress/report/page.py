"""How does a run become one HTML page that needs nothing else?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import cycle
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from adjcompress.files import write_text
from adjcompress.report.canvas import MUTED, SMALLS, css
from adjcompress.report.checks import checks
from adjcompress.report.commands import commands
from adjcompress.report.deployed import FLOAT, Bench, Setting, Timing
from adjcompress.report.figures import (
    MARKERS,
    Curve,
    colors_of,
    curves,
    dots_of,
    history,
    intervals,
    plane,
    widths,
)
from adjcompress.report.gather import Network, RunFacts, Variant, gather, shared_setting, variants
from adjcompress.report.graphs import super_network
from adjcompress.report.machines import machine_table
from adjcompress.report.searched import COSTS
from adjcompress.report.summary import summary
from adjcompress.report.words import (
    SPACE,
    UNKNOWN,
    counted,
    enumeration,
    milliseconds,
    percent,
    points,
    printable,
    quantity,
    significant,
    times,
)
from adjcompress.training import Run

_MARKS = dict(zip(MARKERS, "■▲◆▼⬟⬢✚✖", strict=True))


@dataclass(frozen=True)
class Figure:
    """A figure with its heading and what there is to know about it; without one, `note` says why."""

    title: str
    svg: Markup | None
    note: str = ""


def write_report(run: Run, path: str | Path | None = None, others: Sequence[Run] = ()) -> Path:
    """Write a run's page, report.html in its folder unless told otherwise, and return where it is.

    `others` are runs whose networks stand beside this one's in the plots of accuracy against cost. The same folders give
    the same page, byte for byte. What was not measured, or cannot be read, the page says; an existing page is replaced.
    """
    written = Path(path) if path is not None else run.folder / "report.html"
    folders = {other.folder.resolve(): other for other in others if other.folder.resolve() != run.folder.resolve()}
    write_text(written, render(gather(run), [gather(other) for other in folders.values()]))
    return written


def render(run: RunFacts, others: Sequence[RunFacts] = ()) -> str:
    """The page as text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    setting = shared_setting([run, *others])
    rows = [(other, variants(other, setting)) for other in (run, *others)]
    timings = run.deployed.timings
    return template.render(
        run=run,
        title=f"{run.name}: report",
        headlines=_headlines(run, rows[0][1]),
        summary=summary(run),
        unfinished=_unfinished(run),
        network_tables=[(facts.name, _network_rows(facts, found)) for facts, found in rows if found],
        has_others=bool(others),
        setting=setting,
        training=_training_figures(run),
        test=_test_sentence(run) + _order_sentence(run),
        planes=_planes(rows, setting),
        unfinished_runs=[facts.name for facts, _ in rows if not facts.finished],
        derived=[variant.label for variant in rows[0][1] if variant.derived and variant.accuracy is not None],
        legend=_legend(run, others),
        latencies=_latencies(run),
        timing_tables=_timing_tables(run),
        started=any(timing.load_ms is not None or timing.first_ms is not None for timing in timings),
        references=list(dict.fromkeys(bench.reference for bench in run.deployed.benches if bench.reference)),
        warnings=[warning for bench in run.deployed.benches for warning in bench.warnings],
        widths=_width_figures(run),
        search=_search_figures(run),
        search_plans=_search_plans(run),
        architecture=_architecture_figures(run),
        pictures=run.pictures,
        overlaps=_overlaps(run),
        right=_measure(run),
        plans=_plan_table(run),
        cut=_cut_networks(run),
        checks=checks(run),
        machine=machine_table(run),
        commands=commands(run),
    )


# --- the result, in words -------------------------------------------------------------------------------------------


def _headlines(run: RunFacts, found: Sequence[Variant]) -> list[str]:
    """The result of each small network against the full one, the smallest network first."""
    in_float = {variant.network: variant for variant in found if variant.kind == FLOAT}
    full = run.full
    lines = []
    for small in sorted(run.smalls, key=lambda network: network.parameters or 0):
        if full is None:
            lines.append(_alone(small))
            continue
        parts = []
        if small.parameters and full.parameters:
            parts.append(f"{times(full.parameters / small.parameters)} fewer parameters")
        timed = [variant.timing for variant in (in_float["full"], in_float[small.name])]
        if timed[0] and timed[1]:
            parts.append(_faster(timed[0].p50_ms / timed[1].p50_ms))
        if small.accuracy is not None and full.accuracy is not None:
            parts.append(points(100 * (small.accuracy - full.accuracy)) + ("" if run.finished else " so far"))
        lines.append(f"{small.name}: {', '.join(parts) or 'nothing was measured yet'}")
    return lines or [_alone(full) if full else "Nothing was measured yet"]


def _measure(run: RunFacts) -> str:
    """What accuracies are of."""
    return "Pixel accuracy" if run.segmentation else "Top-1 accuracy"


def _alone(network: Network) -> str:
    what = "top-1" if network.validation_iou is None and network.test_iou is None else "of the pixels right"
    parts = [f"{percent(network.accuracy)} {what}"] if network.accuracy is not None else []
    parts += [f"{quantity(network.parameters)} parameters"] if network.parameters else []
    return f"{network.name}: {', '.join(parts) or 'nothing was measured yet'}"


def _faster(ratio: float) -> str:
    return f"{times(ratio)} faster" if ratio >= 1 else f"{times(1 / ratio)} slower"


def _unfinished(run: RunFacts) -> str | None:
    if run.finished:
        return None
    done = f"{len(run.epochs)} of {counted(run.epochs_planned, 'epoch')}"
    return (
        f"This training is not finished: {done} done, and the test split not looked at. Accuracies are those on validation. "
        f"If it was interrupted, adjcompress train --resume --run {printable(run.folder)} goes on with it."
    )


def _test_sentence(run: RunFacts) -> str:
    scores = [f"{network.name} {percent(network.test)}" for network in run.networks if network.test is not None]
    if not scores:
        return "The test split is looked at once, at the end; that has not happened yet."
    return f"On the test split, looked at once, at the end: {enumeration(scores)}. Diamonds mark these."


def _order_sentence(run: RunFacts) -> str:
    alone, of = run.epochs_alone, counted(run.epochs_planned, "epoch")
    return f" For {alone:.3g} of {of} the small networks learn alone, and the full one waits." if alone else ""


# --- tables ---------------------------------------------------------------------------------------------------------


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


def _network_rows(run: RunFacts, found: Sequence[Variant]) -> list[dict[str, str]]:
    full = next((variant for variant in found if (variant.network, variant.kind) == ("full", FLOAT)), None)
    return [_network_row(run, variant, full) for variant in found]


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


def _timing_tables(run: RunFacts) -> list[tuple[str, list[dict[str, str]]]]:
    """Rows by the heading they stand under."""
    return [(heading, [_timing_row(bench, timing) for timing in timings]) for heading, bench, timings in _by_setting(run)]


def _by_setting(run: RunFacts) -> list[tuple[str, Bench, list[Timing]]]:
    """The timings of each benchmark and setting, with words for where they come from."""
    found = []
    for bench in run.deployed.benches:
        for setting in dict.fromkeys(timing.setting for timing in bench.timings):
            same = [other for other in run.deployed.benches if any(timing.setting == setting for timing in other.timings)]
            heading = setting.words if len(same) == 1 else f"{bench.label}: {setting.words}"
            found.append((heading, bench, [timing for timing in bench.timings if timing.setting == setting]))
    return found


def _plan_table(run: RunFacts) -> dict[str, list[list[str]]] | None:
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


# --- figures --------------------------------------------------------------------------------------------------------


def _training_figures(run: RunFacts) -> list[Figure]:
    colors = colors_of([network.name for network in run.networks])
    accuracy, loss = [], []
    for network in run.networks:
        scores = [(epoch.epoch, epoch.validation[network.name]) for epoch in run.epochs if network.name in epoch.validation]
        right = [(epoch, score.accuracy) for epoch, score in scores if score.accuracy is not None]
        wrong = [(epoch, score.loss) for epoch, score in scores if score.loss is not None]
        color = colors[network.name]
        if right:
            accuracy.append(_curve(network.name, color, right, end=network.test))
        if wrong:
            loss.append(_curve(network.name, color, wrong))
    training = [(epoch.epoch, epoch.loss) for epoch in run.epochs if epoch.loss is not None]
    if training:
        loss.append(_curve("training", MUTED, training, dashed=True))
    figures = []
    if accuracy:
        label = f"{_measure(run)} on validation over the epochs, a line for each network"
        svg = curves(accuracy, label, _percent_tick, lambda value: f"{100 * value:.1f}{SPACE}%")
        figures.append(Figure(f"{_measure(run)} on validation", Markup(svg)))
    if loss:
        label = "Loss over the epochs: on validation for each network, and in training"
        svg = curves(loss, label, lambda value: f"{value:.3g}", lambda value: f"{value:.2f}")
        note = "Lines: cross-entropy of each network on validation, in nats. Dashed: the loss that training minimises."
        figures.append(Figure("Loss", Markup(svg), note))
    return figures


def _search_figures(run: RunFacts) -> list[Figure]:
    """The costs over the search beside their budgets, the groups' widths, and the plan beside uniform ones."""
    found = run.searched
    if found is None:
        return []
    lines = []
    for color, (name, parts) in zip(SMALLS, found.costs.items(), strict=False):
        lines.append(Curve(COSTS.get(name, name), color, found.epochs, parts))
        if name in found.budgets:
            budget = (found.budgets[name],) * len(found.epochs)
            lines.append(Curve("budget", color, found.epochs, budget, dashed=True))
    label = "Expected costs over the epochs of the search, as parts of the full network's, and their budgets"
    svg = curves(lines, label, lambda value: f"{value:.2g}", lambda value: f"{value:.3f}")
    dashed = "Dashed: the budget" + (", of which a latency keeps some in reserve." if "latency" in found.budgets else ".")
    figures = [Figure("Costs over the search", Markup(svg), f"Parts of the full network's. {dashed}")]
    label = "Part of every group's channels that was expected to stay, over the epochs of the search"
    drawn = history(found.kept, found.epochs, SMALLS[0], label)
    figures += [Figure("Widths over the search", Markup(svg)) for svg in drawn]
    colors = dict(zip((plan.name for plan in found.plans), cycle(SMALLS), strict=False))
    label = "Channels that the searched and the uniform plans keep of every group"
    drawn = widths({plan.name: plan.groups for plan in found.plans}, colors, label)
    note = "From top to bottom: " + ", ".join(plan.name for plan in found.plans) + "."
    return figures + [Figure("The plan beside uniform ones", Markup(svg), note) for svg in drawn]


def _architecture_figures(run: RunFacts) -> list[Figure]:
    """The super network and what was kept of it, its cost over the training, and the chances of its gates."""
    found = run.learnt
    if found is None:
        return []
    figures, color = [], SMALLS[0]
    if found.drawing is not None:
        label = f"The super network, of which the layers behind {found.running} of {counted(len(found.chances), 'gate')} run"
        note = f"Coloured: what runs, behind {found.running} of {counted(len(found.chances), 'gate')}. Dashed: without a gate."
        figures.append(Figure("What was kept", Markup(super_network(found.drawing, color, label)), note))
    lines = [Curve("drawn", SMALLS[1], found.epochs, found.drawn)]
    if found.decided:
        lines.insert(0, _curve("decided", color, found.decided))
    lines.append(Curve("budget", color, found.epochs, (found.budget,) * len(found.epochs), dashed=True))
    label = "Costs over the epochs, as parts of the whole super network's: of the decided architecture and of drawn ones"
    svg = curves(lines, label, lambda value: f"{value:.2g}", lambda value: f"{value:.3f}")
    figures.append(Figure("Costs over the training", Markup(svg), "Parts of the whole super network's. Dashed: the budget."))
    label = "Probability of every gate to be open, over the epochs"
    drawn = history(found.chances, found.epochs, color, label, axis="epoch")
    return figures + [Figure("Probabilities of the gates", Markup(svg)) for svg in drawn]


def _overlaps(run: RunFacts) -> list[tuple[str, str, str]]:
    """Mean intersection over union of each network, on test and on validation."""
    known = [network for network in run.networks if network.validation_iou is not None or network.test_iou is not None]
    return [(network.name, percent(network.test_iou), percent(network.validation_iou)) for network in known]


def _search_plans(run: RunFacts) -> list[dict[str, str]]:
    if run.searched is None:
        return []
    names = run.searched.costs
    budget = {name: f"{run.searched.budgets[name]:.3f}" if name in run.searched.budgets else UNKNOWN for name in names}
    rows = [{COSTS.get(name, name): f"{plan.parts[name]:.3f}" for name in names} for plan in run.searched.plans]
    named = [{"plan": plan.name, **row} for plan, row in zip(run.searched.plans, rows, strict=True)]
    return [{"plan": "budget", **{COSTS.get(name, name): part for name, part in budget.items()}}, *named]


def _curve(name: str, color: str, found: Sequence[tuple[int, float]], end: float | None = None, dashed: bool = False) -> Curve:
    return Curve(name, color, tuple(epoch for epoch, _ in found), tuple(value for _, value in found), end, dashed)


def _planes(rows: Sequence[tuple[RunFacts, Sequence[Variant]]], setting: Setting | None) -> list[Figure]:
    """The four panels of accuracy against a cost."""

    def latency(variant: Variant) -> float | None:
        return variant.timing.p50_ms if variant.timing else None

    kinds: tuple[tuple[str, Callable[[Variant], float | None], Callable[[float], str], str], ...] = (
        ("Parameters", lambda variant: variant.parameters, lambda v: _short(quantity(v)), "No parameters are known."),
        ("MACs of one image", lambda variant: variant.macs, lambda v: _short(quantity(v)), "No MACs are known."),
        ("Bytes", lambda variant: variant.bytes, lambda v: _short(quantity(v, "B")), "No sizes are known."),
        ("Latency", latency, lambda v: f"{v:g}{SPACE}ms", "No latency was measured: adjcompress bench."),
    )
    accuracies = [variant.accuracy for _, found in rows for variant in found if variant.accuracy is not None]
    if (learnt := rows[0][0].learnt) is not None:  # a cost that may be none of these: cycles, or the user's own
        title = f"The budget's cost ({learnt.cost}), as a part of the whole network's"
        kinds += ((title, _budgeted_cost(rows, learnt.cost), lambda v: f"{v:g}", "No architecture was decided yet."),)
    figures = []
    for title, cost, shown, missing in kinds:
        dots = []
        for index, (run, found) in enumerate(rows):
            names = [network.name for network in run.networks]
            colors, marker = (colors_of(names), "o") if index == 0 else ({}, MARKERS[(index - 1) % len(MARKERS)])
            dots += dots_of(found, cost, colors, marker)
        if not dots:
            figures.append(Figure(title, None, missing))
            continue
        label = f"{_measure(rows[0][0])} against {title.lower()}, {counted(len(dots), 'network')}"
        svg = plane(dots, accuracies, label, shown, _percent_tick)
        note = f"Median; {setting.words}." if cost is latency and setting else ""
        figures.append(Figure(title, Markup(svg), note))
    return figures


def _budgeted_cost(rows: Sequence[tuple[RunFacts, Sequence[Variant]]], kind: str) -> Callable[[Variant], float | None]:
    """What architectures cost that were learnt under a budget of one kind."""
    learnt = {run.name: run.learnt for run, _ in rows if run.learnt is not None and run.learnt.cost == kind}
    costs = {name: found.decided[-1][1] for name, found in learnt.items() if found.decided}
    return lambda variant: costs.get(variant.run)


def _percent_tick(value: float) -> str:
    return f"{100 * value:.3g}{SPACE}%"


def _short(text: str) -> str:
    """ "10.0 M" -> "10 M", for ticks."""
    figure, _, unit = text.partition(SPACE)
    return f"{figure.rstrip('0').rstrip('.') if '.' in figure else figure}{SPACE}{unit}".rstrip()


def _legend(run: RunFacts, others: Sequence[RunFacts]) -> list[tuple[str, str]]:
    if not others:
        return []
    marks = [_MARKS[MARKERS[index % len(MARKERS)]] for index in range(len(others))]
    return [("●", f"{run.name} (this run)"), *zip(marks, (other.name for other in others), strict=True)]


def _latencies(run: RunFacts) -> list[Figure]:
    """A figure for each benchmark and setting."""
    colors = colors_of([network.name for network in run.networks])
    together = run.deployed.timings
    several = len({timing.setting.device for timing in together}) > 1
    figures = []
    for heading, _, timings in _by_setting(run):
        svg = intervals(timings, together, colors, f"Latency, {heading}: minimum, median, p90 and p99 of each network")
        figures.append(Figure(heading, Markup(svg), f"On {timings[0].setting.device}." if several else ""))
    return figures


def _cut_networks(run: RunFacts) -> list[tuple[str, str]]:
    """The networks that have a width plan, each with its colour."""
    colors = colors_of([network.name for network in run.networks])
    return [(network.name, css(colors[network.name])) for network in run.networks if network.plan is not None]


def _width_figures(run: RunFacts) -> list[Figure]:
    plans = {network.name: network.plan.groups for network in run.networks if network.plan is not None}
    if not plans:
        return []
    colors = colors_of([network.name for network in run.networks])
    svgs = widths(plans, colors, f"Channels of every layer: full, and {enumeration(list(plans))}")
    return [Figure("", Markup(svg)) for svg in svgs]
