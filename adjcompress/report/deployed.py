"""What was cut out of a run, exported and measured?

deployed.json in the run's folder, as the commands keep it, read into plain data. Every part may be missing, and fields
that an older version did not write are None.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adjcompress.bench.latency import SEQUENTIAL
from adjcompress.deploy.trail import DEPLOYED
from adjcompress.errors import first_line
from adjcompress.report.words import counted, printable

FLOAT, MATERIALISED = "float32", "float32 materialised"
_FLAGS = ("simplify", "preprocess", "external_data", "materialise")
_NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "cpu": "CPU", "cuda": "GPU", "gpu": "GPU"}


@dataclass(frozen=True)
class Difference:
    """A certificate's figures: the largest difference of a logit, absolute and relative, and the part with the same top-1."""

    images: int | None
    max_difference: float | None
    relative: float | None
    agreement: float | None


@dataclass(frozen=True)
class Package:
    """A network that was extracted: its counts, its test accuracy, and how far it is from the one in training.

    `reestimated`: how far measuring its batch norms anew then moved it, where that was done; `test` is of after that.
    """

    path: str
    name: str | None
    parameters: int | None
    macs: int | None
    bytes: int | None
    test: float | None
    test_iou: float | None
    full_parameters: int | None
    full_macs: int | None
    difference: Difference | None
    reestimated: Difference | None


@dataclass(frozen=True)
class FloatLayer:
    """A layer of an int8 file that runs in float, and why; None where an older version did not say."""

    name: str
    why: str | None


@dataclass(frozen=True)
class Int8:
    """What quantisation cost, on validation images."""

    calibration_images: int | None
    validation_images: int | None
    float_accuracy: float | None
    accuracy: float | None
    drop_points: float | None
    max_drop_points: float | None
    float_layers: tuple[FloatLayer, ...]
    processor: str | None
    ranges: str | None
    difference: Difference | None


@dataclass(frozen=True)
class Unblocked:
    """A convolution that ONNX Runtime runs in its slow layout, and the channels at which it would not."""

    layer: str
    channels_in: int | None
    channels_out: int | None
    wanted_in: int | None
    wanted_out: int | None


@dataclass(frozen=True)
class OnnxFile:
    """A network that was exported. `flags`: what was done to its graph, of "simplify", "preprocess" and so on.

    `untrained`: it has fresh weights, is there to be compared with, and was checked on random images.
    """

    path: str
    package: str | None
    name: str | None
    kind: str
    bytes: int | None
    opset: int | None
    flags: tuple[str, ...]
    tolerance: float | None
    difference: Difference | None
    unblocked: tuple[Unblocked, ...]
    int8: Int8 | None
    untrained: bool = False


