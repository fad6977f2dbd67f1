"""Files of reconstructed layers are small, and what runs is the dense network: in float, half precision and 8 bits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import randomise_
from torch import Tensor, nn

import adjcompress as ac
from adjcompress.deploy import ExportOptions, ExportReport, Int8Options, export_onnx, export_package
from adjcompress.deploy.layout import optimised
from adjcompress.deploy.reconstruct import row_factors
from adjcompress.substitutes.hashed import Hashed

SETTINGS = {"tensor_train": 0.4, "tucker": 0.4, "hashed": 0.05, "acdc": 3}
CHAINS = {"low_rank": 0.2, "shuffle": 4, "aligned_tensor_train": 0.3}
SPEC = ac.ModelSpec("wrn_10_4", 10, 32)


def network(name: str, setting: float) -> nn.Module:
    torch.manual_seed(0)
    return ac.substitute(randomise_(SPEC.build()), name, setting, approximate=False).eval()


def operations(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in optimised(path).graph.node)


@pytest.fixture
def example() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """The same network with dense weights in the file: every reconstructed form gives one of this size."""
    example = torch.randn(2, 3, 32, 32)
    path = tmp_path_factory.mktemp("dense") / "dense.onnx"
    return export_onnx(network("hashed", 0.05), path, example, ExportOptions(materialise=True))


@pytest.mark.parametrize(("name", "setting"), SETTINGS.items())
def test_the_file_is_small_and_what_runs_is_the_dense_network(
    tmp_path: Path, example: Tensor, dense: ExportReport, name: str, setting: float
) -> None:
    small = export_onnx(network(name, setting), tmp_path / "small.onnx", example)
    saved = sum(layer.dense_bytes - layer.bytes for layer in small.reconstructed)
    assert len(small.reconstructed) >= 5 and not dense.reconstructed  # acdc's smallest is no smaller than dense
    assert small.bytes < 0.6 * dense.bytes
    assert dense.bytes - small.bytes == pytest.approx(saved, rel=0.05)
    assert (small.kind, dense.kind) == ("float32", "float32 materialised")
    assert operations(small.path) == operations(dense.path)  # all of it was folded at load
    assert small.certificate.relative < 1e-5


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export_onnx(SPEC.build().eval(), tmp_path_factory.mktemp("whole") / "whole.onnx", torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize(("name", "setting"), CHAINS.items())
def test_chains_are_small_convolutions_with_their_batch_norms_folded(
    tmp_path: Path, example: Tensor, whole: ExportReport, name: str, setting: float
) -> None:
    report = export_onnx(network(name, setting), tmp_path / "chain.onnx", example)
    assert not report.reconstructed and report.kind == "float32"
    graph = onnx.load(report.path).graph
    assert not any(node.op_type == "MatMul" for node in graph.node)
    # What precedes a convolution in a pre-activation network stays: block 0's first, and each sum's that feeds a shortcut.
    assert report.batch_norms_left == whole.batch_norms_left
    assert report.bytes < whole.bytes


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tucker", ExportOptions(simplify=True)),
        ("tensor_train", ExportOptions(float16=True)),
        ("hashed", ExportOptions(float16=True)),
        ("acdc", ExportOptions(external_data=True)),
    ],
)
def test_no_option_bakes_the_dense_weights_in(tmp_path: Path, example: Tensor, name: str, options: ExportOptions) -> None:
    report = export_onnx(network(name, SETTINGS[name]), tmp_path / "small.onnx", example, options)
    assert len(report.reconstructed) >= 5
    assert report.certificate.relative <= options.largest_difference


def test_raw_pixels_and_reconstruction_go_together(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    options = ExportOptions(preprocess=True)
    path = tmp_path / "pixels.onnx"
    report = export_onnx(network("hashed", 0.05), path, pixels, options, preprocessing=ac.data.Preprocessing(32))
    assert len(report.reconstructed) == 6


def test_a_layer_that_would_not_be_smaller_stays_dense(tmp_path: Path, example: Tensor) -> None:
    report = export_onnx(network("hashed", 1.0), tmp_path / "whole.onnx", example)
    assert not report.reconstructed
    assert not any(node.op_type == "Gather" for node in onnx.load(report.path).graph.node)


def test_what_a_batch_norm_multiplied_is_read_from_the_folded_weight() -> None:
    layer = Hashed(8, 6, 0.5)
    factors = np.linspace(0.5, 2, 6)
    stored = layer.dense_weight().detach().numpy() * factors[:, None, None, None]
    np.testing.assert_allclose(row_factors(stored, layer), factors, rtol=1e-5)  # type: ignore[arg-type]
    assert row_factors(layer.dense_weight().detach().numpy(), layer) is None


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory, digits: ac.ImageData) -> Path:
    spec = ac.ModelSpec("wrn_10_4", len(digits.classes), digits.preprocessing.image_size)
    torch.manual_seed(0)
    dense = randomise_(spec.build())
    plan = ac.plan_substitution(dense, "hashed", setting=0.02)
    path = tmp_path_factory.mktemp("package") / "small.safetensors"
    ac.save_package(
        ac.apply_substitution(dense, plan, approximate=False),
        path,
        model=spec,
        substitution=plan,
        classes=digits.classes,
        preprocessing=digits.preprocessing,
        data=digits.spec,
    )
    return path


def test_8_bit_weights_are_stored_as_what_is_smaller_and_run_as_integers(
    package: Path, digits: ac.ImageData, tmp_path: Path
) -> None:
    asked = Int8Options(32, max_drop=100.0)
    small = export_package(package, tmp_path / "small.onnx", digits, int8=asked)
    dense = export_package(package, tmp_path / "dense.onnx", digits, ExportOptions(materialise=True), int8=asked)
    assert small.reconstructed and small.bytes < dense.bytes
    assert all(layer.bytes < layer.dense_bytes for layer in small.reconstructed)
    assert {layer.name for layer in small.reconstructed} < {name for name, _ in ac.load_package(package).named_modules()}
    found, expected = operations(small.path), operations(dense.path)
    assert found == expected and found["QLinearConv"] > 0
    assert small.int8 is not None and dense.int8 is not None
    assert small.int8.accuracy == pytest.approx(dense.int8.accuracy, abs=0.05)
