"""How is an architecture learnt together with its weights, under a budget of any cost? arXiv:1706.00046."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adjcompress.cost.budget import Budget, parse_budgets
from adjcompress.errors import AdjCompressError
from adjcompress.methods.protocol import MethodOptions, Search, Terms, check_no_widths, decay_groups
from adjcompress.models.graph import GraphNetwork
from adjcompress.substitutes import Substitution
from adjcompress.supernets import (
    Cost,
    CyclesCost,
    MacsCost,
    OwnCost,
    ParametersCost,
    StochasticSuperNetwork,
    advantages,
    cheapest,
    over_budget,
    policy_loss,
)
from adjcompress.widths import WidthPlan

MET = 0.05
_TRAVEL = 12.0  # how far a gate's logit may go in the training: from 3 to -3 and back
_PRICES = (0.1, 100.0)
_PATIENCE = 0.02  # how fast the price of being over the budget follows
_MEMORY = 0.9  # of the mean loss, the baseline of a single architecture


class BudgetedMethod:
    """Cross-entropy of the architectures that are drawn, for the weights; for the gates, REINFORCE on that and the cost.

    An architecture loses its images' mean cross-entropy and `price` times what it costs above the budget, as a part of the
    whole network's cost; one that does not reach the output guesses at random, at the whole network's cost. The price starts
    at 1 and follows: it rises while the drawn architectures cost more than the budget on average, and falls while they cost
    less. In the part `warm_up` of the training all gates are open.
    """

    name = "budgeted"
    deployable = "budgeted"
    prepared_by: type[Search] | None = None
    halves = False
    substitution: Substitution | None = None

    def __init__(
        self, network: StochasticSuperNetwork, cost: Cost, budget: Budget, options: MethodOptions, example: Tensor
    ) -> None:
        self.network, self.cost, self.budget, self.options, self.example = network, cost, budget, options, example
        self.limit = budget.limit(cost.full) / cost.full
        _check_budget(network.network, cost, budget, self.limit)
        if options.samples_per_batch < 1:
            raise AdjCompressError(f"--samples-per-batch {options.samples_per_batch} must be at least 1.")
        if not 0 <= options.warm_up < 1:
            raise AdjCompressError(f"--warm-up {options.warm_up:g} must be at least 0 and below 1: a part of the training.")
        last = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
        self.classes = last.out_features if isinstance(last, nn.Linear) else last.out_channels

    @classmethod
    def build(cls, model: nn.Module, example: Tensor, options: MethodOptions) -> BudgetedMethod:
        check_no_widths("budgeted", options)
        if not isinstance(model, GraphNetwork):
            raise AdjCompressError(
                f"--method budgeted chooses in a graph of layers, and {type(model).__name__} is none: take --model "
                "resnet_fabric or neural_fabric, or a function of your own that returns a GraphNetwork."
            )
        if not options.budgets:
            raise AdjCompressError("--method budgeted needs a --budget, such as --budget macs=0.5 or --budget cycles=16.")
        (budget, *others) = parse_budgets(options.budgets)
        if others:
            raise AdjCompressError(f"--budget {others[0]}: --method budgeted has one budget.")
        return cls(StochasticSuperNetwork(model), _cost(model, budget, options, example), budget, options, example)

    @classmethod
    def restore(cls, model: nn.Module, settings: Mapping[str, Any]) -> BudgetedMethod:
        return cls.build(model, torch.zeros(*settings["example"]), MethodOptions(**settings["options"]))

    def settings(self) -> dict[str, Any]:
        names = ("budgets", "machines", "cost", "samples_per_batch", "warm_up")
        kept = {name: getattr(self.options, name) for name in names}
        return {"options": {**kept, "budgets": list(kept["budgets"])}, "example": list(self.example.shape)}

    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Terms:
        network, count = self.network, min(self.options.samples_per_batch, len(images))
        if progress < self.options.warm_up:
            supervised = F.cross_entropy(network(images), labels)
            total = supervised + 0 * network.logits.sum()  # several processes wait for every gradient
            return Terms(total, {"cross_entropy": supervised})
        gates = network.draw(count)
        active = network.reach.active(gates)
        reached, costs = active[:, -1], self.cost.of(active) / self.cost.full
        each = -(-len(images) // count)
        of_image = torch.arange(len(images)) // each
        if not bool(reached.any()):
            raise AdjCompressError("No architecture that was drawn reaches the output: give a larger --budget.")
        losses = F.cross_entropy(network(images, gates).float(), labels, reduction="none")
        seen = reached[of_image].to(losses.device)
        supervised = losses[seen].mean()
        guess = math.log(self.classes)
        by_architecture = torch.stack([chunk.mean() for chunk in losses.detach().split(each)])
        costs = torch.where(reached, costs, 1.0)
        lost = torch.where(reached.to(losses.device), by_architecture, guess)
        lost = lost + float(network.price) * over_budget(costs, self.limit).to(lost)
        before = network.mean_loss if network.mean_loss >= 0 else lost.mean()
        policy = policy_loss(network.log_likelihood(gates.to(network.logits.device)[: len(lost)]), advantages(lost, before))
        mean_cost = costs.mean()
        if network.training:
            network.mean_loss.copy_(before * _MEMORY + lost.mean() * (1 - _MEMORY))
            network.mean_cost.copy_(network.mean_cost * _MEMORY + mean_cost * (1 - _MEMORY))
            step = _PATIENCE * (float(mean_cost) / self.limit - 1)
            network.price.copy_((network.price * math.exp(step)).clamp(*_PRICES))
        parts = {"cross_entropy": supervised, "cost": mean_cost.to(supervised), "price": network.price.clone()}
        return Terms(supervised + policy, parts)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        own = {"travel": _TRAVEL / (1 - self.options.warm_up)}
        gates = {"name": "gates", "params": [self.network.logits], "weight_decay": 0.0, "own": own}
        return [*decay_groups(self.network.network, weight_decay), gates]

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        return {self.deployable: self.network(images)}

    def plan_of(self, deployable: str) -> WidthPlan | None:
        return None

    def options_of(self, deployable: str) -> dict[str, Any]:
        return {"nodes": [node.name for node in self.network.extracted().graph.nodes]}

    def record(self) -> dict[str, Any]:
        """Costs as parts of the whole network's: of the decided architecture, and the mean of the drawn ones; the gates."""
        network = self.network
        return {
            "architecture": {
                "cost": self.decided_cost(),
                "drawn": float(network.mean_cost),
                "budget": self.limit,
                "price": float(network.price),
                "gates": dict(zip(network.network.graph.gates, network.probabilities().tolist(), strict=True)),
            }
        }

    def decided_cost(self) -> float | None:
        """What the decided architecture costs, as a part of the whole network's cost; None where it is not connected."""
        active = self.network.reach.active(self.network.decided())
        return float(self.cost.of(active)[0]) / self.cost.full if bool(active[0, -1]) else None

    def shortcoming(self) -> str | None:
        """What is to be said where the decided architecture is not within 5 % of the budget."""
        cost = self.decided_cost()
        if cost is None:
            return "The gates that are open do not reach the output: train longer, or with a larger --budget."
        part = cost / self.limit
        if part > 1 + MET:
            return (
                f"The budget {self.budget} was not met: the architecture costs {part:.2f} of it. Train longer, or ask for less."
            )
        if part < 1 - MET:
            return f"The architecture costs {part:.2f} of the budget {self.budget}: it could be larger."
        return None

    def deployables(self) -> dict[str, nn.Module]:
        connected = self.decided_cost() is not None
        return {self.deployable: self.network.extracted() if connected else self.network.network}


