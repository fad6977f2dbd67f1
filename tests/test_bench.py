"""Statistics are what they say, and every figure of a benchmark can be traced. No test depends on a time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import TinyNet
from torch import nn

import adjcompress as ac
from adjcompress.bench import TARGETS, latency, machine_facts, speedup, summarise, target, time_networks, worker
from adjcompress.bench import targets as targets_file
from adjcompress.bench.graph import graph_macs, onnx_facts
from adjcompress.bench.targets import Target
from adjcompress.data import Preprocessing
from adjcompress.deploy import ExportOptions
from adjcompress.machine import usable_cores


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bench")
    images = torch.randn(7, 3, 32, 32)
    full = ac.create_model("wrn_10_1", 10).eval()
    small = ac.slice_model(full, ac.plan_widths(full, images, 4))
    paths = [folder / "small.onnx", folder / "full.onnx"]
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
    ratio = speedup([3 * machine], [machine])
    assert ratio.value == pytest.approx(3)
    assert ratio.low == pytest.approx(3) == ratio.high
    noisy = speedup([3 * random.uniform(1, 2, 500)], [random.uniform(1, 2, 500)])
    assert noisy.low < noisy.value < noisy.high and noisy.low > 2.5 and noisy.high < 3.5


def test_the_interval_of_a_speedup_reaches_from_pass_to_pass() -> None:
    """Within each pass the rounds agree to the last digit; that a network lay elsewhere in the third is all that differs."""
    rounds = np.full(100, 2.0)
    ratio = speedup([rounds, rounds, rounds], [rounds, rounds, 1.1 * rounds])
    assert (ratio.low, ratio.value, ratio.high) == (pytest.approx(1 / 1.1), 1, 1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_turn_loads_in_another_order_and_answers_in_the_same(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    loaded: list[str] = []

    def load(path: str, task: dict[str, Any]) -> Callable[[np.ndarray], object]:
        loaded.append(path)
        return lambda images: time.sleep(float(path) / 1000)

    monkeypatch.setitem(worker.ENGINES, "sleep", load)
    names = ["1", "6", "11"][:count]
    items = [{"path": name, "shape": (1,), "type": "float32"} for name in names]
    task = {"engine": "sleep", "candidates": items, "warmup": 0, "minimum": 3, "duration": 0.0, "batch": 1}
    for turn in range(3):
        timings = worker.time_side_by_side({**task, "turn": turn})
        assert [all(each >= float(name) for each in own) for name, own in zip(names, timings, strict=True)] == [True] * count
    orders = [loaded[turn * count : (turn + 1) * count] for turn in range(3)]
    assert orders[:2] == [names, names[::-1]] and sorted(orders[2], key=int) == names
    assert len({tuple(order) for order in orders}) == min(count, 3)


@pytest.mark.parametrize("name", ["conftest:short_mobilenet", "cifar_resnet20", "squeezenet1_1"])
def test_macs_read_from_a_graph_are_those_counted_in_torch(tmp_path: Path, name: str) -> None:
    images = torch.randn(7, 3, 64, 64)
    network = ac.create_model(name, 10).eval()
    ac.export_onnx(network, tmp_path / "a.onnx", images)
    model = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "a.onnx"))
    assert graph_macs(model) == ac.count(network, images).macs
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4  # made for four images at a time
    del model.graph.value_info[:]
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 4
    assert graph_macs(onnx.shape_inference.infer_shapes(model)) == ac.count(network, images).macs
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


def test_threads_may_share_layers_or_take_their_own(files: list[Path]) -> None:
    report = ac.benchmark(files[:1], threads=(2,), duration=0.05, executors=("sequential", "parallel"))
    assert [timing.setting for timing in report.timings] == ["2 threads", "2 threads, parallel executor"]
    for changes in ({"executors": ("both",)}, {"executors": ("parallel",), "targets": ("one-core",)}):
        with pytest.raises(ac.AdjCompressError, match=r"Executor 'both' is unknown|--executor parallel is ONNX Runtime's"):
            ac.benchmark(files[:1], **changes)  # type: ignore[arg-type]


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
    with pytest.raises(ac.AdjCompressError, match=r"--(threads|batch|duration) .* must be"):
        ac.benchmark(files, batch=0)
    with pytest.raises(ac.AdjCompressError, match="--threads: name at least one number"):
        ac.benchmark(files, threads=())


def test_networks_are_timed_in_torch_where_the_images_lie() -> None:
    networks = {"tiny": TinyNet(), "linear": nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))}
    timings = time_networks(networks, torch.zeros(2, 3, 16, 16), duration=0.01)
    assert list(timings) == ["tiny", "linear"]
    assert len(timings["tiny"]) == len(timings["linear"]) >= 10 and min(timings["tiny"]) > 0
    assert networks["tiny"].training


def test_loading_and_the_first_inference_are_figures_of_their_own(files: list[Path]) -> None:
    report = ac.benchmark(files[:1], duration=0.05)
    (timing,) = report.timings
    assert timing.load_ms is not None and timing.first_ms is not None
    assert timing.load_ms > timing.latency.p50_ms and timing.first_ms > 0
    content = report.to_json()["timings"][0]
    assert content["load_ms"] == timing.load_ms and content["runtime"] == "onnxruntime cpu" and content["target"] is None


def test_a_target_binds_the_process_to_its_cores_and_threads(files: list[Path]) -> None:
    report = ac.benchmark(files, targets=["one-core"], duration=0.05)
    assert [(timing.target, timing.threads, timing.setting) for timing in report.timings] == [("one-core", 1, "one-core")] * 2
    assert not report.warnings or "busy" in report.warnings[0]
    alone = latency._ask([onnx_facts(files[0])], latency._Setting.of(target("one-core"), "onnxruntime"), "alone")
    assert alone["cores"] == usable_cores()[:1]


def test_a_worker_takes_no_file_that_lies_around_for_a_library(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files[0].parent)
    for name in ("numpy", "onnxruntime", "psutil"):
        (files[0].parent / f"{name}.py").write_text("raise SystemExit('taken')")
    assert ac.benchmark(files[:1], duration=0.05).timings[0].latency.runs >= 10


def test_a_worker_is_limited_as_the_target_says() -> None:
    code = """
