"""adjcompress export: package -> ONNX."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from adjcompress_cli.show import millions, output_options, percent, show, working

if TYPE_CHECKING:
    from adjcompress.data import ImageData
    from adjcompress.deploy import ExportReport


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option("package", "--from", type=click.Path(path_type=Path), help="The package. [default: the one extracted last]")
@click.option("--data", help="Images to compare on: a name, .npz or folder. [default: what it was trained on]")
@click.option("--opset", type=int, default=18, show_default=True, help="ONNX operator set.")
@click.option("--simplify", is_flag=True, help="Run onnx-simplifier on the graph.")
@click.option("--preprocess", is_flag=True, help="The file takes raw pixels, uint8 (N, H, W, 3), and normalises inside.")
@click.option("--fp16", is_flag=True, help="Half precision inside: half the bytes; for GPUs, a CPU computes in float32.")
@click.option("--external-data", is_flag=True, help="Keep the weights in a second file, OUTPUT.data.")
@click.option(
    "--materialise",
    is_flag=True,
    help="Write reconstructed layers as dense weights: a larger file that runs the same.",
)
@click.option(
    "--tolerance",
    type=float,
    help="Largest difference to torch, relative to the largest logit. [default: 1e-4; 1e-2 with --fp16]",
)
@click.option("--int8", is_flag=True, help="Quantise to 8 bits, and check the accuracy on the validation split.")
@click.option(
    "--calibration", type=int, default=256, show_default=True, help="Training images that show the ranges, for --int8."
)
@click.option("--max-drop", type=float, default=1.0, show_default=True, help="Points of accuracy that --int8 may cost.")
@click.option(
    "--int8-keep",
    multiple=True,
    help="A layer that stays in float: a name or pattern, repeatable; or auto: as few as keep within --max-drop.",
)
@click.option(
    "--int8-for", default="auto", show_default=True, help="The processor it will run on: x64, arm64, auto (this one's kind)."
)
@click.option(
    "--ranges",
    default="auto",
    show_default=True,
    help="For --int8, what is kept of an activation: extremes, average (clips what is rare), auto: the second where needed.",
)
@output_options
def export(
    output: Path,
    package: Path | None,
    data: str | None,
    opset: int,
    simplify: bool,
    preprocess: bool,
    fp16: bool,
    external_data: bool,
    materialise: bool,
    tolerance: float | None,
    int8: bool,
    calibration: int,
    max_drop: float,
    int8_keep: tuple[str, ...],
    int8_for: str,
    ranges: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Turn a package into one ONNX file, OUTPUT, with a dynamic batch and batch norms folded.

    Before the file is put in place, ONNX Runtime and torch run it on validation images; above the tolerance no file is left.
    With --int8 the whole validation split is run too, and a file that lost more than --max-drop is not written.

    \b
    Examples:
      adjcompress export model.onnx
      adjcompress export model-int8.onnx --int8 --calibration 512
      adjcompress export model.onnx --from small-alpha8.safetensors --preprocess
    """
    from adjcompress_cli.main import refuse_without

    from adjcompress.deploy import (
        ExportOptions,
        Int8Options,
        Made,
        export_package,
        newest_package,
        remember,
        run_of,
    )
    from adjcompress.report import write_report
    from adjcompress.training import open_run

    if not int8:
        refuse_without("--int8", "calibration", "max_drop", "int8_keep", "int8_for", "ranges")
    source = package or newest_package()
    images = _images(source, data)
    options = ExportOptions(opset, simplify, tolerance, preprocess, fp16, external_data, materialise)
    quantised = Int8Options(calibration, max_drop, int8_keep, int8_for, ranges) if int8 else None
    with working(quiet or not int8) as progress:
        report = export_package(source, output, images, options, quantised, progress)
    run = run_of(source)
    remember(Made(run=str(run) if run else None, package=str(source), onnx=str(output)))
    if run is not None:
        write_report(open_run(run))
    show(report.to_json(), lambda: _print(report), as_json, quiet)


def _images(source: Path, data: str | None) -> ImageData:
    """The data that the export is compared on: what the package was trained on, unless the user says otherwise."""
    from adjcompress.data import DataSpec, read_data
    from adjcompress.errors import AdjCompressError
    from adjcompress.packages import package_info

    info = package_info(source)
    if data is None and info.data is None:
        raise AdjCompressError(f"{source} does not say which data it was trained on: give images to compare on with --data.")
    spec = info.data
    if data is not None:  # held out as they were for the training, where it is the same data
        height, width = info.preprocessing.image_size, info.preprocessing.width
        spec = replace(info.data or DataSpec(data), source=data, image_size=height, width=width)
    assert spec is not None
    try:
        return read_data(spec)
    except AdjCompressError as error:
        raise AdjCompressError(f"{error} The export is compared with torch on real images: name some with --data.") from error


def _print(report: ExportReport) -> None:
    certificate, int8 = report.certificate, report.int8
    click.echo(
        f"{report.path}: {millions(report.bytes)}B, {report.kind}, opset {report.options.opset}, "
        f"batch norms left: {report.batch_norms_left}"
    )
    click.echo(
        f"Certificate: largest difference to torch {certificate.max_difference:.2g} at logits up to "
        f"{certificate.scale:.3g}, top-1 agrees on {percent(certificate.agreement)} of {certificate.images} images."
    )
    if report.zeroed_weights:
        click.echo(f"{report.zeroed_weights} weights below 1e-30 were set to zero.")
    if int8 is not None:
        dense = " with dense weights" if report.reconstructed else ""
        click.echo(
            f"int8: {percent(int8.accuracy)} on {int8.validation_images} validation images, {percent(int8.float_accuracy)} in "
            f"float, a drop of {int8.drop_points:.2f} points (at most {int8.max_drop_points:g}); top-1 agrees on "
            f"{percent(int8.certificate.agreement)}. {int8.float_bytes / report.bytes:.2f}x smaller than in float{dense}."
        )
        for layer in int8.float_layers:
            click.echo(f"  in float: {layer.name} - {layer.why}")
    if report.reconstructed:
        saved = sum(layer.dense_bytes - layer.bytes for layer in report.reconstructed)
        click.echo(
            f"{len(report.reconstructed)} layers are stored as what their weights are made of, {millions(saved)}B less; ONNX "
            "Runtime makes the weights at load. A simplifier run on this file would bake them in."
        )
    for unblocked in report.unblocked:
        click.echo(f"  slow here: {unblocked}")
    if report.unblocked:
        click.echo("Plan with --align auto: ONNX Runtime runs the other convolutions in blocks of channels.")
    click.echo("Next: adjcompress bench")
