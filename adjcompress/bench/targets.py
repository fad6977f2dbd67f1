"""On what is a network to run? Named targets, and what each allows."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from adjcompress.errors import AdjCompressError, pick
from adjcompress.machine import TARGET_CORES, usable_cores


@dataclass(frozen=True)
class Target:
    """What a process may use: so many cores (it is bound to them), one thread for each, and so much memory on top of what
    the engine takes before a network is loaded.

    `spinning`: whether ONNX Runtime's idle threads burn their cores while they wait; on an edge box these cores belong to
    the application as well. `provider`: "cpu" or "cuda".
    """

    name: str
    cores: int
    batch: int
    memory_bytes: int | None
    provider: str = "cpu"
    spinning: bool = False


_MIB = 2**20
TARGETS = {
    target.name: target
    for target in (
        Target("one-core", TARGET_CORES["one-core"], 1, 512 * _MIB),
        Target("two-core", TARGET_CORES["two-core"], 1, 1024 * _MIB),
        Target("four-core", TARGET_CORES["four-core"], 1, 2048 * _MIB),
        Target("gpu", 1, 1, None, provider="cuda"),
    )
}


def target(name: str) -> Target:
    """The target called `name`; an error where this machine is smaller than it."""
    found = pick(TARGETS, name, "Target")
    if found.provider == "cuda":
        if not torch.cuda.is_available():
            raise AdjCompressError(f"Target {name} needs a CUDA GPU, and torch finds none here: choose a target of the CPU.")
        return found
    there = usable_cores()
    if found.cores > len(there):
        smaller = [other.name for other in TARGETS.values() if other.provider == "cpu" and other.cores <= len(there)]
        raise AdjCompressError(
            f"Target {name} has {found.cores} cores and this machine gives {len(there)}: what is measured here would say "
            f"nothing about it. Choose {', '.join(smaller)}, or measure on a machine that has the cores."
        )
    return found
