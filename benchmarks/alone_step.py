"""Claim: a step in which the small network learns alone, inside the full one (small first), costs what it costs without one.

Beside both stands the step in which it learns in views of the full weights, as it does where no small network holds the
others. Whole steps, optimiser included; interleaved in random order; medians, over the small network's own step.

    python benchmarks/alone_step.py --rounds 25

writes results/alone_step.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from clock import interleaved
from record import record

import adjcompress as ac
from adjcompress.methods import Method, MethodOptions, StandardMethod
from adjcompress.training import recipe
from adjcompress.training.recipes import make_optimizers

CASES: dict[str, dict[str, Any]] = {
    "resnet18, alpha 8, 32 px, bf16": {"name": "resnet18", "alpha": 8.0, "size": 32, "batch": 128},
    "resnet50, alpha 4, 32 px, bf16": {"name": "resnet50", "alpha": 4.0, "size": 32, "batch": 64},
}


def measured(name: str, alpha: float, size: int, batch: int, rounds: int) -> dict[str, float]:
    """Median seconds of the small network's own step, and of the same step inside the full network, over it."""
    torch.manual_seed(0)
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels, one = torch.randint(0, 100, (batch,)), MethodOptions(alphas=(alpha,))
    first = MethodOptions(alphas=(alpha,), small_first=0.8, trunk="shared")
    methods: dict[str, Method] = {
        "small": StandardMethod.build(ac.create_model(name, 100), images[:2], one),
        **{kind: ac.AdjoinedMethod.build(ac.create_model(name, 100), images[:2], first) for kind in ("apart", "views")},
    }
    steps = {kind: whole_step(method, images, labels, views=kind == "views") for kind, method in methods.items()}
    median = interleaved(steps, rounds)
    over = {f"{kind}_over_small": median[kind] / median["small"] for kind in ("apart", "views")}
    return {"small_seconds": median["small"], **over}


def whole_step(method: Method, images: torch.Tensor, labels: torch.Tensor, views: bool) -> Callable[[], None]:
    """A step of a training's beginning, in bf16: loss, gradients, optimiser."""
    method.network.to(memory_format=torch.channels_last).train()
    if views:
        method.network.learn_apart_ = list  # type: ignore[assignment]
    (optimizer,) = make_optimizers(method.parameter_groups(5e-4), recipe("cifar"), 100)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = method.loss(images, labels, 0.1).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = {}
    for case, settings in CASES.items():
        figures[case] = found = measured(**settings, rounds=arguments.rounds)
        apart, views = found["apart_over_small"], found["views_over_small"]
        print(f"{case}: over the small network's own step {apart:.2f}, in views of the full weights {views:.2f}")
    record("alone_step", figures, f"{arguments.rounds} rounds of steps; medians")


if __name__ == "__main__":
    main()
