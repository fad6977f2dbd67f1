"""Who hears how training goes? The library itself never prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from adjcompress.methods import Method
from adjcompress.training.recipes import Recipe


@dataclass(frozen=True)
class StepNews:
    """One step: `step` of `steps` in `epoch` (from 0) of `epochs`; images per second since the epoch began.

    `loss` is the batch's, still on its device: reading it at every step would make a GPU wait.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: Tensor
    images_per_second: float
    seconds_left: float


class Reporter:
    """Hears of everything and says nothing. The command line and tests override what they need."""

    def begins(self, method: Method) -> None:
        """What a new training is about to train, at widths that are known; not told of a search, nor where a run goes on."""

    def started(self, run: str, recipe: Recipe, epoch: int) -> None:
        """Training begins in folder `run`, or goes on after `epoch` epochs."""

    def step(self, news: StepNews) -> None:
        """A step is done."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch is done: its line of log.jsonl."""

    def warn(self, text: str) -> None:
        """Something is wrong that does not stop the training."""

    def finished(self, results: Mapping[str, Any]) -> None:
        """Training is done: what results.json says."""
