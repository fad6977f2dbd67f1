"""Claim: an architecture learnt in a super network under a budget is better than a random one that costs the same.

For each budget, of MACs (--parts, of the plain ResNet's where the model is resnet_fabric, else of the whole network's) and of
cycles on --machines (the plain network's, but at most 0.8 of the whole's): the search; the architecture it found, trained anew;
--random random ones within 5 % of the budget; and beside them the plain ResNet, or the whole network, and the small network of
an adjoined run, alpha 2, on the architecture found under the first budget. Every training has the same recipe, epochs and seed.
Validation steers; no choice is made by the test split.

    python benchmarks/supernet_sweep.py train --data cifar10.npz --part 0/2 &   # and --part 1/2: each trains every second
    python benchmarks/supernet_sweep.py measure --data cifar10.npz

Trainings are kept in --folder and resumed; `measure` exports, times all side by side and writes results/<name>.json, .md and
.svg, with the Pareto front on validation. Any other super network, and segmentation, goes the same way:

    python benchmarks/supernet_sweep.py train --name supernet_camvid --data camvid --image-size 176x240 --ignore-label 11 \\
        --model neural_fabric --model-options columns=4 scales=5 channels=16 --parts 0.45 --machines --random 2 \\
        --epochs 30 --batch-size 8 --folder camvid-runs
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, record
from training import differing, trained

import adjcompress as ac
from adjcompress.data import DataSpec, read_data
from adjcompress.deploy import extract_package
from adjcompress.files import write_text
from adjcompress.methods import BudgetedMethod, MethodOptions
from adjcompress.models import ModelSpec
from adjcompress.models.graph import GraphNetwork
from adjcompress.training import TrainOptions, evaluate_split, recipe

_ALPHA, _TRIES, _PATIENCE = 2.0, 2000, 7200.0
WITHIN = 0.05  # a random architecture costs from 95 to 100 % of the budget


@dataclass(frozen=True)
class Level:
    """A budget: what its runs are called, and the options of a search under it."""

    name: str
    options: MethodOptions


class Sweep:
    """The trainings of one super network on one data set, each in a folder of its own."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.folder = arguments, arguments.folder
        height, _, width = (arguments.image_size or "").partition("x")
        self.spec = DataSpec(
            arguments.data,
            int(height) if height else None,
            width=int(width) if width else None,
            ignore_label=arguments.ignore_label,
        )
        self.data = read_data(self.spec)
        self.options = {name: json.loads(value) for name, _, value in (text.partition("=") for text in arguments.model_options)}
        self.example = self.data.preprocessing.example(2)
        if self.data.segmentation:
            self.options["segmentation"] = True
        self.plain = {**self.options, **({"connections": False} if arguments.model == "resnet_fabric" else {})}
        self.levels = self._levels()

    def build(self, options: dict[str, Any]) -> GraphNetwork:
        network = ModelSpec(self.arguments.model, len(self.data.classes), options=options).build()
        assert isinstance(network, GraphNetwork)
        return network

    def search(self, options: MethodOptions) -> BudgetedMethod:
        return BudgetedMethod.build(self.build(self.options), self.example, options)

    def _levels(self) -> list[Level]:
        found = []
        plain, whole = self.build(self.plain), self.build(self.options)
        reference = ac.supernets.MacsCost(plain, self.example).full / ac.supernets.MacsCost(whole, self.example).full
        for part in self.arguments.parts:
            found.append(Level(f"macs{round(100 * part)}", MethodOptions(budgets=(f"macs={part * reference:.6f}",))))
        for machines in self.arguments.machines:
            cycles = min(ac.distributed_cost(plain, machines), int(0.8 * ac.distributed_cost(whole, machines)))
            found.append(Level(f"machines{machines}", MethodOptions(budgets=(f"cycles={cycles}",), machines=machines)))
        return found

    def train(self, name: str, method: str, options: MethodOptions, model_options: dict[str, Any]) -> ac.Run:
        return trained(
            self.folder / name,
            lambda: TrainOptions(
                model=self.arguments.model,
                model_options=model_options,
                data=self.spec,
                method=method,
                method_options=options,
                recipe=recipe("cifar").changed(epochs=self.arguments.epochs, batch_size=self.arguments.batch_size),
                seed=self.arguments.seed,
            ),
        )

    def train_all(self) -> None:
        part, parts = map(int, self.arguments.part.split("/"))
        jobs = [("plain", "plain", None), *((f"{level.name}-searched", "searched", level) for level in self.levels)]
        kinds, cut = ("retrained", *(f"random{number}" for number in range(self.arguments.random))), len(self.arguments.parts)
        jobs += [(f"{level.name}-{kind}", kind, level) for kind in kinds for level in self.levels[:cut]]
        jobs += [(f"{level.name}-adjoined", "adjoined", level) for level in self.levels[:1]]
        jobs += [(f"{level.name}-{kind}", kind, level) for kind in kinds for level in self.levels[cut:]]
        wanted = [job for job in jobs if any(fnmatchcase(job[0], pattern) for pattern in self.arguments.only)]
        for name, kind, level in wanted[part::parts]:
            if level is None:
                self.train(name, "standard", MethodOptions(), self.plain)
            elif kind == "searched":
                self.train(name, "budgeted", level.options, self.options)
            elif (nodes := self.nodes(kind, level)) is not None:
                both = kind == "adjoined"
                options = MethodOptions(alphas=(_ALPHA,)) if both else MethodOptions()
                self.train(name, "adjoined" if both else "standard", options, {**self.options, "nodes": nodes})

    def nodes(self, kind: str, level: Level) -> list[str] | None:
        """The architecture that was found, as soon as another part has found it, or a random one."""
        if kind.startswith("random"):
            return self.random(level, int(kind.removeprefix("random")))
        searched, began = self.folder / f"{level.name}-searched", time.monotonic()
        while not (searched / "results.json").is_file():
            if time.monotonic() - began > _PATIENCE:
                raise SystemExit(f"{searched} is not finished: run the part that trains it, then this one again.")
            time.sleep(5)
        method = ac.open_run(searched).method()
        assert isinstance(method, BudgetedMethod)
        if "budgeted" not in method.deployables():
            print(f"{level.name}: what was found does not reach the output", flush=True)
            return None
        return list(method.options_of("budgeted")["nodes"])

    def random(self, level: Level, number: int) -> list[str]:
        """Nodes of an architecture whose gates were drawn, each set with one chance, that costs the budget."""
        method, random = self.search(level.options), torch.Generator().manual_seed(number)
        gates = len(method.network.logits)
        for _ in range(_TRIES):
            drawn = torch.rand(500, gates, generator=random) < torch.rand(500, 1, generator=random)
            active = method.network.reach.active(drawn)
            costs = ac.supernets.parts_of(method.cost, active)
            fitting = ((costs <= method.limit) & (costs >= (1 - WITHIN) * method.limit)).nonzero()
            if len(fitting):
                names = method.network.reach.names(active[fitting[0, 0]])
                return [node.name for node in method.network.network.graph.nodes if node.name in names]
        raise SystemExit(f"{level.name}: no random architecture costs from {1 - WITHIN:.0%} to 100 % of the budget.")


