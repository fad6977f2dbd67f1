"""How far do two networks differ that should be the same?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Images = TypeVar("Images")
"""A batch, as both networks take it: a tensor, or the array that a file is fed with."""


@dataclass(frozen=True)
class Certificate:
    """Measured differences between a network's logits before and after a step.

    `step` says which: "slice", "export", "int8". `max_difference` and `mean_difference` are absolute, `scale` is the largest
    absolute logit before, `agreement` the part of the images with the same top-1 class.
    """

    step: str
    images: int
    max_difference: float
    mean_difference: float
    scale: float
    agreement: float

    @property
    def relative(self) -> float:
        """The largest difference over the scale of the logits."""
        if self.max_difference == 0:
            return 0.0
        return self.max_difference / self.scale if self.scale > 0 else math.inf

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    step: str, before: Callable[[Images], Tensor], after: Callable[[Images], Tensor], batches: Iterable[Images]
) -> Certificate:
    """Run both networks on the same image batches (N, C, H, W) and measure how their logits (N, classes[, H, W]) differ.

    Both must be in evaluation mode. A logit that is not finite counts as an infinite difference. Logits of one batch are
    held at a time: those of every pixel of a split may be more than a machine has memory for.
    """
    images, logits, answers, agreeing = 0, 0, 0, 0
    largest, total, scale = 0.0, 0.0, 0.0
    with torch.no_grad():
        for batch in batches:
            first, second = before(batch).cpu().double(), after(batch).cpu().double()
            difference = (first - second).abs().nan_to_num(nan=math.inf, posinf=math.inf)
            largest, scale = max(largest, difference.max().item()), max(scale, first.abs().max().item())
            total += difference.sum().item()
            same = first.argmax(1) == second.argmax(1)
            agreeing += int(same.sum())
            images, logits, answers = images + len(first), logits + first.numel(), answers + same.numel()
    return Certificate(step, images, largest, total / logits, scale, agreeing / answers)
