"""A latency table holds what its networks' slices need, reads between its points, and goes on where it was stopped.

No test depends on a time: where times matter they are made up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Split, TinyNet
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import adjcompress as ac
from adjcompress.bench import table, table_worker
from adjcompress.bench.table import measure_table
from adjcompress.cost import (
    Anchor,
    Conditions,
    Grid,
    LatencyTable,
    Layer,
    LayerShape,
    Sweep,
    fingerprint,
    layer_shapes,
    parse_budgets,
    table_for,
)
from adjcompress.deploy.layout import block_channels, float_convolutions, optimised

IMAGE = torch.zeros(1, 3, 32, 32)
HERE = Conditions("a processor", ("avx2",), 2, "1.0", threads=1, batch=1, spinning=False)
ONE = (1, 1)
POINTWISE = LayerShape("conv", ONE, ONE, (0, 0), ONE, (0, 0), (8, 8))
DEPTHWISE = LayerShape("depthwise", (3, 3), ONE, ONE, ONE, ONE, (8, 8))
GROUPED = LayerShape("grouped", (3, 3), ONE, ONE, ONE, (4, 8), (8, 8))
LINEAR = LayerShape("linear", ONE, ONE, (0, 0), ONE, (0, 0), ONE)
GRID = Grid(16, pads_outputs=True)


class Mixed(nn.Module):
    """A stem, a depthwise, a grouped convolution and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        self.depthwise = nn.Conv2d(32, 32, 3, padding="same", groups=32)
        self.grouped = nn.Conv2d(32, 64, 3, groups=4)
        self.side = nn.Conv2d(32, 48, 3, padding="valid")
        self.joined = nn.Conv2d(112, 20, 1, dilation=1)
        self.head = nn.Linear(20, 10)

    def forward(self, images: Tensor) -> Tensor:
        y = self.depthwise(self.stem(images))
        y = self.joined(torch.cat((self.grouped(y), self.side(y)), 1))
        return self.head(torch.relu(y).mean((2, 3)))


def made_up_ms(shape: LayerShape, channels_in: int, channels_out: int) -> float:
    """Bilinear in the widths, another plane for every shape."""
    size = shape.size[0] * shape.kernel[0]
    return 0.01 + 1e-4 * size + 1e-5 * size * channels_in + 2e-5 * channels_out + 1e-6 * size * channels_in * channels_out


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a worker with made-up times was asked for; a network as a whole takes what its layers take, and 3 ms."""
    tasks: list[dict[str, Any]] = []

    @contextmanager
    def worker() -> Iterator[Callable[[dict[str, Any]], tuple[float, ...]]]:
        def ask(task: dict[str, Any]) -> tuple[float, ...]:
            tasks.append(task)
            return tuple(made_up_ms(LayerShape(**task["shape"]), *pair) for pair in task["widths"])

        yield ask

    def with_anchors(known: LatencyTable, whole: dict[tuple[Layer, ...], nn.Module], *_: object) -> LatencyTable:
        took = [3 + sum(made_up_ms(la.shape, la.channels_in, la.channels_out) for la in layers) for layers in whole]
        measured = [Anchor(layers, ms) for layers, ms in zip(whole, took, strict=True)]
        name = fingerprint(measured[0].layers)
        known = replace(known, anchors={**known.anchors, name: tuple(measured[:2])})
        for each in measured[2:]:
            check = replace(each, measured_ms=known.predict_layers(each.layers).total_ms)
            known = replace(known, checks={**known.checks, name: check})
        return known

    monkeypatch.setattr(table, "_worker", worker)
    monkeypatch.setattr(table, "_with_anchors", with_anchors)
    monkeypatch.setattr(
        table, "conditions", lambda threads=1, batch=1, spinning=False: replace(HERE, threads=threads, batch=batch)
    )
    return tasks


# --- layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [TinyNet(), Mixed(), ac.create_model("mobilenet_v2", 10)], ids=lambda n: type(n).__name__)
def test_the_layers_found_do_all_multiply_adds_of_the_network(network: nn.Module) -> None:
    macs = {layer.name: layer.macs for layer in ac.count(network, IMAGE).per_layer}
    layers = layer_shapes(network, IMAGE)
    for layer in layers:
        per_output = layer.channels_in * layer.shape.kernel[0] * layer.shape.kernel[1]
        groups = layer.channels_in // layer.shape.group[0] if layer.shape.tied else 1
        assert layer.elements * per_output // groups == macs[layer.name]
    assert {layer.name for layer in layers} == {name for name in macs if macs[name]}


def test_layers_are_told_apart_by_how_they_run() -> None:
    layers = {layer.name: layer for layer in layer_shapes(Mixed(), torch.zeros(5, 3, 32, 32))}
    assert [layer.shape.kind for layer in layers.values()] == ["stem", "depthwise", "grouped", "conv", "conv", "linear"]
    assert layers["stem"].shape.size == (32, 32) and layers["stem"].shape.output_size == (16, 16)
    assert layers["depthwise"].shape.output_size == (16, 16) and layers["side"].shape.output_size == (14, 14)
    assert layers["grouped"].shape.group == (8, 16)
    assert str(layers["stem"].shape) == "3x3 convolution of the image, stride 2, 32x32 px"


def test_a_network_and_its_slices_have_one_fingerprint_and_others_another() -> None:
    network = ac.create_model("cifar_resnet20", 10)
    small = ac.slice_model(network, ac.plan_widths(network, IMAGE, 4))
    first, second = layer_shapes(network, IMAGE), layer_shapes(small, IMAGE)
    assert first != second and fingerprint(first) == fingerprint(second)
    assert fingerprint(first) != fingerprint(layer_shapes(network, torch.zeros(1, 3, 64, 64)))


class ReadsValues(TinyNet):
    """A forward that asks for a value, which the meta device has not."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) if images.sum().item() < 1 else images


