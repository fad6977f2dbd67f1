"""Claim: what searched widths are worth at the full length of training, beside uniform and random ones of their cost.

Two levels, each one full network with all its small ones in it, which takes out the noise between runs (dan_together.py):
`stages`, the default layers at the MACs and the latency of uniform alpha 2, and `every-layer` at those of uniform alpha 4. The
searched widths are those that dan.py and dan_together.py found and kept in their results, one search for each budget: under
MACs the first of dan_together.py (it has a second, and dan.py one of its own, which are not here), under latency and on every
layer dan.py's only one. A random plan has random scores, decided under the uniform network's MACs as a search's are; the first
three are taken that the latency table gives the uniform network's latency as well, within 3 %. What each costs when it is
measured stands beside its accuracy. Protocol: 20,000 images of CIFAR-100 less the tenth that is held out, 40 epochs.

    python benchmarks/dan_protocol.py train --data cifar100-20k.npz --level stages       # and --level every-layer
    python benchmarks/dan_protocol.py measure --data cifar100-20k.npz

Trainings are kept in --folder and resumed; `measure` exports, times all side by side on one thread and writes
results/dan_protocol.json, dan_protocol.svg and dan.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from dan import Job
from dan_page import plot, write_page
from dan_together import trained, widths
from record import RESULTS, record

import adjcompress as ac
from adjcompress.methods import AdjoinedMethod
from adjcompress.widths.channels import channel_groups
from adjcompress.widths.planning import plan_at

SAME = 0.03  # how far a random plan's predicted latency may be from the uniform network's
RANDOM = 3


@dataclass(frozen=True)
class Level:
    """Which layers are cut, and the uniform alpha whose costs all the widths have."""

    alpha: float
    slim: tuple[str, ...] | None


LEVELS = {"stages": Level(2.0, None), "every-layer": Level(4.0, ("*",))}


def found(level: str) -> dict[str, Mapping[str, int]]:
    """The widths that were searched, by what for: channels that each group keeps where it is cut."""
    rows = {row["name"]: row for row in json.loads((RESULTS / "dan.json").read_text())["figures"]["rows"]}
    if level == "every-layer":
        return {"searched_macs": rows["every-layer-macs-alpha4-searched"]["widths"]}
    together = json.loads((RESULTS / "dan_together.json").read_text())["figures"]["rows"]
    first = next(row for row in together if row["seed"] == 0)
    return {"searched_macs": first["widths"]["expected"], "searched_latency": rows["latency-alpha2-searched"]["widths"]}


def plan_of(job: Job, kept: Mapping[str, int]) -> ac.WidthPlan:
    """The plan that keeps so many channels of the groups that are named, and all of the others."""
    network = job.spec.build()
    groups = channel_groups(network, job.example)
    return plan_at(network, job.example, groups, [kept.get(group.name, group.channels) for group in groups])


def plans_of(job: Job, level: str) -> dict[str, ac.WidthPlan]:
    alpha, slim = LEVELS[level].alpha, LEVELS[level].slim
    job.slim = list(slim) if slim else None
    uniform = job.uniform(alpha)
    network = job.spec.build()

    def predicted(plan: ac.WidthPlan) -> float:
        return job.predicted_ms(ac.slice_model(network, plan))

    budget, wanted = job.budget(alpha, "macs"), predicted(uniform)
    plans = {**{name: plan_of(job, kept) for name, kept in found(level).items()}, "uniform": uniform}
    numbers = count()
    while len(plans) < len(found(level)) + 1 + RANDOM:
        plan = job.random_plan(budget, number := next(numbers))
        if abs(predicted(plan) / wanted - 1) <= SAME:
            plans[f"random{number}"] = plan
    return plans


def train(job: Job) -> None:
    folder = job.folder / job.arguments.level
    if (folder / "config.json").is_file():  # its widths are in the run
        plans = {name: ac.WidthPlan.from_json(plan) for name, plan in settings(folder)["plans"].items()}
    else:
        plans = plans_of(job, job.arguments.level)
    torch.manual_seed(job.arguments.seed)
    network = ac.adjoin(job.spec.build(), plans)
    trained(job, AdjoinedMethod(network), job.arguments.epochs, folder)


def settings(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())["method"]["settings"]


def measure(job: Job) -> None:
    """Export every network of both levels, time them side by side, and keep what was found."""
    runs = {level: ac.open_run(job.folder / level) for level in LEVELS if (job.folder / level / "results.json").is_file()}
    rows, files = [], []
    for level, run in runs.items():
        method, test, example = run.method(), run.ended()["test"], job.data.preprocessing.example(7)
        for name, network in method.deployables().items():
            path = run.folder / f"{name}.onnx"
            ac.export_onnx(network.eval(), path, example)
            counts, plan = ac.count(network, example), method.plan_of(name)
            row = {"level": level, "widths": name, "accuracy": test[name]["accuracy"], "macs": counts.macs}
            rows.append(row | {"parameters": counts.parameters, "kept": widths(plan) if plan else {}})
            files.append(path)
    timings = ac.benchmark(files, threads=(1,), duration=job.arguments.duration).timings
    for row, timing in zip(rows, timings, strict=True):
        row |= {"p50_ms": timing.latency.p50_ms, "noisy": timing.latency.noisy}
    config = next(iter(runs.values())).config
    figures = {
        "model": job.arguments.model,
        "images": len(job.data.train),
        "recipe": config["recipe"],
        "seed": config["seed"],
        "seconds": {level: run.ended()["seconds"] for level, run in runs.items()},
        "rows": rows,
    }
    plot([row | {"kind": row["widths"]} for row in rows if row["widths"] != "full"], RESULTS / "dan_protocol.svg")
    record("dan_protocol", figures, f"1 seed ({config['seed']}); {timings[0].latency.runs} rounds of timing")
    write_page()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["train", "measure"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--level", choices=LEVELS, default="stages")
    parser.add_argument("--table", type=Path, default=Path("table.json"), help="train: the latency table of the network")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--duration", type=float, default=30.0)
    parser.add_argument("--folder", type=Path, default=Path("dan-protocol"))
    parser.set_defaults(slim=None)
    arguments = parser.parse_args()
    {"train": train, "measure": measure}[arguments.what](Job(arguments))


if __name__ == "__main__":
    main()
