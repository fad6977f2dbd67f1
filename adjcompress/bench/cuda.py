"""How fast are networks on a GPU, side by side?"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from adjcompress.bench.latency import Timing
from adjcompress.bench.summary import speedup, summarise
from adjcompress.errors import AdjCompressError
from adjcompress.files import checksum
from adjcompress.packages import load_package, package_info

_LARGEST_BATCH = 4096
_WORTHWHILE = 1.05  # doubling the batch must bring so much more throughput


def time_networks(
    networks: Mapping[str, nn.Module],
    images: Tensor,
    duration: float = 5.0,
    warmup: int = 10,
    minimum: int = 10,
) -> dict[str, list[float]]:
    """Milliseconds of every network in every round, with torch, where `images` (N, C, H, W) lie.

    Each round runs all networks once in random order. On CUDA as a CUDA graph, by events, so that what is timed is the
    device's work from the first kernel to the last, and no launching; elsewhere by the clock. Channels last, no gradients.
    The networks are left as they were.
    """
    ready = images.contiguous(memory_format=torch.channels_last)
    timings: dict[str, list[float]] = {name: [] for name in networks}
    names: Sequence[str] = list(networks)
    random = np.random.default_rng(0)
    with torch.inference_mode():
        runs = {name: _prepared(network, ready, warmup) for name, network in networks.items()}
        end = time.perf_counter() + duration
        while time.perf_counter() < end or len(timings[names[0]]) < minimum:
            for index in random.permutation(len(names)):
                timings[names[index]].append(_once(runs[names[index]], ready.device))
    return timings


def _prepared(network: nn.Module, images: Tensor, warmup: int) -> Callable[[], object]:
    """The network, warm, as something to call; on CUDA recorded as a graph."""
    ready = copy.deepcopy(network).to(images.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    if images.device.type != "cuda":
        for _ in range(warmup):
            ready(images)
        return lambda: ready(images)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # recording needs a side stream that has run before
        for _ in range(warmup):
            ready(images)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ready(images)

    def replay(_weights: nn.Module = ready) -> None:  # kept alive: a graph holds no weights
        graph.replay()

    return replay


def _once(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)
    before = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - before) / 1e6


def best_batch(network: nn.Module, image: Tensor) -> int:
    """The batch, a power of two, with the best throughput: doubling it further brings less than 5 %.

    `image` is one image (1, C, H, W), where it is to run.
    """
    batch, throughput = 1, 0.0
    while batch <= _LARGEST_BATCH:
        try:
            times = time_networks({"network": network}, image.expand(batch, -1, -1, -1), duration=0.2, warmup=3)["network"]
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        reached = batch / float(np.median(times))
        if reached < throughput * _WORTHWHILE:
            break
        batch, throughput = 2 * batch, reached
    return max(1, batch // 2)


def benchmark_cuda(packages: Sequence[Path], duration: float = 5.0) -> tuple[Timing, ...]:
    """Time packages on the GPU with torch, at batch 1 and at the batch of the last one's best throughput.

    Ratios are to the last package. Random images of each package's size; all packages must take the same.
    """
    infos = [package_info(path) for path in packages]
    if len({info.preprocessing.size for info in infos}) > 1:
        raise AdjCompressError("Packages for images of different sizes cannot be timed side by side.")
    image = torch.randn_like(infos[0].preprocessing.example()).to("cuda")
    networks = {str(path): load_package(path) for path in packages}
    timings = []
    for batch in dict.fromkeys((1, best_batch(networks[str(packages[-1])], image))):
        images = image.repeat(batch, 1, 1, 1)
        milliseconds = time_networks(networks, images, duration)
        reference = milliseconds[str(packages[-1])]
        for path, info in zip(packages, infos, strict=True):
            torch.cuda.reset_peak_memory_stats()
            time_networks({str(path): networks[str(path)]}, images, duration=0.0, warmup=1, minimum=3)
            own = milliseconds[str(path)]
            timings.append(
                Timing(
                    path=path,
                    sha256=checksum(path),
                    reference=packages[-1],
                    engine="torch",
                    provider="cuda",
                    target="gpu",
                    threads=0,
                    batch=batch,
                    latency=summarise(own),
                    speedup=speedup([reference], [own]),
                    load_ms=None,
                    first_ms=None,
                    peak_memory_bytes=torch.cuda.max_memory_allocated(),
                    parameters=info.parameters,
                    macs=info.macs,
                    bytes=path.stat().st_size,
                )
            )
    return tuple(timings)