def _cost(model: GraphNetwork, budget: Budget, options: MethodOptions, example: Tensor) -> Cost:
    if options.cost is not None:
        if budget.cost != "cost":
            raise AdjCompressError(f"--cost {options.cost} is budgeted by --budget cost=..., not {budget}.")
        return OwnCost(model, options.cost)
    if budget.cost == "cycles":
        return CyclesCost(model, options.machines)
    if options.machines != 1:
        raise AdjCompressError("--machines belongs to --budget cycles=...: leave it out.")
    if budget.cost == "macs":
        return MacsCost(model, example)
    if budget.cost == "params":
        return ParametersCost(model)
    if budget.cost == "cost":
        raise AdjCompressError("--budget cost=... needs the cost itself: --cost package.module:function.")
    raise AdjCompressError(f"--budget {budget}: --method budgeted knows macs, params, cycles and cost.")


def _check_budget(model: GraphNetwork, cost: Cost, budget: Budget, limit: float) -> None:
    if limit >= 1:
        raise AdjCompressError(f"--budget {budget} allows the whole network, which costs {cost.full:,.0f}: ask for less.")
    least = cheapest(model, cost)
    if least is not None and least / cost.full > limit:
        raise AdjCompressError(
            f"--budget {budget} is below the least that reaches the output: {least:,.0f} of {cost.full:,.0f} "
            f"({least / cost.full:.3f}). Give a larger budget."
        )
