"""Claim: an adjoined step costs at most 1.15 (1 + MACs small / MACs full) standard steps, and at most 1.4 times the memory.

Beside it the papers' way: one doubled batch, full-size convolutions for both halves, the second half's outputs zeroed; it
must be at least 1.4 times slower than ours. Steps interleaved in random order; medians.

    python benchmarks/train_step.py --rounds 15
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from clock import interleaved, step
from record import record
from torch import Tensor, nn

import adjcompress as ac
from adjcompress.bench.worker import MemoryWatch

MEMORY_RUNS = 5
CASES: dict[str, dict[str, Any]] = {
    "resnet50, alpha 4, 224 px": {"name": "resnet50", "alpha": 4, "size": 224, "batch": 8},
    "resnet50, alpha 4, 32 px": {"name": "resnet50", "alpha": 4, "size": 32, "batch": 64},
    "resnet18, alpha 8, 224 px": {"name": "resnet18", "alpha": 8, "size": 224, "batch": 16},
    "resnet18, alpha 8, 32 px": {"name": "resnet18", "alpha": 8, "size": 32, "batch": 128},
}


class MaskedConvolution(nn.Module):
    """The papers' way: both halves of the batch through the full convolution, then the second half's last filters zeroed."""

    def __init__(self, convolution: nn.Conv2d, kept: int) -> None:
        super().__init__()
        self.convolution = convolution
        mask = torch.zeros(1, convolution.out_channels, 1, 1)
        mask[:, :kept] = 1
        self.register_buffer("mask", mask)

    def forward(self, images: Tensor) -> Tensor:
        first, second = self.convolution(images).chunk(2)
        return torch.cat([first, second * self.mask])


class TwoBatchNorms(nn.Module):
    """A batch norm for each half of the batch."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.first, self.second = norm, nn.BatchNorm2d(norm.num_features)

    def forward(self, images: Tensor) -> Tensor:
        first, second = images.chunk(2)
        return torch.cat([self.first(first), self.second(second)])


def papers_way(network: nn.Module, plan: ac.WidthPlan) -> nn.Module:
    """Replace the convolutions and batch norms of `network`; it then takes a batch and gives both networks' logits."""
    for name, module in list(network.named_modules()):
        owner = network.get_submodule(name.rpartition(".")[0])
        if isinstance(module, nn.Conv2d) and 0 in plan.cuts.get(f"{name}.weight", {}):
            kept = plan.cuts[f"{name}.weight"][0][0][1]
            setattr(owner, name.rpartition(".")[2], MaskedConvolution(module, kept))
        elif isinstance(module, nn.BatchNorm2d):
            setattr(owner, name.rpartition(".")[2], TwoBatchNorms(module))
    return network


def steps(name: str, alpha: int, size: int, batch: int) -> tuple[dict[str, Callable[[], None]], float]:
    """One training step of each kind, ready to call, and 1 + MACs small / MACs full."""
    torch.manual_seed(0)
    images, labels = torch.randn(batch, 3, size, size), torch.randint(0, 100, (batch,))
    made = {kind: ac.create_model(name, 100) for kind in ("standard", "adjoined", "papers")}
    plan = ac.plan_widths(made["adjoined"], images[:1], alpha)
    small = ac.slice_model(made["adjoined"], plan)
    bound = 1 + ac.count(small, images).macs / ac.count(made["standard"], images).macs
    adjoined = ac.adjoin(made["adjoined"], {"small": plan})
    papers = papers_way(made["papers"], plan)

    def standard_loss() -> Tensor:
        return F.cross_entropy(made["standard"](images), labels)

    def adjoined_loss() -> Tensor:
        full, smalls = adjoined(images)
        return ac.adjoint_loss(full, smalls, labels, 0.5).total

    def papers_loss() -> Tensor:
        full, second = papers(torch.cat([images, images])).chunk(2)
        return ac.adjoint_loss(full, {"small": second}, labels, 0.5).total

    return {
        "standard": step(standard_loss, made["standard"]),
        "adjoined": step(adjoined_loss, adjoined),
        "papers": step(papers_loss, papers),
    }, bound


def peak_memory(case: str, kind: str) -> int:
    """Peak resident memory, in bytes, of a process that makes three steps of one kind, above what it held before."""
    command = [sys.executable, __file__, "--memory", case, kind]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_memory(case: str, kind: str) -> None:
    before = psutil.Process().memory_info().rss
    settings = CASES[case]
    torch.manual_seed(0)
    images = torch.randn(settings["batch"], 3, settings["size"], settings["size"])
    labels = torch.zeros(settings["batch"]).long()
    network: nn.Module = ac.create_model(settings["name"], 100)
    if kind == "adjoined":
        network = ac.adjoin(network, {"small": ac.plan_widths(network, images[:1, :, :32, :32], settings["alpha"])})
    optimizer = torch.optim.SGD(network.parameters(), 0.01, 0.9, fused=True)
    watch = MemoryWatch()
    for _ in range(3):
        if kind == "adjoined":
            full, smalls = network(images)
            ac.adjoint_loss(full, smalls, labels, 0.5).total.backward()
        else:
            F.cross_entropy(network(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    print(json.dumps(watch.stop() - before))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        measure_memory(*arguments.memory)
        return
    figures: dict[str, dict[str, Any]] = {}
    for case, settings in CASES.items():
        runs, bound = steps(**settings)
        median = interleaved(runs, arguments.rounds)
        peaks: dict[str, list[int]] = {"standard": [], "adjoined": []}
        for _ in range(MEMORY_RUNS):  # the allocator's luck differs from process to process
            for kind, values in peaks.items():
                values.append(peak_memory(case, kind))
        memory = {kind: statistics.median(values) for kind, values in peaks.items()}
        figures[case] = {
            "median_seconds": median,
            "adjoined_over_standard": median["adjoined"] / median["standard"],
            "bound": 1.15 * bound,
            "papers_over_adjoined": median["papers"] / median["adjoined"],
            "memory_bytes": peaks,
            "memory_ratio": memory["adjoined"] / memory["standard"],
        }
        figure = figures[case]
        print(
            f"{case:26} adjoined / standard {figure['adjoined_over_standard']:.2f} (bound {figure['bound']:.2f}), "
            f"papers / adjoined {figure['papers_over_adjoined']:.2f}, memory {figure['memory_ratio']:.2f}"
        )
    record("train_step", figures, f"{arguments.rounds} rounds of steps, {MEMORY_RUNS} processes for memory; medians")
    for case, figure in figures.items():
        assert figure["adjoined_over_standard"] <= figure["bound"], case
        assert figure["papers_over_adjoined"] >= 1.4, case
        assert figure["memory_ratio"] <= 1.4, case


if __name__ == "__main__":
    main()
