"""Claim: a step of a width search costs at most 1.15 (1 + MACs of the widest small network / MACs full) standard steps.

The whole step as it is trained: soft choices drawn, expected costs and their slopes, both networks, weights and widths
updated. Steps interleaved in random order; medians.

    adjcompress bench --table table-64.json --model mobilenet_v2 --image-size 64 --classes 100 --target one-core
    python benchmarks/search_step.py --rounds 15 --table table-64.json

Without --table, the case of a search under a latency is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from clock import interleaved, step
from record import record

import adjcompress as ac
from adjcompress.methods import MethodOptions, SearchMethod
from adjcompress.training.recipes import make_optimizers

CASES: dict[str, dict[str, Any]] = {
    "resnet18, alphas 1 2 4 8, 32 px": {"name": "resnet18", "alphas": (1, 2, 4, 8), "size": 32, "batch": 128},
    "resnet18, alphas 2 4 8, 32 px": {"name": "resnet18", "alphas": (2, 4, 8), "size": 32, "batch": 128},
    "resnet50, alphas 1 2 4, 32 px": {"name": "resnet50", "alphas": (1, 2, 4), "size": 32, "batch": 64},
    "mobilenet_v2, alphas 1 2 4, 64 px": {"name": "mobilenet_v2", "alphas": (1, 2, 4), "size": 64, "batch": 32},
}
TIMED = "mobilenet_v2, alphas 1 2 4, 64 px, under a latency"


def steps(
    name: str, alphas: tuple[float, ...], size: int, batch: int, table: Path | None = None
) -> tuple[dict[str, Callable[[], None]], float]:
    """A standard step and a search's, ready to call, and 1 + MACs of the widest small network / MACs full.

    The budget is the mean of the uniform networks: their multiply-adds, or what a latency `table` predicts for them.
    """
    torch.manual_seed(0)
    images, labels = torch.randn(batch, 3, size, size), torch.randint(0, 100, (batch,))
    standard, full = ac.create_model(name, 100), ac.create_model(name, 100)
    widest = ac.slice_model(standard, ac.plan_widths(standard, images[:1], min(alphas)))
    uniform = [ac.slice_model(standard, ac.plan_widths(standard, images[:1], alpha)) for alpha in alphas]
    macs = ac.count(standard, images).macs
    if table is None:
        budget = f"macs={mean(ac.count(each, images).macs for each in uniform) / macs:.4f}"
    else:
        known = ac.read_table(table)
        budget = f"latency={mean(known.predict(each, images[:1]).total_ms for each in uniform):.4f}ms"
    options = MethodOptions(alphas=alphas, budgets=(budget,), table=str(table) if table else None)
    method = SearchMethod.build(full, images[:2], options)
    method.network.train()
    recipe = ac.recipe("cifar").changed(lr=0.01)
    optimizers = make_optimizers(method.parameter_groups(0.0), recipe, steps=1000)

    def search() -> None:
        method.loss(images, labels, 0.9).total.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    runs = {"standard": step(lambda: F.cross_entropy(standard(images), labels), standard), "search": search}
    return runs, 1 + ac.count(widest, images).macs / macs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--table", type=Path, help="a latency table of mobilenet_v2 at 64 px")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, Any]] = {}
    cases = dict(CASES)
    if arguments.table is not None:
        cases[TIMED] = {**CASES["mobilenet_v2, alphas 1 2 4, 64 px"], "table": arguments.table}
    for case, settings in cases.items():
        runs, bound = steps(**settings)
        median = interleaved(runs, arguments.rounds)
        ratio = median["search"] / median["standard"]
        figures[case] = {"median_seconds": median, "search_over_standard": ratio, "bound": 1.15 * bound}
        print(f"{case:52} search / standard {ratio:.2f} (bound {1.15 * bound:.2f})", flush=True)
    record("search_step", figures, f"{arguments.rounds} rounds of steps; medians")
    for case, figure in figures.items():
        assert figure["search_over_standard"] <= figure["bound"], case


if __name__ == "__main__":
    main()
