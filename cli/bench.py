"""adjcompress bench: ONNX files or packages -> figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from adjcompress_cli.image_size import ImageSize
from adjcompress_cli.show import millions, output_options, show, warn, working
from adjcompress_cli.show import table as print_table

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
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="Measure within a target's cores, threads and memory: one-core, two-core, four-core, gpu; repeatable.",
)
@click.option(
    "--engine", default="onnxruntime", show_default=True, help="onnxruntime or openvino (ONNX files), torch (packages)."
)
@click.option(
    "--executor",
    multiple=True,
    default=("sequential",),
    show_default="sequential",
    help="ONNX Runtime's threads share each layer (sequential), or take layers that need not wait for another (parallel); "
    "repeatable.",
)
@click.option("--duration", type=float, default=5.0, show_default=True, help="Seconds for each number of threads or target.")
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    help="Instead, measure the layers of a network that may be cut into this file, at widths from which any plan is predicted. "
    "Resumable.",
)
@click.option("--model", help="With --table: the network. [default: the newest run's]")
@click.option(
    "--image-size",
    type=ImageSize(),
    help="With --table: side of the images in pixels, or 180x240. [default: 224, or the run's]",
)
@click.option("--classes", type=int, help="With --table: classes of the network. [default: 1000, or the run's]")
@click.option("--model-option", multiple=True, help="With --table: an argument of the network's constructor; repeatable.")
@click.option("--slim", multiple=True, help="With --table: layers that may become slim, as for train; repeatable.")
@click.option("--keep", multiple=True, help="With --table: layers that keep their width, as for train; repeatable.")
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
    targets: tuple[str, ...],
    engine: str,
    executor: tuple[str, ...],
    duration: float,
    table: Path | None,
    model: str | None,
    image_size: tuple[int, int | None] | None,
    classes: int | None,
    model_option: tuple[str, ...],
    slim: tuple[str, ...],
    keep: tuple[str, ...],
    output: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure networks side by side: latency, time to load, first inference, parameters, MACs, bytes, memory.

    Without FILES: the one exported last, beside the full network of its run; where there is a GPU, both there as well.

    \b
    Examples:
      adjcompress bench
      adjcompress bench small.onnx small-int8.onnx full.onnx --threads 1,2 --batch 8
      adjcompress bench --target one-core --target two-core
      adjcompress bench --threads 2 --executor sequential --executor parallel
      adjcompress bench small.safetensors full.safetensors --engine torch
      adjcompress bench --table table.json --model resnet18 --image-size 32 --classes 100 --target one-core
    """
    import torch
    from adjcompress_cli.bench_table import Asked, bench_table
    from adjcompress_cli.main import refuse_with, refuse_without
    from adjcompress_cli.model_options import model_options

    from adjcompress.bench import benchmark
    from adjcompress.files import check_output, system_errors, write_text

    counts = _counts(threads)
    if targets:
        refuse_with("--target", "threads", "batch")
    if table is not None:
        _check_table(files, counts, targets)
        refuse_with("--table", "executor", "engine", "reference", "duration", "output")
        network = Asked(model, image_size, classes, model_options(model_option), slim, keep)
        bench_table(table, network, counts[0], batch, targets[0] if targets else None, as_json, quiet)
        return
    check_output(output, ".json", "the output", mark='"timings"')
    with system_errors(f"{output} could not be written"):
        output.parent.mkdir(parents=True, exist_ok=True)  # said before everything is measured
    refuse_without("--table", "model", "image_size", "classes", "model_option", "slim", "keep")
    packages: tuple[Path, ...] = ()
    if not files:
        files, reference, packages = _newest(engine, reference, quiet)
    cpu, gpu = _split(targets, engine)
    with working(quiet) as progress:
        report: BenchReport | None = None
        if cpu or not gpu:
            report = benchmark(
                files,
                reference,
                threads=counts,
                batch=batch,
                duration=duration,
                engine=engine,
                targets=cpu,
                executors=executor,
                progress=progress,
            )
        if gpu or (packages and not targets and torch.cuda.is_available()):
            report = _on_gpu(report, packages or (*files, *([reference] if reference else [])), duration)
    assert report is not None
    write_text(output, json.dumps(report.to_json(), indent=1) + "\n")
    _keep(report, [*files, *([reference] if reference else [])])
    for warning in report.warnings:
        if not quiet:
            warn(warning)
    show(report.to_json(), lambda: _print(report, output), as_json, quiet)


