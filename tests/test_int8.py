"""An 8-bit network is checked before anybody gets it, and layers kept in float are in float."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import train_tiny

import adjcompress as ac
from adjcompress.data import TensorSplit
from adjcompress.deploy import ExportOptions, Int8Options, export_package
from adjcompress.deploy.int8 import PROCESSORS, Int8Report, _Work, quantise
from adjcompress.deploy.layout import optimised
from adjcompress.deploy.runtime import accuracy

LOSE_ANYTHING = 100.0


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory, digits: ac.ImageData) -> Path:
    """A small network that has learnt a little; trained once."""
    folder = tmp_path_factory.mktemp("int8")
    run = train_tiny(str(folder / "run"), digits, epochs=4)
    return ac.extract_package(run, output=folder / "small.safetensors").path


@pytest.fixture(scope="session")
def whole(package: Path, digits: ac.ImageData) -> Path:
    """Its float file."""
    return export_package(package, package.with_name("float.onnx"), digits).path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def quantised(whole: Path, data: ac.ImageData, options: Int8Options, **more: Callable[[str], None]) -> Int8Report:
    return quantise(whole, Path("q.onnx"), Path("q.onnx"), data, options, from_pixels=False, **more)


def operations(path: str) -> Counter[str]:
    return Counter(node.op_type for node in optimised(Path(path)).graph.node)


@pytest.mark.parametrize("preprocess", [False, True])
def test_every_convolution_computes_in_8_bits_and_the_report_tells_what_it_cost(
    package: Path, digits: ac.ImageData, preprocess: bool
) -> None:
    options = ExportOptions(preprocess=preprocess)
    report = export_package(package, "q.onnx", digits, options, Int8Options(32, LOSE_ANYTHING))
    found = operations("q.onnx")
    assert found["QLinearConv"] == 19 and found["QGemm"] == 1
    assert not {"Conv", "FusedConv", "Gemm"} & set(found)
    int8 = report.int8
    assert int8 is not None and report.kind == "int8" and int8.float_layers == ()
    assert int8.accuracy == accuracy(Path("q.onnx"), digits, digits.validation, preprocess)
    assert int8.validation_images == len(digits.validation)
    assert int8.float_accuracy - int8.accuracy == pytest.approx(int8.drop_points / 100)
    assert report.bytes == Path("q.onnx").stat().st_size < int8.float_bytes
    told = {entry.key: json.loads(entry.value) for entry in onnx.load("q.onnx").metadata_props}
    assert told["adjcompress.accuracy"] == {"validation": int8.accuracy}
    assert told["adjcompress.int8"]["calibration_images"] == 32
    assert told["adjcompress.classes"] == list(digits.classes)


def test_weights_are_signed_by_channel_and_activations_as_the_processor_wants(whole: Path, digits: ac.ImageData) -> None:
    kinds = {"x64": onnx.TensorProto.UINT8, "arm64": onnx.TensorProto.INT8}
    assert set(PROCESSORS) == set(kinds)
    for processor, kind in kinds.items():
        quantised(whole, digits, Int8Options(32, LOSE_ANYTHING, processor=processor))
        graph = onnx.load("q.onnx").graph
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "QuantizeLinear":
                assert tensors[node.input[2]].data_type == kind
        weight = tensors["conv1.weight_quantized"]
        assert weight.data_type == onnx.TensorProto.INT8
        assert list(tensors["conv1.weight_scale"].dims) == [weight.dims[0]]


def test_calibration_sees_training_images_only(package: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []
    own = _Work._calibration_images

    def watched(work: _Work) -> list[np.ndarray]:
        drawn.extend(own(work))
        return drawn

    monkeypatch.setattr(_Work, "_calibration_images", watched)
    export_package(package, "q.onnx", digits, ExportOptions(preprocess=True), Int8Options(48, LOSE_ANYTHING))
    pixels = np.concatenate(drawn)
    assert isinstance(digits.train, TensorSplit) and len(pixels) == 48
    training = {image.permute(1, 2, 0).numpy().tobytes() for image in digits.train.images}
    assert {image.tobytes() for image in pixels} <= training
    assert len({image.tobytes() for image in pixels}) > 40


@pytest.mark.parametrize("keep", [("layer2.0.conv1",), ("layer1", "conv1"), ("linear",), ("*",)])
def test_layers_that_are_kept_run_in_float(whole: Path, digits: ac.ImageData, keep: tuple[str, ...]) -> None:
    report = quantised(whole, digits, Int8Options(32, LOSE_ANYTHING, keep))
    kept = [layer.name for layer in report.float_layers]
    convolutions = [name for name in kept if "conv" in name]
    found = operations("q.onnx")
    assert found["Conv"] + found["FusedConv"] == len(convolutions)
    assert found["QLinearConv"] == 19 - len(convolutions)
    expected = {"layer2.0.conv1": 1, "layer1": 7, "linear": 1, "*": 20}[keep[0]]
    assert len(kept) == expected and {layer.why for layer in report.float_layers} == {"asked for by --int8-keep"}
    if keep == ("*",):
        assert report.certificate.relative < 1e-5


def test_an_accuracy_that_falls_too_far_is_an_error_and_leaves_no_file(
    package: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(monkeypatch, {"layer3.2.conv2"})
    Path("q.onnx").write_bytes(b"what was there before")
    with pytest.raises(
        ac.AdjCompressError, match=r"q\.onnx was not written: int8 costs \d+\.\d\d points on .* more than --max-drop 1"
    ):
        export_package(package, "q.onnx", digits, int8=Int8Options(32))
    assert Path("q.onnx").read_bytes() == b"what was there before"


def test_auto_keeps_the_fewest_layers_that_bring_the_accuracy_back(
    whole: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    guilty = {"conv1", "layer3.2.conv2"}
    damage(monkeypatch, guilty)
    said: list[str] = []
    report = quantised(whole, digits, Int8Options(32, max_drop=3, keep=("auto",)), progress=said.append)
    assert {layer.name for layer in report.float_layers} == guilty
    assert all("too much accuracy" in layer.why for layer in report.float_layers)
    assert report.drop_points <= 3
    assert "how much each layer loses in int8: 20 of 20" in said


def test_averaged_ranges_are_narrower_and_taken_where_the_extremes_lose_too_much(
    whole: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def widest() -> float:
        scales = [tensor for tensor in onnx.load("q.onnx").graph.initializer if tensor.name.startswith("relu")]
        return sum(onnx.numpy_helper.to_array(tensor).item() for tensor in scales if tensor.name.endswith("_scale"))

    seen = {}
    for ranges in ("extremes", "average"):
        assert quantised(whole, digits, Int8Options(48, LOSE_ANYTHING, ranges=ranges)).ranges == ranges
        seen[ranges] = widest()
    assert 0 < seen["average"] < seen["extremes"]
    assert quantised(whole, digits, Int8Options(48, LOSE_ANYTHING)).ranges == "extremes"
    own = _Work.good_enough
    monkeypatch.setattr(_Work, "good_enough", lambda work, result: work.ranges != "extremes" and own(work, result))
    assert quantised(whole, digits, Int8Options(48, LOSE_ANYTHING)).ranges == "average"
    assert widest() == seen["average"]


def damage(monkeypatch: pytest.MonkeyPatch, layers: set[str]) -> None:
    """Make layers lose everything in 8 bits: their weights' scales become zero."""
    own = _Work.quantised

    def worse(work: _Work, keep: list[str]) -> onnx.ModelProto:
        model = own(work, keep)
        for tensor in model.graph.initializer:
            if any(tensor.name == f"{layer}.weight_quantized" for layer in layers):
                tensor.raw_data = np.zeros_like(onnx.numpy_helper.to_array(tensor)).tobytes()
        return model

    monkeypatch.setattr(_Work, "quantised", worse)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (Int8Options(0), "--calibration 0 is too few: .* at least 16 images"),
        (
            Int8Options(10_000),
            r"--calibration 10000: digits has \d+ training images; .* Validation and test images are not used",
        ),
        (Int8Options(32, -1), "--max-drop -1 must be 0 points or more"),
        (Int8Options(32, processor="riscv"), r"--int8-for 'riscv' is unknown\. Choices: x64, arm64"),
        (Int8Options(32, ranges="all"), r"--ranges 'all' is unknown\. Choices: "),
        (Int8Options(32, keep=("layer9",)), r"--int8-keep 'layer9' matches no layer with weights; near it: linear, layer"),
        (Int8Options(32, keep=("auto", "fc")), "--int8-keep auto chooses the layers itself"),
    ],
)
def test_quantisations_that_cannot_be_are_refused(
    package: Path, whole: Path, digits: ac.ImageData, options: Int8Options, text: str
) -> None:
    with pytest.raises(ac.AdjCompressError, match=text):
        quantised(whole, digits, options)
    assert not Path("q.onnx").exists()
    for other in (ExportOptions(float16=True), ExportOptions(external_data=True)):
        with pytest.raises(ac.AdjCompressError, match="--int8 goes with neither --fp16 nor --external-data"):
            export_package(package, "q.onnx", digits, other, Int8Options(32))


def test_processors_without_wide_products_get_weights_of_7_bits(
    whole: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adjcompress.deploy.int8._has_vnni", lambda: False)
    assert quantised(whole, digits, Int8Options(32, LOSE_ANYTHING, processor="x64")).reduced_range
    tensors = {tensor.name: tensor for tensor in onnx.load("q.onnx").graph.initializer}
    weights = onnx.numpy_helper.to_array(tensors["conv1.weight_quantized"])
    assert np.abs(weights.astype(int)).max() <= 64


def test_an_8_bit_file_runs_at_any_batch(whole: Path, digits: ac.ImageData) -> None:
    quantised(whole, digits, Int8Options(32, LOSE_ANYTHING))
    session = onnxruntime.InferenceSession("q.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        assert session.run(None, {"images": torch.zeros(batch, 3, 32, 32).numpy()})[0].shape == (batch, 10)
