"""What do repeated timings say?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 1000
NOISY = 1.5


@dataclass(frozen=True)
class Summary:
    """Minimum and percentiles of timings in milliseconds."""

    runs: int
    min_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float

    @property
    def noisy(self) -> bool:
        """Whether the median is so far above the minimum that the machine was busy with something else."""
        return self.p50_ms / self.min_ms > NOISY


@dataclass(frozen=True)
class Ratio:
    """How many times faster than the reference: the quotient of the medians, and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def summarise(milliseconds: Sequence[float]) -> Summary:
    """Summarise at least one timing."""
    values = np.asarray(milliseconds)
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    return Summary(len(values), float(values.min()), float(p50), float(p90), float(p99))


def speedup(reference: Sequence[Sequence[float]], candidate: Sequence[Sequence[float]]) -> Ratio:
    """Median of `reference` over median of `candidate`, each the timings of every pass; the interval by resampling.

    Passes are drawn first, then the rounds of each. Both were timed round by round, side by side, so a round is drawn as a
    whole: what slowed both slows both again. So is a pass, in which a network was loaded once: where it came to lie in memory
    may make it a few per cent slower or faster than itself in the next.
    """
    random = np.random.default_rng(0)
    passes = [np.asarray(both) for both in zip(reference, candidate, strict=True)]

    def ratio(drawn: Sequence[np.ndarray]) -> float:
        first, second = np.median(np.concatenate(drawn, axis=1), axis=1)
        return float(first / second)

    def draw(both: np.ndarray) -> np.ndarray:
        return both[:, random.integers(0, both.shape[1], both.shape[1])]

    chosen = random.integers(0, len(passes), (_RESAMPLES, len(passes)))
    low, high = np.percentile([ratio([draw(passes[index]) for index in row]) for row in chosen], [2.5, 97.5])
    return Ratio(ratio(passes), float(low), float(high))