def measure(sweep: Sweep) -> None:
    """Extract, export and time every network side by side; write what was found."""
    rows, files = [], []
    for folder in sorted(path.parent for path in sweep.folder.glob("*/results.json")):
        if "whole" in ac.open_run(folder).method().deployables():
            print(folder.name, "does not reach the output", flush=True)
            continue
        row, file = row_of(ac.open_run(folder), sweep)
        rows.append(row)
        files.append(file)
        print(row["name"], f"{100 * row['accuracy']:.2f} %", f"{row['macs'] / 1e6:.1f} M MACs", flush=True)
    plain = sweep.folder / "plain.onnx"  # weights do not change its time: it needs no training to be timed beside the others
    ac.export_onnx(sweep.build(sweep.plain).eval(), plain, sweep.data.preprocessing.example(7))
    reference, *timings = ac.benchmark([plain, *files], threads=(1,), duration=sweep.arguments.duration).timings
    for row, timing in zip(rows, timings, strict=True):
        row |= {"p50_ms": timing.latency.p50_ms, "noisy": timing.latency.noisy}
    if sweep.arguments.add:
        rows = with_earlier(rows, sweep, reference.latency.p50_ms)
    for row in rows:
        row["front"] = not any(
            (other["validation"] >= row["validation"] and other["macs"] <= row["macs"])
            and (other["validation"] > row["validation"] or other["macs"] < row["macs"])
            for other in rows
        )
    figures = {
        "model": sweep.arguments.model,
        "options": sweep.options,
        "data": Path(sweep.arguments.data).stem,
        "images": len(sweep.data.train),
        "recipe": recipe("cifar").changed(epochs=sweep.arguments.epochs, batch_size=sweep.arguments.batch_size).to_json(),
        "seed": sweep.arguments.seed,
        "rows": rows,
    }
    name = sweep.arguments.name
    record(name, figures, f"1 seed ({sweep.arguments.seed}); {timings[0].latency.runs} rounds of timing")
    write_text(RESULTS / f"{name}.md", page(name, figures))
    plot(rows, RESULTS / f"{name}.svg")


