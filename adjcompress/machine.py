"""On which machine was this measured?"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import cpuinfo
import psutil
import torch

from adjcompress.version import versions

# The instructions that decide how fast a convolution runs.
_TELLING = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "neon", "asimd", "asimddp", "i8mm", "sve")

# The instructions, on x86, that multiply in bf16; without any, a bf16 product is emulated.
_BF16 = {"avx512_bf16", "amx_bf16", "avx_ne_convert"}

# The cores of a CPU target, each with one thread.
TARGET_CORES = {"one-core": 1, "two-core": 2, "four-core": 4}


def usable_cores() -> Sequence[int]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)


@dataclass(frozen=True)
class Machine:
    """Facts that a timing means nothing without."""

    cpu: str
    instructions: tuple[str, ...]
    cores: int
    memory_gib: float
    gpu: str | None
    system: str
    load: float
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@cache
def processor() -> Mapping[str, Any]:
    """What py-cpuinfo knows of this machine's CPU, its `flags` and `brand_raw`: asked once, for it starts processes."""
    found: dict[str, Any] = cpuinfo.get_cpu_info()
    return found


def emulates_bf16() -> bool:
    """Whether this machine's CPU is known to have no instructions for bf16: training in it then is far slower than in 32."""
    known = platform.machine().lower() in ("x86_64", "amd64")
    return known and not _BF16 & set(processor().get("flags", ()))


def machine_facts() -> Machine:
    """The facts of this machine now; `load` is its average number of running processes over the last minute."""
    cpu = processor()
    flags = set(cpu.get("flags", ()))
    return Machine(
        cpu=cpu.get("brand_raw") or platform.processor() or platform.machine(),
        instructions=tuple(name for name in _TELLING if name in flags),
        cores=os.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        system=f"{platform.system()} {platform.machine()}",
        load=round(psutil.getloadavg()[0], 2),
        versions=versions(),
    )
