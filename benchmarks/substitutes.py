"""Claim: which structured substitute gives most accuracy for its parameters, MACs, bytes and milliseconds, on real images.

All six (and the aligned tensor train) at two budgets of parameters in a WRN-16-2 on CIFAR-10, with attention transfer and
weight decay scaled by compression; without either at the smaller budget; beside the dense network, which is the teacher, and
an adjoined network with small networks in it from the same parameters to the same MACs. Every training has the same recipe
and seed. The test split is looked at once, at the end of each training.

    python benchmarks/substitutes.py train --data cifar10.npz --part 0/2 &   # and --part 1/2: each trains every second run
    python benchmarks/substitutes.py measure --data cifar10.npz

Trainings are kept in --folder and resumed; `measure` exports, times all on one thread side by side and writes
results/substitutes.json, substitutes.md and substitutes.svg. With --add both keep the rows that substitutes.json has:
`train` trains what it lacks (and its teacher, anew), `measure` adds the ablations among it, which need no timing.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from record import RESULTS, record
from training import differing, trained

import adjcompress as ac
from adjcompress.data import DataSpec, read_data
from adjcompress.files import write_text
from adjcompress.methods import MethodOptions
from adjcompress.training import TrainOptions, recipe

NAMES = ("low_rank", "shuffle", "tensor_train", "aligned_tensor_train", "tucker", "hashed", "acdc")
TEACHER, ADJOINED = "dense", "adjoined"
ALPHAS = (2.0, 2.6, 3.2, 4.0)


@dataclass(frozen=True)
class Run:
    """One training: a substitute at a budget of parameters; `attention` and `scaling` are what may be left out."""

    substitute: str
    parameters: int
    attention: bool = True
    scaling: str = "matrix"

    @property
    def asked(self) -> dict[str, Any]:
        return {"substitute": self.substitute, "attention": self.attention, "scaling": self.scaling}

    @property
    def name(self) -> str:
        parts = [self.substitute, f"{self.parameters // 1000}k"]
        parts += [] if self.attention else ["no-attention"]
        return "-".join([*parts, *([] if self.scaling == "matrix" else [f"decay-{self.scaling}"])])


def runs(budgets: list[int]) -> list[Run]:
    """In the order of what each decides."""
    small, large = budgets
    first = [Run(name, small) for name in NAMES]
    alone = [Run(name, small, attention=False) for name in NAMES]
    undecayed = [
        Run(name, small, scaling="none") for name in sorted(NAMES, key=("shuffle", "hashed").__contains__, reverse=True)
    ]
    larger = [Run(name, large) for name in NAMES]
    rest = [run for name in NAMES for run in (Run(name, large, attention=False), Run(name, large, scaling="none"))]
    return [*first, *undecayed[:2], *larger, *alone, *undecayed[2:], *rest]


class Job:
    """The trainings of one network on one data set, each in a folder of its own."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.folder = arguments, arguments.folder
        self.spec = DataSpec(arguments.data, validation=arguments.validation)

    def train(self, name: str, method: str, options: MethodOptions, teacher: Path | None = None) -> None:
        """Train, or go on training, the run `name`."""
        trained(
            self.folder / name,
            lambda: TrainOptions(
                model=self.arguments.model,
                data=self.spec,
                method=method,
                method_options=options,
                recipe=recipe("cifar").changed(epochs=self.arguments.epochs),
                seed=self.arguments.seed,
                teacher=teacher,
            ),
        )

    def train_all(self) -> None:
        part, parts = map(int, self.arguments.part.split("/"))
        teacher = self.folder / TEACHER
        known = {row["name"] for row in earlier(self)["rows"]} if self.arguments.add else set()
        if part == 0:
            self.train(TEACHER, "standard", MethodOptions())
        if part == parts - 1 and ADJOINED not in known:
            self.train(ADJOINED, "adjoined", MethodOptions(alphas=ALPHAS, slim=["*"]))  # which needs no teacher
        asked = [run for run in runs(self.arguments.budgets) if any(map(partial(fnmatchcase, run.name), self.arguments.only))]
        for number, run in enumerate(run for run in asked if run.name not in known):
            if number % parts != part:
                continue
            while run.attention and not (teacher / "results.json").is_file():
                time.sleep(5)
            options = MethodOptions(
                substitute=run.substitute, budgets=(f"params={run.parameters}",), weight_decay_scaling=run.scaling
            )
            self.train(run.name, "substitute", options, teacher if run.attention else None)