def with_earlier(rows: list[dict[str, Any]], sweep: Sweep, plain_ms: float) -> list[dict[str, Any]]:
    """The rows of results/<name>.json and the new ones, whose times are scaled to those: by the plain network's, now and then.

    What was trained by another recipe, seed or on other images is refused.
    """
    earlier = json.loads((RESULTS / f"{sweep.arguments.name}.json").read_text())["figures"]
    now = {
        "recipe": recipe("cifar").changed(epochs=sweep.arguments.epochs, batch_size=sweep.arguments.batch_size).to_json(),
        "seed": sweep.arguments.seed,
        "images": len(sweep.data.train),
    }
    if differing(earlier, now):
        raise SystemExit(f"results/{sweep.arguments.name}.json is of another recipe, seed or data: measure without --add.")
    kept = {row["name"]: row for row in earlier["rows"]}
    for row in rows:
        row["p50_ms"] *= kept["plain"]["p50_ms"] / plain_ms
        row["timed_later"] = True
    return [row for _, row in sorted((kept | {row["name"]: row for row in rows}).items())]


def row_of(run: ac.Run, sweep: Sweep) -> tuple[dict[str, Any], Path]:
    """Everything but latency of the network of a run, and its ONNX file."""
    level, _, kind = run.folder.name.rpartition("-")
    method = run.method()
    name = [*method.deployables()][-1]  # of an adjoined run the small network
    extracted = extract_package(run, name, run.folder / "package.safetensors")
    file = run.folder / "network.onnx"
    ac.export_package(extracted.path, file, sweep.data)
    network = ac.load_package(extracted.path)
    held = evaluate_split({name: network}, sweep.data, sweep.data.validation)[name]
    assert isinstance(network, GraphNetwork)
    row = {
        "name": run.folder.name,
        "level": level or "plain",
        "kind": kind,
        "validation": held.accuracy,
        "accuracy": extracted.package.accuracy["test"],
        "mean_iou": extracted.package.accuracy.get("test mean IoU"),
        "parameters": extracted.package.parameters,
        "macs": extracted.package.macs,
        "cycles": {machines: ac.distributed_cost(network, machines) for machines in (1, 2, 4)},
        "nodes": len(network.graph.nodes),
        "seconds": run.ended()["seconds"],
    }
    if isinstance(method, BudgetedMethod):
        row["part_of_budget"] = (method.decided_cost() or 0.0) / method.limit
    return row, file


