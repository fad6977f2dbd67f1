"""One process that runs candidates, for `bench/latency.py`: side by side, or one alone within limits.

Reads a task as JSON on standard input, writes the result as JSON on standard output. A process of its own: the number of
threads is fixed when an engine starts them, cores and memory are limited by process, and peak memory can only be read of
one.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil

Run = Callable[[np.ndarray], object]


def with_onnxruntime(path: str, task: dict[str, Any]) -> Run:
    """An ONNX file with ONNX Runtime. Its threads stop spinning when a run ends: others are timed next."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    parallel = task["executor"] == "parallel"
    options.intra_op_num_threads = 1 if parallel else task["threads"]
    options.inter_op_num_threads = task["threads"] if parallel else 1
    if parallel:
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not task["spinning"]:
        for threads in ("intra_op", "inter_op"):
            options.add_session_config_entry(f"session.{threads}.allow_spinning", "0")
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[task["provider"]]
    session = onnxruntime.InferenceSession(path, options, providers=[provider])
    (name,) = [item.name for item in session.get_inputs()]
    return lambda images: session.run(None, {name: images})


def with_openvino(path: str, task: dict[str, Any]) -> Run:
    """An ONNX file with OpenVINO on the CPU, for latency: one stream."""
    import openvino

    options = {"INFERENCE_NUM_THREADS": task["threads"], "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    # The batch is fixed, as OpenVINO's users do: with a dynamic one it plans its memory anew for each shape.
    model = openvino.Core().read_model(path)
    model.reshape([task["batch"], *model.inputs[0].partial_shape[1:]])
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    return lambda images: request.infer([images])


def with_torch(path: str, task: dict[str, Any]) -> Run:
    """A package with torch, eager, channels last."""
    import torch

    from adjcompress.packages import load_package

    torch.set_num_threads(task["threads"])
    network = load_package(path).to(memory_format=torch.channels_last)

    def run(images: np.ndarray) -> object:
        with torch.inference_mode():
            return network(torch.from_numpy(images).contiguous(memory_format=torch.channels_last))

    return run


ENGINES = {"onnxruntime": with_onnxruntime, "openvino": with_openvino, "torch": with_torch}


def time_side_by_side(task: dict[str, Any]) -> list[list[float]]:
    """Milliseconds of every candidate in every round; each round runs all of them once, in random order.

    They are loaded forwards in the first turn, backwards in the second, and from the middle on in the third.
    """
    random, items = np.random.default_rng(task["turn"]), task["candidates"]
    forwards, middle = range(len(items)), len(items) // 2
    order = (forwards, forwards[::-1], (*forwards[middle:], *forwards[:middle]))[task["turn"] % 3]
    candidates = {index: (_load(items[index], task), _images(items[index], task)) for index in order}
    for run, images in candidates.values():
        for _ in range(task["warmup"]):
            run(images)
    timings: list[list[float]] = [[] for _ in items]
    end = time.perf_counter() + task["duration"]
    while time.perf_counter() < end or len(timings[0]) < task["minimum"]:
        for index in random.permutation(len(candidates)):
            run, images = candidates[index]
            start = time.perf_counter_ns()
            run(images)
            timings[index].append((time.perf_counter_ns() - start) / 1e6)
    return timings


def run_alone(task: dict[str, Any]) -> dict[str, Any]:
    """One candidate from its file: milliseconds to load it and to its first result, the memory that it took, and the cores
    that it may run on.

    `peak_memory_bytes`: by how much loading and running raised this process's resident memory at its peak. The engine's
    own import comes before all of it.
    """
    (item,) = task["candidates"]
    images = _images(item, task)
    _import(task["engine"])
    _limit_memory(task["memory_bytes"])
    before = psutil.Process().memory_info().rss
    highest = MemoryWatch()
    start = time.perf_counter_ns()
    run = _load(item, task)
    loaded = time.perf_counter_ns()
    run(images)
    first = time.perf_counter_ns()
    for _ in range(2):
        run(images)
    peak = highest.stop() - before
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return {"load_ms": (loaded - start) / 1e6, "first_ms": (first - loaded) / 1e6, "peak_memory_bytes": peak, "cores": cores}


class MemoryWatch(threading.Thread):
    """Reads the resident memory every millisecond: the system's own peak includes what importing took before."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._process, self._running, self._highest = psutil.Process(), True, 0
        self.start()

    def run(self) -> None:
        while self._running:
            self._highest = max(self._highest, self._process.memory_info().rss)
            time.sleep(0.001)

    def stop(self) -> int:
        """The highest resident memory seen, in bytes."""
        self._running = False
        self.join()
        return max(self._highest, self._process.memory_info().rss)


def _load(item: dict[str, Any], task: dict[str, Any]) -> Run:
    return ENGINES[task["engine"]](item["path"], task)


def _images(item: dict[str, Any], task: dict[str, Any]) -> np.ndarray:
    """Random images of the candidate's own size and type."""
    random, shape = np.random.default_rng(0), (task["batch"], *item["shape"])
    if item["type"] == "uint8":
        return random.integers(0, 256, shape, np.uint8)
    return random.standard_normal(shape).astype(np.float32)


def _import(engine: str) -> None:
    """Load the engine's libraries: what they take is not the network's."""
    if engine == "torch":
        import adjcompress.deploy  # noqa: F401
    else:
        __import__(engine)


def _limit_memory(allowed_bytes: int | None) -> None:
    """Let this process take that much address space on top of what it has; beyond, allocating fails."""
    if allowed_bytes is None:
        return
    import resource

    limit = psutil.Process().memory_info().vms + allowed_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main() -> None:
    """Do what standard input asks for."""
    task = json.load(sys.stdin)
    if task["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, task["cores"])
    result: object = run_alone(task) if task["what"] == "alone" else time_side_by_side(task)
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