def earlier(job: Job) -> dict[str, Any]:
    """The figures of results/substitutes.json; those of another recipe, seed, network or budgets are refused."""
    figures: dict[str, Any] = json.loads((RESULTS / "substitutes.json").read_text())["figures"]
    now: dict[str, Any] = {
        "model": job.arguments.model,
        "images": len(read_data(job.spec).train),
        "recipe": recipe("cifar").changed(epochs=job.arguments.epochs).to_json(),
        "seed": job.arguments.seed,
    }
    budgets = {row["budget"] for row in figures["rows"] if "budget" in row}
    if differing(figures, now) or budgets != set(job.arguments.budgets):
        raise SystemExit("results/substitutes.json is of another network, data, recipe, seed or budgets: run without --add.")
    return figures


def add(job: Job) -> None:
    """Ablations that were trained later, beside the rows that results/substitutes.json has."""
    data, figures = read_data(job.spec), earlier(job)
    rows = {row["name"] if "budget" in row else row["substitute"]: row for row in figures["rows"]}
    teacher = ac.open_run(job.folder / TEACHER).ended()["test"]["full"]["accuracy"]
    added = []
    for run in runs(job.arguments.budgets):
        later = run.name not in rows or rows[run.name].get("trained_later")
        if later and not plain(run.asked) and (job.folder / run.name / "results.json").is_file():
            row, _ = row_of(ac.open_run(job.folder / run.name), "substitute", data)
            rows[run.name] = row | {"budget": run.parameters, **run.asked, "p50_ms": None, "load_ms": None}
            rows[run.name] |= {"trained_later": True, "teacher_accuracy": teacher if run.attention else None}
            added.append(run.name)
    figures["rows"] = list(rows.values())
    record("substitutes", figures, f"1 seed ({job.arguments.seed}); untimed: {', '.join(added)}", added=True)
    write_text(RESULTS / "substitutes.md", page(figures))


def measure(job: Job) -> None:
    """Export and time everything side by side, on one thread."""
    data = read_data(job.spec)
    rows, files = [], []
    for run in runs(job.arguments.budgets):
        if (job.folder / run.name / "results.json").is_file():
            row, file = row_of(ac.open_run(job.folder / run.name), "substitute", data)
            rows.append(row | {"budget": run.parameters, **run.asked})
            files.append(file)
    others = [(TEACHER, "full"), *((ADJOINED, f"alpha{alpha:g}".replace(".", "_")) for alpha in ALPHAS), (ADJOINED, "full")]
    for folder, name in others:
        if (job.folder / folder / "results.json").is_file():
            row, file = row_of(ac.open_run(job.folder / folder), name, data)
            rows.append(row | {"substitute": f"{folder} {name}"})
            files.append(file)
    # One latency for each form and budget: what attention and decay did does not show in it.
    timed = [file for row, file in zip(rows, files, strict=True) if plain(row)]
    timings = ac.benchmark(timed, threads=(1,), duration=job.arguments.duration).timings
    latency = {timing.path: timing for timing in timings}
    for row, file in zip(rows, files, strict=True):
        timing = latency.get(file)
        row |= {"p50_ms": timing.latency.p50_ms, "load_ms": timing.load_ms} if timing else {"p50_ms": None, "load_ms": None}
    figures = {
        "model": job.arguments.model,
        "images": len(data.train),
        "recipe": recipe("cifar").changed(epochs=job.arguments.epochs).to_json(),
        "seed": job.arguments.seed,
        "rows": rows,
    }
    record("substitutes", figures, f"1 seed ({job.arguments.seed}); {timings[0].latency.runs} rounds of timing")
    write_text(RESULTS / "substitutes.md", page(figures))
    plot(rows, RESULTS / "substitutes.svg")


def plain(row: dict[str, Any]) -> bool:
    """Whether a row was trained with all that helps."""
    return bool(row.get("attention", True) and row.get("scaling", "matrix") == "matrix")


def row_of(run: Any, name: str, data: ac.ImageData) -> tuple[dict[str, Any], Path]:
    """Everything but latency of one network of a run, and its ONNX file."""
    method, path, example = run.method(), run.folder / f"{name}.onnx", data.preprocessing.example(7)
    network, results = method.deployables()[name].eval(), run.ended()
    exported, counts = ac.export_onnx(network, path, example), ac.count(network, example)
    row = {
        "name": run.folder.name,
        "accuracy": results["test"][name]["accuracy"],
        "setting": method.substitution.setting if method.substitution else None,
        "parameters": counts.parameters,
        "macs": counts.macs,
        "onnx_bytes": exported.bytes,
        "train_seconds": results["seconds"],
    }
    return row, path