def page(name: str, figures: dict[str, Any]) -> str:
    """The table, in words."""
    pixels = figures["rows"][0]["mean_iou"] is not None
    right = "pixels right" if pixels else "top-1"
    later = any(row.get("timed_later") for row in figures["rows"])
    starred = "With a star: timed in a later run, scaled by the plain network's times in both. " if later else ""
    lines = [
        f"# {figures['model']} on {figures['data']}: searched, random and plain",
        "",
        f"{figures['images']:,} training images, {figures['recipe']['epochs']} epochs, seed {figures['seed']}; {right} on the "
        "test split; one thread, ONNX Runtime, batch 1, side by side. Searched: weights of the search; retrained: the same "
        "architecture from scratch, by the same recipe; adjoined: the small network, alpha 2, of an adjoined run on it. "
        f"Bold: on the Pareto front of MACs and {right} on validation. {starred}Rendered from {name}.json.",
        "",
        f"| budget | architecture | MACs | parameters | cycles on 1, 2, 4 machines | one thread | validation | {right} |"
        + " mean IoU |" * pixels,
        "| --- | --- | ---: | ---: | --- | ---: | ---: | ---: |" + " ---: |" * pixels,
    ]
    for row in figures["rows"]:
        mark = "**" if row["front"] else ""
        cycles, star = ", ".join(str(count) for count in row["cycles"].values()), "*" if row.get("timed_later") else ""
        part = f" ({row['part_of_budget']:.2f} of the budget)" if "part_of_budget" in row else ""
        lines.append(
            f"| {row['level']} | {mark}{row['kind']}{mark}{part} | {row['macs'] / 1e6:.2f} M | {row['parameters']:,} | "
            f"{cycles} | {row['p50_ms']:.3f} ms{star} | {100 * row['validation']:.2f} % | "
            f"{mark}{100 * row['accuracy']:.2f} %{mark} |" + (f" {100 * row['mean_iou']:.2f} % |" if pixels else "")
        )
    return "\n".join(lines) + f"\n\n![accuracy over MACs]({name}.svg)\n"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy over MACs and over latency."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    marks, colors = "oDxs^", ("#c2410c", "#15803d", "#6b7280", "#1d4ed8", "#7e22ce")
    styles = dict(zip(("searched", "retrained", "random", "plain", "adjoined"), zip(marks, colors, strict=True), strict=True))
    for axis, key, scale, label in ((axes[0], "macs", 1e6, "MACs, millions"), (axes[1], "p50_ms", 1, "ms, one thread")):
        for kind, (marker, color) in styles.items():
            own = [row for row in rows if row["kind"].startswith(kind)]
            values = [100 * row["accuracy"] for row in own]
            axis.scatter([row[key] / scale for row in own], values, marker=marker, color=color, label=kind)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    pixels = rows[0]["mean_iou"] is not None
    axes[0].set_ylabel(f"{'pixels right' if pixels else 'top-1'} on the test split, %")
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "measure"])
    parser.add_argument("--name", default="supernets", help="of the result files")
    parser.add_argument("--data", required=True)
    parser.add_argument("--image-size", help="in pixels, or height x width, 176x240")
    parser.add_argument("--ignore-label", type=int, default=255)
    parser.add_argument("--model", default="resnet_fabric")
    parser.add_argument("--model-options", nargs="*", default=[], help="NAME=VALUE, as for train")
    parser.add_argument("--parts", type=float, nargs="*", default=[1.0, 0.5, 0.25])
    parser.add_argument("--machines", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--random", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="0/1", help="train: every n-th of the runs, k/n")
    parser.add_argument("--only", nargs="+", default=["*"], help="train: runs of these names or patterns, 'machines2-random*'")
    parser.add_argument("--add", action="store_true", help="measure: keep the results of runs that are not in --folder")
    parser.add_argument("--duration", type=float, default=20.0)
    parser.add_argument("--folder", type=Path, default=Path("supernets"))
    arguments = parser.parse_args()
    sweep = Sweep(arguments)
    sweep.train_all() if arguments.what == "train" else measure(sweep)


if __name__ == "__main__":
    main()
