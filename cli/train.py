"""adjcompress train: data -> run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from adjcompress_cli.image_size import ImageSize, Size
from adjcompress_cli.sections import Sectioned
from adjcompress_cli.show import output_options, percent, show, table, warn

# What belongs to the machine and the display, not to the training: it may differ when a run goes on.
_OF_THE_MACHINE = {"run", "resume", "device", "devices", "nodes", "precision", "compile", "as_json", "quiet"}

_SECTIONS = {
    "Network and images": "--model --model-option --weights --importance --new-classifier --data --image-size --ignore-label "
    "--validation --limit",
    "Method": "--method --alpha --slim --keep --align --plan",
    "Adjoined networks": "--way --schedule --weight --beta --detach --small-first --small-labels --growing --widen --trunk",
    "Budgets: dan, substitute, budgeted": "--budget --table --width-step --halves --search-epochs --keep-weights --machines "
    "--cost --samples-per-batch --warm-up",
    "Structured substitutes": "--substitute --setting --substitute-layers --dense-layers --weight-decay-scaling",
    "Teachers and baselines": "--teacher --attention --temperature --dropout --dropout-blocks",
    "Recipe": "--recipe --epochs --batch-size --lr --augmentation --label-smoothing --mixup --clip-norm --ema --seed",
}


@click.command(cls=Sectioned, sections={title: names.split() for title, names in _SECTIONS.items()})
@click.option(
    "--model",
    default="resnet18",
    show_default=True,
    help="A torchvision name, xresnet*, cifar_resnet*, wrn_DEPTH_WIDTH, darts, neural_fabric or resnet_fabric, timm:NAME, "
    "package.module:function, or package:FILE: the network in a package, with fresh weights (or with its own: --weights FILE).",
)
@click.option(
    "--data",
    default="digits",
    show_default=True,
    help="A data set by name, an .npz file, or a folder with train/ and test/: by class, or of images/ and labels/.",
)
@click.option(
    "--model-option", multiple=True, help="An argument of the network's constructor, such as drop_path=0.2; repeatable."
)
@click.option(
    "--method",
    default="adjoined",
    show_default=True,
    help="adjoined, dan (widths learnt under a budget), substitute (structured layers), budgeted (super network), or the "
    "baselines standard, dropout and distill (the small network, by a --teacher).",
)
@click.option(
    "--alpha",
    type=float,
    multiple=True,
    help="Full width / small width; repeat it for several small networks, or, with dan, for candidates. "
    "[default: 8; dan: 1 2 4 8; standard, dropout: none]",
)
@click.option(
    "--budget",
    multiple=True,
    help="dan: what the small network may cost: macs=0.45 (of the full's), params=1.8M, latency=9ms@one-core; repeatable. "
    "With --substitute: its parameters, params=1.2M. budgeted: macs, params, latency, cycles=16, or cost=0.5 of --cost.",
)
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    help="dan, budgeted: the latency table of a --budget latency, from adjcompress bench --table. "
    "[default: budgeted measures whole architectures]",
)
@click.option("--width-step", type=int, help="dan: every multiple of this many channels is a candidate, in place of --alpha.")
@click.option("--halves", is_flag=True, help="dan: learn weights and widths on different halves of the images.")
@click.option("--search-epochs", type=int, help="dan: epochs of the search. [default: a quarter of the recipe's]")
@click.option("--keep-weights", is_flag=True, help="dan: train on from the search's weights, not from scratch.")
@click.option(
    "--plan",
    type=click.Path(path_type=Path),
    help="Widths from a run's plan.json or config.json, in place of --alpha or a search; the data may be others.",
)
@click.option(
    "--slim",
    multiple=True,
    help="Layers that become slim: a name or pattern such as 'layer3.*'; repeatable. [default: as in the papers]",
)
@click.option("--keep", multiple=True, help="Layers that keep their width: a name or pattern; repeatable.")
@click.option(
    "--align",
    default="1",
    show_default=True,
    help="Kept channels are a multiple of this; auto: of the blocks that ONNX Runtime's convolutions use here.",
)
@click.option(
    "--substitute",
    help="Replace convolutions by low_rank, shuffle, tensor_train, aligned_tensor_train, tucker, hashed or acdc.",
)
@click.option(
    "--setting",
    type=float,
    help="Size of the substitutes: a part up to 1; shuffle: groups, acdc: layers. Or give --budget params=1.2M.",
)
@click.option(
    "--substitute-layers", multiple=True, help="Layers to replace: a name or pattern; repeatable. [default: as in the paper]"
)
@click.option("--dense-layers", multiple=True, help="Layers that are not replaced: a name or pattern; repeatable.")
@click.option(
    "--weight-decay-scaling",
    default="matrix",
    show_default=True,
    help="Weight decay of substitutes follows the compression of each (matrix), of the whole (network), or not (none).",
)
@click.option(
    "--teacher",
    type=click.Path(path_type=Path),
    help="substitute: learn where this network looks; distill: what it answers. A run, a package, or weights of --model.",
)
@click.option("--attention", help="With --teacher: layers to compare, such as layer2,layer3,layer4. [default: the stages]")
@click.option("--machines", type=int, default=1, show_default=True, help="budgeted: of the --budget cycles.")
@click.option("--cost", help="budgeted: what an architecture costs, package.module:function of the names of its nodes.")
@click.option(
    "--samples-per-batch", type=int, default=4, show_default=True, help="budgeted: architectures that a step's images share."
)
@click.option(
    "--warm-up", type=float, default=0.2, show_default=True, help="budgeted: part of the training with the whole network."
)
@click.option(
    "--way",
    help="adjoined: all networks from the first step on (papers), or the small ones first, then all (small-first), which sets "
    "--small-first, --small-labels, --detach, --widen and --trunk and takes 2.5 times a recipe's epochs, most of them cheap. "
    "[default: small-first with recipes quick and cifar, but not with --weights, --beta, --substitute, "
    "or another --schedule or --weight]",
)
@click.option(
    "--beta",
    type=float,
    default=0.0,
    show_default=True,
    help="Part of the slim layers' weights set to zero at random (r_beta).",
)
@click.option(
    "--schedule",
    default="quadratic",
    show_default=True,
    help="Weight of the divergence over time: quadratic, linear, cosine, exponential, constant.",
)
@click.option(
    "--detach/--no-detach",
    default=None,
    help="Stop the divergence's gradient into the full network; the papers do not. [default: by --way]",
)
@click.option("--weight", type=float, default=1.0, show_default=True, help="Weight of the divergence: adjoined, dan, distill.")
@click.option(
    "--small-first",
    type=float,
    help="adjoined, dan: part of the training in which the small networks learn alone, from labels. "
    "[default: 0.8 or 0, by --way; dan: 0]",
)
@click.option(
    "--small-labels",
    type=float,
    help="adjoined, dan: part of the small networks' loss that is cross-entropy; the rest is the divergence. "
    "[default: 0.5 or 0, by --way; dan: 0]",
)
@click.option("--growing", is_flag=True, help="With --small-first and several --alpha: the smallest begins, others join.")
@click.option(
    "--widen",
    help="With --small-first: the full network joins as it is (fresh), or computing what the small one does (zeros, copies). "
    "auto: copies, where they fit. [default: auto by --way small-first, but fresh with --weights; else fresh]",
)
@click.option(
    "--trunk",
    help="adjoined, dan: layers before the first slim one are each network's own, or computed once for all (shared). auto: "
    "shared, where it fits. [default: auto or own, by --way; dan: own]",
)
@click.option("--temperature", type=float, default=1.0, show_default=True, help="distill: of both networks' answers.")
@click.option("--dropout", type=float, default=0.5, show_default=True, help="dropout: rate before the classifier.")
@click.option("--dropout-blocks", type=float, default=0.0, show_default=True, help="dropout: rate after every block.")
@click.option(
    "--recipe",
    default="quick",
    show_default=True,
    help="quick or cifar; or a paper's: papers-cifar or imagenet of adjoined networks, substitutes-cifar, substitutes-darts or "
    "substitutes-imagenet, supernets-cifar or supernets-segmentation.",
)
@click.option(
    "--epochs",
    type=int,
    help="Epochs in all, in place of the recipe's. By --way small-first the full network has the last fifth of them, and 2.5 "
    "times as many epochs cost what they do by --way papers.",
)
@click.option("--batch-size", type=int, help="Images in a step of one process, in place of the recipe's.")
@click.option("--lr", type=float, help="Highest learning rate, in place of the recipe's.")
@click.option(
    "--augmentation",
    help="In place of the recipe's: none, crop-flip, crop2-flip, crop-flip-cutout, papers-cifar, papers-pets, papers-imagenet.",
)
@click.option("--label-smoothing", type=float, help="Part of the labels spread over all classes.")
@click.option("--mixup", type=float, help="Mix images and labels of a batch, at parts from Beta(mixup, mixup); 0.2 is usual.")
@click.option("--clip-norm", type=float, help="Largest gradient norm.")
@click.option("--ema", type=float, help="Average the weights with this decay per step, and deploy the average.")
@click.option(
    "--image-size",
    type=ImageSize(),
    help="Side of the images in pixels; for segmentation also height x width, 180x240. [default: their own; 224 for files]",
)
@click.option(
    "--ignore-label", type=int, default=255, show_default=True, help="Segmentation: pixels of this label count for nothing."
)
@click.option(
    "--validation",
    type=float,
    default=0.1,
    show_default=True,
    help="Part of the training split held out for validation, of data that has no such split.",
)
@click.option("--limit", type=int, help="Use about this many images of each split: for a first try.")
@click.option("--weights", type=click.Path(path_type=Path), help="Start from a trained state dict or package.")
@click.option(
    "--importance",
    help="With --weights: small networks keep the channels that matter most, by magnitude or batch-norm. [default: the first]",
)
@click.option("--new-classifier", is_flag=True, help="With --weights: the last layer starts afresh.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of weights, order, draws, masks and held-out images."
)
@click.option("--run", type=click.Path(path_type=Path), help="Folder of the run. [default: runs/<data>-<model>-<method>]")
@click.option("--resume", is_flag=True, help="Go on with --run, or with the newest run.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--devices",
    type=int,
    default=1,
    show_default=True,
    help="Processes on this machine; torchrun sets it itself, --resume takes the run's.",
)
@click.option("--nodes", type=int, default=1, show_default=True, help="Machines; torchrun sets it itself.")
@click.option("--precision", default="32", show_default=True, help="32, bf16 or 64; with --resume the run's own.")
@click.option(
    "--compile",
    is_flag=True,
    help="torch.compile the network (not in the part of --small-first); --resume does if the run did.",
)
@output_options
@click.pass_context
def train(ctx: click.Context, as_json: bool, quiet: bool, **options: Any) -> None:
    """Train a network and the small ones inside its weights.

    Writes a run: config.json, log.jsonl, checkpoints, and results.json with the accuracy on the test split, looked at once.

    \b
    Examples:
      adjcompress train
      adjcompress train --data cifar100.npz --model resnet18 --alpha 8 --recipe cifar
      adjcompress train --data photos/ --model mobilenet_v2 --alpha 2 --alpha 4 --image-size 64 --align auto
      adjcompress train --method dan --budget macs=0.45
      adjcompress train --method substitute --substitute low_rank --budget params=1.2M --teacher runs/digits-resnet18-standard
      adjcompress train --method budgeted --model resnet_fabric --budget macs=0.25
      adjcompress train --method budgeted --model neural_fabric --data camvid/ --ignore-label 11 --budget macs=0.4
      adjcompress train --resume
      torchrun --nproc-per-node=2 --no-python adjcompress train --data cifar10
    """
    from adjcompress_cli.main import given
    from adjcompress_cli.progress import ProgressReporter
    from adjcompress_cli.train_options import settled, train_options

    from adjcompress.report import write_report
    from adjcompress.training import Hardware, Reporter, begun_run, hardware_of, resume
    from adjcompress.training import train as train_anew
    from adjcompress.training.run import PLAN

    if options["resume"]:
        before = hardware_of(begun_run(options["run"]))
        own = {
            "precision": before.precision,
            "compile": before.compile,
            "devices": max(1, before.devices // max(1, options["nodes"])),
        }
        options |= {name: value for name, value in own.items() if not given(ctx, name)}
    hardware = Hardware(**{name: options[name] for name in ("device", "devices", "nodes", "precision", "compile")})
    by_default = options["way"] is None
    if not options["resume"]:
        options = settled(options)
    first = options["small_first"] if options["way"] == "small-first" else 0.0
    reporter: Reporter = Reporter() if quiet else ProgressReporter(first, by_default)
    try:
        if options["resume"]:
            _refuse_changes(ctx, options["run"])
            run = resume(options["run"], hardware, reporter)
        else:
            notes = {"options": {name: _plain(value) for name, value in options.items() if name not in _OF_THE_MACHINE}}
            run = train_anew(train_options(options), options["run"], hardware, reporter, notes)
    except KeyboardInterrupt:
        if isinstance(reporter, ProgressReporter) and reporter.run is not None:
            warn(f"Stopped. adjcompress train --resume --run {reporter.run} goes on with it.")
        raise
    finally:
        if isinstance(reporter, ProgressReporter):
            reporter.close()
    if _is_first_process():
        page = write_report(run)
        results = {"run": str(run.folder), "report": str(page), **(run.results() or {})}
        if (run.folder / PLAN).is_file():
            results["search"] = json.loads((run.folder / PLAN).read_text())["search"]

        def text() -> None:
            columns = {"accuracy": percent, "mean_iou": percent, "loss": "{:.4f}".format}
            scores = results["test"]
            shown = {column: word for column, word in columns.items() if all(column in score for score in scores.values())}
            rows = [(name, *(word(score[column]) for column, word in shown.items())) for name, score in scores.items()]
            table(("test split", *(column.replace("_", " ").replace("iou", "IoU") for column in shown)), rows)
            if "search" in results:
                _show_search(results["search"], run.folder / PLAN)
            click.echo(f"Run: {run.folder}, report: {page}. Next: adjcompress extract")

        show(results, text, as_json, quiet)


def _show_search(search: dict[str, Any], plan: Path) -> None:
    """What the widths that were found cost, beside what they might."""
    parts = [f"{name} {cost / search['full'][name]:.3f}" for name, cost in search["costs"].items()]
    click.echo(f"Widths: {plan}; of the full network's {', '.join(parts)}; asked: {', '.join(search['budgets'])}")
    for told in ("shortcoming", "doubt"):
        if search.get(told):
            click.echo(search[told])


def _refuse_changes(ctx: click.Context, folder: Path | None) -> None:
    """A run goes on as it began: options given again must say the same."""
    from adjcompress_cli.main import given

    from adjcompress.errors import AdjCompressError
    from adjcompress.training import begun_run

    run = begun_run(folder)
    before = {"way": "papers", **(run.config.get("notes") or {}).get("options", {})}  # there was no other once
    for name, value in ctx.params.items():
        if given(ctx, name) and name not in _OF_THE_MACHINE and str(before.get(name)) != str(_plain(value)):
            option = f"--{name.replace('_', '-')}"
            raise AdjCompressError(
                f"{run.folder} was started with {option} {before.get(name)}; --resume cannot change it to {_plain(value)}. "
                f"Leave {option} out, or train a new --run."
            )


def _plain(value: Any) -> Any:
    """An option's value as JSON keeps it."""
    if isinstance(value, Size):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _is_first_process() -> bool:
    import torch

    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
