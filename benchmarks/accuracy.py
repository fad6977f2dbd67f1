"""Claim: which way of training gives the best small network, and the best full one, at equal epochs and at equal cost.

Every way has the same network, data, recipe and evaluation, so that they differ in what their row says alone. Cost is counted
in multiply-adds of training; where a row has the adjoined run's, its epochs are as many as that buys. Protocols:

    cpu       ResNet-18, 7x7 stem, on 20,000 images of CIFAR-100 less the tenth that is held out; 40 epochs of SGD; alpha 8
    gpu       ResNet-50 on CIFAR-100 less that tenth, by the papers' recipe, 150 epochs; alphas 4, 8 and 16; compiled
    finetune  CIFAR ResNet-56 from trained weights (--weights) on 30,000 images of CIFAR-10; 10 epochs; alpha 2
    gpu-resnet18, gpu-xresnet50 and gpu-xresnet18 are gpu of other networks and stems, finetune-resnet20 finetune of another

    python benchmarks/accuracy.py train --protocol cpu --data cifar100-20k.npz --part 0/2      # and --part 1/2
    python benchmarks/accuracy.py train --protocol cpu --data cifar100-20k.npz --only standard 'first*' --seed 1
    python benchmarks/accuracy.py measure --protocol cpu --data cifar100-20k.npz

Trainings are kept in --folder and resumed; with --minutes a call ends after the epoch in which these are over, and the next
goes on. `measure` takes all seeds and ways that it finds there and writes results/accuracy_<protocol>.json and .svg (with
--epochs a result of their own) and accuracy.md, which has all that was measured. With --add the result keeps its timings, and
the rows of ways and seeds that are not in --folder; the new ones are marked, for their seconds are another machine's.
"""

from __future__ import annotations

import argparse
import json
import time
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from accuracy_page import write_page
from accuracy_plot import plot
from accuracy_ways import PROTOCOLS, TEACHER, result_name, ways
from record import RESULTS, record
from torch import nn
from training import differing, timed, trained

import adjcompress as ac
from adjcompress.data import DataSpec, read_data
from adjcompress.methods import AdjoinedMethod, DistillMethod
from adjcompress.training import Recipe, TrainOptions, evaluate_split


def data_of(arguments: argparse.Namespace) -> DataSpec:
    """The images, of which a tenth is held out."""
    return DataSpec(arguments.data, limit=arguments.limit)


class Job:
    """The trainings of one protocol, each way and seed in a folder of its own."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.protocol = PROTOCOLS[arguments.protocol]
        self.ways = ways(self.protocol)
        self.folder: Path = arguments.folder / arguments.protocol

    def train_all(self) -> None:
        arguments, began = self.arguments, time.monotonic()
        deadline = began + 60 * arguments.minutes if arguments.minutes else None
        part, parts = map(int, arguments.part.split("/"))
        names = [name for name in self.ways if any(fnmatchcase(name, pattern) for pattern in arguments.only)]
        if not names:
            raise SystemExit(f"--only {' '.join(arguments.only)} matches no way. Ways: {', '.join(self.ways)}.")
        for name in names[part::parts]:
            trained(
                self.folder / f"{name}-seed{arguments.seed}",
                partial(self.asked, name),
                deadline,
                self.protocol.compile,
            )

    def recipe(self, name: str) -> Recipe:
        """By which the way `name` is trained."""
        way, base = self.ways[name], self.protocol.recipe
        return base.changed(epochs=round((self.arguments.epochs or base.epochs) * way.longer), **way.recipe)

    def asked(self, name: str) -> TrainOptions:
        """What the way `name` asks of a training."""
        arguments, way = self.arguments, self.ways[name]
        teacher = None
        if way.method == "distill":
            teacher = arguments.weights if self.protocol.weighted else self.folder / f"{TEACHER}-seed{arguments.seed}"
            if not self.protocol.weighted and not (teacher / "results.json").is_file():
                raise SystemExit(f"{name} is taught by {teacher}, which is not finished: train that first, --only {TEACHER}.")
        return TrainOptions(
            model=self.protocol.model,
            data=data_of(arguments),
            method=way.method,
            method_options=way.options,
            recipe=self.recipe(name),
            seed=arguments.seed,
            weights=arguments.weights if self.protocol.weighted else None,
            importance=way.importance,
            teacher=teacher,
        )


def measure(job: Job) -> None:
    """Gather every run, time the networks that came out side by side, and write what was found."""
    data = read_data(data_of(job.arguments))
    rows, networks = rows_of(job, data)
    name = result_name(job.arguments.protocol, job.arguments.epochs or job.protocol.recipe.epochs)
    figures = {
        "protocol": job.arguments.protocol,
        "model": job.protocol.model,
        "small": f"alpha{job.protocol.alpha:g}",
        "images": len(data.train),
        "recipe": job.protocol.recipe.changed(epochs=job.arguments.epochs).to_json(),
        "protocols_epochs": job.protocol.recipe.epochs,
    }
    if job.arguments.add:
        earlier = json.loads((RESULTS / f"{name}.json").read_text())["figures"]
        other = differing(earlier, figures)
        if other:
            raise SystemExit(f"{name}.json is of another {', '.join(other)}: rows of both cannot stand in one table.")
        new = {(row["way"], row["seed"]) for row in rows}
        kept = [row for row in earlier["rows"] if (row["way"], row["seed"]) not in new]
        rows = kept + [row | {"added": True} for row in rows]
        timing, rounds = {key: earlier[key] for key in ("p50_ms", "bytes")}, ""
    else:
        found = timed(networks, job.folder, data.preprocessing.example(7), job.arguments.duration)
        timing = {key: {label: each[key] for label, each in found.items()} for key in ("p50_ms", "bytes")}
        rounds = f"; {next(iter(found.values()))['rounds']} rounds"
    figures |= timing
    figures["rows"] = rows
    figures["not_run"] = {name: way.words for name, way in job.ways.items() if name not in {row["way"] for row in rows}}
    figures["words"] = {name: way.words for name, way in job.ways.items()}
    seeds = ", ".join(map(str, sorted({row["seed"] for row in rows})))
    record(name, figures, f"seeds {seeds}{rounds}", added=job.arguments.add)
    plot(figures, RESULTS / f"{name}.svg")
    write_page()


def rows_of(job: Job, data: ac.ImageData) -> tuple[list[dict[str, Any]], dict[str, nn.Module]]:
    """A row for every finished run, and one of each network that came out."""
    example = data.preprocessing.example(2)
    rows: list[dict[str, Any]] = []
    networks: dict[str, nn.Module] = {}
    for folder in sorted(path.parent for path in job.folder.glob("*-seed*/results.json")):
        name, _, seed = folder.name.rpartition("-seed")
        if name not in job.ways:
            continue
        run = ac.open_run(folder)
        if Recipe(**run.config["recipe"]) != job.recipe(name):
            raise SystemExit(f"{folder} was trained by another recipe: give its --epochs, or another --folder.")
        if [len(split) for split in (run.data().train, run.data().test)] != [len(split) for split in (data.train, data.test)]:
            raise SystemExit(f"{folder} was trained on other images: give its --data and --limit.")
        method, results = run.method(), run.ended()
        counts = {label: ac.count(network, example) for label, network in method.deployables().items()}
        for label, network in method.deployables().items():
            networks.setdefault(label, network)
        rows.append(
            {
                "way": name,
                "seed": int(seed),
                "epochs": results["epochs"],
                "images": results["epochs"] * len(data.train),
                "training_macs": training_macs(method, run, data),
                "seconds": results["seconds"],
                "precision": run.config["precision"],
                "test": {label: score["accuracy"] for label, score in results["test"].items()},
                "networks": {label: {"parameters": count.parameters, "macs": count.macs} for label, count in counts.items()},
                "curve": [curve_point(record) for record in run.log()],
                "measured_anew": measured_anew(run, data) if name.startswith("adjoined") else {},
            }
        )
        print(folder.name, {label: f"{100 * value:.2f}" for label, value in rows[-1]["test"].items()}, flush=True)
    return rows, networks


def measured_anew(run: ac.Run, data: ac.ImageData) -> dict[str, list[float]]:
    """Top-1 on validation of every small network of an adjoined run, as it is and with its batch norms measured anew."""
    found = {}
    for label in (label for label in run.method().deployables() if label != "full"):
        both = []
        for anew in (False, True):
            package = ac.extract_package(run, label, run.folder / "package.safetensors", reestimate=anew).path
            both.append(evaluate_split({label: ac.load_package(package)}, data, data.validation)[label].accuracy)
        found[label] = both
    return found


def curve_point(epoch: dict[str, Any]) -> dict[str, Any]:
    """An epoch's line of the log: seconds so far, and of every network what validation says."""
    scores = epoch["validation"]
    return {
        "seconds": epoch["seconds"],
        "accuracy": {label: round(score["accuracy"], 4) for label, score in scores.items()},
        "loss": {label: round(score["loss"], 4) for label, score in scores.items()},
    }