@dataclass(frozen=True)
class Setting:
    """Under which conditions a latency was measured; only latencies of the same setting compare.

    `runtime` is engine and provider ("onnxruntime cpu"), `device` the processor that computed.
    """

    runtime: str
    target: str | None
    threads: int | None
    batch: int | None
    device: str | None
    executor: str = SEQUENTIAL

    @property
    def engine(self) -> str:
        return self.runtime.partition(" ")[0]

    @property
    def words(self) -> str:
        parts = [" ".join(_NAMES.get(word, word) for word in self.runtime.split())]
        if self.target:
            parts.append(f"target {self.target}")
        if self.threads:
            parts.append(counted(self.threads, "thread"))
        if self.executor != SEQUENTIAL:
            parts.append(f"{self.executor} executor")
        if self.batch:
            parts.append(f"batch {self.batch}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Timing:
    """A measured latency. `name` is the run's network ("alpha8"), None for a file that the run knows nothing of."""

    path: str
    name: str | None
    kind: str
    setting: Setting
    runs: int | None
    min_ms: float | None
    p50_ms: float
    p90_ms: float | None
    p99_ms: float | None
    speedup: float | None
    speedup_low: float | None
    speedup_high: float | None
    load_ms: float | None
    first_ms: float | None
    peak_memory_bytes: int | None
    parameters: int | None
    macs: int | None
    bytes: int | None
    noisy: bool

    @property
    def label(self) -> str:
        if self.name is None:
            return self.path
        return self.name if self.kind == FLOAT else f"{self.name} {self.kind}"


@dataclass(frozen=True)
class Bench:
    """One benchmark: its label, the file that ratios refer to, and the machine's facts as they were kept."""

    label: str
    reference: str | None
    timings: tuple[Timing, ...]
    machine: Mapping[str, Any]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Deployed:
    """All that was made from a run. `problem`: why deployed.json cannot be read, in one sentence."""

    packages: tuple[Package, ...] = ()
    files: tuple[OnnxFile, ...] = ()
    benches: tuple[Bench, ...] = field(default=())
    problem: str | None = None

    @property
    def timings(self) -> tuple[Timing, ...]:
        return tuple(timing for bench in self.benches for timing in bench.timings)

    @property
    def settings(self) -> tuple[Setting, ...]:
        """In the order of measurement, each once."""
        return tuple(dict.fromkeys(timing.setting for timing in self.timings))


def read_deployed(folder: Path) -> Deployed:
    """Read a run's deployed.json; empty where there is none, and with a `problem` where it is damaged."""
    path = folder / DEPLOYED
    if not path.is_file():
        return Deployed()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        extracted, exported = content.get("extract", {}), content.get("export", {})
        packages = tuple(_package(name, data) for name, data in extracted.items())
        files = tuple(_file(name, data) for name, data in exported.items())
        known = _Known.of(folder, [*extracted.items(), *exported.items()], [*packages, *files])
        benches = tuple(_bench(label, data, known) for label, data in content.get("bench", {}).items())
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return Deployed(
            problem=f"{printable(path)} is damaged ({printable(first_line(error))}): what was extracted, exported and measured "
            "is not shown. Delete it, and run adjcompress extract, export and bench again."
        )
    return Deployed(packages, files, benches)


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _whole(value: Any) -> int | None:
    found = number(value)
    return None if found is None else round(found)


def _text(value: Any) -> str | None:
    return printable(value) if isinstance(value, str) else None


def _difference(data: Mapping[str, Any] | None) -> Difference | None:
    if not data:
        return None
    largest, scale, relative = number(data.get("max_difference")), number(data.get("scale")), number(data.get("relative"))
    if relative is None and largest is not None and (scale or largest == 0):
        relative = largest / scale if scale else 0.0
    return Difference(_whole(data.get("images")), largest, relative, number(data.get("agreement")))


def _package(path: str, data: Mapping[str, Any]) -> Package:
    return Package(
        path=printable(path),
        name=_text(data.get("name")),
        parameters=_whole(data.get("parameters")),
        macs=_whole(data.get("macs")),
        bytes=_whole(data.get("bytes")),
        test=number((data.get("accuracy") or {}).get("test")),
        test_iou=number((data.get("accuracy") or {}).get("test mean IoU")),
        full_parameters=_whole(data.get("full_parameters")),
        full_macs=_whole(data.get("full_macs")),
        difference=_difference(data.get("certificate")),
        reestimated=_difference(data.get("reestimated")),
    )


def _file(path: str, data: Mapping[str, Any]) -> OnnxFile:
    return OnnxFile(
        path=printable(path),
        package=_text(data.get("package")),
        name=_text(data.get("name")),
        kind=_text(data.get("kind")) or FLOAT,
        bytes=_whole(data.get("bytes")),
        opset=_whole(data.get("opset")),
        flags=tuple(flag for flag in _FLAGS if data.get(flag) is True),
        tolerance=number(data.get("tolerance")),
        difference=_difference(data.get("certificate")),
        unblocked=tuple(
            Unblocked(
                printable(item.get("layer", "")),
                *(_whole(item.get(key)) for key in ("channels_in", "channels_out", "wanted_in", "wanted_out")),
            )
            for item in data.get("unblocked") or ()
        ),
        int8=_int8(data["int8"]) if data.get("int8") else None,
        untrained=data.get("untrained") is True,
    )


def _int8(data: Mapping[str, Any]) -> Int8:
    return Int8(
        calibration_images=_whole(data.get("calibration_images")),
        validation_images=_whole(data.get("validation_images")),
        float_accuracy=number(data.get("float_accuracy")),
        accuracy=number(data.get("accuracy")),
        drop_points=number(data.get("drop_points")),
        max_drop_points=number(data.get("max_drop_points")),
        float_layers=tuple(_float_layer(layer) for layer in data.get("float_layers") or ()),
        processor=_text(data.get("processor")),
        ranges=_text(data.get("ranges")),
        difference=_difference(data.get("certificate")),
    )


def _float_layer(data: Mapping[str, Any] | str) -> FloatLayer:
    if isinstance(data, str):
        return FloatLayer(printable(data), None)
    return FloatLayer(printable(data["name"]), _text(data.get("why")))


@dataclass(frozen=True)
class _Known:
    """Which network of the run, and in which precision, its files are: by content; by path where a version before kept that."""

    by_content: Mapping[str, tuple[str | None, str]]
    by_path: Mapping[str, tuple[str | None, str]]

    @classmethod
    def of(cls, folder: Path, made: Sequence[tuple[str, Mapping[str, Any]]], found: Sequence[Package | OnnxFile]) -> _Known:
        by_content: dict[str, tuple[str | None, str]] = {}
        by_path: dict[str, tuple[str | None, str]] = {}
        for name in ("full.onnx", "full.safetensors"):  # which lie in the run
            by_path[printable(folder / name)] = by_path[f"{printable(folder.name)}/{name}"] = ("full", FLOAT)
        for (path, data), file in zip(made, found, strict=True):
            network = (file.name, file.kind if isinstance(file, OnnxFile) else FLOAT)
            if (content := _text(data.get("sha256"))) is not None:
                by_content[content] = network
                by_path.pop(printable(path), None)
            else:
                by_path[printable(path)] = network
        return cls(by_content, by_path)

    def network(self, path: str, content: str | None) -> tuple[str | None, str]:
        """What was measured; (None, ...) for a file that the run knows nothing of, or whose place another has taken."""
        if content is not None:
            return self.by_content.get(content, (None, FLOAT))
        return self.by_path.get(path) or self.by_path.get("/".join(Path(path).parts[-2:])) or (None, FLOAT)


def _bench(label: str, data: Mapping[str, Any], known: _Known) -> Bench:
    machine = data.get("machine") or {}
    timings = [_timing(item, machine, known) for item in data.get("timings") or ()]
    return Bench(
        label=printable(label),
        reference=_text(data.get("reference")),
        timings=tuple(timing for timing in timings if timing is not None),
        machine=machine,
        warnings=tuple(printable(text) for text in data.get("warnings") or ()),
    )


def _timing(data: Mapping[str, Any], machine: Mapping[str, Any], known: _Known) -> Timing | None:
    """One timing; None where it has no median, without which it says nothing."""
    latency, speedup = data.get("latency") or {}, data.get("speedup") or {}
    median = number(latency.get("p50_ms"))
    path = printable(data.get("path", ""))
    if not median or median < 0 or not path:
        return None
    name, kind = known.network(path, _text(data.get("sha256")))
    runtime = _text(data.get("runtime")) or "runtime not kept"
    device = _text(machine.get("gpu" if "cuda" in runtime else "cpu"))
    threads, batch = _whole(data.get("threads")), _whole(data.get("batch"))
    return Timing(
        path=path,
        name=name,
        kind=kind,
        setting=Setting(runtime, _text(data.get("target")), threads, batch, device, _text(data.get("executor")) or SEQUENTIAL),
        runs=_whole(latency.get("runs")),
        min_ms=number(latency.get("min_ms")),
        p50_ms=median,
        p90_ms=number(latency.get("p90_ms")),
        p99_ms=number(latency.get("p99_ms")),
        speedup=number(speedup.get("value")),
        speedup_low=number(speedup.get("low")),
        speedup_high=number(speedup.get("high")),
        load_ms=number(data.get("load_ms")),
        first_ms=number(data.get("first_ms")),
        peak_memory_bytes=_whole(data.get("peak_memory_bytes")),
        parameters=_whole(data.get("parameters")),
        macs=_whole(data.get("macs")),
        bytes=_whole(data.get("bytes")),
        noisy=data.get("noisy") is True,
    )
