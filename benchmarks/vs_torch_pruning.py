"""Claim: what adjoined training makes of a trained network, beside what Torch-Pruning cuts out of it.

At equal multiply-adds of the small network (or, with --equal latency, at equal milliseconds in ONNX Runtime; adjoined's, or by
--like inner that one's) and equal multiply-adds of training in all, from the same trained weights, by the same loop, recipe and
evaluation:

    adjoined       ours: important channels first, full and small network trained together
    trunk          the same, trunk shared
    labels         the same, and the small network learns from labels too, as much from the first step as in the last
    inner          the same as labels, at the layers that Torch-Pruning may cut: the first ones of the blocks (--inner)
    cut            ours without adjoined training: the same channels cut at once, then trained alone
    inner-cut      inner without adjoined training, likewise
    magnitude      Torch-Pruning's group magnitude: cut at once, then trained alone, for as much longer as that is cheaper
    magnitude-rounded  the same, every width a multiple of 8, which a CPU is fast at
    group-norm     Torch-Pruning's GroupNormPruner: sparse learning of the full network, then cut, then trained
    group-norm-wide  the same with one threshold over all layers (global pruning)
    inner-taught, magnitude-taught  inner-cut and magnitude, taught by the trained network (distill) for as long as that costs

    python benchmarks/vs_torch_pruning.py train --data cifar10-30k.npz --model cifar_resnet56 --weights resnet56.th
    python benchmarks/vs_torch_pruning.py measure --data cifar10-30k.npz --model cifar_resnet56 --weights resnet56.th

Trainings are kept in --folder and resumed; `measure` times all on one thread side by side and writes
results/vs_torch_pruning_<model>_<equal>.json and vs_torch_pruning.md. --only trains some of the ways; `measure --add` keeps the
other rows of the result, and gives the new ones the times of the same networks there. With a shared trunk ours costs less,
which its row shows. Layers whose channels a CIFAR ResNet's shortcut picks keep their width under Torch-Pruning, which knows no
such layer.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from accuracy import training_macs
from record import RESULTS, record
from torch import nn
from training import differing, fitted, timed
from vs_torch_pruning_cut import cut_at, ratio_within_macs, ratio_within_time, shapes, sparse_learning
from vs_torch_pruning_page import plot, write_page
from vs_torch_pruning_ways import BEFORE, CUTS, LABELS, OURS, PRUNED, TAUGHT, WAYS, Pruning, alike

import adjcompress as ac
from adjcompress.data import DataSpec, read_data
from adjcompress.files import write_text
from adjcompress.methods import AdjoinedMethod, DistillMethod, MethodOptions, StandardMethod, alpha_name
from adjcompress.models import ModelSpec, load_weights_
from adjcompress.training import evaluate_split, recipe
from adjcompress.training.checkpoint import newest_checkpoint
from adjcompress.widths import order_channels_

_STILL_EQUAL = 1.06  # the same, when all are timed again


class Job:
    """One network, one data set, and everything that is trained on them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.data = read_data(DataSpec(arguments.data))
        self.spec = ModelSpec(arguments.model, len(self.data.classes), self.data.preprocessing.image_size)
        self.example = self.data.preprocessing.example(2)
        compared = f"{arguments.equal}-{arguments.like}-alpha{arguments.alpha:g}"
        compared += f"-align{arguments.align}" * (arguments.align > 1)
        self.folder: Path = arguments.folder / f"{arguments.model}-{compared}"
        self.recipe = recipe("cifar").changed(epochs=arguments.epochs, lr=arguments.lr)
        self.full_macs = ac.count(self.spec.build(), self.example).macs
        self.ours = ac.slice_model(self.model(), self.plan("adjoined"))
        self.small_macs = ac.count(self.ours, self.example).macs
        self.wanted = ac.slice_model(self.model(), self.plan(arguments.like))
        self.small = alpha_name(arguments.alpha)
        self.folder.mkdir(parents=True, exist_ok=True)

    def model(self) -> nn.Module:
        """The trained network."""
        network = self.spec.build()
        load_weights_(network, self.arguments.weights)
        return network

    def plan(self, way: str) -> ac.WidthPlan:
        """The widths of one of ours."""
        slim = (self.arguments.inner,) if way == "inner" else None
        return ac.plan_widths(self.spec.build(), self.example, self.arguments.alpha, slim, align=self.arguments.align)

    def fitted(self, name: str, method: Any, epochs: int, named: bool) -> ac.Run:
        """The finished run `name`; what was begun goes on. `named`: the run's settings can rebuild its network."""
        folder = self.folder / f"{name}-seed{self.arguments.seed}"
        model = self.spec if named else None
        recipe, arguments = self.recipe.changed(epochs=epochs), self.arguments
        return fitted(method, self.data, recipe, folder, arguments.precision, model=model, seed=arguments.seed)

    def epochs_alone(self, cut: nn.Module, before: int = 0, taught: bool = False) -> int:
        """For how many epochs a cut network trains for what is left, after so many of the full one, of what ours cost."""
        spent = self.arguments.epochs * (self.full_macs + self.small_macs) - before * self.full_macs
        each = ac.count(cut, self.example).macs + taught * self.full_macs / 3  # of the teacher's three parts, the forward one
        return max(1, round(spent / each))

    def ordered(self) -> nn.Module:
        """The trained network, important channels first."""
        network = self.model()
        order_channels_(network, self.example, "magnitude")
        return network

    def adjoined(self, way: str) -> AdjoinedMethod:
        slim = (self.arguments.inner,) if way == "inner" else None
        options = MethodOptions(alphas=(self.arguments.alpha,), slim=slim, align=self.arguments.align, **OURS[way])
        return AdjoinedMethod.build(self.ordered(), self.example, options)

    def epochs_of_ours(self, way: str, method: AdjoinedMethod) -> int:
        """The protocol's; where labels are learnt from as well, as many as adjoined's cost buys."""
        if OURS[way] is not LABELS:
            return int(self.arguments.epochs)
        trunk = ac.count(method.network.full, self.example).macs_of(method.network.trunk)
        small = ac.count(method.network.extract(self.small), self.example).macs
        spent = self.arguments.epochs * (self.full_macs + self.small_macs)
        return round(spent / (self.full_macs + small - trunk))

    def pruned(self, kind: str) -> StandardMethod:
        """What Torch-Pruning makes of the network, after sparse learning where `kind` has that."""
        network = self.model()
        if PRUNED[kind].sparse:
            found = newest_checkpoint(self.folder / f"{kind}-sparse-seed{self.arguments.seed}")
            assert found is not None
            network.load_state_dict(found.checkpoint.weights)
        return StandardMethod(cut_at(network, self.example, PRUNED[kind], self.ratio(kind, network)))

    def cut(self, way: str) -> nn.Module:
        """The network that `way` begins from: one of ours cut at once, or one that Torch-Pruning cut."""
        way = TAUGHT.get(way, way)
        if way in PRUNED:
            return self.pruned(way).network
        return ac.slice_model(self.ordered(), self.plan(CUTS.get(way, way)))

    def ratio(self, kind: str, network: nn.Module) -> float:
        """At which ratio Torch-Pruning cuts, found once: milliseconds would say another one tomorrow."""
        path = self.folder / f"{kind}-seed{self.arguments.seed}-ratio.json"
        if not path.is_file():
            write_text(path, json.dumps(self.found_ratio(network, PRUNED[kind])))
        return float(json.loads(path.read_text()))

    def found_ratio(self, network: nn.Module, how: Pruning) -> float:
        """The ratio that leaves most of `network` within the wanted one's multiply-adds or milliseconds."""
        if self.arguments.equal == "latency":
            found = ratio_within_time(network, self.data.preprocessing.example(7), how, self.wanted, self.folder)
        else:
            found = ratio_within_macs(network, self.example, how, ac.count(self.wanted, self.example).macs)
        if found is None:
            raise SystemExit("Torch-Pruning cuts nothing as small as our network out of this one.")
        return found

    def train_all(self) -> None:
        epochs, only = self.arguments.epochs, self.arguments.only
        for name in filter(only.__contains__, OURS):
            method = self.adjoined(name)
            self.fitted(name, method, self.epochs_of_ours(name, method), named=True)
        for name in filter(only.__contains__, CUTS):
            cut = StandardMethod(self.cut(name))
            self.fitted(name, cut, self.epochs_alone(cut.network), named=False)
        for kind in filter(only.__contains__, PRUNED):
            before = 0
            if PRUNED[kind].sparse:
                network, before = self.model(), epochs
                with sparse_learning(network, self.example, PRUNED[kind]):
                    self.fitted(f"{kind}-sparse", StandardMethod(network), epochs, named=True)
            cut = self.pruned(kind)
            self.fitted(kind, cut, self.epochs_alone(cut.network, before), named=False)
        for name in filter(only.__contains__, TAUGHT):
            taught = DistillMethod(self.cut(name))
            taught.taught_by_(self.model(), self.example)
            self.fitted(name, taught, self.epochs_alone(taught.network, taught=True), named=False)