def training_macs(method: Any, run: ac.Run, data: ac.ImageData) -> float:
    """Multiply-adds of a whole training: three times a forward pass's for each image and network that learns.

    A teacher's forward passes count, its own training does not. A shared trunk counts once, though compiled its backward pass
    runs for every network.
    """
    example, results = data.preprocessing.example(2), run.ended()
    counts = {label: ac.count(network, example) for label, network in method.deployables().items()}
    seen = len(data.train) * results["epochs"]
    if not isinstance(method, AdjoinedMethod):
        taught = ac.count(run.model.build(), example).macs if isinstance(method, DistillMethod) else 0
        return seen * (3 * sum(count.macs for count in counts.values()) + taught)
    full = counts.pop("full")
    trunk = full.macs_of(method.network.trunk)
    first, order = method.curriculum.small_first, method.by_size
    together = full.macs + sum(count.macs - trunk for count in counts.values())
    steps = (
        [len(method.curriculum.joined(order, first * (step + 0.5) / len(order))) for step in range(len(order))] if first else []
    )
    alone = mean(trunk + sum(counts[name].macs - trunk for name in order[:joined]) for joined in steps) if steps else 0.0
    return 3 * seen * (first * alone + (1 - first) * together)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "measure"])
    parser.add_argument("--protocol", choices=PROTOCOLS, default="cpu")
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=int, help="about so many training images, of a set that is read by its name")
    parser.add_argument("--weights", type=Path, help="finetune: where it starts")
    parser.add_argument("--only", nargs="+", default=["*"], help="train: ways of these names or patterns, 'first*'")
    parser.add_argument("--part", default="0/1", help="train: every n-th of the ways, k/n")
    parser.add_argument("--minutes", type=float, help="train: stop after the epoch in which these are over")
    parser.add_argument("--epochs", type=int, help="in place of the protocol's: for a first try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", action="store_true", help="measure: keep the result's other rows, and its timings")
    parser.add_argument("--duration", type=float, default=20.0)
    parser.add_argument("--folder", type=Path, default=Path("accuracy"))
    arguments = parser.parse_args()
    if PROTOCOLS[arguments.protocol].weighted and arguments.what == "train" and arguments.weights is None:
        parser.error(f"--protocol {arguments.protocol} starts from trained weights: give --weights")
    job = Job(arguments)
    job.train_all() if arguments.what == "train" else measure(job)


if __name__ == "__main__":
    main()
