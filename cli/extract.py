"""adjcompress extract: run -> package."""

from __future__ import annotations

from pathlib import Path

import click
from adjcompress_cli.show import millions, output_options, percent, show, table


@click.command()
@click.option("--run", type=click.Path(path_type=Path), help="Folder of the run. [default: the newest]")
@click.option("--alpha", type=float, help="Which small network: full width / alpha; 1 is the full one. [default: the only one]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The package. [default: small-<network>.safetensors, full.safetensors]",
)
@click.option("--reestimate", is_flag=True, help="Measure its batch norms anew, on 5,000 training images.")
@output_options
def extract(run: Path | None, alpha: float | None, output: Path | None, reestimate: bool, as_json: bool, quiet: bool) -> None:
    """Cut the small network out of a run, as a dense network in one safetensors file.

    Its logits are compared with those of the network in training on validation images; they must be equal.

    \b
    Examples:
      adjcompress extract
      adjcompress extract --alpha 8
      adjcompress extract --run runs/cifar100-resnet18-adjoined --alpha 4 -o small.safetensors
    """
    from adjcompress.deploy import Made, extract_package, remember
    from adjcompress.methods import alpha_name
    from adjcompress.report import write_report
    from adjcompress.training import open_run

    opened = open_run(run)
    report = extract_package(opened, alpha_name(alpha) if alpha is not None else None, output, reestimate)
    remember(Made(run=str(opened.folder), package=str(report.path)))
    write_report(opened)

    def text() -> None:
        package, certificate = report.package, report.certificate
        fewer, less = report.full_parameters / package.parameters, report.full_macs / package.macs
        rows = [
            ("parameters", millions(package.parameters), millions(report.full_parameters), f"{fewer:.2f}x"),
            ("MACs", millions(package.macs), millions(report.full_macs), f"{less:.2f}x"),
        ]
        table((str(report.path), package.name, report.beside, f"{report.beside} / {package.name}"), rows)
        scores = {"accuracy": package.accuracy["test"], "mean IoU": package.accuracy.get("test mean IoU")}
        said = ", ".join(f"{name} {percent(score)}" for name, score in scores.items() if score is not None)
        click.echo(f"On the test split: {said}")
        click.echo(
            f"Certificate: largest difference to the network in training {certificate.max_difference:g} "
            f"on {certificate.images} validation images."
        )
        if report.reestimated is not None:
            click.echo(
                "Its batch norms were then measured anew, on training images: "
                f"top-1 agrees on {percent(report.reestimated.agreement)} of these images."
            )
        if report.unfinished is not None:
            click.echo(f"This training has not ended: {report.unfinished}")
        click.echo("Next: adjcompress export model.onnx")

    show(report.to_json(), text, as_json, quiet)
