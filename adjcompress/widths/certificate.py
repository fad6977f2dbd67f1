"""How far do two networks differ that should be the same?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor


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
    step: str, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor], batches: list[Tensor]
) -> Certificate:
    """Run both networks on the same image batches (N, C, H, W) and measure how their logits (N, classes) differ.

    Both must be in evaluation mode. A logit that is not finite counts as an infinite difference.
    """
    with torch.no_grad():
        first = torch.cat([before(images).cpu() for images in batches])
        second = torch.cat([after(images).cpu() for images in batches])
    return certify(step, first, second)


def certify(step: str, before: Tensor, after: Tensor) -> Certificate:
    """The same from logits (N, classes) that are there already."""
    first, second = before.double(), after.double()
    difference = (first - second).abs().nan_to_num(nan=math.inf, posinf=math.inf)
    return Certificate(
        step=step,
        images=len(first),
        max_difference=difference.max().item(),
        mean_difference=difference.mean().item(),
        scale=first.abs().max().item(),
        agreement=(first.argmax(1) == second.argmax(1)).double().mean().item(),
    )