def measure(job: Job) -> None:
    """Gather what was trained, time all of it, and write what was found."""
    arguments = job.arguments
    networks: dict[str, nn.Module] = {"full": job.model(), "ours": job.ours}
    rows = [row_of(job, "full", None, networks["full"], "full")]
    for way in WAYS:
        folder = job.folder / f"{way}-seed{arguments.seed}"
        if not (folder / "results.json").is_file():
            continue
        run = ac.open_run(folder)
        name = alike(way)
        if name not in networks:
            networks[name] = job.cut(way)
        rows.append(row_of(job, way, run, networks[name], job.small if way in OURS else "full"))
    figures: dict[str, Any] = {
        "model": arguments.model,
        "data": Path(arguments.data).stem,
        "images": len(job.data.train),
        "equal": arguments.equal,
        "like": arguments.like,
        "alpha": arguments.alpha,
        "align": arguments.align,
        "inner": arguments.inner,
        "recipe": job.recipe.to_json(),
        "seed": arguments.seed,
    }
    name = f"vs_torch_pruning_{arguments.model}_{arguments.equal}"
    if arguments.add:
        earlier = json.loads((RESULTS / f"{name}.json").read_text())["figures"]
        other = differing(BEFORE | earlier, figures)
        if other:
            raise SystemExit(f"{name}.json is of another {', '.join(other)}: rows of both cannot stand in one table.")
        rows = with_others(rows, earlier["rows"])
    else:
        times = timed_once(job, networks)
        for row in rows:
            row |= times[alike(row["way"])]
        refuse_slower(rows, arguments)
    figures["rows"] = rows
    record(name, figures, f"1 seed ({arguments.seed}); {rows[0]['rounds']} rounds of timing", added=arguments.add)
    plot(rows, RESULTS / f"{name}.svg")
    write_page()


