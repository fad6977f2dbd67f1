"""adjcompress bench --table: a network's layers -> how long each takes here, at every width."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from adjcompress_cli.show import show

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from adjcompress.bench import TableReport


@dataclass(frozen=True)
class Asked:
    """The network whose layers are to be measured, as far as the user said; the rest is the newest run's, or a default."""

    model: str | None
    image_size: tuple[int, int | None] | None
    classes: int | None
    model_options: Mapping[str, Any]
    slim: tuple[str, ...]
    keep: tuple[str, ...]


def bench_table(
    path: Path,
    asked: Asked,
    threads: int,
    batch: int,
    target: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make or extend the table at `path` by the layers of a network."""
    import torch

    from adjcompress.bench import measure_table
    from adjcompress.data.sources import check_sides
    from adjcompress.errors import AdjCompressError
    from adjcompress.models import ModelSpec, check_takes
    from adjcompress.training import open_run
    from adjcompress.training.teacher import packaged_model

    check_sides(*(asked.image_size or ()))
    if asked.classes is not None and asked.classes < 1:
        raise AdjCompressError(f"--classes {asked.classes} must be at least 1.")
    slim, keep = asked.slim or None, asked.keep or None
    if asked.model is None:
        run = open_run(None)
        told = (run.config.get("notes") or {}).get("options", {})
        slim, keep = slim or told.get("slim") or None, keep or told.get("keep") or None
        height, width = asked.image_size or run.preprocessing.size
        options = {**run.model.options, **asked.model_options}
        spec = ModelSpec(run.model.name, asked.classes or len(run.classes), height, options)
    elif asked.model.startswith("package:"):
        spec = packaged_model(Path(asked.model.removeprefix("package:")))
        height, width = asked.image_size or (spec.image_size, None)
        options = {**spec.options, **asked.model_options}
        spec = ModelSpec(spec.name, asked.classes or spec.num_classes, height, options)
    else:
        height, width = asked.image_size or (224, None)
        spec = ModelSpec(asked.model, asked.classes or 1000, height, asked.model_options)
    example, network = torch.zeros(1, 3, height, width or height), spec.build()
    check_takes(network, example, spec.name, per_pixel=None)
    bar = _Bar(quiet)
    try:
        report = measure_table(
            path,
            network,
            example,
            threads=threads,
            batch=batch,
            target=target,
            slim=slim,
            keep=keep,
            progress=bar.progress,
        )
    finally:
        bar.close()
    show(report.to_json(), lambda: _print(report, spec.name, example), as_json, quiet)


class _Bar:
    """Progress of the measurement: a bar on a terminal, elsewhere a line for each pass."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._said = ""
        self._quiet = quiet
        self._bar: Progress | None = None
        if not quiet and sys.stderr.isatty():
            columns = (BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("")
            self._bar.start()

    @property
    def progress(self) -> Callable[[int, int, str], None]:
        return self._show

    def _show(self, done: int, total: int, text: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, description=text)
        elif not self._quiet:
            tenth = f"{10 * done // max(1, total)}0 %"
            if tenth != self._said:
                click.echo(f"{done} of {total}: {text}", err=True)
                self._said = tenth

    def close(self) -> None:
        """Take the bar away, also after an error."""
        if self._bar is not None:
            self._bar.stop()


def _print(report: TableReport, name: str, example: Tensor) -> None:
    size = "x".join(str(side) for side in dict.fromkeys(example.shape[2:]))
    click.echo(
        f"{report.path}: {name} at {size} px, {report.shapes} layer shapes at {report.points} widths; "
        f"{report.measured} times measured in {report.seconds:.0f} s"
    )
    if report.check is not None:
        predicted, measured = report.check.predicted_ms, report.check.measured_ms
        click.echo(
            f"Checked on a slice halfway: predicted {predicted:.3g} ms, took {measured:.3g} ms ({report.check.off:+.0%})"
        )
    if report.doubt is not None:
        click.echo(report.doubt)
    click.echo("It predicts every width plan of these layers: adjcompress.read_table(path).predict(network, example).")
