"""How does a benchmark train? In a folder of its own, going on with what was begun, with a line for each epoch."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import adjcompress as ac
from adjcompress.machine import emulates_bf16
from adjcompress.methods import Method
from adjcompress.training import Recipe, TrainOptions, resume, train


def hardware(compile: bool = False, precision: str | None = None) -> ac.Hardware:
    """bf16, the protocols' precision, where nothing else is asked; 32 on a CPU that has no instructions for it."""
    if precision is None:
        precision = "32" if emulates_bf16() and not torch.cuda.is_available() else "bf16"
    return ac.Hardware(precision=precision, compile=compile)


class Lines(ac.Reporter):
    """A line for each epoch."""

    def __init__(self, name: str) -> None:
        self.name = name

    def epoch(self, record: Any) -> None:
        scores = ", ".join(f"{name} {100 * score['accuracy']:.2f}" for name, score in record["validation"].items())
        print(
            f"{self.name} epoch {record['epoch']}: {scores} ({record['train']['images_per_second']:.0f} images/s)", flush=True
        )

    def warn(self, text: str) -> None:
        print(f"{self.name}: {text}", flush=True)


class Until(Lines):
    """A line for each epoch, and an end after the epoch in which `deadline` (of time.monotonic) passes: for another call."""

    def __init__(self, name: str, deadline: float) -> None:
        super().__init__(name)
        self.deadline = deadline

    def epoch(self, record: Any) -> None:
        super().epoch(record)
        if time.monotonic() > self.deadline:
            raise SystemExit(f"{self.name}: stopped after epoch {record['epoch']}; the same command goes on.")


def fitted(
    method: Method, data: ac.ImageData, recipe: Recipe, folder: Path, precision: str | None = None, **fit: Any
) -> ac.Run:
    """The finished run of a method in `folder`: the rest of the one that was begun there, or a new one; `fit`: as of ac.fit."""
    begun = (folder / "config.json").is_file()
    if begun and Recipe(**ac.open_run(folder).config["recipe"]) != recipe:
        raise SystemExit(f"{folder} was begun by another recipe: remove it, or give another --folder.")
    if not begun or ac.open_run(folder).results() is None:
        lines = Lines(f"{folder.parent.name}/{folder.name}")
        fabric = ac.launch(hardware(precision=precision))
        ac.fit(method, data, recipe, folder, resume=begun, fabric=fabric, reporter=lines, **fit)
    return ac.open_run(folder)


def differing(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a result's figures were made with that is not as now. Settings that a recipe does not know had their defaults."""

    def known(name: str, value: Any) -> Any:
        return Recipe(**value) if name == "recipe" else value

    return [name for name, value in now.items() if known(name, earlier[name]) != known(name, value)]


def timed(networks: Mapping[str, nn.Module], folder: Path, example: Tensor, duration: float) -> dict[str, dict[str, Any]]:
    """Of every network, exported to `folder` and run side by side on one thread: milliseconds, rounds, bytes, and if noisy."""
    files = {name: folder / f"{name}.onnx" for name in networks}
    for name, network in networks.items():
        ac.export_onnx(network.eval(), files[name], example)
    timings = ac.benchmark(list(files.values()), threads=(1,), duration=duration).timings
    return {
        name: {
            "p50_ms": timing.latency.p50_ms,
            "noisy": timing.latency.noisy,
            "rounds": timing.latency.runs,
            "bytes": path.stat().st_size,
        }
        for (name, path), timing in zip(files.items(), timings, strict=True)
    }


def trained(
    folder: Path,
    asked: Callable[[], TrainOptions],
    deadline: float | None = None,
    compile: bool = False,
) -> ac.Run:
    """The finished run in `folder`: the rest of the one that was begun there, or what is `asked` for."""
    reporter = Lines(folder.name) if deadline is None else Until(folder.name, deadline)
    if not (folder / "results.json").is_file():
        if (folder / "config.json").is_file() or (folder / "search" / "config.json").is_file():
            resume(folder, hardware(compile), reporter)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            train(asked(), folder, hardware(compile), reporter)
    return ac.open_run(folder)
