"""Into which three dimensions is a matrix (outputs, inputs) folded for a tensor decomposition? arXiv:1906.00859."""

from __future__ import annotations

import math

Dims = tuple[int, int, int]


def balanced(outputs: int, inputs: int) -> Dims:
    """Three factors of outputs x inputs as near to each other as divisors allow, by the authors' rule.

    With e the cube root of the product: (e, e, e) where e is whole; else twice the smallest divisor of what remains that is
    at least round(e), and the rest. They straddle the border between outputs and inputs.
    """
    size = outputs * inputs
    edge = size ** (1 / 3)
    whole = round(edge)
    if whole**3 == size:
        return (whole, whole, whole)
    first = _divisor_from(size, whole)
    second = _divisor_from(size // first, whole)
    return (first, second, size // first // second)


def aligned(outputs: int, inputs: int) -> Dims:
    """(o1, o2, inputs) with o1 o2 = outputs and o1 the smallest divisor from the square root on.

    Outputs and inputs stay apart, so that the cores can run one after the other as convolutions.
    """
    first = _divisor_from(outputs, math.ceil(math.sqrt(outputs) - 1e-9))
    return (first, outputs // first, inputs)


def _divisor_from(number: int, low: int) -> int:
    """The smallest divisor of `number` that is at least `low`."""
    return next(divisor for divisor in range(max(1, min(low, number)), number + 1) if number % divisor == 0)


def rank(setting: float, *most: int) -> int:
    """`setting` of the smallest of `most`, rounded, at least 1."""
    return max(1, round(setting * min(most)))
