"""Claim: what adjoined training makes of a trained network, beside what Torch-Pruning cuts out of it.

At equal multiply-adds of the small network (or, with --equal latency, at equal milliseconds in ONNX Runtime) and equal
multiply-adds of training in all, from the same trained weights, by the same loop, recipe and evaluation:

    adjoined       ours: important channels first, full and small network trained together
    trunk          the same, trunk shared
    magnitude      Torch-Pruning's group magnitude: cut at once, then trained alone, for as much longer as that is cheaper
    group-norm     Torch-Pruning's GroupNormPruner: sparse learning of the full network, then cut, then trained
    group-norm-wide  the same with one threshold over all layers (global pruning)

    python benchmarks/vs_torch_pruning.py train --data cifar10-30k.npz --model cifar_resnet56 --weights resnet56.th
    python benchmarks/vs_torch_pruning.py measure --data cifar10-30k.npz --model cifar_resnet56 --weights resnet56.th

Trainings are kept in --folder and resumed; `measure` times all on one thread side by side and writes
results/vs_torch_pruning_<model>_<equal>.json and vs_torch_pruning.md. With a shared trunk ours costs less, which its row shows.
Layers whose channels a CIFAR ResNet's shortcut picks keep their width under Torch-Pruning, which knows no such layer.
"""

from __future__ import annotations

import argparse
import copy
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from accuracy import training_macs
from record import RESULTS, record
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from training import Lines, hardware

import adjcompress as ac
from adjcompress.data import DataSpec, read_data
from adjcompress.files import write_text
from adjcompress.methods import AdjoinedMethod, MethodOptions, StandardMethod, alpha_name
from adjcompress.models import ModelSpec, load_weights_
from adjcompress.training import evaluate_split, recipe
from adjcompress.training.checkpoint import newest_checkpoint
from adjcompress.widths import channel_groups, order_channels_
from adjcompress.widths.channels import is_selection, selection_pruners

OURS = {"adjoined": "own", "trunk": "shared"}
PRUNED = {"magnitude": False, "group-norm": False, "group-norm-wide": True}
_REGULARISATION = 1e-4  # GroupNormPruner's own default
_HALVINGS = 12