def page(figures: dict[str, Any]) -> str:
    """The tables, in words."""
    rows = figures["rows"]
    lines = [
        "# Structured substitutes on CIFAR-10",
        "",
        f"{figures['model']}, {figures['images']:,} training images, {figures['recipe']['epochs']} epochs, seed "
        f"{figures['seed']}; top-1 on the 10,000 test images; one thread, ONNX Runtime, batch 1, side by side; bytes of the "
        "ONNX file. Substitutes with attention transfer from the dense network and weight decay scaled by compression. "
        "Rendered from substitutes.json.",
        "",
        "| layer | setting | parameters | MACs | ONNX file | one thread | top-1 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in sorted(filter(plain, rows), key=lambda row: (row.get("budget") or 10**9, -row["accuracy"])):
        setting = f"{row['setting']:g}" if row["setting"] is not None else ""
        lines.append(
            f"| {row['substitute']} | {setting} | {row['parameters']:,} | {row['macs'] / 1e6:.2f} M | "
            f"{row['onnx_bytes'] / 1e3:.0f} kB | {row['p50_ms']:.3f} ms | {100 * row['accuracy']:.2f} % |"
        )
    for budget in sorted({row["budget"] for row in rows if row.get("budget")}):
        lines += ["", f"What attention transfer and scaled weight decay do, top-1 within {budget:,} parameters:", ""]
        lines += ["| layer | both | without attention transfer | without scaled decay |", "| --- | ---: | ---: | ---: |"]
        lines += [f"| {name} | {' | '.join(ablation(rows, name, budget))} |" for name in NAMES]
    teachers = sorted({row["teacher_accuracy"] for row in rows if row.get("teacher_accuracy")})
    if teachers:
        dense = next(row["accuracy"] for row in rows if row["substitute"] == f"{TEACHER} full")
        told = ", ".join(f"{100 * accuracy:.2f} %" for accuracy in teachers)
        lines += ["", f"With a star: trained later, where all else is equal by another teacher, of {told} top-1 instead of "
                  f"{100 * dense:.2f} %, and on another machine, in float32 (see `added` in substitutes.json)."]  # fmt: skip
    return "\n".join(lines) + "\n\n![accuracy over parameters, MACs and latency](substitutes.svg)\n"


def ablation(rows: list[dict[str, Any]], name: str, budget: int) -> list[str]:
    """Top-1 of a form with both, without attention transfer, and without scaled decay."""
    cells = []
    for attention, scaling in ((True, "matrix"), (False, "matrix"), (True, "none")):
        wanted = (name, budget, attention, scaling)
        keys = ("substitute", "budget", "attention", "scaling")
        found = (row for row in rows if tuple(map(row.get, keys)) == wanted)
        star = {True: " *", None: ""}
        cells.append(next((f"{100 * row['accuracy']:.2f} %{star[row.get('trained_later')]}" for row in found), "not run"))
    return cells


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy over parameters, MACs and latency."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.8), sharey=True, layout="constrained")
    kinds = [*NAMES, ADJOINED]
    for axis, key, scale, label in (
        (axes[0], "parameters", 1e3, "parameters, thousands"),
        (axes[1], "macs", 1e6, "MACs, millions"),
        (axes[2], "p50_ms", 1, "ms, one thread"),
    ):
        for number, kind in enumerate(kinds):
            own = [row for row in filter(plain, rows) if row["substitute"].startswith(kind) and "full" not in row["substitute"]]
            axis.plot(
                [row[key] / scale for row in own],
                [100 * row["accuracy"] for row in own],
                marker="oswD^v*x"[number].replace("w", "P"),
                linestyle="-" if kind == ADJOINED else "none",
                color=f"C{number}",
                label=kind,
            )
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("top-1, %")
    axes[2].legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["train", "measure"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="wrn_16_2")
    parser.add_argument("--budgets", type=int, nargs=2, default=[45_000, 70_000])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--validation", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", action="store_true", help="keep the rows of results/substitutes.json")
    parser.add_argument("--only", nargs="+", default=["*"], help="train: runs whose names match one of these patterns")
    parser.add_argument("--part", default="0/1", help="train: every n-th of the runs, k/n")
    parser.add_argument("--duration", type=float, default=20.0)
    parser.add_argument("--folder", type=Path, default=Path("substitutes"))
    arguments = parser.parse_args()
    job = Job(arguments)
    if arguments.what == "train":
        job.train_all()
    else:
        (add if arguments.add else measure)(job)


if __name__ == "__main__":
    main()
