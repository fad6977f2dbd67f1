"""What does a network lose, and which of its layers stay in float, when it computes in 8 bits?

Static quantisation by ONNX Runtime: weights by output channel, activations by tensor, with the ranges seen on training
images. What comes out is checked on the validation split before anybody gets it.
"""

from __future__ import annotations

import inspect
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from adjcompress.data import Central, ImageData, evaluation_batches
from adjcompress.deploy.graph import INPUT, WEIGHTED, silenced
from adjcompress.deploy.layout import optimised
from adjcompress.deploy.reconstruct import ReconstructedLayer, reconstruct_
from adjcompress.deploy.runtime import accuracy, as_input, inputs, runner
from adjcompress.errors import AdjCompressError, check_choice, first_line, nearest_first
from adjcompress.machine import processor
from adjcompress.seeds import derived_seed
from adjcompress.widths import Certificate, compare
from adjcompress.widths.planning import named_by

AUTO = "auto"
_FEWEST_IMAGES = 16
_CALIBRATION_BATCH = 16
_PROBES = 64


@dataclass(frozen=True)
class _Processor:
    """What 8-bit kernels of a kind of processor want: unsigned activations for x64, signed ones for arm64."""

    activations: QuantType


# What an activation's range is taken from: the lowest and highest value that was ever seen, or their averages over batches
# of 16 images, which clip what is rare (a ResNet-50 after 5 epochs: 10 points lost with the first, 1 with the second).
RANGES: dict[str, dict[str, bool]] = {"extremes": {}, "average": {"CalibMovingAverage": True}}
PROCESSORS = {"x64": _Processor(QuantType.QUInt8), "arm64": _Processor(QuantType.QInt8)}


@dataclass(frozen=True)
class Int8Options:
    """How a network is quantised.

    `calibration`: how many training images show the ranges of the activations; by default all where there are fewer.
    `max_drop`: by how many points the accuracy on the validation split may fall. `keep`: patterns of layers that stay in
    float, or "auto": as few as keep within `max_drop`. `processor`: "x64", "arm64", or "auto": the one of this machine.
    `ranges`: of RANGES, or "auto": the extremes, and the averages where they lose more than `max_drop`.
    """

    calibration: int = 256
    max_drop: float = 1.0
    keep: tuple[str, ...] = ()
    processor: str = AUTO
    ranges: str = AUTO


