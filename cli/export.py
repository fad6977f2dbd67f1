"""adjcompress export: package -> ONNX."""

from __future__ import annotations

from pathlib import Path

import click
from adjcompress_cli.show import millions, output_options, percent, show


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option("package", "--from", type=click.Path(path_type=Path), help="The package. [default: the one extracted last]")
@click.option("--data", help="Images to compare on: a name, .npz or folder. [default: what it was trained on]")
@click.option("--opset", type=int, default=18, show_default=True, help="ONNX operator set.")
@click.option("--simplify", is_flag=True, help="Run onnx-simplifier on the graph.")
@click.option(
    "--tolerance",
    type=float,
    default=1e-4,
    show_default=True,
    help="Largest difference to torch, relative to the largest logit.",
)
@output_options
def export(
    output: Path,
    package: Path | None,
    data: str | None,
    opset: int,
    simplify: bool,
    tolerance: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Turn a package into one ONNX file, OUTPUT, with a dynamic batch and batch norms folded.

    Before the file is put in place, ONNX Runtime and torch run it on validation images; above the tolerance no file is left.

    \b
    Examples:
      adjcompress export model.onnx
      adjcompress export model.onnx --from small-alpha8.safetensors --simplify
    """
    from adjcompress.data import DataSpec, read_data
    from adjcompress.deploy import Made, export_package, made, newest_package, package_info, remember
    from adjcompress.errors import AdjCompressError

    source = package or newest_package()
    info = package_info(source)
    if data is None and info.data is None:
        raise AdjCompressError(f"{source} does not say which data it was trained on: give images to compare on with --data.")
    spec = DataSpec(data, info.preprocessing.image_size) if data is not None else info.data
    assert spec is not None
    try:
        images = read_data(spec)
    except AdjCompressError as error:
        raise AdjCompressError(f"{error} The export is compared with torch on real images: name some with --data.") from error
    report = export_package(source, output, images, opset=opset, simplify=simplify, tolerance=tolerance)
    before = made()
    remember(Made(run=before.run if before.package == str(source) else None, package=str(source), onnx=str(output)))

    def text() -> None:
        certificate = report.certificate
        click.echo(
            f"{report.path}: {millions(report.bytes)}B, opset {report.opset}, batch norms left: {report.batch_norms_left}"
        )
        click.echo(
            f"Certificate: largest difference to torch {certificate.max_difference:.2g} at logits up to "
            f"{certificate.scale:.3g}, top-1 agrees on {percent(certificate.agreement)} of {certificate.images} images."
        )
        if report.zeroed_weights:
            click.echo(f"{report.zeroed_weights} weights below 1e-30 were set to zero.")
        click.echo("Next: adjcompress bench")

    show(report.to_json(), text, as_json, quiet)