class Job:
    """One network, one data set, and everything that is trained on them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.data = read_data(DataSpec(arguments.data))
        self.spec = ModelSpec(arguments.model, len(self.data.classes), self.data.preprocessing.image_size)
        self.example = self.data.preprocessing.example(2)
        self.folder: Path = arguments.folder / f"{arguments.model}-{arguments.equal}"
        self.recipe = recipe("cifar").changed(epochs=arguments.epochs, lr=arguments.lr)
        self.full_macs = ac.count(self.spec.build(), self.example).macs
        self.ours = ac.slice_model(self.model(), self.plan())
        self.small_macs = ac.count(self.ours, self.example).macs
        self.small = alpha_name(arguments.alpha)
        self.folder.mkdir(parents=True, exist_ok=True)

    def model(self) -> nn.Module:
        """The trained network."""
        network = self.spec.build()
        load_weights_(network, self.arguments.weights)
        return network

    def plan(self) -> ac.WidthPlan:
        return ac.plan_widths(self.spec.build(), self.example, self.arguments.alpha)

    def fitted(self, name: str, method: Any, epochs: int, named: bool) -> ac.Run:
        """The finished run `name`; what was begun goes on. `named`: the run's settings can rebuild its network."""
        folder = self.folder / f"{name}-seed{self.arguments.seed}"
        begun = (folder / "config.json").is_file()
        if not begun or ac.open_run(folder).results() is None:
            fabric = ac.launch(hardware())
            chosen = self.recipe.changed(epochs=epochs)
            fit = {"model": self.spec if named else None, "seed": self.arguments.seed, "resume": begun, "fabric": fabric}
            ac.fit(method, self.data, chosen, folder, reporter=Lines(folder.name), **fit)
        return ac.open_run(folder)

    def epochs_alone(self) -> int:
        """For how many epochs the small network trains alone for what full and small together cost in the protocol's."""
        return round(self.arguments.epochs * (self.full_macs + self.small_macs) / self.small_macs)

    def adjoined(self, trunk: str) -> AdjoinedMethod:
        network = self.model()
        order_channels_(network, self.example, "magnitude")
        return AdjoinedMethod.build(network, self.example, MethodOptions(alphas=(self.arguments.alpha,), trunk=trunk))

    def pruned(self, kind: str) -> StandardMethod:
        """What Torch-Pruning makes of the network, after sparse learning where `kind` has that."""
        network = self.model()
        if kind != "magnitude":
            found = newest_checkpoint(self.folder / f"{kind}-sparse-seed{self.arguments.seed}")
            assert found is not None
            network.load_state_dict(found.checkpoint.weights)
        cut = copy.deepcopy(network)
        pruner(cut, self.example, PRUNED[kind], self.ratio(kind, network)).step()
        return StandardMethod(cut)

    def ratio(self, kind: str, network: nn.Module) -> float:
        """At which ratio Torch-Pruning cuts, found once: milliseconds would say another one tomorrow."""
        path = self.folder / f"{kind}-seed{self.arguments.seed}-ratio.json"
        if not path.is_file():
            write_text(path, json.dumps(self.found_ratio(network, PRUNED[kind])))
        return float(json.loads(path.read_text()))

    def found_ratio(self, network: nn.Module, everywhere: bool) -> float:
        """The least ratio at which what is left of `network` is within our small one's multiply-adds or milliseconds."""
        low, high, best = 0.0, 1.0, None
        for _ in range(_HALVINGS if self.arguments.equal == "macs" else _HALVINGS // 2):
            ratio = (low + high) / 2
            candidate = copy.deepcopy(network)
            pruner(candidate, self.example, everywhere, ratio).step()
            if self.fits(candidate):
                best = high = ratio
            else:
                low = ratio
        if best is None:
            raise SystemExit("Torch-Pruning cuts nothing as small as our network out of this one.")
        return best

    def fits(self, candidate: nn.Module) -> bool:
        if self.arguments.equal == "macs":
            return ac.count(candidate, self.example).macs <= self.small_macs
        return self.milliseconds({"candidate": candidate, "ours": self.ours}, 2.0, part="candidate") <= 1.0

    def milliseconds(self, networks: dict[str, nn.Module], duration: float, part: str) -> float:
        """The time of `part` over ours, side by side."""
        times = timed(networks, self.folder, self.data.preprocessing.example(7), duration)
        return times[part] / times["ours"]

    def train_all(self) -> None:
        epochs, alone = self.arguments.epochs, self.epochs_alone()
        for name, trunk in OURS.items():
            self.fitted(name, self.adjoined(trunk), epochs, named=True)
        for kind in PRUNED:
            if kind == "magnitude":
                self.fitted(kind, self.pruned(kind), alone, named=False)
                continue
            network = self.model()
            with sparse_learning(network, self.example, PRUNED[kind]):
                self.fitted(f"{kind}-sparse", StandardMethod(network), epochs, named=True)
            self.fitted(kind, self.pruned(kind), epochs, named=False)


def pruner(network: nn.Module, example: torch.Tensor, everywhere: bool, ratio: float = 0.5) -> Any:
    """Torch-Pruning's GroupNormPruner; with sparse learning left out it cuts by group magnitude."""
    groups = channel_groups(network, example)
    picked = {axis.layer for axis in (axis for group in groups for axis in group.axes)} & {
        name for name, module in network.named_modules() if is_selection(module)
    }
    kept = [layer for group in groups if picked & {axis.layer for axis in group.axes} for layer in group.producers]
    last = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch_pruning.pruner.GroupNormPruner(
            network,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            reg=_REGULARISATION,
            global_pruning=everywhere,
            pruning_ratio=ratio,
            max_pruning_ratio=0.95,
            ignored_layers=[network.get_submodule(name) for name in (*kept, last)],
            customized_pruners=selection_pruners(network),
        )


@contextmanager
def sparse_learning(network: nn.Module, example: torch.Tensor, everywhere: bool) -> Iterator[None]:
    """Within the block every optimiser's step is preceded by the pruner's push of unimportant groups towards zero."""
    pushing = pruner(network, example, everywhere)
    hook = register_optimizer_step_pre_hook(lambda *_: pushing.regularize(network))
    try:
        yield
    finally:
        hook.remove()


def timed(networks: dict[str, nn.Module], folder: Path, example: torch.Tensor, duration: float) -> dict[str, float]:
    """Milliseconds of each network in ONNX Runtime, one thread, side by side."""
    files = {name: folder / f"{name}.onnx" for name in networks}
    for name, network in networks.items():
        ac.export_onnx(network.eval(), files[name], example)
    timings = ac.benchmark(list(files.values()), threads=(1,), duration=duration).timings
    return {name: timing.latency.p50_ms for name, timing in zip(files, timings, strict=True)}


def measure(job: Job) -> None:
    """Gather what was trained, time all of it, and write what was found."""
    networks: dict[str, nn.Module] = {"full": job.model(), "ours": job.ours}
    rows = [row_of(job, "full", None, networks["full"], "full")]
    builders: dict[str, Callable[[], nn.Module]] = {kind: lambda kind=kind: job.pruned(kind).network for kind in PRUNED}
    for name in (*OURS, *PRUNED):
        folder = job.folder / f"{name}-seed{job.arguments.seed}"
        if not (folder / "results.json").is_file():
            continue
        run = ac.open_run(folder)
        if name in builders:
            networks[name] = builders[name]()
        rows.append(row_of(job, name, run, networks.get(name, job.ours), job.small if name in OURS else "full"))
    times = timed(networks, job.folder, job.data.preprocessing.example(7), job.arguments.duration)
    for row in rows:
        row["p50_ms"] = times.get(row["way"], times["ours"])
    figures = {
        "model": job.arguments.model,
        "data": Path(job.arguments.data).stem,
        "images": len(job.data.train),
        "equal": job.arguments.equal,
        "recipe": job.recipe.to_json(),
        "seed": job.arguments.seed,
        "rows": rows,
    }
    name = f"vs_torch_pruning_{job.arguments.model}_{job.arguments.equal}"
    record(name, figures, f"1 seed ({job.arguments.seed}); one run of timing")
    write_page()


def row_of(job: Job, way: str, run: ac.Run | None, network: nn.Module, small: str) -> dict[str, Any]:
    counts = ac.count(network, job.example)
    row: dict[str, Any] = {"way": way, "parameters": counts.parameters, "macs": counts.macs}
    if run is None:
        return row | {"accuracy": tested(network, job.data), "full_accuracy": None, "training_macs": 0, "seconds": 0}
    results = run.results() or {}
    test, seen = results["test"], 3 * len(job.data.train)
    spent = seen * results["epochs"] * counts.macs if way in PRUNED else training_macs(run.method(), run, job.data)
    seconds = results["seconds"]
    before = job.folder / f"{way}-sparse-seed{job.arguments.seed}"
    if before.is_dir():
        earlier = ac.open_run(before).results() or {}
        spent, seconds = spent + seen * earlier["epochs"] * job.full_macs, seconds + earlier["seconds"]
    return row | {
        "accuracy": test[small]["accuracy"],
        "full_accuracy": test["full"]["accuracy"] if way in OURS else None,
        "training_macs": spent,
        "seconds": seconds,
    }


def tested(network: nn.Module, data: ac.ImageData) -> float:
    """Top-1 of a network on the test split."""
    return evaluate_split({"it": network}, data, data.test)["it"].accuracy


def write_page() -> None:
    """results/vs_torch_pruning.md, from the JSON of every network."""
    lines = ["# Beside Torch-Pruning", ""]
    for path in sorted(RESULTS.glob("vs_torch_pruning_*.json")):
        content = json.loads(path.read_text())
        figures = content["figures"]
        equal = "multiply-adds" if figures["equal"] == "macs" else "latency"
        lines += [
            f"## {figures['model']} on {figures['data']}, at equal {equal}",
            "",
            f"{figures['images']:,} training images, {figures['recipe']['epochs']} epochs of full and small network together, "
            f"the others for as long as costs the same; seed {figures['seed']}; top-1 on the 10,000 test images; one thread, "
            f"ONNX Runtime, batch 1. `{content['command']}`",
            "",
            "| way | small | full | parameters | MACs | one thread | MACs in training | seconds |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for row in figures["rows"]:
            whole = f"{100 * row['full_accuracy']:.2f} %" if row["full_accuracy"] is not None else ""
            lines.append(
                f"| {row['way']} | {100 * row['accuracy']:.2f} % | {whole} | {row['parameters']:,} | "
                f"{row['macs'] / 1e6:.1f} M | {row['p50_ms']:.3f} ms | {row['training_macs'] / 1e12:.1f} T | "
                f"{row['seconds']:.0f} |"
            )
        lines.append("")
    write_text(RESULTS / "vs_torch_pruning.md", "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "measure"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="cifar_resnet56")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--alpha", type=float, default=2.0)
    parser.add_argument("--equal", choices=["macs", "latency"], default="macs")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--duration", type=float, default=15.0)
    parser.add_argument("--folder", type=Path, default=Path("vs-torch-pruning"))
    arguments = parser.parse_args()
    job = Job(arguments)
    job.train_all() if arguments.what == "train" else measure(job)


if __name__ == "__main__":
    main()
