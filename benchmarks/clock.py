"""How long does a call take, or a training step, beside others?"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn


def milliseconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - start)


def step(loss: Callable[[], Tensor], network: nn.Module) -> Callable[[], None]:
    """A training step on this loss, ready to call."""
    optimizer = torch.optim.SGD(network.parameters(), 0.01, 0.9, fused=True)

    def run() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def interleaved(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each step, all of them in random order in every round."""
    for run in runs.values():
        run(), run()
    seconds: dict[str, list[float]] = {kind: [] for kind in runs}
    for _ in range(rounds):
        for kind in random.sample(list(runs), len(runs)):
            start = time.perf_counter()
            runs[kind]()
            seconds[kind].append(time.perf_counter() - start)
    return {kind: statistics.median(values) for kind, values in seconds.items()}