def timed_once(job: Job, networks: dict[str, nn.Module]) -> dict[str, dict[str, Any]]:
    """The times of all networks; those of the same shapes have one, for two would differ by what the clock makes of them."""
    first: dict[tuple[tuple[str, torch.Size], ...], str] = {}
    stands_for = {name: first.setdefault(shapes(network), name) for name, network in networks.items()}
    different = {name: networks[name] for name in first.values()}
    times = timed(different, job.folder, job.data.preprocessing.example(7), job.arguments.duration)
    return {name: times[other] for name, other in stands_for.items()}


def refuse_slower(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """What was cut to equal milliseconds must have them when all are timed together, or the table would say what is not so."""
    if arguments.equal != "latency":
        return
    wanted = next(row["p50_ms"] for row in rows if alike(row["way"]) == ("inner" if arguments.like == "inner" else "ours"))
    slow = [row["way"] for row in rows if alike(row["way"]) in PRUNED and row["p50_ms"] > _STILL_EQUAL * wanted]
    if slow:
        raise SystemExit(
            f"{', '.join(slow)} took longer than {wanted:.3f} ms this time: measure on an idle machine, or train "
            "anew without the ratio's file, which was found on a noisy one."
        )


def with_others(new: list[dict[str, Any]], earlier: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of ways trained since, among those of a result; their networks' times are those that it has of the same ones.

    The same are those of one way, and others with as many parameters and multiply-adds.
    """
    by_way = {row["way"]: row for row in earlier}
    for row in new:
        if row["way"] != "full":
            counts = row["parameters"], row["macs"]
            same = next((other for other in earlier if (other["parameters"], other["macs"]) == counts), None)
            if same is None:
                raise SystemExit(
                    f"{row['way']} is a network that the result has no times of: measure all of them, without --add."
                )
            by_way[row["way"]] = row | {key: same[key] for key in ("p50_ms", "noisy", "rounds", "bytes")} | {"added": True}
    return [by_way[way] for way in ("full", *WAYS) if way in by_way]


def row_of(job: Job, way: str, run: ac.Run | None, network: nn.Module, small: str) -> dict[str, Any]:
    counts = ac.count(network, job.example)
    row: dict[str, Any] = {"way": way, "parameters": counts.parameters, "macs": counts.macs}
    if run is None:
        return row | {"accuracy": tested(network, job.data), "full_accuracy": None, "training_macs": 0, "seconds": 0}
    results = run.ended()
    test, seen = results["test"], 3 * len(job.data.train)
    if way in OURS:
        spent = training_macs(run.method(), run, job.data)
    else:
        spent = results["epochs"] * (seen * counts.macs + (way in TAUGHT) * len(job.data.train) * job.full_macs)
    seconds = results["seconds"]
    before = job.folder / f"{way}-sparse-seed{job.arguments.seed}"
    if before.is_dir():
        earlier = ac.open_run(before).ended()
        spent, seconds = spent + seen * earlier["epochs"] * job.full_macs, seconds + earlier["seconds"]
    return row | {
        "epochs": results["epochs"],
        "images": results["epochs"] * len(job.data.train),
        "accuracy": test[small]["accuracy"],
        "full_accuracy": test["full"]["accuracy"] if way in OURS else None,
        "training_macs": spent,
        "seconds": seconds,
        "precision": run.config["precision"],
    }


def tested(network: nn.Module, data: ac.ImageData) -> float:
    """Top-1 of a network on the test split."""
    return evaluate_split({"it": network}, data, data.test)["it"].accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "measure"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="cifar_resnet56")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--alpha", type=float, default=2.0)
    parser.add_argument("--align", type=int, default=1, help="ours: widths are multiples of this")
    parser.add_argument("--equal", choices=["macs", "latency"], default="macs")
    parser.add_argument("--like", choices=["adjoined", "inner"], default="adjoined", help="which of ours the others equal")
    parser.add_argument("--inner", default="*.conv1", help="ours, inner: the layers that are cut")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=WAYS, help="train: these ways")
    parser.add_argument("--precision", choices=["32", "bf16"], help="of the trainings; by default the protocols'")
    parser.add_argument("--add", action="store_true", help="measure: keep the result's other rows, and its times")
    parser.add_argument("--duration", type=float, default=15.0)
    parser.add_argument("--folder", type=Path, default=Path("vs-torch-pruning"))
    arguments = parser.parse_args()
    job = Job(arguments)
    job.train_all() if arguments.what == "train" else measure(job)


if __name__ == "__main__":
    main()