import runpy, sys
worker = runpy.run_path(sys.argv[1])
worker["_limit_memory"](64 * 2**20)
bytearray(32 * 2**20)
try:
    bytearray(256 * 2**20)
except MemoryError:
    print("refused")
"""
    path = Path(ac.bench.__file__).with_name("worker.py")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.stdout == "refused\n", done.stderr


def test_a_network_that_does_not_fit_a_target_is_told(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Target("one-core", 1, 512, 16 * 2**20)
    monkeypatch.setitem(targets_file.TARGETS, "one-core", tiny)
    with pytest.raises(ac.AdjCompressError, match=r"full\.onnx does not fit target one-core, which has 16 MiB of memory"):
        ac.benchmark(files[1:], targets=["one-core"], duration=0.05)


def test_targets_that_this_machine_is_not_are_refused(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(TARGETS) == {"one-core", "two-core", "four-core", "gpu"}
    monkeypatch.setattr(targets_file, "usable_cores", lambda: [0, 1])
    with pytest.raises(
        ac.AdjCompressError, match=r"Target four-core has 4 cores and this machine gives 2: .* Choose one-core, two-core,"
    ):
        ac.benchmark(files, targets=["four-core"])
    with pytest.raises(ac.AdjCompressError, match=r"Target 'three-core' is unknown\. Choices: "):
        target("three-core")
    with pytest.raises(ac.AdjCompressError, match="Target gpu needs a CUDA GPU, and torch finds none here"):
        ac.benchmark(files, targets=["gpu"])


def test_every_engine_times_the_same_networks(files: list[Path], tmp_path: Path) -> None:
    spec = ac.ModelSpec("wrn_10_1", 10, 32)
    ac.save_package(spec.build(), tmp_path / "full.safetensors", model=spec)
    for engine, candidates in (("openvino", files), ("torch", [tmp_path / "full.safetensors"])):
        report = ac.benchmark(candidates, engine=engine, duration=0.05)
        for timing in report.timings:
            assert timing.engine == engine and timing.latency.runs >= 10 and timing.load_ms and timing.first_ms
    assert timing.parameters == 77_850 and timing.macs == ac.count(spec.build(), torch.zeros(1, 3, 32, 32)).macs


def test_engines_that_cannot_be_are_refused(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ac.AdjCompressError, match=r"Engine 'tvm' is unknown\. Choices: "):
        ac.benchmark(files, engine="tvm")
    with pytest.raises(
        ac.AdjCompressError, match=r"small\.onnx: engine torch runs \.safetensors files; --engine onnxruntime, openvino"
    ):
        ac.benchmark(files, engine="torch")
    with pytest.raises(ac.AdjCompressError, match=r"none\.safetensors does not exist: packages are made by"):
        ac.benchmark([tmp_path / "none.safetensors"], engine="torch")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ac.AdjCompressError, match=r"Engine openvino is not installed: pip install 'adjcompress\[openvino\]'"):
        ac.benchmark(files, engine="openvino")


def test_files_of_raw_pixels_and_with_external_data_are_measured(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8)
    options = ExportOptions(preprocess=True, external_data=True)
    ac.export_onnx(TinyNet().eval(), tmp_path / "a.onnx", pixels, options, preprocessing=Preprocessing(32))
    facts = onnx_facts(tmp_path / "a.onnx")
    assert (facts.input_shape, facts.input_type) == ((32, 32, 3), "uint8")
    assert facts.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert ac.benchmark([tmp_path / "a.onnx"], duration=0.05).timings[0].latency.runs >= 10


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ([("ids", onnx.TensorProto.INT64, ["batch", 128])], r"Its inputs: ids int64 \(batch, 128\)\."),
        ([("a", onnx.TensorProto.FLOAT, [1, 3, 8, 8]), ("b", onnx.TensorProto.FLOAT, [1, 3, 8, 8])], r"a float .*; b float"),
        ([("images", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])], r"images float \(n, 3, h, w\)"),
    ],
)
def test_a_file_that_takes_no_image_batch_is_refused(
    tmp_path: Path, inputs: list[tuple[str, int, list[object]]], text: str
) -> None:
    values = [onnx.helper.make_tensor_value_info(*value) for value in inputs]
    out = onnx.helper.make_tensor_value_info("out", *inputs[0][1:])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", [inputs[0][0]], ["out"])], "g", values, [out])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8), tmp_path / "a.onnx"
    )
    with pytest.raises(ac.AdjCompressError, match=text):
        onnx_facts(tmp_path / "a.onnx")


def test_a_table_from_another_machine_is_read_with_a_warning_that_says_what_differs(tmp_path: Path) -> None:
    from dataclasses import replace

    from adjcompress.bench.table import conditions
    from adjcompress.cost import Grid

    here = conditions(threads=3, batch=2)
    ac.LatencyTable(Grid(16, True), here, source=str(tmp_path / "here.json")).write()
    assert ac.read_table(tmp_path / "here.json").conditions == here
    other = replace(here, cpu="a toaster", onnxruntime="0.1")
    ac.LatencyTable(Grid(16, True), other, source=str(tmp_path / "there.json")).write()
    with pytest.warns(
        UserWarning, match="holds for another machine; cpu: a toaster in .*there.json, .* here; onnxruntime: 0.1 in"
    ):
        assert ac.read_table(tmp_path / "there.json").conditions == other
