"""How does a run become one HTML page that needs nothing else?"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from adjcompress.files import write_text
from adjcompress.report.checks import checks
from adjcompress.report.commands import commands
from adjcompress.report.deployed import FLOAT
from adjcompress.report.gather import Network, RunFacts, Variant, gather, shared_setting, variants
from adjcompress.report.machines import machine_table
from adjcompress.report.panels import (
    architecture_figures,
    cut_networks,
    latencies,
    legend,
    planes,
    search_figures,
    training_figures,
    width_figures,
)
from adjcompress.report.summary import summary
from adjcompress.report.tables import network_rows, overlaps, plan_table, search_plans, timing_tables
from adjcompress.report.words import counted, enumeration, percent, points, printable, quantity, times
from adjcompress.training import Run


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
        network_tables=[(facts.name, network_rows(facts, found)) for facts, found in rows if found],
        has_others=bool(others),
        setting=setting,
        training=training_figures(run),
        test=_test_sentence(run) + _order_sentence(run),
        planes=planes(rows, setting),
        unfinished_runs=[facts.name for facts, _ in rows if not facts.finished],
        derived=[variant.label for variant in rows[0][1] if variant.derived and variant.accuracy is not None],
        legend=legend(run, others),
        latencies=latencies(run),
        timing_tables=timing_tables(run),
        started=any(timing.load_ms is not None or timing.first_ms is not None for timing in timings),
        references=list(dict.fromkeys(bench.reference for bench in run.deployed.benches if bench.reference)),
        warnings=[warning for bench in run.deployed.benches for warning in bench.warnings],
        widths=width_figures(run),
        search=search_figures(run),
        search_plans=search_plans(run),
        architecture=architecture_figures(run),
        pictures=run.pictures,
        overlaps=overlaps(run),
        right=run.accuracy_name,
        plans=plan_table(run),
        cut=cut_networks(run),
        checks=checks(run),
        machine=machine_table(run),
        commands=commands(run),
    )


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
