"""Which widths does a search decide on, so that its budgets are met?

The candidates that a search prefers meet a budget by accident only. So the decision is the choice with the highest score
whose largest cost, over its budget, lies between 1 - tolerance and 1: of all choices where there are few, else of those that
are reached from several starts by moving groups, one or two at a time, to a neighbouring width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adjcompress.adjoined.expected import Choices, ExpectedCost
from adjcompress.cost import Budget
from adjcompress.errors import AdjCompressError

Floats = NDArray[np.float64]
TOLERANCE = 0.02
LATENCY_MARGIN = 0.05  # predictions, and a machine, are steady to some per cent: benchmarks/dan_latency.py
_ENUMERATED, _AT_A_TIME = 300_000, 20_000  # so many choices are all tried, that many at once
_STARTS = 2  # on each side of the budget
_PAIRED = 120  # single moves that are tried in pairs as well
_MOVES = 2000


@dataclass(frozen=True)
class Limit:
    """A cost and the budget that it must keep."""

    cost: ExpectedCost
    budget: Budget

    @property
    def asked(self) -> float:
        """The budget in the cost's own unit."""
        return self.budget.limit(self.cost.full)

    @property
    def most(self) -> float:
        """The most that may be used, in the cost's own unit: the budget, of a latency a little less than it."""
        margin = LATENCY_MARGIN if self.cost.name == "latency" else 0.0
        return self.asked * (1 - margin)

    @property
    def reserve(self) -> str:
        """What is to be said of a latency's reserve, in brackets; nothing of other costs."""
        kept = f" ({LATENCY_MARGIN:.0%} of a latency is kept in reserve: here {self.most:.3g} ms may be used)"
        return kept if self.cost.name == "latency" else ""


def used(limits: Sequence[Limit], choices: Choices) -> Floats:
    """For each of n decided networks (n, groups) the largest of its costs over their budgets, (n,)."""
    result: Floats = np.max([limit.cost.exact(choices) / limit.most for limit in limits], axis=0)
    return result


def check_reach(limits: Sequence[Limit], counts: Sequence[int]) -> None:
    """Refuse budgets that no choice of candidates meets, or that every choice does; `counts`: candidates of each group."""
    widest = np.array([[count - 1 for count in counts]])
    cheapest = {limit: _cheapest(limit, counts) for limit in limits}
    for limit in limits:
        if cheapest[limit] > limit.most:
            raise AdjCompressError(
                f"--budget {limit.budget}{limit.reserve} is below the least that the candidates reach: the smallest possible "
                f"is {_said(limit, cheapest[limit])}, the largest {_said(limit, float(limit.cost.exact(widest)[0]))}. "
                "Give a larger budget, or larger alphas as candidates."
            )
        if len(limits) > 1 and limit.cost.exact(widest)[0] <= limit.most:
            raise AdjCompressError(
                f"--budget {limit.budget} is met by the widest candidates, so it decides nothing beside the others: they take "
                f"{_said(limit, float(limit.cost.exact(widest)[0]))}. Leave it out, or give a smaller one."
            )
    if used(limits, widest)[0] <= 1:
        most = "; ".join(f"{limit.budget}: {_said(limit, float(limit.cost.exact(widest)[0]))}" for limit in limits)
        raise AdjCompressError(
            f"The widest candidates already meet the budget, so there is nothing to search ({most}; the smallest possible "
            f"is {', '.join(_said(limit, cheapest[limit]) for limit in limits)}): give a smaller --budget."
        )


def _said(limit: Limit, value: float) -> str:
    if limit.cost.name == "latency":
        return f"{value:.3g} ms ({value / limit.cost.full:.3g} of the full network's)"
    return f"{value:.4g} {limit.cost.name} ({value / limit.cost.full:.3g} of the full network's)"


def _cheapest(limit: Limit, counts: Sequence[int]) -> float:
    """The least of a cost; the narrowest widths need not be the fastest, so single moves that save are made from there."""
    choice = np.zeros(len(counts), dtype=np.int64)
    while True:
        moves = _singles(choice, counts)
        costs = limit.cost.exact(np.concatenate([choice[None], moves]))
        if costs.argmin() == 0:
            return float(costs[0])
        choice = moves[costs.argmin() - 1]


