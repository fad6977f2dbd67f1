"""How fast are networks on this machine, side by side?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from adjcompress.bench.graph import OnnxFacts, onnx_facts
from adjcompress.bench.machine import Machine, machine_facts
from adjcompress.bench.summary import NOISY, Ratio, Summary, speedup, summarise
from adjcompress.errors import AdjCompressError

_WARMUP, _MINIMUM_ROUNDS = 5, 10


@dataclass(frozen=True)
class Timing:
    """One network at one number of threads. `speedup`: how many times faster than the reference."""

    path: Path
    runtime: str
    threads: int
    batch: int
    latency: Summary
    speedup: Ratio
    peak_memory_bytes: int
    parameters: int
    macs: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path), "noisy": self.latency.noisy}


@dataclass(frozen=True)
class BenchReport:
    """Timings of all candidates, the reference's among them, and where they were measured."""

    reference: Path
    timings: tuple[Timing, ...]
    machine: Machine
    warnings: tuple[str, ...]

    def with_timings(self, more: Sequence[Timing]) -> BenchReport:
        """The report with timings of other hardware added."""
        return replace(self, timings=(*self.timings, *more))

    def to_json(self) -> dict[str, Any]:
        return {
            "reference": str(self.reference),
            "timings": [timing.to_json() for timing in self.timings],
            "machine": self.machine.to_json(),
            "warnings": list(self.warnings),
        }


def benchmark(
    files: Sequence[str | Path],
    reference: str | Path | None = None,
    *,
    threads: Sequence[int] = (1,),
    batch: int = 1,
    duration: float = 5.0,
    progress: Callable[[str], None] = lambda text: None,
) -> BenchReport:
    """Time ONNX files on the CPU with ONNX Runtime, `duration` seconds at each number of threads.

    Within one process, round by round, every candidate runs once in random order, so that what disturbs one disturbs all;
    ratios are to `reference`, by default the last file. Random images of the files' own size, `batch` at a time.
    `progress` hears what is being measured.
    """
    paths = [Path(file) for file in files]
    last = Path(reference) if reference is not None else (paths[-1] if paths else None)
    if last is None:
        raise AdjCompressError("Nothing to benchmark: name at least one ONNX file.")
    paths = list(dict.fromkeys([*paths, last]))
    if batch < 1 or duration <= 0 or not threads or min(threads) < 1:
        raise AdjCompressError(f"--threads {threads}, --batch {batch} and --duration {duration} must all be above 0.")
    facts = [onnx_facts(path) for path in paths]
    machine = machine_facts()
    timings: list[Timing] = []
    warnings: list[str] = []
    for count in threads:
        if count > machine.cores:
            warnings.append(f"{count} threads on {machine.cores} cores: they wait for one another.")
        progress(f"{len(paths)} networks, {count} thread{'s' * (count > 1)}, {duration:g} s")
        milliseconds = _ask({**_task(facts, count, batch), "what": "time", "duration": duration})
        memory = [_ask({**_task([fact], count, batch), "what": "memory"}) for fact in facts]
        timings += [
            Timing(
                path=fact.path,
                runtime="onnxruntime cpu",
                threads=count,
                batch=batch,
                latency=summarise(own),
                speedup=speedup(milliseconds[paths.index(last)], own),
                peak_memory_bytes=peak,
                parameters=fact.parameters,
                macs=fact.macs,
                bytes=fact.bytes,
            )
            for fact, own, peak in zip(facts, milliseconds, memory, strict=True)
        ]
    for timing in timings:
        if timing.latency.noisy:
            warnings.append(
                f"{timing.path} at {timing.threads} threads: the median is over {NOISY} times the minimum; "
                "the machine was too busy to tell. Repeat it on an idle machine or with a longer --duration."
            )
    return BenchReport(last, tuple(timings), machine, tuple(warnings))


def _task(facts: Sequence[OnnxFacts], threads: int, batch: int) -> dict[str, Any]:
    candidates = [{"path": str(fact.path), "input": fact.input_name, "shape": fact.input_shape} for fact in facts]
    return {"candidates": candidates, "threads": threads, "batch": batch, "warmup": _WARMUP, "minimum": _MINIMUM_ROUNDS}


def _ask(task: dict[str, Any]) -> Any:
    """Run one task in a process of its own."""
    # Run as a file: as a module of the package it would import torch first, seconds and memory that are not asked for.
    start = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
    command = [sys.executable, "-c", start, str(Path(__file__).with_name("worker.py"))]
    done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True)
    if done.returncode != 0:
        paths = ", ".join(item["path"] for item in task["candidates"])
        text = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise AdjCompressError(f"ONNX Runtime could not run {paths}: {text}")
    return json.loads(done.stdout)