def test_layers_are_found_where_the_meta_device_fails() -> None:
    assert layer_shapes(ReadsValues(), IMAGE) == layer_shapes(TinyNet(), IMAGE)


# --- between the points ---------------------------------------------------------------------------------------------


@given(channels_in=st.integers(4, 500), channels_out=st.integers(1, 500), scale=st.tuples(*[st.floats(0, 9)] * 4))
def test_what_is_bilinear_in_blocks_is_read_exactly(channels_in: int, channels_out: int, scale: tuple[float, ...]) -> None:
    def plane(inputs: float, outputs: float) -> float:
        return scale[0] + scale[1] * inputs + scale[2] * outputs + scale[3] * inputs * outputs

    corners = GRID.corners(POINTWISE, channels_in, channels_out)
    assert sum(weight for _, weight in corners) == pytest.approx(1) and len(corners) <= 4
    inputs: float = channels_in
    outputs: float = -(-channels_out // 16) * 16
    layout = GRID.layout(POINTWISE, channels_in, channels_out)
    if layout == "blocked":
        inputs = -(-channels_in // 16) * 16
    elif layout == "plain":
        outputs = max(channels_out, 5)
    assert sum(weight * plane(*point[1:]) for point, weight in corners) == pytest.approx(plane(inputs, outputs))


def test_time_is_a_step_function_of_blocks() -> None:
    for channels in range(33, 49):
        assert GRID.corners(POINTWISE, 64, channels) == GRID.corners(POINTWISE, 64, 48)
    assert GRID.corners(POINTWISE, 36, 64) == GRID.corners(POINTWISE, 48, 64) != GRID.corners(POINTWISE, 52, 64)
    assert GRID.corners(DEPTHWISE, 36, 36) == GRID.corners(DEPTHWISE, 48, 48)


def test_layouts_depend_on_what_divides_the_widths() -> None:
    layouts = [GRID.layout(POINTWISE, channels, 30) for channels in (3, 12, 15, 16, 18, 20)]
    assert layouts == ["narrow", "narrow", "narrow", "blocked", "plain", "blocked"]
    assert [GRID.layout(DEPTHWISE, channels, channels) for channels in (12, 13, 16)] == ["blocked", "plain", "blocked"]
    assert Grid(16, pads_outputs=False).layout(POINTWISE, 16, 30) == "plain"
    assert {Grid(1, True).layout(POINTWISE, channels, 32) for channels in (3, 16, 32)} == {"plain"}


@pytest.mark.parametrize("channels_in", [8, 15, 16, 18, 20, 31, 32])
@pytest.mark.parametrize("channels_out", [16, 19, 20, 32])
def test_the_runtime_uses_the_layout_that_the_grid_says(channels_in: int, channels_out: int) -> None:
    if block_channels() == 1:
        pytest.skip("no blocks on this machine")
    grid = Grid(block_channels(), table._pads_outputs())
    graph = optimised(table_worker.graph(asdict(POINTWISE), [(channels_in, channels_out)], 1))
    plain = any(node.name.startswith("layer") for node in float_convolutions(graph))
    assert plain == (grid.layout(POINTWISE, channels_in, channels_out) == "plain")


@settings(deadline=None, max_examples=60)
@given(
    shape=st.sampled_from([POINTWISE, DEPTHWISE, GROUPED, LINEAR]),
    grid=st.sampled_from([GRID, Grid(8, False), Grid(1, True)]),
    draw=st.data(),
)
def test_the_points_of_a_reach_predict_every_width_in_it(shape: LayerShape, grid: Grid, draw: st.DataObject) -> None:
    def reach(unit: int) -> tuple[int, int]:
        low = draw.draw(st.integers(1, 20))
        return low * unit, draw.draw(st.integers(low, 300)) * unit

    inputs = reach(4) if shape != GROUPED else reach(GROUPED.group[0])
    outputs = (inputs[0] * 2, inputs[1] * 2) if shape == GROUPED else inputs if shape == DEPTHWISE else reach(1)
    points = set(grid.points(shape, inputs, outputs))
    for _ in range(20):
        channels_in = (
            draw.draw(st.integers(*inputs)) if shape != GROUPED else 4 * draw.draw(st.integers(inputs[0] // 4, inputs[1] // 4))
        )
        channels_out = (
            2 * channels_in if shape == GROUPED else channels_in if shape == DEPTHWISE else draw.draw(st.integers(*outputs))
        )
        assert {point for point, _ in grid.corners(shape, channels_in, channels_out)} <= points


def test_the_last_whole_block_of_a_reach_is_measured_where_its_end_is_not_aligned() -> None:
    assert ("narrow", 4, 24) in Grid(8, pads_outputs=False).points(POINTWISE, (4, 4), (1, 22))


# --- the table ------------------------------------------------------------------------------------------------------


def test_a_prediction_is_the_sum_of_its_layers_and_the_rest(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    network = ac.create_model("cifar_resnet20", 10)
    report = measure_table(tmp_path / "table.json", network, IMAGE)
    known = LatencyTable.read(tmp_path / "table.json")
    # layer2 and layer3 at a half and less, by alpha 16 down to 4 channels; the point of 16 outputs stands for 4, 8 and 12.
    assert report.shapes == 7 and report.points == sum(len(sweep.points) for sweep in known.sweeps)
    assert len(asked) == 3 * 7  # times that do not move are settled after three passes
    for alpha in (1, 2):
        small = ac.slice_model(network, ac.plan_widths(network, IMAGE, alpha, align=16))
        estimate = known.predict(small, IMAGE)
        layers = layer_shapes(small, IMAGE)
        expected = [made_up_ms(layer.shape, layer.channels_in, layer.channels_out) for layer in layers[:-1]]
        assert [layer.ms for layer in estimate.per_layer[:-1]] == pytest.approx(expected)
        assert estimate.total_ms == pytest.approx(sum(layer.ms for layer in estimate.per_layer) + estimate.rest_ms)
    (anchors,) = known.anchors.values()
    for anchor in anchors:
        assert known.predict_layers(anchor.layers).total_ms == pytest.approx(anchor.measured_ms)


@pytest.mark.parametrize("network", [TinyNet(), Mixed()], ids=lambda network: type(network).__name__)
@pytest.mark.parametrize("align", [1, 4])
def test_every_slice_within_alpha_is_in_the_table(
    tmp_path: Path, asked: list[dict[str, Any]], network: nn.Module, align: int
) -> None:
    measure_table(tmp_path / "table.json", network, IMAGE, alpha=4)
    known = LatencyTable.read(tmp_path / "table.json")
    groups = ac.plan_widths(network, IMAGE, 1).groups
    random = torch.Generator().manual_seed(0)
    for most in (0.0, 3.0, 3.0, 3.0):  # the first: all at their smallest
        alphas = {group.name: 4 - most * torch.rand((), generator=random).item() for group in groups}
        small = ac.slice_model(network, ac.plan_widths(network, IMAGE, alphas, align=align))
        assert known.predict(small, IMAGE).total_ms > 0


def test_a_table_is_read_as_it_was_written(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    measure_table(tmp_path / "table.json", TinyNet(), IMAGE)
    known = LatencyTable.read(tmp_path / "table.json")
    replace(known, source=str(tmp_path / "copy.json")).write()
    assert replace(LatencyTable.read(tmp_path / "copy.json"), source=known.source) == known
    assert json.loads((tmp_path / "table.json").read_text())["conditions"]["cpu"] == "a processor"


def test_a_measurement_that_was_stopped_goes_on_where_it_was(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    measure_table(tmp_path / "whole.json", TinyNet(), IMAGE)
    whole = list(asked)
    asked.clear()

    def stop(done: int, total: int, text: str) -> None:
        assert done < total
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_table(tmp_path / "table.json", TinyNet(), IMAGE, progress=stop)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["table.json", "whole.json"]
    assert 0 < len(asked) < len(whole)
    report = measure_table(tmp_path / "table.json", TinyNet(), IMAGE)
    assert asked == whole
    assert 0 < report.measured < sum(len(task["widths"]) for task in whole)
    ended, uninterrupted = (LatencyTable.read(tmp_path / name) for name in ("table.json", "whole.json"))
    assert replace(ended, source=uninterrupted.source) == uninterrupted


def test_a_second_network_adds_only_what_it_has_of_its_own(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    path = tmp_path / "table.json"
    measure_table(path, ac.create_model("cifar_resnet20", 10), IMAGE)
    first = len(asked)
    assert measure_table(path, ac.create_model("cifar_resnet20", 10), IMAGE).measured == 0 and len(asked) == first
    deeper = measure_table(path, ac.create_model("cifar_resnet32", 10), IMAGE)
    assert deeper.measured == 0 and len(LatencyTable.read(path).anchors) == 2  # deeper, of the same layers
    measure_table(path, TinyNet(), IMAGE)
    measured = [(sweep.shape, point) for sweep in LatencyTable.read(path).sweeps for point in sweep.points]
    assert len(measured) == len(set(measured)) and len(asked) > first


def test_a_wider_network_of_the_same_layers_is_measured_whole_too(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    path, narrow, wide = tmp_path / "table.json", ac.create_model("wrn_10_2", 10), ac.create_model("wrn_10_4", 10)
    measure_table(path, narrow, IMAGE)
    assert fingerprint(layer_shapes(narrow, IMAGE)) == fingerprint(layer_shapes(wide, IMAGE))
    with pytest.raises(ac.AdjCompressError, match=r"table\.json does not know this network"):
        LatencyTable.read(path).rest_of(layer_shapes(wide, IMAGE))
    measure_table(path, wide, IMAGE)
    for network in (narrow, wide):
        assert LatencyTable.read(path).knows(layer_shapes(network, IMAGE))


def test_passes_go_on_until_the_medians_rest() -> None:
    sweep = Sweep(POINTWISE, (("blocked", 16, 16), ("blocked", 16, 32)))
    steady, restless = (1.0, 2.0), (1.5, 3.0)
    assert not replace(sweep, passes_ms=(steady, steady)).settled(0.02, 5)
    assert replace(sweep, passes_ms=(steady, steady, steady)).settled(0.02, 5)
    assert not replace(sweep, passes_ms=(steady, restless, restless)).settled(0.02, 5)
    assert replace(sweep, passes_ms=(steady, restless, restless)).settled(0.02, 3)
    assert replace(sweep, passes_ms=(steady, restless, steady)).medians_ms() == steady


# --- what speaks against a table ------------------------------------------------------------------------------------


def doubted(path: Path, network: nn.Module) -> str | None:
    return LatencyTable.read(path).doubt(layer_shapes(network, IMAGE))


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_table_is_in_doubt_where_a_slice_halfway_takes_another_time(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    path, network, other = tmp_path / "table.json", ac.create_model("cifar_resnet20", 10), ac.create_model("cifar_resnet32", 10)
    layers = layer_shapes(network, IMAGE)
    report = measure_table(path, network, IMAGE)
    before = list(asked)
    assert report.check is not None and report.check.off == pytest.approx(0) and report.doubt is None
    measure_table(path, other, IMAGE)
    assert measure_table(path, network, IMAGE).measured == 0

    def slower(content: dict[str, Any]) -> None:
        content["checks"][fingerprint(layers)]["measured_ms"] *= 1.25
        content["sweeps"][-1]["passes_ms"][-1] = [1.01 * ms for ms in content["sweeps"][-1]["passes_ms"][-1]]

    changed(path, slower)
    check = LatencyTable.read(path).check(layers)
    assert check is not None and check.off == pytest.approx(-0.2)
    assert f"{path} is in doubt: it predicts {check.predicted_ms:.3g} ms for a slice" in str(doubted(path, network))
    assert "Measure it with adjcompress bench --table" in str(doubted(path, network))
    asked.clear()
    report = measure_table(path, network, IMAGE)
    assert asked == before and report.doubt is None and doubted(path, network) is None  # all of it, not what moved most
    assert LatencyTable.read(path).knows(layer_shapes(other, IMAGE))  # which was measured whole, and still takes that


def test_a_table_from_before_there_were_checks_gets_one(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    path, network = tmp_path / "table.json", ac.create_model("cifar_resnet20", 10)
    measure_table(path, network, IMAGE)
    changed(path, lambda content: content.pop("checks"))
    assert LatencyTable.read(path).check(layer_shapes(network, IMAGE)) is None
    asked.clear()
    report = measure_table(path, network, IMAGE)
    assert report.check is not None and report.measured == 0 and not asked
    narrow = measure_table(tmp_path / "narrow.json", TinyNet(), IMAGE)  # halfway is one of the ends
    assert narrow.check is None and measure_table(tmp_path / "narrow.json", TinyNet(), IMAGE).measured == 0


def test_a_network_whose_channels_go_two_ways_is_measured_whole(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    network = Split()
    measure_table(tmp_path / "table.json", network, IMAGE, slim=["*"])
    assert LatencyTable.read(tmp_path / "table.json").predict(network, IMAGE).total_ms > 3


def test_a_table_is_in_doubt_where_much_of_it_was_not_steady(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    path, network = tmp_path / "table.json", ac.create_model("cifar_resnet20", 10)
    measure_table(path, network, IMAGE)
    layers, shares = layer_shapes(network, IMAGE), {}
    per_layer = LatencyTable.read(path).predict_layers(layers).per_layer
    for layer, told in zip(layers, per_layer, strict=True):
        shares[layer.shape] = shares.get(layer.shape, 0.0) + told.ms / sum(each.ms for each in per_layer)
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    assert 2 * shares[least] < 0.1 < shares[most]
    for shape, doubtful in ((least, False), (most, True)):

        def restless(content: dict[str, Any], shape: LayerShape = shape) -> None:
            for sweep in content["sweeps"]:
                if LayerShape.from_json(content["shapes"][sweep["shape"]]) == shape:
                    ms = sweep["passes_ms"][0]
                    sweep["passes_ms"] = [ms, [2 * each for each in ms], [3 * each for each in ms]]

        changed(path, restless)
        assert set(LatencyTable.read(path).unsteady(layers)) == {least, shape}
        assert (doubted(path, network) is not None) == doubtful
    part = 2 * (shares[least] + shares[most])
    assert f"layers that take {part / (1 + part / 2):.0%} of this network" in str(doubted(path, network))
    asked.clear()
    assert measure_table(path, network, IMAGE).doubt is None
    assert {LayerShape(**task["shape"]) for task in asked} == {least, most}  # the others are kept
    assert len(LatencyTable.read(path).anchors) == 1


# --- what a table refuses -------------------------------------------------------------------------------------------


def test_what_the_table_does_not_hold_is_an_error_that_names_the_layer_and_the_command(
    tmp_path: Path, asked: list[dict[str, Any]]
) -> None:
    path = tmp_path / "table.json"
    network = TinyNet()
    measure_table(path, network, IMAGE, slim=["first", "second"])
    known = LatencyTable.read(path)
    command = rf"Measure it with adjcompress bench --table {path} --model NAME --target one-core, and"
    with pytest.raises(ac.AdjCompressError, match=rf"does not know this network\. {command}"):
        known.predict(network, torch.zeros(1, 3, 64, 64))
    with pytest.raises(ac.AdjCompressError, match=rf"no times of this layer \(1x1 convolution, 8x8 px\)\. {command}"):
        known.layer_ms(POINTWISE, 16, 16)
    wide = ac.slice_model(network, ac.plan_widths(network, IMAGE, 1))
    wide.first[0], wide.first[1] = nn.Conv2d(8, 100, 3, 2, 1), nn.BatchNorm2d(100)
    wide.second[0], wide.second[1] = nn.Conv2d(100, 100, 3, 1, 1), nn.BatchNorm2d(100)
    wide.head = nn.Linear(100, 10)
    text = rf"Layer first\.0: .* \(3x3 convolution, stride 2, 16x16 px\) at 8 -> 100 channels, which lie outside .*{command}"
    with pytest.raises(ac.AdjCompressError, match=text):
        known.predict(wide, IMAGE)


def test_a_table_of_other_conditions_is_not_added_to(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    path = tmp_path / "table.json"
    measure_table(path, TinyNet(), IMAGE)
    with pytest.raises(ac.AdjCompressError, match=r"cannot be added to, .* \(threads: 1 in .*table\.json, 2 here\)"):
        measure_table(path, TinyNet(), IMAGE, threads=2)
    other = replace(HERE, cpu="another", onnxruntime="2.0")
    differences = LatencyTable.read(path).differences(other)
    assert differences == (f"cpu: a processor in {path}, another here", f"onnxruntime: 1.0 in {path}, 2.0 here")
    assert LatencyTable.read(path).differences(HERE) == ()


@pytest.mark.parametrize("text", ["", "{}", '{"format": 99}', "[1]", '{"format": 1, "shapes": []}'])
def test_damaged_tables_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.json"
    with pytest.raises(ac.AdjCompressError, match=r"does not exist: make it with adjcompress bench --table"):
        LatencyTable.read(path)
    path.write_text(text)
    with pytest.raises(
        ac.AdjCompressError, match=r"is damaged or no latency table .*: name another --table, or remove it and measure again"
    ):
        measure_table(path, TinyNet(), IMAGE)
    assert path.read_text() == text


def test_a_table_whose_networks_lack_layers_is_refused(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    path = tmp_path / "table.json"
    measure_table(path, TinyNet(), IMAGE)
    content = json.loads(path.read_text())
    next(iter(content["anchors"].values()))[0]["layers"].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(ac.AdjCompressError, match=r"is damaged .*the layers under \w+ are another network's.*remove it"):
        LatencyTable.read(path)


def test_options_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ac.AdjCompressError, match="must be at least 1"):
        measure_table(tmp_path / "table.json", TinyNet(), IMAGE, threads=0)
    with pytest.raises(ac.AdjCompressError, match="Target 'core' is unknown"):
        measure_table(tmp_path / "table.json", TinyNet(), IMAGE, target="core")


def test_a_table_of_one_thread_is_one_of_the_target_of_one_core() -> None:
    assert table.conditions() == table._on_target("one-core")[0]
    assert len(table._on_target("one-core")[1]) == 1


# --- the worker -----------------------------------------------------------------------------------------------------


def event(name: str, operation: str, written: list[int], microseconds: int) -> dict[str, object]:
    arguments = {"op_name": operation, "output_type_shape": [{"float": written}]}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "args": arguments}


def test_only_the_layers_own_time_counts_and_the_ordering_of_few_inputs() -> None:
    events: list[dict[str, object]] = [{"cat": "Session", "name": "model_run", "dur": 999}]
    for run in range(6):
        slow = 1000 * (run < 2)  # the first runs do not count
        events += [
            event("made0_nchwc", "Conv", [1, 16, 8, 8], 500),
            event("layer0.result_nchwc", "Conv", [1, 32, 8, 8], 10 + slow),
            event("ReorderOutput_token_7", "ReorderOutput", [1, 12, 8, 8], 3),
            event("layer1", "FusedConv", [1, 32, 8, 8], 20 + run + slow),
            event("ReorderOutput_token_8", "ReorderOutput", [1, 32, 1, 1], 700),
        ]
    times = table_worker._read(events, {"kind": "conv", "size": [8, 8]}, [(16, 32), (12, 32)], 1)
    assert times == pytest.approx([0.010, 0.0235 + 0.003])


def test_a_table_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_LAYER_SECONDS", 0.01)
    monkeypatch.setattr(table, "_NETWORK_SECONDS", 0.1)
    heard: list[tuple[int, int, str]] = []
    report = measure_table(
        tmp_path / "table.json",
        Mixed().eval(),
        IMAGE,
        target="one-core",
        max_passes=1,
        progress=lambda *step: heard.append(step),
    )
    known = LatencyTable.read(tmp_path / "table.json")
    assert all(time > 0 for sweep in known.sweeps for time in sweep.medians_ms())
    assert report.conditions == table.conditions() == known.conditions and known.differences(table.conditions()) == ()
    assert [done for done, _, _ in heard] == list(range(len(heard))) and heard[-1] == (7, 7, "done")
    ((smallest, full),), (between,) = known.anchors.values(), known.checks.values()
    assert known.predict(Mixed(), IMAGE).total_ms == pytest.approx(full.measured_ms)
    written = [sum(layer.elements for layer in anchor.layers) for anchor in (smallest, between, full)]
    assert written == sorted(set(written))
    assert report.check == known.check(layer_shapes(Mixed(), IMAGE))
    assert report.check is not None and report.check.measured_ms == between.measured_ms > 0
    assert json.loads(json.dumps(report.to_json()))["measured"] == report.points == report.measured


def test_a_layer_that_the_runtime_cannot_run_is_an_error() -> None:
    shape = asdict(replace(POINTWISE, padding=(-9, -9)))
    with table._worker() as ask, pytest.raises(ac.AdjCompressError, match=r"ONNX Runtime could not run .*'conv'"):
        ask({"shape": shape, "widths": [(16, 16)], "threads": 1, "batch": 1, "spinning": False, "cores": [], "duration": 0})


@pytest.mark.parametrize("spinning", [True, False])
def test_a_budget_on_a_target_takes_no_table_of_threads_that_spin(tmp_path: Path, spinning: bool) -> None:
    here = replace(HERE, threads=2, spinning=spinning)
    LatencyTable(GRID, here, source=str(tmp_path / "table.json")).write()
    budgets = parse_budgets(["latency=9ms@two-core"])
    if not spinning:
        assert table_for(tmp_path / "table.json", budgets).conditions == here
        return
    with pytest.raises(ac.AdjCompressError, match="holds batch 1 and 2 threads, which spin: measure another"):
        table_for(tmp_path / "table.json", budgets)
