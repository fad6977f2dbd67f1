"""adjcompress report: run -> one HTML page."""

from __future__ import annotations

from pathlib import Path

import click
from adjcompress_cli.show import output_options, show


@click.command()
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page. [default: report.html in the run's folder]")
@click.option(
    "others",
    "--with",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Another run whose networks stand beside this one's in the plots; repeatable.",
)
@output_options
def report(run: Path | None, output: Path | None, others: tuple[Path, ...], as_json: bool, quiet: bool) -> None:
    """Write RUN, by default the newest, as one HTML page: curves, accuracy against cost, latencies, widths, certificates.

    The page needs no internet connection and no other file. What was not measured yet it says, with the command that does.

    \b
    Examples:
      adjcompress report
      adjcompress report runs/cifar100-resnet18-adjoined -o report.html
      adjcompress report --with runs/baseline --with runs/wider
    """
    from adjcompress.files import check_output
    from adjcompress.report import write_report
    from adjcompress.training import open_run

    if output is not None:
        check_output(output, ".html", "a report", mark="</html>")
    opened = open_run(run)
    path = write_report(opened, output, [open_run(other) for other in others])
    result = {"run": str(opened.folder), "path": str(path), "with": [str(other) for other in others]}
    show(result, lambda: click.echo(f"Report: {path}"), as_json, quiet)
