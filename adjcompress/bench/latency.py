"""How fast are networks on this machine, side by side?"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from adjcompress.bench.graph import FileFacts, onnx_facts, package_facts
from adjcompress.bench.process import worker
from adjcompress.bench.summary import NOISY, Ratio, Summary, speedup, summarise
from adjcompress.bench.targets import Target, target
from adjcompress.errors import AdjCompressError, check_choice
from adjcompress.machine import Machine, machine_facts, usable_cores

_WARMUP, _MINIMUM_ROUNDS = 5, 10
_STARTS = 3
_PASSES = 3  # processes in which all candidates are timed, loaded in an order of its own
_CROWD = 16  # threads for each core, beyond which nothing is learnt
SEQUENTIAL, PARALLEL = EXECUTORS = ("sequential", "parallel")
# Each engine and the files it runs.
ENGINES = {"onnxruntime": ".onnx", "openvino": ".onnx", "torch": ".safetensors"}


@dataclass(frozen=True)
class Timing:
    """One network under one setting, in a file of content `sha256`. `speedup`: how many times faster than `reference`.

    `load_ms` from the file to a network that can run, `first_ms` its first inference, both the median of fresh processes;
    `latency` is the steady state after that. `target` None: no limits but the number of threads. `executor`: whether the
    threads share each layer in turn ("sequential") or take layers that do not wait for each other ("parallel"). None where a
    runtime does not tell.
    """

    path: Path
    sha256: str
    reference: Path
    engine: str
    provider: str
    target: str | None
    threads: int
    batch: int
    latency: Summary
    speedup: Ratio
    load_ms: float | None
    first_ms: float | None
    peak_memory_bytes: int
    parameters: int
    macs: int
    bytes: int
    executor: str = SEQUENTIAL

    @property
    def runtime(self) -> str:
        return f"{self.engine} {self.provider}"

    @property
    def setting(self) -> str:
        """By what the timing is told from others of its file: "one-core", "2 threads"."""
        where = self.target or f"{self.threads} thread{'s' * (self.threads > 1)}"
        how = "" if self.executor == SEQUENTIAL else f", {self.executor} executor"
        return f"{where}{how}" if self.batch == 1 else f"{where}{how}, batch {self.batch}"

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "path": str(self.path),
            "reference": str(self.reference),
            "runtime": self.runtime,
            "noisy": self.latency.noisy,
        }


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


@dataclass(frozen=True)
class _Setting:
    """What a worker process is told besides its candidates."""

    threads: int
    batch: int
    engine: str
    provider: str = "cpu"
    spinning: bool = True
    cores: tuple[int, ...] = ()
    memory_bytes: int | None = None
    target: str | None = None
    executor: str = SEQUENTIAL

    @classmethod
    def of(cls, wanted: Target, engine: str) -> _Setting:
        cores = () if wanted.provider == "cuda" else tuple(usable_cores()[: wanted.cores])
        return cls(
            wanted.cores, wanted.batch, engine, wanted.provider, wanted.spinning, cores, wanted.memory_bytes, wanted.name
        )


def benchmark(
    files: Sequence[str | Path],
    reference: str | Path | None = None,
    *,
    threads: Sequence[int] = (1,),
    batch: int = 1,
    duration: float = 5.0,
    engine: str = "onnxruntime",
    targets: Sequence[str] = (),
    executors: Sequence[str] = (SEQUENTIAL,),
    progress: Callable[[str], None] = lambda text: None,
) -> BenchReport:
    """Time networks, `duration` seconds at each number of threads, or on each of `targets` (bench/targets.py).

    `engine`: "onnxruntime" or "openvino" for ONNX files, "torch" for packages. Within one process, round by round, every
    candidate runs once in random order, so that what disturbs one disturbs all; three processes, one after the other, load
    them in different orders, so that where one comes to lie in memory is told from how fast it is. Ratios are to `reference`,
    by default the last file. Random images of the files' own size, `batch` at a time. ONNX Runtime may have several
    `executors`: "sequential", where threads share each layer, and "parallel", where each takes layers of its own. `progress`
    hears what is being measured.
    """
    paths = [Path(file) for file in files]
    last = Path(reference) if reference is not None else (paths[-1] if paths else None)
    if last is None:
        raise AdjCompressError("Nothing to benchmark: name at least one file.")
    paths = list(dict.fromkeys([*paths, last]))
    if not 0 < duration < math.inf:
        raise AdjCompressError(f"--duration {duration:g} must be seconds above 0, and end.")
    if not threads:
        raise AdjCompressError("--threads: name at least one number of threads.")
    for option, least in (("--batch", batch), ("--threads", min(threads))):
        if least < 1:
            raise AdjCompressError(f"{option} {least} must be at least 1.")
    if max(threads) > (most := _CROWD * (os.cpu_count() or 1)):
        raise AdjCompressError(f"--threads {max(threads)}: {most} are the most here, {_CROWD} for each core.")
    check_engine(engine)
    settings = [_Setting.of(target(name), engine) for name in targets]
    if any(setting.provider == "cuda" for setting in settings):
        _check_cuda(engine)
    executors = tuple(dict.fromkeys(executors))
    for executor in executors:
        check_choice(EXECUTORS, executor, "Executor")
        if executor == PARALLEL and (engine != "onnxruntime" or targets):
            raise AdjCompressError(
                "--executor parallel is ONNX Runtime's and goes with --threads, not with --engine or --target."
            )
    if not settings:
        settings = [_Setting(count, batch, engine, executor=executor) for count in threads for executor in executors]
    facts = [_facts(path, engine) for path in paths]
    machine = machine_facts()
    timings: list[Timing] = []
    warnings: list[str] = []
    for setting in settings:
        if setting.threads > machine.cores:
            warnings.append(f"{setting.threads} threads on {machine.cores} cores: they wait for one another.")
        if setting.target and not hasattr(os, "sched_setaffinity"):
            warnings.append(f"{machine.system} binds no process to cores: {setting.target} limits threads and memory only.")
        timings += _timings(facts, setting, paths.index(last), duration, progress)
    for timing in timings:
        if timing.latency.noisy:
            warnings.append(
                f"{timing.path}, {timing.setting}: the median is over {NOISY} times the minimum; "
                "the machine was too busy to tell. Repeat it on an idle machine or with a longer --duration."
            )
    return BenchReport(last, tuple(timings), machine, tuple(warnings))


def check_engine(engine: str) -> None:
    """An engine must be known and installed."""
    check_choice(ENGINES, engine, "Engine")
    if importlib.util.find_spec(engine) is None:
        raise AdjCompressError(f"Engine {engine} is not installed: pip install 'adjcompress[{engine}]'.")


def _check_cuda(engine: str) -> None:
    """Of the engines here, ONNX Runtime alone runs files on a GPU; torch does through `benchmark_cuda`."""
    import onnxruntime

    if engine != "onnxruntime":
        raise AdjCompressError(f"Engine {engine} does not run files on a GPU: --engine onnxruntime does.")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise AdjCompressError(
            "ONNX Runtime has no CUDA provider here: install onnxruntime-gpu in place of onnxruntime, or take --engine torch."
        )


def _facts(path: Path, engine: str) -> FileFacts:
    if path.is_file() and path.suffix != ENGINES[engine]:
        others = ", ".join(name for name, suffix in ENGINES.items() if suffix == path.suffix)
        raise AdjCompressError(
            f"{path}: engine {engine} runs {ENGINES[engine]} files" + (f"; --engine {others} runs this one." if others else ".")
        )
    return package_facts(path) if engine == "torch" else onnx_facts(path)


def _timings(
    facts: Sequence[FileFacts], setting: _Setting, reference: int, duration: float, progress: Callable[[str], None]
) -> list[Timing]:
    """All candidates under one setting: side by side for the latency, then each alone, within the limits."""
    where = setting.target or f"{setting.threads} thread{'s' * (setting.threads > 1)}"
    where += ", parallel executor" if setting.executor == PARALLEL else ""
    progress(f"{len(facts)} networks, {where}, {duration:g} s")
    alone = [[_ask([fact], setting, "alone") for _ in range(_STARTS)] for fact in facts]
    passes = [_ask(facts, setting, "time", duration / _PASSES, turn) for turn in range(_PASSES)]
    milliseconds = list(zip(*passes, strict=True))
    return [
        Timing(
            path=fact.path,
            sha256=fact.sha256,
            reference=facts[reference].path,
            engine=setting.engine,
            provider=setting.provider,
            target=setting.target,
            threads=setting.threads,
            batch=setting.batch,
            latency=summarise(list(chain.from_iterable(own))),
            speedup=speedup(milliseconds[reference], own),
            load_ms=statistics.median(start["load_ms"] for start in starts),
            first_ms=statistics.median(start["first_ms"] for start in starts),
            peak_memory_bytes=max(int(start["peak_memory_bytes"]) for start in starts),
            parameters=fact.parameters,
            macs=fact.macs,
            bytes=fact.bytes,
            executor=setting.executor,
        )
        for fact, own, starts in zip(facts, milliseconds, alone, strict=True)
    ]


def _ask(facts: Sequence[FileFacts], setting: _Setting, what: str, duration: float = 0.0, turn: int = 0) -> Any:
    """Run one task in a process of its own, as the first or a later `turn`: in each, candidates are loaded in another order."""
    candidates = [{"path": str(fact.path), "shape": fact.input_shape, "type": fact.input_type} for fact in facts]
    task = {"what": what, "candidates": candidates, "duration": duration, "turn": turn, **asdict(setting)}
    text = json.dumps({**task, "warmup": _WARMUP, "minimum": _MINIMUM_ROUNDS})
    done = subprocess.run(worker("worker.py"), input=text, capture_output=True, text=True)
    if done.returncode != 0:
        paths = ", ".join(str(fact.path) for fact in facts)
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        if setting.memory_bytes is not None and what == "alone" and _out_of_memory(reason, done.returncode):
            raise AdjCompressError(
                f"{paths} does not fit target {setting.target}, which has {setting.memory_bytes // 2**20} MiB of memory: "
                "make the network smaller, or the batch."
            )
        raise AdjCompressError(f"{setting.engine} could not run {paths}: {reason}")
    return json.loads(done.stdout)


def _out_of_memory(reason: str, returncode: int) -> bool:
    """How a process ends that is refused memory: with an error that says so, or by a signal in a library that forgot to."""
    return returncode < 0 or any(word in reason.lower() for word in ("memory", "alloc", "std::length_error"))
