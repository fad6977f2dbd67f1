"""One process that times candidates side by side, for `bench/latency.py`.

Reads a task as JSON on standard input, writes the result as JSON on standard output. A process of its own: the number of
threads is fixed when ONNX Runtime starts them, and peak memory can only be read of a process.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import numpy as np
import onnxruntime
import psutil


def session(path: str, threads: int) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on `threads` threads, which stop spinning when a run ends: others are timed next."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def time_side_by_side(task: dict[str, Any]) -> list[list[float]]:
    """Milliseconds of every candidate in every round; each round runs all of them once, in random order."""
    random = np.random.default_rng(0)
    candidates = []
    for item in task["candidates"]:
        images = random.standard_normal((task["batch"], *item["shape"])).astype(np.float32)
        candidates.append((session(item["path"], task["threads"]), {item["input"]: images}))
    for running, feed in candidates:
        for _ in range(task["warmup"]):
            running.run(None, feed)
    timings: list[list[float]] = [[] for _ in candidates]
    end = time.perf_counter() + task["duration"]
    while time.perf_counter() < end or len(timings[0]) < task["minimum"]:
        for index in random.permutation(len(candidates)):
            running, feed = candidates[index]
            start = time.perf_counter_ns()
            running.run(None, feed)
            timings[index].append((time.perf_counter_ns() - start) / 1e6)
    return timings


def peak_memory_bytes(task: dict[str, Any]) -> int:
    """By how much loading and running one candidate raised this process's resident memory at its peak."""
    (item,) = task["candidates"]
    images = np.zeros((task["batch"], *item["shape"]), np.float32)
    before = psutil.Process().memory_info().rss
    highest = MemoryWatch()
    running = session(item["path"], task["threads"])
    for _ in range(3):
        running.run(None, {item["input"]: images})
    return highest.stop() - before


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


def main() -> None:
    task = json.load(sys.stdin)
    result = peak_memory_bytes(task) if task["what"] == "memory" else time_side_by_side(task)
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
