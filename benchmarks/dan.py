"""Claim: widths that were searched beat uniform and random ones that cost the same.

For each uniform alpha in --alphas the budget is what that network costs: MACs, or with --cost latency the milliseconds that
the latency table gives it, and the part more that a decision keeps in reserve. Each budget has a search, three random plans
(random scores decided as the search decides its own) and the uniform plan; every plan is trained by the same recipe, seed and
adjoined method, and its small network is measured beside the others, exported, on one thread. The test split is looked at once,
at the end of each training.

    python benchmarks/dan.py train --data cifar100-20k.npz --alphas 2 4
    python benchmarks/dan.py measure --data cifar100-20k.npz

Trainings are kept in --folder and resumed; `measure` writes results/dan.json, dan.md and dan.svg.

    python benchmarks/dan.py papers --data cifar100-20k.npz --model resnet50 --search-epochs 2

searches on small images, and decides by what was learnt there for the ImageNet network, 224 px and 1,000 classes, at the
papers' costs: MACs / 2.2 and parameters / 3.8. It writes results/dan_papers.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dan_page import plot, write_page
from record import RESULTS, record
from torch import nn
from training import fitted, trained

import adjcompress as ac
from adjcompress.adjoined.decision import LATENCY_MARGIN, decide
from adjcompress.cost import LatencyTable
from adjcompress.data import DataSpec, read_data
from adjcompress.deploy import extract_package
from adjcompress.methods import MethodOptions, SearchMethod
from adjcompress.models import ModelSpec
from adjcompress.training import TrainOptions, recipe


class Job:
    """The trainings of one network on one data set, each in a folder of its own."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.folder: Path = arguments.folder
        self.data = read_data(DataSpec(arguments.data))
        self.spec = ModelSpec(arguments.model, len(self.data.classes), self.data.preprocessing.image_size)
        self.example = self.data.preprocessing.example(2)
        self.slim = arguments.slim

    def uniform(self, alpha: float) -> ac.WidthPlan:
        return ac.plan_widths(self.spec.build(), self.example, alpha, self.slim)

    def budget(self, alpha: float, cost: str) -> str:
        """What the uniform network at `alpha` costs, as a budget: of a latency as much more as a decision keeps in reserve."""
        network = self.spec.build()
        small = ac.slice_model(network, self.uniform(alpha))
        if cost == "macs":
            return f"macs={ac.count(small, self.example).macs / ac.count(network, self.example).macs:.6f}"
        return f"latency={self.predicted_ms(small) / (1 - LATENCY_MARGIN):.4f}ms@one-core"

    def predicted_ms(self, network: nn.Module) -> float:
        """The network's latency on one thread, by the latency table."""
        return LatencyTable.read(self.arguments.table).predict(network, self.example).total_ms

    def options(self, budget: str) -> MethodOptions:
        table = str(self.arguments.table) if "latency" in budget else None
        return MethodOptions(budgets=(budget,), slim=self.slim, table=table)

    def train(self, name: str, options: MethodOptions, method: str) -> None:
        """Train, or go on training, the run `name`."""
        trained(
            self.folder / name,
            lambda: TrainOptions(
                model=self.arguments.model,
                data=DataSpec(self.arguments.data),
                method=method,
                method_options=options,
                recipe=recipe("cifar").changed(epochs=self.arguments.epochs),
                seed=self.arguments.seed,
                search_epochs=self.arguments.search_epochs if method == "dan" else None,
            ),
        )

    def random_plan(self, budget: str, number: int) -> ac.WidthPlan:
        """Random scores of all candidates, decided like a search's."""
        method = SearchMethod.build(self.spec.build(), self.example, self.options(budget))
        random = np.random.default_rng(number)
        scores = np.log(random.dirichlet(np.ones(method.network.logits.shape[1]), len(method.counts)))
        return method.found_at(decide(scores, method.counts, method.part_used)).plan


def train_all(job: Job) -> None:
    arguments = job.arguments
    for alpha in arguments.alphas:
        budget = job.budget(alpha, arguments.cost)
        every = "every-layer-" if arguments.slim else ""
        level = f"{every}{arguments.cost}-alpha{alpha:g}"
        job.train(f"{level}-searched", job.options(budget), "dan")
        job.train(f"{every}alpha{alpha:g}-uniform", MethodOptions(plan=job.uniform(alpha)), "adjoined")
        for number in range(arguments.random):
            job.train(f"{level}-random{number}", MethodOptions(plan=job.random_plan(budget, number)), "adjoined")