def _counts(threads: str) -> list[int]:
    from adjcompress.errors import AdjCompressError

    try:
        return [int(part) for part in threads.split(",")]
    except ValueError:
        raise AdjCompressError(f"--threads {threads!r}: numbers separated by commas are expected, such as 1,2.") from None


def _check_table(files: tuple[Path, ...], counts: list[int], targets: tuple[str, ...]) -> None:
    from adjcompress.errors import AdjCompressError

    if files:
        raise AdjCompressError("--table measures the layers of a network, not files: name the network with --model.")
    if len(counts) > 1 or len(targets) > 1:
        raise AdjCompressError("A table holds for one number of threads or one target: make one table for each.")


def _newest(engine: str, reference: Path | None, quiet: bool) -> tuple[tuple[Path, ...], Path | None, tuple[Path, ...]]:
    """The file made last, the full network of its run to compare with, and the packages of both."""
    from adjcompress.deploy import export_full, made, newest_onnx, newest_package
    from adjcompress.training import open_run

    by_package = engine == "torch"
    newest, trail = (newest_package() if by_package else newest_onnx()), made()
    packages = (Path(trail.package),) if trail.package else ()
    if trail.run is not None and reference is None:
        if not quiet:
            click.echo("The full network's file first, for comparison ...", err=True)
        full = export_full(open_run(Path(trail.run)))
        if full is not None:
            reference, packages = (full[0] if by_package else full[1]), (*packages, full[0])
    return (newest,), reference, packages


def _split(targets: tuple[str, ...], engine: str) -> tuple[tuple[str, ...], bool]:
    """Targets that a worker process measures, and whether torch measures on the GPU."""
    from adjcompress.bench import target

    cuda = [name for name in targets if target(name).provider == "cuda"]
    if engine != "torch":
        return targets, False
    return tuple(name for name in targets if name not in cuda), bool(cuda)


def _on_gpu(report: BenchReport | None, packages: tuple[Path, ...], duration: float) -> BenchReport:
    """Packages on the GPU with torch, as a report of their own or added to the CPU's."""
    from adjcompress.bench import BenchReport, benchmark_cuda, machine_facts

    packages = tuple(dict.fromkeys(packages))
    timings = benchmark_cuda(packages, duration)
    return report.with_timings(timings) if report else BenchReport(packages[-1], timings, machine_facts(), ())


def _keep(report: BenchReport, files: Sequence[Path]) -> None:
    """Keep timings with every run of which a file was timed, and bring its page up to date."""
    from adjcompress.bench import keep_timings
    from adjcompress.deploy import run_of
    from adjcompress.errors import AdjCompressError
    from adjcompress.report import write_report
    from adjcompress.training import open_run

    for run in dict.fromkeys(found for found in map(run_of, files) if found is not None):
        try:
            opened = open_run(run)
            keep_timings(opened, report)
            write_report(opened)
        except AdjCompressError as error:  # the figures are there, and are shown
            warn(str(error))


def _print(report: BenchReport, output: Path) -> None:
    columns = (
        "network",
        "on",
        "min / p50 / p90 / p99 ms",
        "times faster",
        "load",
        "first",
        "params",
        "MACs",
        "bytes",
        "memory",
    )
    rows = [
        (
            str(timing.path),
            timing.setting if timing.engine == "onnxruntime" else f"{timing.setting}, {timing.engine}",
            " / ".join(f"{getattr(timing.latency, name):.3g}" for name in ("min_ms", "p50_ms", "p90_ms", "p99_ms")),
            f"{timing.speedup.value:.2f} [{timing.speedup.low:.2f}, {timing.speedup.high:.2f}]",
            _milliseconds(timing.load_ms),
            _milliseconds(timing.first_ms),
            millions(timing.parameters),
            millions(timing.macs),
            f"{millions(timing.bytes)}B",
            f"{millions(timing.peak_memory_bytes)}B",
        )
        for timing in report.timings
    ]
    print_table(columns, rows)
    machine = report.machine
    click.echo(f"{machine.cpu}, {machine.cores} cores, ONNX Runtime {machine.versions['onnxruntime']}; figures in {output}")


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} ms"
