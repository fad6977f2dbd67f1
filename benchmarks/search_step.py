"""Claim: a step of a width search costs at most 1.15 (1 + MACs of the widest small network / MACs full) standard steps.

The whole step as it is trained: soft choices drawn, expected costs and their slopes, both networks, weights and widths
updated. Steps interleaved in random order; medians.

    python benchmarks/search_step.py --rounds 15
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from record import record
from train_step import interleaved, step

import adjcompress as ac
from adjcompress.methods import MethodOptions, SearchMethod
from adjcompress.training.recipe import make_optimizers

CASES: dict[str, dict[str, Any]] = {
    "resnet18, alphas 1 2 4 8, 32 px": {"name": "resnet18", "alphas": (1, 2, 4, 8), "size": 32, "batch": 128},
    "resnet18, alphas 2 4 8, 32 px": {"name": "resnet18", "alphas": (2, 4, 8), "size": 32, "batch": 128},
    "resnet50, alphas 1 2 4, 32 px": {"name": "resnet50", "alphas": (1, 2, 4), "size": 32, "batch": 64},
    "mobilenet_v2, alphas 1 2 4, 64 px": {"name": "mobilenet_v2", "alphas": (1, 2, 4), "size": 64, "batch": 32},
}


def steps(name: str, alphas: tuple[float, ...], size: int, batch: int) -> tuple[dict[str, Callable[[], None]], float]:
    """A standard step and a search's, ready to call, and 1 + MACs of the widest small network / MACs full."""
    torch.manual_seed(0)
    images, labels = torch.randn(batch, 3, size, size), torch.randint(0, 100, (batch,))
    standard, full = ac.create_model(name, 100), ac.create_model(name, 100)
    widest = ac.slice_model(standard, ac.plan_widths(standard, images[:1], min(alphas)))
    parts = {
        alpha: ac.count(ac.slice_model(standard, ac.plan_widths(standard, images[:1], alpha)), images).macs for alpha in alphas
    }
    macs = ac.count(standard, images).macs
    middle = sum(parts.values()) / len(parts) / macs
    method = SearchMethod.build(full, images[:2], MethodOptions(alphas=alphas, budgets=(f"macs={middle:.4f}",)))
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
    arguments = parser.parse_args()
    figures = {}
    for case, settings in CASES.items():
        runs, bound = steps(**settings)
        median = interleaved(runs, arguments.rounds)
        ratio = median["search"] / median["standard"]
        figures[case] = {"median_seconds": median, "search_over_standard": ratio, "bound": 1.15 * bound}
        print(f"{case:36} search / standard {ratio:.2f} (bound {1.15 * bound:.2f})", flush=True)
    record("search_step", figures, f"{arguments.rounds} rounds of steps; medians")
    for case, figure in figures.items():
        assert figure["search_over_standard"] <= figure["bound"], case


if __name__ == "__main__":
    main()
