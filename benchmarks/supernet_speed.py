"""Claim: a step of a super network costs in proportion to what was drawn, and a distributed cost is computed in under 5 ms.

A whole training step of the ResNet fabric under a budget of MACs, loss, gates' gradient, steering and the recipe's
optimisers, with one architecture for the whole batch, of about a tenth, a half and all of its MACs, side by side and
interleaved: milliseconds for each MAC, over those of the whole. And the distributed cost of the largest published fabric,
18 blocks in a stage, computed anew and from the cache.

    python benchmarks/supernet_speed.py

writes results/supernet_speed.json.
"""

from __future__ import annotations

import argparse
from functools import partial
from statistics import median

import torch
from clock import milliseconds
from record import record

import adjcompress as ac
from adjcompress.models.graph import GraphNetwork
from adjcompress.supernets import MacsCost, StochasticSuperNetwork
from adjcompress.supernets.distributed import _cycles
from adjcompress.training import recipe
from adjcompress.training.recipes import make_optimizers

PARTS = (0.1, 0.5, 1.0)


def drawn(network: StochasticSuperNetwork, cost: MacsCost, part: float) -> torch.Tensor:
    """Gates, bool (1, gates), of the random architecture nearest to `part` of the MACs."""
    if part == 1:
        return torch.ones(1, len(network.logits), dtype=torch.bool)
    random = torch.Generator().manual_seed(0)
    chances = torch.rand(2000, 1, generator=random)
    gates = torch.rand(2000, len(network.logits), generator=random) < chances
    costs = cost.of(network.reach.active(gates)) / cost.full
    return gates[(costs - part).abs().argmin()][None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    asked = ac.MethodOptions(budgets=("macs=0.5",), samples_per_batch=1)
    method = ac.BudgetedMethod.build(ac.create_model("resnet_fabric", 10), torch.zeros(2, 3, 32, 32), asked)
    network = method.network.train()
    optimizers = make_optimizers(method.parameter_groups(5e-4), recipe("cifar").changed(lr=1e-9), 1000)
    images, labels = torch.randn(arguments.batch, 3, 32, 32), torch.randint(0, 10, (arguments.batch,))
    cost = MacsCost(network.network, images)
    choices = {part: drawn(network, cost, part) for part in PARTS}

    def step(gates: torch.Tensor) -> None:
        network.draw = lambda count: gates.expand(count, -1)  # type: ignore[method-assign]
        method.loss(images, labels, 0.4).total.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    times: dict[float, list[float]] = {part: [] for part in PARTS}
    for gates in choices.values():
        step(gates)
    for _ in range(arguments.rounds):
        for part, gates in choices.items():
            times[part].append(milliseconds(partial(step, gates)))
    macs = {part: float(cost.of(network.reach.active(gates))[0]) for part, gates in choices.items()}
    rows = [
        {
            "part": macs[part] / cost.full,
            "step_ms": median(times[part]),
            "time_for_each_mac": median(times[part]) / macs[part] / (median(times[1.0]) / macs[1.0]),
        }
        for part in PARTS
    ]
    large = ac.create_model("resnet_fabric", 10, blocks=18)
    assert isinstance(large, GraphNetwork)
    fresh, kept = [], []
    for _ in range(arguments.rounds):
        _cycles.cache_clear()
        fresh.append(milliseconds(lambda: ac.distributed_cost(large, 2)))
        kept.append(milliseconds(lambda: ac.distributed_cost(large, 2)))
    schedule = {
        "nodes": len(large.graph.nodes),
        "cycles": ac.distributed_cost(large, 2),
        "ms": median(fresh),
        "cached_ms": median(kept),
    }
    for row in (*rows, schedule):
        print(row)
    record("supernet_speed", {"batch": arguments.batch, "steps": rows, "schedule": schedule}, f"{arguments.rounds} rounds")


if __name__ == "__main__":
    main()