@dataclass(frozen=True)
class FloatLayer:
    """A convolution or linear layer that ONNX Runtime runs in float, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Int8Report:
    """What quantisation cost, on `validation_images`: accuracies in [0, 1], drops in points; `certificate` of the logits.

    `float_bytes`: of the float file, its weights dense. `reduced_range`: weights use 7 bits, because this processor's 8-bit
    products overflow (x64 without VNNI).
    """

    calibration_images: int
    validation_images: int
    float_accuracy: float
    accuracy: float
    max_drop_points: float
    float_layers: tuple[FloatLayer, ...]
    float_bytes: int
    processor: str
    ranges: str
    reduced_range: bool
    certificate: Certificate
    reconstructed: tuple[ReconstructedLayer, ...] = ()

    @property
    def drop_points(self) -> float:
        """How many points of accuracy were lost; negative: won."""
        return 100 * (self.float_accuracy - self.accuracy)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "drop_points": self.drop_points}


def quantise(
    source: Path,
    output: Path,
    named: Path,
    data: ImageData,
    options: Int8Options,
    *,
    from_pixels: bool,
    reconstructed: nn.Module | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Int8Report:
    """Write the float ONNX file `source` as an 8-bit one to `output`; errors speak of it as `named`.

    `from_pixels`: whether the file takes raw pixels. `reconstructed`: the network whose reconstructed layers are stored as
    what their weights are made of, where that is smaller than the weights in 8 bits. An accuracy that falls by more than
    `options.max_drop` points on the validation split of `data`, and calibration images that are too few, are
    AdjCompressErrors.
    """
    check_int8(options, data)
    processor = options.processor if options.processor != AUTO else this_processor()
    with tempfile.TemporaryDirectory() as folder, silenced(""):
        work = _Work(Path(folder), source, data, options, processor, from_pixels, reconstructed)
        keep = _patterns(options, work.layers)
        seen = min(options.calibration, len(data.train))
        progress(f"calibrating on {seen} training images")
        result = _best_ranges(work, keep)
        if AUTO in options.keep and not work.good_enough(result):
            result = _fewest(work, progress)
        if not work.good_enough(result):
            kept = f" with {len(result.keep)} layers in float" if result.keep else ""
            raise AdjCompressError(
                f"{named} was not written: int8{kept} costs {100 * (work.float_accuracy - result.accuracy):.2f} points on "
                f"{len(data.validation)} validation images ({work.float_accuracy:.2%} in float, {result.accuracy:.2%} in "
                f"int8), more than --max-drop {options.max_drop:g}. Keep the worst layers in float with --int8-keep auto, try "
                "more images with --calibration, or raise --max-drop."
            )
        output.write_bytes(result.model.SerializeToString())
        shown = (images for images, _ in inputs(data, data.validation, from_pixels))
        return Int8Report(
            calibration_images=seen,
            validation_images=len(data.validation),
            float_accuracy=work.float_accuracy,
            accuracy=result.accuracy,
            max_drop_points=options.max_drop,
            float_layers=_float_layers(result, work.layers, automatic=AUTO in options.keep),
            float_bytes=source.stat().st_size,
            processor=processor,
            ranges=work.ranges,
            reduced_range=work.reduced_range,
            certificate=compare("int8", runner(source), runner(output), shown),
            reconstructed=result.reconstructed,
        )


def this_processor() -> str:
    """The kind of processor of this machine, as in PROCESSORS."""
    return "arm64" if platform.machine().lower() in ("arm64", "aarch64") else "x64"


@dataclass(frozen=True)
class _Quantised:
    """One quantised graph and its accuracy on the validation split."""

    keep: tuple[str, ...]
    model: onnx.ModelProto
    accuracy: float
    reconstructed: tuple[ReconstructedLayer, ...]


class _Images(CalibrationDataReader):
    """Hands calibration images out, batch by batch."""

    def __init__(self, batches: Sequence[np.ndarray]) -> None:
        self._left = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._left, None)
        return None if batch is None else {INPUT: batch}


@dataclass
class _Work:
    """Everything that stays the same while layers are tried in float and in 8 bits; calibrated once."""

    folder: Path
    source: Path
    data: ImageData
    options: Int8Options
    processor: str
    from_pixels: bool
    reconstructed: nn.Module | None = None
    ranges: str = "extremes"
    layers: tuple[str, ...] = field(init=False)
    reduced_range: bool = field(init=False)

    def __post_init__(self) -> None:
        self.prepared = self.folder / "prepared.onnx"
        try:
            quant_pre_process(str(self.source), str(self.prepared))
        except Exception as error:  # of its own kinds, none of them documented
            raise AdjCompressError(f"ONNX Runtime cannot prepare this graph for int8: {first_line(error)}") from error
        graph = onnx.load(str(self.prepared)).graph
        self.layers = tuple(node.name for node in graph.node if node.op_type in WEIGHTED)
        self.reduced_range = self.processor == "x64" and not _has_vnni()
        self.calibration = self._calibration_images()
        self.float_accuracy = accuracy(self.source, self.data, self.data.validation, self.from_pixels)

    def good_enough(self, result: _Quantised) -> bool:
        return 100 * (self.float_accuracy - result.accuracy) <= self.options.max_drop + 1e-9

    def measured(self, keep: Sequence[str]) -> _Quantised:
        """Quantise all layers but `keep` and run the validation split."""
        model = self.quantised(keep)
        layers = reconstruct_(model, self.reconstructed) if self.reconstructed is not None else ()
        path = self.folder / "tried.onnx"
        path.write_bytes(model.SerializeToString())
        right = accuracy(path, self.data, self.data.validation, self.from_pixels)
        return _Quantised(tuple(keep), model, right, layers)

    def harm(self, layer: str) -> float:
        """Mean squared change of the logits on calibration images when this layer alone computes in 8 bits."""
        path = self.folder / "probed.onnx"
        path.write_bytes(self.quantised([other for other in self.layers if other != layer]).SerializeToString())
        after = runner(path)
        return float(np.mean([(before - after(images)).square().mean().item() for images, before in self._probes]))

    @cached_property
    def _probes(self) -> list[tuple[np.ndarray, Tensor]]:
        """Calibration images, and the logits of the network in float for them."""
        before = runner(self.source)
        return [(images, before(images)) for images in self.calibration[: -(-_PROBES // _CALIBRATION_BATCH)]]

    def quantised(self, keep: Sequence[str]) -> onnx.ModelProto:
        """The graph with every layer but `keep` in 8 bits."""
        path, ranges = self.folder / "quantised.onnx", self.folder / f"{self.ranges}.json"
        # ONNX Runtime 1.31 keeps the ranges; an older one calibrates each time, which gives the same.
        cached = "calibration_cache_path" in inspect.signature(quantize_static).parameters
        quantize_static(
            str(self.prepared),
            str(path),
            _Images(self.calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=self.reduced_range,
            activation_type=PROCESSORS[self.processor].activations,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_in_float(onnx.load(str(self.prepared)).graph, set(keep)),
            extra_options=dict(RANGES[self.ranges]),
            **({"calibration_cache_path": ranges} if cached else {}),
        )
        model = onnx.load(str(path))
        _hold_in_float_(model, set(keep))
        return model

    def _calibration_images(self) -> list[np.ndarray]:
        random = np.random.default_rng(derived_seed("calibration", self.data.spec.seed))
        drawn = random.permutation(len(self.data.train))[: self.options.calibration]
        split = self.data.train.subset(torch.from_numpy(np.sort(drawn)))
        batches = evaluation_batches(split, Central(self.data.preprocessing), _CALIBRATION_BATCH, torch.device("cpu"))
        return [as_input(pixels, self.data.preprocessing, self.from_pixels) for pixels, _ in batches]


def _best_ranges(work: _Work, keep: Sequence[str]) -> _Quantised:
    """Quantise with the ranges asked for, or with the first that are good enough; where none is, with the least bad."""
    results: dict[str, _Quantised] = {}
    for ranges in RANGES if work.options.ranges == AUTO else (work.options.ranges,):
        work.ranges = ranges
        results[ranges] = work.measured(keep)
        if work.good_enough(results[ranges]):
            return results[ranges]
    work.ranges = max(results, key=lambda ranges: results[ranges].accuracy)
    return results[work.ranges]


def _fewest(work: _Work, progress: Callable[[str], None]) -> _Quantised:
    """Keep as few layers in float as bring the accuracy back.

    Layers are ordered by the harm each does alone; the shortest beginning of that order that suffices is found by halving,
    then each of its layers that is not needed goes back to 8 bits, the least harmful first.
    """
    harms = {}
    for number, layer in enumerate(work.layers, 1):
        progress(f"how much each layer loses in int8: {number} of {len(work.layers)}")
        harms[layer] = work.harm(layer)
    order = sorted(harms, key=lambda layer: -harms[layer])
    too_few, enough = 0, len(order)
    best = work.measured(order)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        progress(f"the {middle} most harmful layers in float")
        tried = work.measured(order[:middle])
        if work.good_enough(tried):
            enough, best = middle, tried
        else:
            too_few = middle
    for layer in reversed(best.keep):
        if len(best.keep) > 1:
            progress(f"{layer} back in int8")
            tried = work.measured([other for other in best.keep if other != layer])
            best = tried if work.good_enough(tried) else best
    return best


def _in_float(graph: onnx.GraphProto, keep: set[str]) -> list[str]:
    """The nodes that are not quantised: `keep`, and what has no weights and no 8-bit input.

    So the normalisation of raw pixels is not rounded, and with every layer kept the graph is the float one.
    """
    integer: set[str] = set()  # tensors that 8-bit nodes make
    names = []
    for node in graph.node:
        if node.name not in keep and (node.op_type in WEIGHTED or not integer.isdisjoint(node.input)):
            integer.update(node.output)
        else:
            names.append(node.name)
    return names


def _hold_in_float_(model: onnx.ModelProto, keep: set[str]) -> None:
    """See to it that layers which were not quantised are not quantised at load either.

    Between 8-bit neighbours ONNX Runtime's optimiser quantises a float layer by itself, weights and all (1.31: the layer
    was gone). A clip to the whole range of float32 before the layer changes no value and is where it stops.
    """
    makers = {output: node for node in model.graph.node for output in node.output}
    lowest, highest = "float32_lowest", "float32_highest"
    nodes = []
    for node in model.graph.node:
        maker = makers.get(node.input[0]) if node.name in keep and node.op_type in WEIGHTED else None
        if maker is not None and maker.op_type == "DequantizeLinear":
            held = f"{node.name}_in_float"
            nodes.append(helper.make_node("Clip", [node.input[0], lowest, highest], [held], name=held))
            node.input[0] = held
        nodes.append(node)
    if len(nodes) > len(model.graph.node):
        limits = np.finfo(np.float32)
        for name, value in ((lowest, limits.min), (highest, limits.max)):
            model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
        model.graph.ClearField("node")
        model.graph.node.extend(nodes)


def _float_layers(result: _Quantised, layers: Sequence[str], automatic: bool) -> tuple[FloatLayer, ...]:
    """Which layers the session really runs in float: read from its own optimised graph."""
    graph = optimised(result.model).graph
    integer = {node.name for node in graph.node if node.op_type in ("QLinearConv", "QGemm", "QLinearMatMul")}
    left = [layer for layer in layers if not any(name == layer or name.startswith(f"{layer}_token_") for name in integer)]
    by_user = "it would cost too much accuracy in int8 (--int8-keep auto)" if automatic else "asked for by --int8-keep"
    by_runtime = "ONNX Runtime has no 8-bit kernel for it between its neighbours"
    return tuple(FloatLayer(layer, by_user if layer in result.keep else by_runtime) for layer in left)


def _patterns(options: Int8Options, layers: Sequence[str]) -> tuple[str, ...]:
    """The layers that the user's patterns name."""
    kept: list[str] = []
    for pattern in options.keep:
        if pattern == AUTO:
            continue
        named = [layer for layer in layers if named_by(layer, pattern)]
        if not named:
            near = ", ".join(nearest_first(pattern, layers)[:6])
            raise AdjCompressError(f"--int8-keep {pattern!r} matches no layer with weights; near it: {near}.")
        kept += named
    return tuple(dict.fromkeys(kept))


def check_int8(options: Int8Options, data: ImageData) -> None:
    """Refuse options that no network could be quantised with."""
    if options.calibration < _FEWEST_IMAGES:
        raise AdjCompressError(
            f"--calibration {options.calibration} is too few: the range of every activation must be seen, on at least "
            f"{_FEWEST_IMAGES} images."
        )
    if options.calibration > max(len(data.train), Int8Options.calibration):
        raise AdjCompressError(
            f"--calibration {options.calibration}: {data.spec.source} has {len(data.train)} training images; ask for at most "
            "that many. Validation and test images are not used."
        )
    if not options.max_drop >= 0:
        raise AdjCompressError(f"--max-drop {options.max_drop:g} must be 0 points or more.")
    check_choice((*PROCESSORS, AUTO), options.processor, "--int8-for")
    check_choice((*RANGES, AUTO), options.ranges, "--ranges")
    if AUTO in options.keep and len(options.keep) > 1:
        raise AdjCompressError("--int8-keep auto chooses the layers itself: leave the other --int8-keep out.")


def _has_vnni() -> bool:
    """Whether this processor multiplies unsigned by signed bytes without saturating in 16 bits."""
    return bool({"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"} & set(processor().get("flags", ())))
