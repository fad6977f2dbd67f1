"""Which figures does a run's page show, and what is said of each?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle

from markupsafe import Markup

from adjcompress.report.canvas import MUTED, SMALLS, css
from adjcompress.report.deployed import Setting
from adjcompress.report.figures import MARKERS, Curve, colors_of, curves, dots_of, history, intervals, plane, widths
from adjcompress.report.gather import RunFacts, Variant
from adjcompress.report.graphs import super_network
from adjcompress.report.searched import COSTS
from adjcompress.report.tables import by_setting
from adjcompress.report.words import SPACE, counted, enumeration, quantity

_MARKS = dict(zip(MARKERS, "■▲◆▼⬟⬢✚✖", strict=True))


@dataclass(frozen=True)
class Figure:
    """A figure with its heading and what there is to know about it; without one, `note` says why."""

    title: str
    svg: Markup | None
    note: str = ""


def training_figures(run: RunFacts) -> list[Figure]:
    """Accuracy and loss over the epochs."""
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
        label = f"{run.accuracy_name} on validation over the epochs, a line for each network"
        svg = curves(accuracy, label, _percent_tick, lambda value: f"{100 * value:.1f}{SPACE}%")
        figures.append(Figure(f"{run.accuracy_name} on validation", Markup(svg)))
    if loss:
        label = "Loss over the epochs: on validation for each network, and in training"
        svg = curves(loss, label, lambda value: f"{value:.3g}", lambda value: f"{value:.2f}")
        note = "Lines: cross-entropy of each network on validation, in nats. Dashed: the loss that training minimises."
        figures.append(Figure("Loss", Markup(svg), note))
    return figures


def _curve(name: str, color: str, found: Sequence[tuple[int, float]], end: float | None = None, dashed: bool = False) -> Curve:
    return Curve(name, color, tuple(epoch for epoch, _ in found), tuple(value for _, value in found), end, dashed)


def search_figures(run: RunFacts) -> list[Figure]:
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


def architecture_figures(run: RunFacts) -> list[Figure]:
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


def planes(rows: Sequence[tuple[RunFacts, Sequence[Variant]]], setting: Setting | None) -> list[Figure]:
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
        label = f"{rows[0][0].accuracy_name} against {title.lower()}, {counted(len(dots), 'network')}"
        svg = plane(dots, accuracies, label, shown, _percent_tick)
        note = f"Median; {setting.words}." if cost is latency and setting else ""
        figures.append(Figure(title, Markup(svg), note))
    return figures


def _budgeted_cost(rows: Sequence[tuple[RunFacts, Sequence[Variant]]], kind: str) -> Callable[[Variant], float | None]:
    """What architectures cost that were learnt under a budget of one kind."""
    learnt = {run.name: run.learnt for run, _ in rows if run.learnt is not None and run.learnt.cost == kind}
    costs = {name: found.decided[-1][1] for name, found in learnt.items() if found.decided}
    return lambda variant: costs.get(variant.run)


def _short(text: str) -> str:
    """ "10.0 M" -> "10 M", for ticks."""
    figure, _, unit = text.partition(SPACE)
    return f"{figure.rstrip('0').rstrip('.') if '.' in figure else figure}{SPACE}{unit}".rstrip()


def legend(run: RunFacts, others: Sequence[RunFacts]) -> list[tuple[str, str]]:
    """The marks of runs in the plots of accuracy against cost, and whose they are; none where there is one run."""
    if not others:
        return []
    marks = [_MARKS[MARKERS[index % len(MARKERS)]] for index in range(len(others))]
    return [("●", f"{run.name} (this run)"), *zip(marks, (other.name for other in others), strict=True)]


def latencies(run: RunFacts) -> list[Figure]:
    """A figure for each benchmark and setting."""
    colors = colors_of([network.name for network in run.networks])
    together = run.deployed.timings
    several = len({timing.setting.device for timing in together}) > 1
    figures = []
    for heading, _, timings in by_setting(run):
        svg = intervals(timings, together, colors, f"Latency, {heading}: minimum, median, p90 and p99 of each network")
        figures.append(Figure(heading, Markup(svg), f"On {timings[0].setting.device}." if several else ""))
    return figures


def width_figures(run: RunFacts) -> list[Figure]:
    """Channels of every layer in the full network and in each that was cut."""
    plans = {network.name: network.plan.groups for network in run.networks if network.plan is not None}
    if not plans:
        return []
    colors = colors_of([network.name for network in run.networks])
    svgs = widths(plans, colors, f"Channels of every layer: full, and {enumeration(list(plans))}")
    return [Figure("", Markup(svg)) for svg in svgs]


def cut_networks(run: RunFacts) -> list[tuple[str, str]]:
    """The networks that have a width plan, each with its colour."""
    colors = colors_of([network.name for network in run.networks])
    return [(network.name, css(colors[network.name])) for network in run.networks if network.plan is not None]


def _percent_tick(value: float) -> str:
    return f"{100 * value:.3g}{SPACE}%"
