"""How are the widths of a small network learnt under a budget, and then trained? Differentiable Adjoined Networks.

Two phases: a search, whose networks are thrown away but for the widths it decides on, and an ordinary adjoined training at
these widths. arXiv:2006.05624.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adjcompress.adjoined import SCHEDULES, adjoint_loss
from adjcompress.adjoined.curriculum import Curriculum
from adjcompress.adjoined.decision import LATENCY_MARGIN, TOLERANCE, Limit, check_reach, decide, used
from adjcompress.adjoined.expected import Choices, ExpectedCost, ExpectedLatency, Sizes, macs_cost, parameters_cost
from adjcompress.adjoined.search import SearchNetwork
from adjcompress.cost import Budget, check_same_table, parse_budgets, table_checksum, table_for
from adjcompress.errors import AdjCompressError, check_choice, pick
from adjcompress.methods.adjoined import AdjoinedMethod, checked_beyond
from adjcompress.methods.options import MethodOptions, check_taken
from adjcompress.methods.protocol import Search, Terms, decay_groups
from adjcompress.methods.supervised import refuse_auxiliary, tell_progress_
from adjcompress.widths import WidthPlan, candidate_widths, plan_at

CANDIDATES = (1.0, 2.0, 4.0, 8.0)
_HOT, _COLD = 4.0, 0.3  # temperatures of the draws at the begin and the end
_TRAVEL = 8.0  # how far a logit can go over a whole search: a candidate can become e^8 times as likely, in however few steps
_SURE = 0.1  # spread of the logarithm of a width at which a group counts as sure
_HELD, _NEWTON = 0.005, 8  # how near the expected cost is kept to the budget, and in how many steps at most


@dataclass(frozen=True)
class Found:
    """What a search decided: the plan, and its costs, the full network's and uniform ones', in the costs' own units."""

    plan: WidthPlan
    costs: Mapping[str, float]
    full: Mapping[str, float]
    budgets: tuple[Budget, ...]
    uniform: tuple[Uniform, ...]
    part_of_budget: float
    """What the plan uses of its tightest budget, less what a latency keeps in reserve: at most 1."""
    doubt: str | None = None
    """Why not to trust the latency table that it was found by."""

    def shortcoming(self) -> str | None:
        """What is to be said where the plan uses less of the budget than it might."""
        if self.part_of_budget >= 1 - TOLERANCE:
            return None
        latency = any(budget.cost == "latency" for budget in self.budgets)
        reserve = f", less the {LATENCY_MARGIN:.0%} of a latency that are kept in reserve" if latency else ""
        return (
            f"The widths use {self.part_of_budget:.1%} of the budget{reserve}: no candidates were found that come nearer. "
            "More of them, with --alpha or --width-step, may."
        )

    def to_json(self) -> dict[str, Any]:
        """A width plan's JSON, and beside it what is known of the search."""
        search = {
            "budgets": [str(budget) for budget in self.budgets],
            "costs": dict(self.costs),
            "full": dict(self.full),
            "uniform": [asdict(each) for each in self.uniform],
            "part_of_budget": self.part_of_budget,
            "shortcoming": self.shortcoming(),
            "doubt": self.doubt,
        }
        return {**self.plan.to_json(), "search": search}


@dataclass(frozen=True)
class Uniform:
    """The same `alpha` for every free group, each at its next wider candidate: the channels kept, and the costs."""

    alpha: float
    kept: tuple[int, ...]
    costs: Mapping[str, float]


