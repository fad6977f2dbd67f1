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


def speedup(reference: Sequence[float], candidate: Sequence[float]) -> Ratio:
    """Median of `reference` over median of `candidate`; the interval by resampling rounds.

    Both were timed round by round, side by side, so a round is drawn as a whole: what slowed both slows both again.
    """
    first, second = np.asarray(reference), np.asarray(candidate)
    draws = np.random.default_rng(0).integers(0, len(first), (_RESAMPLES, len(first)))
    ratios = np.median(first[draws], axis=1) / np.median(second[draws], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Ratio(float(np.median(first) / np.median(second)), float(low), float(high))