def decide(
    scores: Floats, counts: Sequence[int], measure: Callable[[Choices], Floats], tolerance: float = TOLERANCE
) -> NDArray[np.int64]:
    """Choose a candidate for every group: numbers (groups,).

    `scores` (groups, candidates) are to be high in sum, `counts` says how many candidates each group has, `measure` what part
    of its budget each of n choices (n, groups) uses. The result uses at most 1 and at least 1 - tolerance, and has the
    highest score of such choices that was found: of all, where there are few. Where none was found, the one that uses most.
    """
    rows = np.arange(len(counts))

    def score(choices: Choices) -> Floats:
        total: Floats = scores[rows, choices].sum(1)
        return total

    tried: Iterable[Choices] = _every(counts)
    if math.prod(counts) > _ENUMERATED:
        starts = _starts(scores, counts, measure, tolerance)
        ends = np.stack([_descend(start, score, counts, measure, tolerance) for start in starts])
        parts = measure(ends)
        if not ((parts >= 1 - tolerance) & (parts <= 1)).any():  # the long way: from the narrowest, candidate by candidate
            narrowest = np.zeros(len(counts), dtype=np.int64)
            ends = np.concatenate([ends, _descend(narrowest, score, counts, measure, tolerance)[None]])
        tried = [ends]
    best, rank = None, (-np.inf, -np.inf)
    for choices in tried:
        part, likelihood = measure(choices), score(choices)
        worth = np.where(part >= 1 - tolerance, 1.0, part)  # within the window all are as good
        for index in np.lexsort((likelihood, np.where(part <= 1, worth, -np.inf)))[-1:]:
            if part[index] <= 1 and (worth[index], likelihood[index]) > rank:
                best, rank = choices[index], (worth[index], likelihood[index])
    if best is None:
        raise AdjCompressError("No choice of widths that meets the budget was found: give a larger --budget.")
    return best


def _every(counts: Sequence[int]) -> Iterator[Choices]:
    """All choices, some at a time."""
    total = math.prod(counts)
    for begin in range(0, total, _AT_A_TIME):
        numbers = np.arange(begin, min(begin + _AT_A_TIME, total))
        yield np.stack(np.unravel_index(numbers, counts), 1).astype(np.int64)


def _starts(scores: Floats, counts: Sequence[int], measure: Callable[[Choices], Floats], tolerance: float) -> list[Choices]:
    """Choices to begin from: the likeliest at prices of the cost that bring it near the budget."""
    offered = np.arange(scores.shape[1]) < np.array(counts)[:, None]
    likeliest = np.where(offered, scores, -np.inf).argmax(1)
    single = np.repeat(likeliest[None], offered.sum(), 0)
    single[np.arange(len(single)), np.nonzero(offered)[0]] = np.nonzero(offered)[1]
    dearer = np.zeros_like(scores)
    dearer[offered] = measure(single) - measure(likeliest[None])
    prices = [0.0, *(sign * 2.0**power for power in np.arange(-4, 12, 0.5) for sign in (1, -1))]
    found = np.unique([np.where(offered, scores - price * dearer, -np.inf).argmax(1) for price in prices], axis=0)
    part = measure(found)
    outside = np.maximum(part - 1, 0) + np.maximum(1 - tolerance - part, 0)
    above, below = (found[side][np.argsort(outside[side], kind="stable")[:_STARTS]] for side in (part > 1, part <= 1))
    return [*above, *below]


def _descend(
    start: NDArray[np.int64],
    score: Callable[[Choices], Floats],
    counts: Sequence[int],
    measure: Callable[[Choices], Floats],
    tolerance: float,
) -> NDArray[np.int64]:
    """First into the window, at the least loss of score on the way and never over the budget again; then to higher scores."""
    choice = start
    here = measure(choice[None])[0]
    for _ in range(_MOVES):
        moves = _neighbours(choice, counts, score)
        there = measure(moves)
        loss = score(choice[None])[0] - score(moves)
        inside = (there >= 1 - tolerance) & (there <= 1)
        if 1 - tolerance <= here <= 1:
            worth, enough = np.where(inside, -loss, -np.inf), 1e-9
        else:
            nearer = here - np.maximum(there, 1 - tolerance) if here > 1 else np.where(there <= 1, there - here, -np.inf)
            worth, enough = np.where(inside, 1e12 - loss, nearer / np.maximum(loss, 1e-9)), 0.0
        best = int(worth.argmax())
        if worth[best] <= enough:
            return choice
        choice, here = moves[best], there[best]
    return choice


def _singles(choice: NDArray[np.int64], counts: Sequence[int]) -> Choices:
    """Every choice with one group moved to a neighbouring candidate."""
    moves = []
    for group, count in enumerate(counts):
        for neighbour in (choice[group] - 1, choice[group] + 1):
            if 0 <= neighbour < count:
                moved = choice.copy()
                moved[group] = neighbour
                moves.append(moved)
    return np.array(moves)


def _neighbours(choice: NDArray[np.int64], counts: Sequence[int], score: Callable[[Choices], Floats]) -> Choices:
    """Every choice with one group moved, and with two, of those that lose the least score."""
    singles = _singles(choice, counts)
    promising = singles[np.argsort(-score(singles), kind="stable")[:_PAIRED]] - choice
    first, second = np.triu_indices(len(promising), 1)
    pairs = choice + promising[first] + promising[second]
    allowed = ((pairs >= 0) & (pairs < np.array(counts))).all(1)
    return np.concatenate([singles, pairs[allowed]])