def measure(job: Job) -> None:
    """Extract, export and time every small network side by side; write what was found."""
    folders = sorted(path.parent for path in job.folder.glob("*/results.json") if not path.parent.is_symlink())
    runs = [ac.open_run(folder) for folder in folders]
    rows = [row_of(run, job.data) for run in runs]
    for folder in job.arguments.more:
        for row in rows:
            if (folder / row["name"] / "results.json").is_file():
                other = ac.open_run(folder / row["name"])
                row["other_seeds"] = {**row.get("other_seeds", {}), str(other.config["seed"]): accuracies(other)}
    files = [run.folder / "small.onnx" for run in runs]
    whole = job.folder / "full.onnx"
    ac.export_onnx(job.spec.build().eval(), whole, job.data.preprocessing.example(7))
    reference, *timings = ac.benchmark([whole, *files], threads=(1,), duration=job.arguments.duration).timings
    for row, timing in zip(rows, timings, strict=True):
        row |= {"p50_ms": timing.latency.p50_ms, "rounds": timing.latency.runs, "noisy": timing.latency.noisy}
    seed, trained_on = runs[0].config["seed"], runs[0].config["recipe"]
    figures = {
        "model": job.arguments.model,
        "images": len(job.data.train),
        "recipe": trained_on,
        "seed": seed,
        "full_ms": reference.latency.p50_ms,
        "rows": rows,
    }
    if job.arguments.table.is_file():  # the machine's speed now over its speed then
        figures["drift"] = reference.latency.p50_ms / job.predicted_ms(job.spec.build())
    record("dan", figures, f"1 seed ({seed}); {timings[0].latency.runs} rounds of timing")
    write_page()
    plot(rows, RESULTS / "dan.svg")


def accuracies(run: Any) -> dict[str, float]:
    """Top-1 on the test split: of the small network and of the full one."""
    test = run.ended()["test"]
    small = next(label for label in test if label != "full")
    return {"accuracy": test[small]["accuracy"], "full_accuracy": test["full"]["accuracy"]}


def row_of(run: Any, data: ac.ImageData) -> dict[str, Any]:
    """Everything but latency of a run's small network, which is exported to small.onnx."""
    package = run.folder / "small.safetensors"
    report = extract_package(run, output=package)
    ac.export_package(package, run.folder / "small.onnx", data)
    results, plan = run.ended(), report.package.plan
    assert plan is not None  # of one small network in a full one
    row = {
        "name": run.folder.name,
        "level": run.folder.name.rpartition("-")[0],
        "kind": run.folder.name.rpartition("-")[2],
        **accuracies(run),
        "parameters": report.package.parameters,
        "macs": report.package.macs,
        "bytes": package.stat().st_size,
        "macs_part": report.package.macs / report.full_macs,
        "parameters_part": report.package.parameters / report.full_parameters,
        "seconds": results["seconds"],
        "training_macs": 3 * len(data.train) * results["epochs"] * (report.package.macs + report.full_macs),
        "widths": {group.name: group.kept for group in plan.groups if group.kept < group.channels},
    }
    if (run.folder / "search").is_dir():
        row["searched"] = json.loads((run.folder / "plan.json").read_text())["search"]
        row["search_seconds"] = ac.open_run(run.folder / "search").ended()["seconds"]
    return row


def papers(job: Job) -> None:
    """A search on the data at hand, whose logits decide, by the tool's own rule, at the papers' costs on ImageNet."""
    arguments = job.arguments
    torch.manual_seed(arguments.seed)
    folder = job.folder / f"papers-{arguments.model}"
    options = MethodOptions(budgets=("macs=0.4545", "params=0.263"), alphas=(1, 2, 4))
    search = SearchMethod.build(job.spec.build(), job.example, options)
    chosen = recipe("cifar").changed(epochs=arguments.search_epochs)
    run = fitted(search, job.data, chosen, folder, model=job.spec, seed=arguments.seed, phase_of=folder)
    learnt = run.method()
    assert isinstance(learnt, SearchMethod)
    imagenet, example = ac.create_model(arguments.model, 1000), torch.zeros(2, 3, 224, 224)
    method = SearchMethod.build(imagenet, example, MethodOptions(budgets=("macs=0.4545", "params=6.7M"), alphas=(1, 2, 4)))
    method.network.logits.data.copy_(learnt.network.logits.data)
    method.start_at_budget_()
    found = method.decide()
    counts, whole = ac.count(ac.slice_model(imagenet, found.plan), example), ac.count(imagenet, example)
    figures = {
        "model": arguments.model,
        "searched_on": f"{len(job.data.train)} training images of CIFAR-100, {chosen.epochs} epochs",
        "budgets": [str(budget) for budget in found.budgets],
        "part_of_budget": found.part_of_budget,
        "macs": counts.macs,
        "macs_fewer": whole.macs / counts.macs,
        "parameters": counts.parameters,
        "parameters_fewer": whole.parameters / counts.parameters,
        "widths": {group.name: [group.channels, group.kept] for group in found.plan.groups},
    }
    record("dan_papers", figures, f"1 seed ({arguments.seed})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["train", "measure", "papers"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--alphas", type=float, nargs="+", default=[2.0, 4.0])
    parser.add_argument("--slim", nargs="+", help="layers that may be cut, as for train; with '*' every layer")
    parser.add_argument("--cost", choices=["macs", "latency"], default="macs")
    parser.add_argument("--table", type=Path, default=Path("table.json"), help="with --cost latency")
    parser.add_argument("--random", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--search-epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--duration", type=float, default=30.0)
    parser.add_argument("--folder", type=Path, default=Path("dan"))
    parser.add_argument("--more", type=Path, nargs="*", default=[], help="measure: folders with the same runs of other seeds")
    arguments = parser.parse_args()
    {"train": train_all, "measure": measure, "papers": papers}[arguments.what](Job(arguments))


if __name__ == "__main__":
    main()
