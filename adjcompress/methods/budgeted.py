"""How is an architecture learnt together with its weights, under a budget of any cost? arXiv:1706.00046."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adjcompress.cost import Budget, check_same_table, parse_budgets, table_checksum, table_for
from adjcompress.data import IGNORED
from adjcompress.errors import AdjCompressError
from adjcompress.methods.options import MethodOptions, check_taken
from adjcompress.methods.protocol import Method, Terms, decay_groups
from adjcompress.models.graph import GraphNetwork
from adjcompress.running import evaluating
from adjcompress.supernets import (
    DISCONNECTED,
    Cost,
    CyclesCost,
    LatencyCost,
    MacsCost,
    MeasuredCost,
    OwnCost,
    ParametersCost,
    StochasticSuperNetwork,
    advantages,
    decided_gates,
    gradient,
    least,
    parts_of,
    policy_loss,
)

MET = 0.05
_TRAVEL = 12.0  # how far a gate's logit may go in the training: from 3 to -3 and back
_SHARPEST = 10.0
_DECIDED = 0.75  # part of the gates' training after which the architecture stands, and is trained alone
_ARRIVED = 0.5  # part of the time before that after which the drawn architectures cost the budget
_MEMORY = 0.95  # of running means
_AGAIN = 20
_GAIN, _LARGEST = 0.5, 0.5  # of a Newton step of the tilt
_FLAT = 1e-3  # the least slope of the cost along the tilt that is believed


@dataclass(frozen=True)
class _Told:
    """What a run keeps of its cost: that of the whole network, the most that is allowed, and which latency table told them."""

    full: float
    limit: float
    table: str | None


class BudgetedMethod(Method):
    """Cross-entropy of the architectures that are drawn, for the weights; for the gates, REINFORCE on that and the cost.

    The gates minimise the expected loss where the expected cost is the budget. The published penalty, a weight times
    max(0, cost - budget), leaves to that weight what is met, and with a weight that adapts, simulated searches of 450 and 2,000
    steps ended between 0.4 and 7 times the budget; so a tilt of all gates together brings the drawn
    architectures from the whole network's cost to the budget and holds them there, and the price of cost is what a gate must
    be worth to stay open: the multiplier of that constraint, found in every step from the gradients of loss and cost. An
    architecture that does not reach the output guesses at random, at the whole network's cost. Chance is taken out gradually;
    then the gates worth most within the budget are opened for good, and what is left of the training is that architecture's.
    In the part `warm_up` of the training all gates are open.
    """

    name = "budgeted"
    deployable = "budgeted"
    alone = "every process would run layers of its own, whose batch norms they cannot share"
    unaveraged = "its weights belong to architectures that change"
    reestimates = True
    compared_with = "whole"

    def __init__(
        self, network: StochasticSuperNetwork, budget: Budget, options: MethodOptions, example: Tensor, told: _Told
    ) -> None:
        self.network, self.budget, self.options, self.example, self.told = network, budget, options, example, told
        self.limit = told.limit / told.full
        if options.samples_per_batch < 1:
            raise AdjCompressError(f"--samples-per-batch {options.samples_per_batch} must be at least 1.")
        if not 0 <= options.warm_up < 1:
            raise AdjCompressError(f"--warm-up {options.warm_up:g} must be at least 0 and below 1: a part of the training.")

    @classmethod
    def build(cls, model: nn.Module, example: Tensor, options: MethodOptions) -> BudgetedMethod:
        check_taken(cls.name, options)
        graph, budget = _graph(model), _budget(options)
        cost = _cost(graph, budget, options, example)
        _check_budget(graph, cost, budget)
        told = _Told(cost.full, budget.limit(cost.full), table_checksum(options.table))
        method = cls(StochasticSuperNetwork(graph), budget, options, example, told)
        method.cost = cost
        return method

    @classmethod
    def restore(cls, model: nn.Module, settings: Mapping[str, Any]) -> BudgetedMethod:
        options, example = MethodOptions(**settings["options"]), torch.zeros(*settings["example"])
        if "told" not in settings:
            return cls.build(model, example, options)
        graph = _graph(model)
        return cls(StochasticSuperNetwork(graph), _budget(options), options, example, _Told(**settings["told"]))

    @cached_property
    def cost(self) -> Cost:
        """What architectures cost: read, imported or measured when a training needs it, not where a run is only looked at."""
        options = self.options
        check_same_table(options.table, self.told.table)
        cost = _cost(self.network.network, self.budget, options, self.example)
        cost.full = self.told.full  # of what is measured, as it was measured then
        return cost

    @cached_property
    def _classes(self) -> int:
        network = self.network.network
        with evaluating(network):
            return int(network(self.example[:1].to(next(network.parameters()))).shape[1])

    def settings(self) -> dict[str, Any]:
        names = ("budgets", "machines", "cost", "table", "samples_per_batch", "warm_up")
        kept = {name: getattr(self.options, name) for name in names}
        table = None if self.options.table is None else str(Path(self.options.table).resolve())
        options = {**kept, "budgets": list(kept["budgets"]), "table": table}
        return {"options": options, "example": list(self.example.shape), "told": asdict(self.told)}

    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Terms:
        network = self.network
        along = (progress - self.options.warm_up) / (1 - self.options.warm_up) / _DECIDED
        if along >= 1 and network.training and not network.settled:
            network.settle_(decided_gates(network.reach, self.cost, self.limit, network.logits.detach().cpu()))
        if along < 0 or network.settled:
            losses, counted = _by_image(network(images, network.decided() if network.settled else None), labels)
            supervised = losses.sum() / counted.sum().clamp(min=1)
            return Terms(supervised + 0 * network.logits.sum(), {"cross_entropy": supervised})
        network.sharpness.fill_(_SHARPEST**along)
        cost_slope = self._steer_(along)
        each = -(-len(images) // min(self.options.samples_per_batch, len(images)))
        drawn = network.draw(-(-len(images) // each))
        reached = network.reach.active(drawn)[:, -1].to(images.device)
        losses, counted = _by_image(network(images, self._connected(drawn)), labels)
        supervised = losses.sum() / counted.sum().clamp(min=1)
        sums, counts = (torch.stack([part.sum() for part in each_of.split(each)]) for each_of in (losses.detach(), counted))
        before = torch.where(network.mean_loss >= 0, network.mean_loss, supervised.detach().to(network.mean_loss))
        seen = torch.where(counts > 0, sums / counts.clamp(min=1), before.to(sums))
        lost = torch.where(reached, seen, math.log(self._classes))
        policy = policy_loss(network.log_likelihood(drawn.to(network.logits.device)), advantages(lost, before))
        (loss_slope,) = torch.autograd.grad(policy, network.logits, retain_graph=True)
        if network.training:
            network.mean_loss.copy_(before * _MEMORY + lost.mean() * (1 - _MEMORY))
            network.worth.copy_(network.worth * _MEMORY - loss_slope.sum() * (1 - _MEMORY))
            network.price.copy_((network.worth / network.slope).clamp(min=0))
        held = network.price * (network.logits * cost_slope).sum()  # of its gradient nothing else is wanted
        parts = {"cross_entropy": supervised, "cost": network.mean_cost.clone(), "price": network.price.clone()}
        return Terms(supervised + policy + held - held.detach(), parts)

    def _connected(self, drawn: Tensor) -> Tensor:
        """The architectures that the weights are trained in, bool (k, gates): those drawn, others for what is not connected."""
        gates = drawn.clone()
        for _ in range(_AGAIN):
            lost = ~self.network.reach.active(gates)[:, -1]
            if not bool(lost.any()):
                return gates
            gates[lost] = self.network.draw(int(lost.sum())).to(gates.device)
        gates[~self.network.reach.active(gates)[:, -1]] = True  # a graph that hardly ever connects: the whole of it
        return gates

    def _steer_(self, along: float) -> Tensor:
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
            network.slope.copy_((network.slope * memory + slope.sum() * (1 - memory)).clamp(min=_FLAT))
            network.mean_cost.copy_(network.mean_cost * _MEMORY + costs.mean() * (1 - _MEMORY))
            network.tilt += ((wanted - costs.mean()) / network.slope * _GAIN).clamp(-_LARGEST, _LARGEST)
        return slope

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        own = {"travel": _TRAVEL / (1 - self.options.warm_up) / _DECIDED}
        gates = {"name": "gates", "params": [self.network.logits], "weight_decay": 0.0, "own": own}
        return [*decay_groups(self.network.network, weight_decay), gates]

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        return {self.deployable: self.network(images)}

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
        return float(parts_of(self.cost, active)[0]) if bool(active[0, -1]) else None

    def doubt(self) -> str | None:
        return self.cost.doubt if isinstance(self.cost, LatencyCost) else None

    def shortcoming(self) -> str | None:
        """What is to be said where the decided architecture is not within 5 % of the budget."""
        cost = self.decided_cost()
        if cost is None:
            return DISCONNECTED
        part = cost / self.limit
        if part > 1 + MET:
            return (
                f"The budget {self.budget} was not met: the architecture costs {part:.2f} of it. Train longer, or ask for less."
            )
        if part < 1 - MET:
            return f"The architecture costs {part:.2f} of the budget {self.budget}: no gates were found that come nearer."
        return None

    def deployables(self) -> dict[str, nn.Module]:
        """The decided architecture; before it is connected, the whole network by a name of its own."""
        connected = bool(self.network.reach.active(self.network.decided())[0, -1])
        return {self.deployable: self.network.extracted()} if connected else {"whole": self.network.network}


def _by_image(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each image, (N,), of pixels the mean over those that count, and 1 where any does, else 0 (N,)."""
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    if losses.ndim == 1:
        return losses, torch.ones_like(losses)
    counts = (labels != IGNORED).flatten(1).sum(1)
    return losses.flatten(1).sum(1) / counts.clamp(min=1), (counts > 0).to(losses)


