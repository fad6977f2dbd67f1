"""Claim: with a shared trunk an adjoined step costs little more than a standard one.

Beside both stands the adjoined step whose networks each have stem and first stage of their own, as in the papers. Steps
interleaved in random order; medians, over the standard step; and what multiply-adds alone would say.

    python benchmarks/trunk_step.py --rounds 15

writes results/trunk_step.json.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from clock import interleaved, step
from record import record
from torch import Tensor

import adjcompress as ac

CASES: dict[str, dict[str, Any]] = {
    "resnet50, alpha 4, 32 px": {"name": "resnet50", "alpha": 4, "size": 32, "batch": 64},
    "resnet18, alpha 8, 32 px": {"name": "resnet18", "alpha": 8, "size": 32, "batch": 128},
    "resnet18, alpha 8, 224 px": {"name": "resnet18", "alpha": 8, "size": 224, "batch": 16},
}


def measured(name: str, alpha: int, size: int, batch: int, rounds: int) -> dict[str, float]:
    """Median seconds of a standard step, and of adjoined ones, own and shared trunk, over it."""
    torch.manual_seed(0)
    images, labels = torch.randn(batch, 3, size, size), torch.randint(0, 100, (batch,))
    standard, *models = (ac.create_model(name, 100) for _ in range(3))
    plan = ac.plan_widths(standard, images[:1], alpha)
    trunk = ac.trunk_of(standard, [plan], images[:1])
    networks = {
        "own": ac.adjoin(models[0], {"small": plan}),
        "shared": ac.adjoin(models[1], {"small": plan}, trunk=trunk),
    }
    whole, small = ac.count(standard, images), ac.count(ac.slice_model(standard, plan), images)
    in_trunk = whole.macs_of(trunk)

    def adjoined_loss(network: ac.AdjoinedNetwork) -> Tensor:
        full, smalls = network(images)
        return ac.adjoint_loss(full, smalls, labels, 0.5).total

    runs = {"standard": step(lambda: F.cross_entropy(standard(images), labels), standard)}
    runs |= {kind: step(partial(adjoined_loss, network), network) for kind, network in networks.items()}
    median = interleaved(runs, rounds)
    return {
        "standard_seconds": median["standard"],
        "own_over_standard": median["own"] / median["standard"],
        "shared_over_standard": median["shared"] / median["standard"],
        "own_macs": 1 + small.macs / whole.macs,
        "shared_macs": 1 + (small.macs - in_trunk) / whole.macs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    figures = {}
    for case, settings in CASES.items():
        figures[case] = found = measured(**settings, rounds=arguments.rounds)
        print(
            f"{case:26} over a standard step: own trunk {found['own_over_standard']:.2f} ({found['own_macs']:.2f} by "
            f"multiply-adds), shared {found['shared_over_standard']:.2f} ({found['shared_macs']:.2f})"
        )
    record("trunk_step", figures, f"{arguments.rounds} rounds of steps; medians")


if __name__ == "__main__":
    main()
