"""Statistics are what they say, and every figure of a benchmark can be traced. No test depends on a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import TinyNet
from torch import nn

import adjcompress as ac
from adjcompress.bench import machine_facts, speedup, summarise, time_networks
from adjcompress.bench.graph import graph_macs, onnx_facts


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    images = torch.randn(7, 3, 32, 32)
    full = ac.create_model("cifar_resnet20", 10).eval()
    small = ac.slice_model(full, ac.plan_widths(full, images, 4))
    paths = [tmp_path / "small.onnx", tmp_path / "full.onnx"]
    for network, path in zip((small, full), paths, strict=True):
        ac.export_onnx(network, path, images)
    return paths


def test_a_summary_holds_percentiles_and_knows_noise() -> None:
    summary = summarise(range(1, 101))
    assert (summary.runs, summary.min_ms, summary.p50_ms) == (100, 1, 50.5)
    assert summary.noisy
    assert not summarise([1.0, 1.1, 1.2]).noisy


def test_a_speedup_is_the_ratio_of_medians_with_its_interval() -> None:
    random = np.random.default_rng(0)
    machine = random.uniform(1, 2, 500)  # what slows one round slows both of its runs
    ratio = speedup(3 * machine, machine)
    assert ratio.value == pytest.approx(3)
    assert ratio.low == pytest.approx(3) == ratio.high
    noisy = speedup(3 * random.uniform(1, 2, 500), random.uniform(1, 2, 500))
    assert noisy.low < noisy.value < noisy.high and noisy.low > 2.5 and noisy.high < 3.5


@pytest.mark.parametrize("name", ["mobilenet_v2", "cifar_resnet20", "squeezenet1_1"])
def test_macs_read_from_a_graph_are_those_counted_in_torch(tmp_path: Path, name: str) -> None:
    images = torch.randn(7, 3, 64, 64)
    network = ac.create_model(name, 10).eval()
    ac.export_onnx(network, tmp_path / "a.onnx", images)
    model = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "a.onnx"))
    assert graph_macs(model) == ac.count(network, images).macs
    facts = onnx_facts(tmp_path / "a.onnx")
    assert facts.macs == ac.count(network, images).macs
    assert facts.input_shape == (3, 64, 64)


def test_a_benchmark_times_all_side_by_side_and_says_where(files: list[Path]) -> None:
    report = ac.benchmark(files, threads=(1, 2), batch=2, duration=0.1)
    assert [(timing.path, timing.threads) for timing in report.timings] == [(path, n) for n in (1, 2) for path in files]
    assert report.reference == files[1]
    for timing in report.timings:
        assert 0 < timing.latency.min_ms <= timing.latency.p50_ms <= timing.latency.p90_ms <= timing.latency.p99_ms
        assert timing.speedup.low <= timing.speedup.value <= timing.speedup.high
        assert timing.latency.runs >= 10 and timing.batch == 2 and timing.peak_memory_bytes > 0
        assert timing.bytes == timing.path.stat().st_size
        if timing.path == files[1]:
            assert timing.speedup.value == timing.speedup.low == timing.speedup.high == 1
    content = json.loads(json.dumps(report.to_json()))
    assert content["machine"]["versions"]["onnxruntime"] and content["machine"]["cores"] >= 1


def test_more_threads_than_cores_are_warned_of(files: list[Path]) -> None:
    many = machine_facts().cores + 1
    assert f"{many} threads on" in ac.benchmark(files[:1], threads=(many,), duration=0.05).warnings[0]


def test_benchmarks_that_cannot_be_are_refused(tmp_path: Path, files: list[Path]) -> None:
    (tmp_path / "damaged.onnx").write_bytes(files[0].read_bytes()[:500])
    (tmp_path / "nonsense.onnx").write_bytes(b"nonsense")
    for arguments, text in (
        (([],), "Nothing to benchmark"),
        (([tmp_path / "none.onnx"],), "does not exist: ONNX files are made by adjcompress export"),
        (([tmp_path / "damaged.onnx"],), r"damaged\.onnx is damaged or no ONNX file"),
        (([tmp_path / "nonsense.onnx"],), r"nonsense\.onnx is damaged or no ONNX file"),
    ):
        with pytest.raises(ac.AdjCompressError, match=text):
            ac.benchmark(*arguments)
    with pytest.raises(ac.AdjCompressError, match="must all be above 0"):
        ac.benchmark(files, batch=0)


def test_networks_are_timed_in_torch_where_the_images_lie() -> None:
    networks = {"tiny": TinyNet(), "linear": nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))}
    timings = time_networks(networks, torch.zeros(2, 3, 16, 16), duration=0.01)
    assert list(timings) == ["tiny", "linear"]
    assert len(timings["tiny"]) == len(timings["linear"]) >= 10 and min(timings["tiny"]) > 0
    assert networks["tiny"].training
