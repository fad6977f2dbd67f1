"""Claim: which way of training gives the best small network, and the best full one, at equal epochs and at equal cost.

Every way has the same network, data, recipe and evaluation, so that they differ in what their row says alone. Cost is counted
in multiply-adds of training; where a row has the adjoined run's, its epochs are as many as that buys. Protocols:

    cpu       ResNet-18, 7x7 stem, on 20,000 images of CIFAR-100 less the tenth that is held out; 40 epochs of SGD; alpha 8
    gpu       ResNet-50 on all of CIFAR-100 by the papers' recipe, 150 epochs; alphas 4, 8 and 16; compiled
    finetune  CIFAR ResNet-56 from trained weights (--weights) on 30,000 images of CIFAR-10; 10 epochs; alpha 2

    python benchmarks/accuracy.py train --protocol cpu --data cifar100-20k.npz --part 0/2      # and --part 1/2
    python benchmarks/accuracy.py train --protocol cpu --data cifar100-20k.npz --only standard 'first*' --seed 1
    python benchmarks/accuracy.py measure --protocol cpu --data cifar100-20k.npz

Trainings are kept in --folder and resumed; with --minutes a call ends after the epoch in which these are over, and the next
goes on. `measure` takes all seeds and ways that it finds there and writes results/accuracy_<protocol>.json and .svg and
accuracy.md, which has the protocols that were measured.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from record import RESULTS, record
from training import trained

import adjcompress as ac
from adjcompress.data import DataSpec, read_data
from adjcompress.files import write_text
from adjcompress.methods import AdjoinedMethod, DistillMethod, MethodOptions
from adjcompress.training import Recipe, TrainOptions, evaluate_split, recipe

TEACHER = "standard"
FIRST = 0.8  # the part of the training in which the small network learns alone, where it learns first


@dataclass(frozen=True)
class Protocol:
    """On what, and by which recipe, the ways are compared; `alphas` are those that the papers' way is run at."""

    model: str
    recipe: Recipe
    alphas: tuple[float, ...]
    classes: int = 100
    compile: bool = False
    weighted: bool = False

    @property
    def alpha(self) -> float:
        """That of the ways that go beyond the papers."""
        return self.alphas[len(self.alphas) // 2]


PROTOCOLS = {
    "cpu": Protocol("resnet18", recipe("cifar"), (8.0,)),
    "gpu": Protocol("resnet50", recipe("papers-cifar"), (4.0, 8.0, 16.0), compile=True),
    "finetune": Protocol("cifar_resnet56", recipe("cifar").changed(epochs=10, lr=0.02), (2.0,), classes=10, weighted=True),
}


@dataclass(frozen=True)
class Way:
    """One way to train: what differs from the protocol, and in words what it is. `longer`: times the protocol's epochs."""

    words: str
    method: str
    options: MethodOptions
    longer: float = 1.0
    recipe: Mapping[str, Any] = field(default_factory=dict)
    importance: str | None = None


@dataclass(frozen=True)
class Sizes:
    """Multiply-adds of the full network, of the small one, and of the layers before the first slim one, which both have."""

    full: int
    small: int
    trunk: int

    @classmethod
    def of(cls, protocol: Protocol, alpha: float) -> Sizes:
        network, example = ac.create_model(protocol.model, protocol.classes), torch.zeros(2, 3, 32, 32)
        plan = ac.plan_widths(network, example, alpha)
        whole = ac.count(network, example)
        parts = tuple(f"{part}." for part in ac.trunk_of(network, [plan], example))
        trunk = sum(layer.macs for layer in whole.per_layer if f"{layer.name}.".startswith(parts))
        return cls(whole.macs, ac.count(ac.slice_model(network, plan), example).macs, trunk)

    def longer(self, each: float) -> float:
        """For how many times the epochs a way may train whose images cost `each`, for what the papers' way costs."""
        return (self.full + self.small) / each

    @property
    def first(self) -> float:
        """What an image costs where the small network learns first, with a shared trunk."""
        return FIRST * self.small + (1 - FIRST) * (self.full + self.small - self.trunk)


def ways(protocol: Protocol) -> dict[str, Way]:
    """The ways by name, in the order of what each decides."""
    alpha = protocol.alpha
    sizes, one, papers = Sizes.of(protocol, alpha), MethodOptions(alphas=(alpha,)), {}
    for each in protocol.alphas:
        papers[f"adjoined{each:g}"] = Way(
            f"adjoined, alpha {each:g}: the papers' way", "adjoined", MethodOptions(alphas=(each,))
        )
    own = replace(one, small_labels=0.5, detach=True)
    found = {
        TEACHER: Way("full network alone", "standard", MethodOptions()),
        "standard-longer": Way(
            "full network alone, at the adjoined run's cost", "standard", MethodOptions(), sizes.longer(sizes.full)
        ),
        **papers,
        "small": Way("small network alone, equal epochs", "standard", one),
        "small-longer": Way("small network alone, at the adjoined run's cost", "standard", one, sizes.longer(sizes.small)),
        "distill": Way("small network taught by the full one that was trained alone", "distill", one),
        "trunk": Way("adjoined, trunk shared", "adjoined", replace(one, trunk="shared")),
        **{f"first-{widen}": _first(own, widen, sizes) for widen in ("copies", "fresh", "zeros")},
        "dropout": Way("full network alone, dropout before the classifier", "dropout", MethodOptions()),
        "labels": Way("adjoined, half of the small network's loss from labels", "adjoined", replace(one, small_labels=0.5)),
        "detached": Way("adjoined, targets detached", "adjoined", replace(one, detach=True)),
        "labels-detached": Way("adjoined, half from labels, targets detached", "adjoined", own),
        **{
            name: Way(f"adjoined, {name} schedule", "adjoined", replace(one, schedule=name))
            for name in ("linear", "cosine", "exponential")
        },
        "smoothing": Way("adjoined, labels smoothed by 0.1", "adjoined", one, recipe={"label_smoothing": 0.1}),
        "mixup": Way("adjoined, mixup 0.2", "adjoined", one, recipe={"mixup": 0.2}),
        "sandwich": Way("adjoined, alphas 4, 8 and 16 in one run", "adjoined", MethodOptions(alphas=(4.0, 8.0, 16.0))),
        "growing": Way(
            "small networks first, alphas 16, 8 and 4 joining in turn; then half from labels, targets detached; trunk shared",
            "adjoined",
            replace(own, alphas=(4.0, 8.0, 16.0), small_first=FIRST, trunk="shared", growing=True),
            sizes.longer(sizes.first),
        ),
    }
    if protocol.weighted:
        chosen = {
            kind: Way(f"adjoined, channels by {kind}", "adjoined", one, importance=kind) for kind in ("magnitude", "batch-norm")
        }
        cut = Way("cut by magnitude, then trained alone", "standard", one, importance="magnitude")
        taught = Way("cut by magnitude, then taught by the full one", "distill", one, importance="magnitude")
        found = {**papers, **chosen, "small": found["small"], "cut": cut, "cut-distill": taught, TEACHER: found[TEACHER]}
    return found


def _first(own: MethodOptions, widen: str, sizes: Sizes) -> Way:
    """The small network first, at the adjoined run's cost."""
    begins = {"fresh": "as it is", "copies": "from copies of the small one", "zeros": "computing what the small one does"}
    words = (
        f"small network first ({FIRST:g} of the training), the full one then begins {begins[widen]}; half from labels, "
        "targets detached; trunk shared; at the adjoined run's cost"
    )
    return Way(words, "adjoined", replace(own, small_first=FIRST, trunk="shared", widen=widen), sizes.longer(sizes.first))


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
        for name in names[part::parts]:
            trained(
                self.folder / f"{name}-seed{arguments.seed}",
                lambda name=name: self.asked(name),
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
    example = data.preprocessing.example(7)
    rows, files = [], {}
    for folder in sorted(path.parent for path in job.folder.glob("*-seed*/results.json")):
        name, _, seed = folder.name.rpartition("-seed")
        if name not in job.ways:
            continue
        run = ac.open_run(folder)
        if Recipe(**run.config["recipe"]) != job.recipe(name):
            raise SystemExit(f"{folder} was trained by another recipe: give its --epochs, or another --folder.")
        method, results = run.method(), run.results()
        counts = {label: ac.count(network, example) for label, network in method.deployables().items()}
        for label, network in method.deployables().items():
            if label not in files:
                files[label] = job.folder / f"{label}.onnx"
                ac.export_onnx(network.eval(), files[label], example)
        rows.append(
            {
                "way": name,
                "seed": int(seed),
                "epochs": results["epochs"],
                "images": results["epochs"] * len(data.train),
                "training_macs": training_macs(method, run, data),
                "seconds": results["seconds"],
                "test": {label: score["accuracy"] for label, score in results["test"].items()},
                "networks": {label: {"parameters": count.parameters, "macs": count.macs} for label, count in counts.items()},
                "curve": [curve_point(record) for record in run.log()],
                "measured_anew": measured_anew(run, data) if name.startswith("adjoined") else {},
            }
        )
        print(folder.name, {label: f"{100 * value:.2f}" for label, value in rows[-1]["test"].items()}, flush=True)
    timings = ac.benchmark(list(files.values()), threads=(1,), duration=job.arguments.duration).timings
    milliseconds = {label: timing.latency.p50_ms for label, timing in zip(files, timings, strict=True)}
    figures = {
        "protocol": job.arguments.protocol,
        "model": job.protocol.model,
        "small": f"alpha{job.protocol.alpha:g}",
        "images": len(data.train),
        "recipe": job.protocol.recipe.changed(epochs=job.arguments.epochs).to_json(),
        "protocols_epochs": job.protocol.recipe.epochs,
        "p50_ms": milliseconds,
        "bytes": {label: path.stat().st_size for label, path in files.items()},
        "rows": rows,
        "not_run": {name: way.words for name, way in job.ways.items() if name not in {row["way"] for row in rows}},
        "words": {name: way.words for name, way in job.ways.items()},
    }
    seeds = sorted({row["seed"] for row in rows})
    record(
        f"accuracy_{job.arguments.protocol}", figures, f"seeds {', '.join(map(str, seeds))}; {timings[0].latency.runs} rounds"
    )
    plot(figures, RESULTS / f"accuracy_{job.arguments.protocol}.svg")
    write_page()


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
    example, results = data.preprocessing.example(2), run.results() or {}
    counts = {label: ac.count(network, example) for label, network in method.deployables().items()}
    seen = len(data.train) * results["epochs"]
    if not isinstance(method, AdjoinedMethod):
        taught = ac.count(run.model.build(), example).macs if isinstance(method, DistillMethod) else 0
        return seen * (3 * sum(count.macs for count in counts.values()) + taught)
    full = counts.pop("full")
    parts = tuple(f"{part}." for part in method.network.trunk)
    trunk = sum(layer.macs for layer in full.per_layer if f"{layer.name}.".startswith(parts)) if parts else 0
    first, order = method.curriculum.small_first, method.by_size
    together = full.macs + sum(count.macs - trunk for count in counts.values())
    steps = (
        [len(method.curriculum.joined(order, first * (step + 0.5) / len(order))) for step in range(len(order))] if first else []
    )
    alone = mean(trunk + sum(counts[name].macs - trunk for name in order[:joined]) for joined in steps) if steps else 0.0
    return 3 * seen * (first * alone + (1 - first) * together)


def write_page() -> None:
    """results/accuracy.md, from the JSON of every protocol that was measured."""
    lines = ["# Accuracy of the ways to train", ""]
    for name in PROTOCOLS:
        path = RESULTS / f"accuracy_{name}.json"
        if path.is_file():
            content = json.loads(path.read_text())
            lines += section(name, content["figures"], content["command"])
    write_text(RESULTS / "accuracy.md", "\n".join(lines))


def section(name: str, figures: dict[str, Any], command: str) -> list[str]:
    """One protocol's table."""
    rows, sizes = figures["rows"], {}
    asked, epochs = figures["protocols_epochs"], figures["recipe"]["epochs"]
    shorter = f"**{epochs} epochs in place of the protocol's {asked}**; " if epochs != asked else ""
    for row in rows:
        sizes |= row["networks"]
    networks = "; ".join(
        f"{label} {size['parameters']:,} parameters, {size['macs'] / 1e6:.1f} M MACs, {figures['bytes'][label] / 1e6:.2f} MB, "
        f"{figures['p50_ms'][label]:.3f} ms"
        for label, size in sizes.items()
    )
    lines = [
        f"## Protocol {name}: {figures['model']}",
        "",
        f"{figures['images']:,} training images; {shorter}top-1 on the test images, looked at once, with the last weights; "
        "mean over seeds, and deviation. Seconds are of runs beside others on the same machine: compare them roughly. "
        f"One thread, ONNX Runtime, batch 1: {networks}. "
        f"`{command}`",
        "",
        "| way | full | small | epochs | images seen | MACs in training | seconds | seeds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for way, words in figures["words"].items():
        own = [row for row in rows if row["way"] == way]
        if own:
            smalls = [label for label in own[0]["test"] if label != "full"]
            small = ", ".join(
                f"{label} {spread([row['test'][label] for row in own])}"
                if len(smalls) > 1
                else spread([row["test"][label] for row in own])
                for label in smalls
            )
            full = spread([row["test"]["full"] for row in own]) if "full" in own[0]["test"] else ""
            lines.append(
                f"| {words} | {full} | {small} | {own[0]['epochs']} | {own[0]['images'] / 1e3:,.0f} k | "
                f"{own[0]['training_macs'] / 1e12:.1f} T | {mean(row['seconds'] for row in own):.0f} | "
                f"{', '.join(str(row['seed']) for row in own)} |"
            )
    anew = [
        f"{row['way']}, seed {row['seed']}: {label} {100 * before:.2f} % and {100 * after:.2f} %"
        for row in rows
        for label, (before, after) in row["measured_anew"].items()
    ]
    lines += ["", f"On validation, as trained and with batch norms measured anew after slicing: {'; '.join(anew)}."] * bool(
        anew
    )
    left = [words for way, words in figures["words"].items() if way in figures["not_run"]]
    if left:
        lines += ["", f"Not run: {'; '.join(left)}."]
    return [*lines, "", f"![validation over training seconds](accuracy_{name}.svg)", ""]


def spread(values: list[float]) -> str:
    """Top-1 in per cent, with the deviation over several seeds."""
    deviation = f" +- {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.2f}{deviation} %"


def plot(figures: dict[str, Any], path: Path) -> None:
    """Validation of the full and of the small network over the seconds of training, a line for each way; and their losses."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    names = list(dict.fromkeys(row["way"] for row in figures["rows"]))
    for row in figures["rows"]:
        if row["seed"] != min(other["seed"] for other in figures["rows"] if other["way"] == row["way"]):
            continue
        number, curve = names.index(row["way"]), row["curve"]
        style = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3], "label": row["way"]}
        seconds, small = [point["seconds"] for point in curve], figures["small"]
        for axis, label in ((axes[0], "full"), (axes[1], small)):
            if label in row["test"]:
                axis.plot(seconds, [100 * point["accuracy"][label] for point in curve], **style)
        label = "full" if "full" in row["test"] else small
        part = [number / len(curve) for number in range(1, len(curve) + 1)]
        axes[2].plot(part, [point["loss"][label] for point in curve], **style)
    for axis, title in zip(
        axes, ("full network, %", "small network, %", "loss of the full network, or the only one"), strict=True
    ):
        axis.set_title(f"validation: {title}", fontsize=10)
        axis.grid(alpha=0.3)
        axis.set_xlabel("seconds of training")
    axes[2].set_xlabel("part of the training")
    axes[2].set_ylim(0, 6)  # a full network that has not joined yet says nothing, at any loss
    axes[2].legend(frameon=False, fontsize=7)
    figure.savefig(path, metadata={"Date": None})


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
    parser.add_argument("--duration", type=float, default=20.0)
    parser.add_argument("--folder", type=Path, default=Path("accuracy"))
    arguments = parser.parse_args()
    if PROTOCOLS[arguments.protocol].weighted and arguments.what == "train" and arguments.weights is None:
        parser.error(f"--protocol {arguments.protocol} starts from trained weights: give --weights")
    job = Job(arguments)
    job.train_all() if arguments.what == "train" else measure(job)


if __name__ == "__main__":
    main()