class SearchMethod(Search):
    """The first phase: weights and widths together, at the budget from the first step to the last.

    CE(full) + weight * schedule(progress) * KL(full || small) is minimised where the expected cost is the budget, the cost
    being the largest of the costs over their budgets. So the weight of the cost is no coefficient that somebody must guess,
    but the multiplier of that constraint, found anew in every step: what the divergence's gradient says of cost alone is
    taken out of it, so that it trades width between groups. A tilt of all groups alike, towards wide or narrow, keeps the
    expected cost where it is to be while the logits change. The logits' Adam takes no weight decay.
    """

    name = "search"
    warm_up = 0.2
    """The part of the search in which the logits rest, and weights learn at every width."""

    def __init__(self, network: SearchNetwork, costs: Sequence[ExpectedCost], options: MethodOptions, example: Tensor) -> None:
        self.network, self.options, self.example = network, options, example
        self.halves_after = self.warm_up if options.halves else None
        self.alone = "halves of the images, for weights and for widths, are those of one" if options.halves else None
        self.table = table_checksum(options.table)
        self.budgets = parse_budgets(options.budgets)
        by_name = {cost.name: cost for cost in costs}
        self.costs = by_name
        self.limits = [Limit(by_name[budget.cost], budget) for budget in self.budgets]
        self.counts = [len(each.widths) for each in network.free]
        check_reach(self.limits, self.counts)
        self._weight_at = pick(SCHEDULES, options.schedule, "Schedule")
        weights = (*network.full.parameters(), *network.smalls.parameters())
        self._learning = [parameter for parameter in weights if parameter.requires_grad]
        self.start_at_budget_()

    @classmethod
    def build(cls, model: nn.Module, example: Tensor, options: MethodOptions) -> SearchMethod:
        check_taken("dan", options)
        if not options.budgets:
            raise AdjCompressError("--method dan needs a --budget, such as --budget macs=0.45, or the --plan of another run.")
        if options.weight <= 0:
            raise AdjCompressError(
                f"--weight {options.weight:g}: a search follows the divergence, without which no width is worth more than "
                "another. Give a weight above 0."
            )
        if options.beta:
            raise AdjCompressError("--beta thins the weights of a fixed small network: leave it out with --method dan.")
        refuse_auxiliary(model)
        budgets = parse_budgets(options.budgets)
        for budget in budgets:
            check_choice(("macs", "params", "latency"), budget.cost, f"--budget {budget}: dan's cost")
        candidates = candidate_widths(
            model, example, options.alphas or CANDIDATES, options.slim, options.keep, options.align, options.width_step
        )
        if options.alphas and options.width_step:
            raise AdjCompressError("--alpha and --width-step both give candidates: leave one of them out.")
        sizes = Sizes(model, candidates)
        costs: list[ExpectedCost] = [macs_cost(model, sizes, example), parameters_cost(model, sizes)]
        if options.table is not None:
            costs.append(ExpectedLatency(model, sizes, table_for(Path(options.table), budgets), example))
        elif any(budget.cost == "latency" for budget in budgets):
            raise AdjCompressError(
                "--budget latency needs --table: measure one with adjcompress bench --table table.json --model NAME "
                "--image-size N --classes N, then give --table table.json."
            )
        groups = [each.group for each in candidates]
        narrowest = plan_at(model, example, groups, [each.widths[0] for each in candidates])
        checked_beyond(model, {cls.name: narrowest}, example, options)  # refused before the search, not after it
        return cls(SearchNetwork(model, candidates, example), costs, options, example)

    @classmethod
    def restore(cls, model: nn.Module, settings: Mapping[str, Any]) -> SearchMethod:
        options = MethodOptions(**settings["options"])
        check_same_table(options.table, settings["table"])
        method = cls.build(model, torch.zeros(*settings["example"]), options)
        if method.settings()["groups"] != settings["groups"]:
            raise AdjCompressError(
                "The search began with other candidate widths than this version makes of its options: train a new --run."
            )
        return method

    def settings(self) -> dict[str, Any]:
        options = {name: value for name, value in asdict(self.options).items() if name != "plan"}
        if self.options.table is not None:
            options["table"] = str(Path(self.options.table).resolve())
        return {
            "options": {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()},
            "example": list(self.example.shape),
            "table": self.table,
            "groups": [{"name": each.group.name, "widths": list(each.widths)} for each in self.network.free],
        }

    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Terms:
        network = self.network
        for each in (network.full, *network.smalls.values()):
            tell_progress_(each, progress)
        warming_up = progress < self.warm_up
        choosing = not warming_up and (not self.options.halves or int(network.steps) % 2 == 1)
        if self.options.halves:  # the weights never learn from the images that the widths are judged by
            for parameter in self._learning:
                parameter.requires_grad_(not choosing)
            network.logits.requires_grad_(choosing)
        temperature = self.temperature_at(progress)
        part, slope = self._hold_at_budget_()
        drawn = network.draw(temperature, slope)
        outputs = network(images, drawn if choosing else drawn.detach())
        weight = self.options.weight * self._weight_at(progress)
        loss = adjoint_loss(outputs.full, outputs.smalls, labels, weight, self.options.detach, self.options.small_labels)
        if network.training:
            network.progress.fill_(progress)
            network.steps += 1
        parts = {"cross_entropy": loss.cross_entropy, "divergence": loss.divergence, "part_of_budget": part}
        total = loss.total + 0 * network.logits.sum()  # several processes wait for the gradient of every parameter
        return Terms(total, {**parts, "weight": loss.total.new_tensor(weight)})

    def waiting_then(self, progress: float) -> Collection[str]:
        return frozenset({"full"} if Curriculum(self.options.small_first).alone(progress) else ())

    def temperature_at(self, progress: float) -> float:
        """From hot to cold, by the same factor in every step."""
        return float(_HOT * (_COLD / _HOT) ** progress)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        weights = nn.ModuleList([self.network.full, self.network.smalls])
        choosing = (1 - self.warm_up) / (2 if self.options.halves else 1)  # the part of the steps in which they move
        own = {"travel": _TRAVEL / choosing if choosing else 0.0}
        logits = {"name": "widths", "params": [self.network.logits], "weight_decay": 0.0, "own": own}
        return [*decay_groups(weights, weight_decay), logits]

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        return {"full": self.network.full(images)}

    def record(self) -> dict[str, Any]:
        """Costs over the full network's, expected and of the likeliest widths; the channels that each group keeps."""
        network = self.network
        with torch.no_grad():
            choice = network.probabilities()
            likeliest = network.likeliest().argmax(1).cpu().numpy()[None]
            costs = {
                name: {
                    "expected": float(cost.expected(choice)) / cost.full,
                    "likeliest": float(cost.exact(likeliest)[0]) / cost.full,
                }
                for name, cost in self.costs.items()
            }
        for limit in self.limits:
            costs[limit.cost.name]["budget"] = limit.asked / limit.cost.full
        widths = {
            each.group.name: sum(part * width for part, width in zip(row.tolist(), each.widths, strict=False))
            for each, row in zip(network.free, choice, strict=True)
        }
        temperature = self.temperature_at(float(network.progress))
        return {"search": {"costs": costs, "widths": widths, "temperature": temperature, "price": float(network.price)}}

    def doubt(self) -> str | None:
        return next((limit.cost.doubt for limit in self.limits if isinstance(limit.cost, ExpectedLatency)), None)

    def deployables(self) -> dict[str, nn.Module]:
        """The full network alone: the small one's statistics are those of all widths together, and say nothing of one."""
        return {"full": self.network.full}

    def decide(self) -> Found:
        """The widths nearest to the expected ones that meet the budgets.

        Where all choices are one-hot, these are the expected widths themselves. Where some are still soft, the likeliest
        widths together may cost far less than is expected, and what is left would be spent by accident; the expected widths
        cost about the budget. A group that is undecided moves more easily than one that is sure.
        """
        self._hold_at_budget_()
        with torch.no_grad():
            choice = self.network.probabilities().cpu().numpy()
        scores = np.full(choice.shape, -1e9)
        for row, (each, part) in enumerate(zip(self.network.free, choice, strict=True)):
            widths, part = np.array(each.widths, dtype=float), part[: len(each.widths)]
            away = np.log(widths / (part @ widths)) ** 2
            scores[row, : len(widths)] = -away / (part @ away + _SURE**2)
        return self.found_at(decide(scores, self.counts, self.part_used))

    def found_at(self, choice: NDArray[np.int64]) -> Found:
        """The plan of one choice, a candidate's number for every free group, and its costs."""
        network, decided = self.network, choice[None]
        groups = [each.group for each in network.candidates]
        plan = plan_at(network.full, self.example, groups, network.widths_at(decided[0].tolist()))
        full = {name: cost.full for name, cost in self.costs.items()}
        alphas = sorted({alpha for alpha in self.options.alphas or CANDIDATES if alpha > 1})
        uniform = tuple(self._uniform(alpha) for alpha in alphas)
        part = float(self.part_used(decided)[0])
        return Found(plan, self._costs(decided), full, self.budgets, uniform, part, self.doubt())

    def _uniform(self, alpha: float) -> Uniform:
        free = self.network.free
        numbers = [int(np.searchsorted(each.widths, each.group.channels / alpha - 1e-9)) for each in free]
        return Uniform(alpha, tuple(self.network.widths_at(numbers)), self._costs(np.array([numbers])))

    def _costs(self, choice: Choices) -> dict[str, float]:
        return {name: float(cost.exact(choice)[0]) for name, cost in self.costs.items()}

    def part_used(self, choices: Choices) -> NDArray[np.float64]:
        """What part of the tightest budget each of n choices (n, groups) uses."""
        return used(self.limits, choices)

    def expected_part(self) -> tuple[Tensor, Tensor]:
        """What part of the tightest budget is expected to be used, and its slope by the logits (free groups, candidates)."""
        logits = self.network.logits.detach().double().requires_grad_(True)
        choice = self.network.probabilities(logits)
        with torch.enable_grad():
            part = torch.stack([limit.cost.expected(choice) / limit.most for limit in self.limits]).max()
        (slope,) = torch.autograd.grad(part, logits)
        return part.detach(), slope

    def _hold_at_budget_(self) -> tuple[Tensor, Tensor]:
        """The part that is used, and its slope, after the tilt has followed the logits: Newton steps, mostly none or one."""
        network = self.network
        part, slope = self.expected_part()
        for _ in range(_NEWTON):
            if abs(float(part) - 1) <= _HELD:
                break
            network.tilt += ((1 - part) / (slope * network.place).sum().clamp(min=1e-12)).clamp(-1, 1)
            part, slope = self.expected_part()
        return part, slope

    def start_at_budget_(self) -> None:
        """Tilt until the expected cost is the budget: the search trades from there."""
        network = self.network
        low, high = -200.0, 200.0
        for _ in range(60):
            network.tilt.fill_((low + high) / 2)
            if self.expected_part()[0] > 1:
                high = float(network.tilt)
            else:
                low = float(network.tilt)


class DanMethod(AdjoinedMethod):
    """The second phase: an ordinary adjoined training at the widths that the search found."""

    name = "dan"
    planned = "dan"
    prepared_by = SearchMethod

    @classmethod
    def build(cls, model: nn.Module, example: Tensor, options: MethodOptions) -> AdjoinedMethod:
        if options.plan is None:
            raise AdjCompressError("The dan method needs a width plan: search for one with SearchMethod, or give --plan.")
        return super().build(model, example, options)
