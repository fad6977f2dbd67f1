"""Which widths does a search decide on, so that its budgets are met?

The likeliest candidate of every group is the search's choice, but their sum of costs meets a budget by accident only. So the
decision is the likeliest choice of all whose largest cost, over its budget, lies between 1 - tolerance and 1: found by
moving single groups and pairs of them to a neighbouring width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adjcompress.adjoined.expected import Choices, Cost
from adjcompress.cost import Budget
from adjcompress.errors import AdjCompressError

Floats = NDArray[np.float64]
TOLERANCE = 0.02
_PAIRED = 120  # single moves that are tried in pairs as well
_MOVES = 2000


@dataclass(frozen=True)
class Limit:
    """A cost and the budget that it must keep."""

    cost: Cost
    budget: Budget

    @property
    def most(self) -> float:
        """The budget in the cost's own unit."""
        return self.budget.limit(self.cost.full)


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
                f"--budget {limit.budget} is below the least that the candidates reach: the smallest possible is "
                f"{_said(limit, cheapest[limit])}, the largest {_said(limit, float(limit.cost.exact(widest)[0]))}. "
                "Give a larger budget, or larger alphas as candidates."
            )
    if used(limits, widest)[0] <= 1 - TOLERANCE:
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

    `scores` (groups, candidates) are log-probabilities, `counts` says how many candidates each group has, `measure` what part
    of its budget each of n choices (n, groups) uses. The result uses at most 1, and at least 1 - tolerance where moves of one
    or two groups lead there.
    """
    rows = np.arange(len(counts))
    likeliest = np.array([scores[row, :count].argmax() for row, count in enumerate(counts)], dtype=np.int64)
    for start in (likeliest, np.zeros_like(likeliest)):  # single moves from above may end where none saves
        choice = _descend(start, lambda choices: scores[rows, choices].sum(1), counts, measure, tolerance)
        if measure(choice[None])[0] <= 1:
            return choice
    raise AdjCompressError("No choice of widths that meets the budget was found: give a larger --budget.")


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