def _graph(model: nn.Module) -> GraphNetwork:
    if not isinstance(model, GraphNetwork):
        raise AdjCompressError(
            f"--method budgeted chooses in a graph of layers, and {type(model).__name__} is none: take --model "
            "resnet_fabric or neural_fabric, or a function of your own that returns a GraphNetwork."
        )
    return model


def _budget(options: MethodOptions) -> Budget:
    if not options.budgets:
        raise AdjCompressError("--method budgeted needs a --budget, such as --budget macs=0.5 or --budget cycles=16.")
    (budget, *others) = parse_budgets(options.budgets)
    if others:
        raise AdjCompressError(f"--budget {others[0]}: --method budgeted has one budget.")
    return budget


def _cost(model: GraphNetwork, budget: Budget, options: MethodOptions, example: Tensor) -> Cost:
    given = {"--machines": options.machines != 1, "--cost": options.cost is not None, "--table": options.table is not None}
    belongs = {"--machines": "cycles", "--cost": "cost", "--table": "latency"}
    for option, is_given in given.items():
        if is_given and budget.cost != belongs[option]:
            raise AdjCompressError(f"{option} belongs to --budget {belongs[option]}=..., not to {budget}: leave it out.")
    if budget.cost == "macs":
        return MacsCost(model, example)
    if budget.cost == "params":
        return ParametersCost(model)
    if budget.cost == "cycles":
        return CyclesCost(model, options.machines)
    if budget.cost == "cost":
        if options.cost is None:
            raise AdjCompressError("--budget cost=... needs the cost itself: --cost package.module:function.")
        return OwnCost(model, options.cost)
    if options.table is not None:
        return LatencyCost(model, table_for(Path(options.table), [budget]), example)
    if budget.target is not None:
        raise AdjCompressError(
            f"--budget {budget}: without a --table whole architectures are measured, by torch on one thread of this machine; "
            f"leave @{budget.target} out, or give --table FILE, made by adjcompress bench --table FILE."
        )
    return MeasuredCost(model, example)


def _check_budget(model: GraphNetwork, cost: Cost, budget: Budget) -> None:
    limit = budget.limit(cost.full)
    if limit >= cost.full:
        whole = _shown(cost.full, cost)
        raise AdjCompressError(f"--budget {budget} allows the whole network, which costs {whole}: ask for less.")
    found = least(model, cost)
    if found > limit:
        raise AdjCompressError(
            f"--budget {budget} is below the least that was found to reach the output: {_shown(found, cost)} of "
            f"{_shown(cost.full, cost)} ({found / cost.full:.3f}). Give a larger budget."
        )


def _shown(amount: float, cost: Cost) -> str:
    return f"{amount:.3g} ms" if cost.name == "latency" else f"{amount:,.6g}" if amount % 1 else f"{amount:,.0f}"
