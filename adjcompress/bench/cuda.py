"""How fast are networks on a GPU, side by side?"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from adjcompress.bench.latency import Timing
from adjcompress.bench.summary import speedup, summarise
from adjcompress.deploy import load_package, package_info
from adjcompress.errors import AdjCompressError


def time_networks(
    networks: Mapping[str, nn.Module],
    images: Tensor,
    duration: float = 5.0,
    warmup: int = 10,
    minimum: int = 10,
) -> dict[str, list[float]]:
    """Milliseconds of every network in every round, with torch, where `images` (N, C, H, W) lie.

    Each round runs all networks once in random order. On CUDA by events, so that what is timed is the device's work from
    the first kernel to the last; elsewhere by the clock. Channels last, no gradients. The networks are left as they were.
    """
    device = images.device
    ready = images.contiguous(memory_format=torch.channels_last)
    copies = {
        name: copy.deepcopy(network).to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        for name, network in networks.items()
    }
    names: Sequence[str] = list(copies)
    timings: dict[str, list[float]] = {name: [] for name in names}
    random = np.random.default_rng(0)
    with torch.inference_mode():
        for network in copies.values():
            for _ in range(warmup):
                network(ready)
        end = time.perf_counter() + duration
        while time.perf_counter() < end or len(timings[names[0]]) < minimum:
            for index in random.permutation(len(names)):
                name = names[index]
                timings[name].append(_once(copies[name], ready))
    return timings


def _once(network: nn.Module, images: Tensor) -> float:
    if images.device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        network(images)
        end.record()
        end.synchronize()
        return start.elapsed_time(end)
    before = time.perf_counter_ns()
    network(images)
    return (time.perf_counter_ns() - before) / 1e6


def benchmark_cuda(packages: Sequence[Path], batch: int = 1, duration: float = 5.0) -> tuple[Timing, ...]:
    """Time packages on the GPU with torch, batch norms folded by nobody; ratios are to the last.

    Random images of each package's size; all packages must take the same.
    """
    infos = [package_info(path) for path in packages]
    if len({info.preprocessing.image_size for info in infos}) > 1:
        raise AdjCompressError("Packages for images of different sizes cannot be timed side by side.")
    images = torch.randn_like(infos[0].preprocessing.example(batch)).to("cuda")
    networks = {str(path): load_package(path) for path in packages}
    milliseconds = time_networks(networks, images, duration)
    reference = milliseconds[str(packages[-1])]
    timings = []
    for path, info in zip(packages, infos, strict=True):
        torch.cuda.reset_peak_memory_stats()
        time_networks({str(path): networks[str(path)]}, images, duration=0.0, warmup=1, minimum=3)
        own = milliseconds[str(path)]
        timings.append(
            Timing(
                path=path,
                runtime="torch cuda",
                threads=0,
                batch=batch,
                latency=summarise(own),
                speedup=speedup(reference, own),
                peak_memory_bytes=torch.cuda.max_memory_allocated(),
                parameters=info.parameters,
                macs=info.macs,
                bytes=path.stat().st_size,
            )
        )
    return tuple(timings)
