"""adjcompress bench: ONNX files -> figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from adjcompress_cli.show import millions, output_options, show, table, warn

if TYPE_CHECKING:
    from adjcompress.bench import BenchReport


@click.command()
@click.argument("files", type=click.Path(path_type=Path), nargs=-1)
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="The file that ratios refer to. [default: the full network of the run, or the last file]",
)
@click.option("--threads", default="1", show_default=True, help="Numbers of threads, such as 1,2.")
@click.option("--batch", type=int, default=1, show_default=True, help="Images at a time.")
@click.option("--duration", type=float, default=5.0, show_default=True, help="Seconds for each number of threads.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("bench.json"),
    show_default=True,
    help="Where the figures are kept.",
)
@output_options
def bench(
    files: tuple[Path, ...],
    reference: Path | None,
    threads: str,
    batch: int,
    duration: float,
    output: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure ONNX FILES side by side: latency on the CPU, parameters, MACs, bytes, memory.

    Without FILES: the one exported last, beside the full network of its run; where there is a GPU, both there as well.

    \b
    Examples:
      adjcompress bench
      adjcompress bench small.onnx full.onnx --threads 1,2 --batch 8
    """
    import torch

    from adjcompress.bench import benchmark, benchmark_cuda
    from adjcompress.deploy import export_full, made, newest_onnx
    from adjcompress.errors import AdjCompressError
    from adjcompress.files import write_text
    from adjcompress.training import open_run

    try:
        counts = [int(part) for part in threads.split(",")]
    except ValueError:
        raise AdjCompressError(f"--threads {threads!r}: numbers separated by commas are expected, such as 1,2.") from None

    def progress(text: str) -> None:
        if not quiet:
            click.echo(f"Measuring {text} ...", err=True)

    packages: list[Path] = []
    if not files:
        newest = made()
        files = (newest_onnx(),)
        if newest.run is not None and reference is None:
            progress("the full network's file first, for comparison")
            full = export_full(open_run(Path(newest.run)))
            if full is not None:
                reference = full[1]
                packages = [Path(newest.package), full[0]] if newest.package else []
    report = benchmark(files, reference, threads=counts, batch=batch, duration=duration, progress=progress)
    if packages and torch.cuda.is_available():
        report = report.with_timings(benchmark_cuda(packages, batch, duration))
    write_text(output, json.dumps(report.to_json(), indent=1) + "\n")

    for warning in report.warnings:
        if not quiet:
            warn(warning)
    show(report.to_json(), lambda: _print(report, output), as_json, quiet)


def _print(report: BenchReport, output: Path) -> None:
    columns = ("network", "on", "min / p50 / p90 / p99 ms", "times faster", "parameters", "MACs", "bytes", "memory")
    rows = [
        (
            str(timing.path),
            timing.runtime if not timing.threads else f"{timing.threads} thread{'s' * (timing.threads > 1)}",
            " / ".join(f"{getattr(timing.latency, name):.3g}" for name in ("min_ms", "p50_ms", "p90_ms", "p99_ms")),
            f"{timing.speedup.value:.2f} [{timing.speedup.low:.2f}, {timing.speedup.high:.2f}]",
            millions(timing.parameters),
            millions(timing.macs),
            f"{millions(timing.bytes)}B",
            f"{millions(timing.peak_memory_bytes)}B",
        )
        for timing in report.timings
    ]
    table(columns, rows)
    machine = report.machine
    click.echo(f"{machine.cpu}, {machine.cores} cores, ONNX Runtime {machine.versions['onnxruntime']}; figures in {output}")
