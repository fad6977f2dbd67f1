"""How is an architecture learnt together with its weights, under a budget of any cost? arXiv:1706.00046."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adjcompress.cost import Budget, parse_budgets, table_checksum, table_for
from adjcompress.data import IGNORED
from adjcompress.errors import AdjCompressError
from adjcompress.methods.protocol import MethodOptions, Search, Terms, check_no_widths, decay_groups
from adjcompress.models.graph import GraphNetwork
from adjcompress.substitutes import Substitution
from adjcompress.supernets import (
    Cost,
    CyclesCost,
    LatencyCost,
    MacsCost,
    MeasuredCost,
    OwnCost,
    ParametersCost,
    StochasticSuperNetwork,
    advantages,
    cheapest,
    gradient,
    parts_of,
    policy_loss,
)
from adjcompress.widths import WidthPlan

MET = 0.05
_TRAVEL = 12.0  # how far a gate's logit may go in the training: from 3 to -3 and back
_SHARPEST = 10.0
_ARRIVED = 0.5  # part of the gates' training after which the drawn architectures cost the budget
_MEMORY = 0.95  # of running means
_AGAIN = 20
_GAIN, _LARGEST = 0.5, 0.5  # of a Newton step of the tilt


class BudgetedMethod:
    """Cross-entropy of the architectures that are drawn, for the weights; for the gates, REINFORCE on that and the cost.

    The gates minimise the expected loss where the expected cost is the budget. The published penalty, a weight times
    max(0, cost - budget), leaves to that weight what is met, and with a weight that adapts, simulated searches of 450 and 2,000
    steps ended between 0.4 and 7 times the budget; so a tilt of all gates together brings the drawn
    architectures from the whole network's cost to the budget in the first half of the gates' training and holds them there,
    and the price of cost is what a gate must be worth to stay open: the multiplier of that constraint, found in every step
    from the gradients of loss and cost. Chance is taken out gradually, so that what is drawn at the end is what is decided. An
    architecture that does not reach the output guesses at random, at the whole network's cost. In the part `warm_up` of the
    training all gates are open.
    """

    name = "budgeted"
    deployable = "budgeted"
    prepared_by: type[Search] | None = None
    alone: str | None = "every process would run layers of its own, whose batch norms they cannot share"
    halves = False
    substitution: Substitution | None = None

    def __init__(
        self, network: StochasticSuperNetwork, cost: Cost, budget: Budget, options: MethodOptions, example: Tensor
    ) -> None:
        self.network, self.cost, self.budget, self.options, self.example = network, cost, budget, options, example
        self.table = table_checksum(options.table)
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
        table = settings["options"].get("table")
        if table is not None and table_checksum(table) != settings["table"]:
            raise AdjCompressError(
                f"{table} is not the latency table that the search began with: put that back, or train a new --run."
            )
        return cls.build(model, torch.zeros(*settings["example"]), MethodOptions(**settings["options"]))

    def settings(self) -> dict[str, Any]:
        names = ("budgets", "machines", "cost", "table", "samples_per_batch", "warm_up")
        kept = {name: getattr(self.options, name) for name in names}
        options = {**kept, "budgets": list(kept["budgets"])}
        return {"options": options, "example": list(self.example.shape), "table": self.table}

    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Terms:
        network = self.network
        if progress < self.options.warm_up:
            supervised = F.cross_entropy(network(images), labels)
            total = supervised + 0 * network.logits.sum()  # several processes wait for every gradient
            return Terms(total, {"cross_entropy": supervised})
        along = (progress - self.options.warm_up) / (1 - self.options.warm_up)
        network.sharpness.fill_(_SHARPEST**along)
        cost_slope = self._steered(along)
        each = -(-len(images) // min(self.options.samples_per_batch, len(images)))
        gates, reached = self._drawn(-(-len(images) // each))
        losses = _by_image(F.cross_entropy(network(images, gates).float(), labels, reduction="none"), labels)
        supervised = losses[reached.repeat_interleave(each)[: len(images)].to(losses.device)].mean()
        by_architecture = torch.stack([chunk.mean() for chunk in losses.detach().split(each)])
        lost = torch.where(reached.to(losses.device), by_architecture, math.log(self.classes))
        before = network.mean_loss if network.mean_loss >= 0 else lost.mean()
        policy = policy_loss(network.log_likelihood(gates.to(network.logits.device)), advantages(lost, before))
        (loss_slope,) = torch.autograd.grad(policy, network.logits, retain_graph=True)
        if network.training:
            network.mean_loss.copy_(before * _MEMORY + lost.mean() * (1 - _MEMORY))
            network.worth.copy_(network.worth * _MEMORY - loss_slope.sum() * (1 - _MEMORY))
            network.price.copy_((network.worth / network.slope.clamp(min=1e-6)).clamp(min=0))
        held = network.price * (network.logits * cost_slope).sum()  # of its gradient nothing else is wanted
        parts = {"cross_entropy": supervised, "cost": network.mean_cost.clone(), "price": network.price.clone()}
        return Terms(supervised + policy + held - held.detach(), parts)

    def _drawn(self, count: int) -> tuple[Tensor, Tensor]:
        """Gates of `count` architectures, and which of them reach the output: at least one, drawn again until it does."""
        for _ in range(_AGAIN):
            gates = self.network.draw(count)
            reached = self.network.reach.active(gates)[:, -1]
            if bool(reached.any()):
                return gates, reached
        gates[0] = True  # a graph that hardly ever connects: the whole of it keeps the weights learning
        return gates, self.network.reach.active(gates)[:, -1]

    def _steered(self, along: float) -> Tensor:
        """Move the tilt so that drawn architectures cost what they should `along` the gates' training; the slope of cost.

        The slope, (gates,), is the gradient of the expected cost by the logits; costs are parts of the whole network's.
        """
        network = self.network
        gates = network.draw(self.cost.tried)
        active = network.reach.active(gates)
        costs = parts_of(self.cost, active).to(network.logits)
        slope = gradient(network.log_likelihood(gates.to(network.logits.device)), costs, network.logits)
        if network.training:
            wanted = self.limit ** min(1.0, along / _ARRIVED)
            memory = _MEMORY if float(network.slope) > 0 else 0.0
            network.slope.copy_((network.slope * memory + slope.sum() * (1 - memory)).clamp(min=1e-3))
            network.mean_cost.copy_(network.mean_cost * _MEMORY + costs.mean() * (1 - _MEMORY))
            network.tilt += ((wanted - costs.mean()) / network.slope * _GAIN).clamp(-_LARGEST, _LARGEST)
        return slope

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


def _by_image(losses: Tensor, labels: Tensor) -> Tensor:
    """Losses of pixels (N, H, W) as means over the pixels of each image that count, (N,); those of images as they are."""
    if losses.ndim == 1:
        return losses
    return losses.flatten(1).sum(1) / (labels != IGNORED).flatten(1).sum(1).clamp(min=1)


def _cost(model: GraphNetwork, budget: Budget, options: MethodOptions, example: Tensor) -> Cost:
    if options.cost is not None:
        if budget.cost != "cost":
            raise AdjCompressError(f"--cost {options.cost} is budgeted by --budget cost=..., not {budget}.")
        return OwnCost(model, options.cost)
    if budget.cost == "cycles":
        return CyclesCost(model, options.machines)
    if options.table is not None and budget.cost != "latency":
        raise AdjCompressError(f"--table belongs to --budget latency=..., not to {budget}: leave it out.")
    if options.machines != 1:
        raise AdjCompressError("--machines belongs to --budget cycles=...: leave it out.")
    if budget.cost == "macs":
        return MacsCost(model, example)
    if budget.cost == "params":
        return ParametersCost(model)
    if budget.cost == "cost":
        raise AdjCompressError("--budget cost=... needs the cost itself: --cost package.module:function.")
    if options.table is not None:
        return LatencyCost(model, table_for(Path(options.table), [budget]), example)
    if budget.target is not None:
        raise AdjCompressError(
            f"--budget {budget}: without a --table whole architectures are measured, by torch on one thread of this machine; "
            f"leave @{budget.target} out, or give --table FILE, made by adjcompress bench --table FILE."
        )
    return MeasuredCost(model, example)


def _check_budget(model: GraphNetwork, cost: Cost, budget: Budget, limit: float) -> None:
    if limit >= 1:
        raise AdjCompressError(
            f"--budget {budget} allows the whole network, which costs {_shown(cost.full, cost)}: ask for less."
        )
    least = cheapest(model, cost)
    if least is not None and least / cost.full > limit:
        raise AdjCompressError(
            f"--budget {budget} is below the least that reaches the output: {_shown(least, cost)} of {_shown(cost.full, cost)} "
            f"({least / cost.full:.3f}). Give a larger budget."
        )


def _shown(amount: float, cost: Cost) -> str:
    return f"{amount:.3g} ms" if cost.name == "latency" else f"{amount:,.0f}"
