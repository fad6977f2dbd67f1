"""Super networks: graphs of layers with the published counts, their distributed cost, and what of them runs."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import adjcompress as ac
from adjcompress.models.fabrics import neural_fabric, resnet_fabric
from adjcompress.models.graph import IMAGES, Graph, GraphNetwork, Node
from adjcompress.supernets import Reach, distributed_bounds, distributed_cost, open_gates
from adjcompress.supernets.distributed import _cycles

CIFAR = torch.zeros(1, 3, 32, 32)


def additions(network: GraphNetwork, example: torch.Tensor) -> int:
    """Elements that sums add."""
    sizes: dict[str, int] = {}
    abstract = network.to("meta").eval()
    for name, layer in abstract.layers.items():
        layer.register_forward_pre_hook(lambda _module, inputs, name=name: sizes.__setitem__(name, inputs[0][0].numel()))
    abstract(example.to("meta"))
    return sum(sizes[node.name] * (len(node.inputs) - 1) for node in network.graph.nodes)


@pytest.mark.parametrize(
    ("name", "options", "macs", "parameters"),
    [
        ("resnet_fabric", {"connections": False}, 40_899_200, 273_258),  # ResNet-20
        ("resnet_fabric", {"connections": False, "blocks": 18}, 253_665_920, 1_734_858),  # ResNet-110
        ("resnet_fabric", {"blocks": 3}, 91_140_736, 760_586),
        ("neural_fabric", {"columns": 2}, 557_057_024, 3_848_970),
        ("neural_fabric", {"columns": 8, "scales": 6, "channels": 128}, 3_274_505_984, 18_041_610),
    ],
)
def test_the_published_counts_come_out(name: str, options: dict[str, int], macs: int, parameters: int) -> None:
    network = ac.create_model(name, num_classes=10, **options)
    counts = ac.count(network, CIFAR)
    assert counts.parameters == parameters
    assert counts.macs + additions(network, CIFAR) == macs


@pytest.mark.parametrize(
    ("make", "published"),
    [
        (lambda: neural_fabric(columns=8, channels=1), {1: 171, 2: 90, 4: 53}),
        (lambda: neural_fabric(columns=2, channels=1), {1: 39, 2: 26, 4: 19}),
        (lambda: resnet_fabric(connections=False), {1: 22, 2: 20, 4: 20}),
        (lambda: resnet_fabric(blocks=18, connections=False), {1: 112, 2: 110, 4: 110}),
        (lambda: resnet_fabric(blocks=18), {1: 320, 2: 179}),
    ],
)
def test_the_published_distributed_costs_come_out(make: object, published: dict[int, int]) -> None:
    network = make()  # type: ignore[operator]
    assert {machines: distributed_cost(network, machines) for machines in published} == published


def test_the_figure_of_the_paper() -> None:
    nodes = [Node("a", (IMAGES,)), Node("b", ("a",)), Node("c", ("a",)), Node("d", ("b", "c")), Node("e", ("d",))]
    nodes += [Node("f", ("d",)), Node("g", ("e", "f")), Node("h", ("g",)), Node("i", ("g",)), Node("end", ("h", "i"), cycles=0)]
    graph = Graph(tuple(nodes))
    assert (distributed_cost(graph, 1), distributed_cost(graph, 2)) == (9, 6)
    rows = [[Node(f"{row}{n}", (f"{row}{n - 1}" if n else IMAGES,)) for n in range(5)] for row in "xy"]
    ten = Graph((*rows[0], *rows[1], Node("end", ("x4", "y4"), cycles=0)))
    assert (distributed_cost(ten, 1), distributed_cost(ten, 2)) == (10, 5)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), machines=st.integers(1, 5))
def test_every_schedule_lies_between_its_bounds(data: st.DataObject, machines: int) -> None:
    network = neural_fabric(columns=3, scales=3, channels=1)
    gates = network.graph.gates
    chosen = data.draw(st.sets(st.sampled_from(gates), min_size=4))
    reach = Reach(network.graph)
    active = reach.active(open_gates(network.graph, chosen))[0]
    if not active[-1]:
        return
    names = reach.names(active)
    bounds = distributed_bounds(network, machines, names)
    assert bounds.low <= distributed_cost(network, machines, names) <= bounds.high


def test_a_cost_is_computed_once() -> None:
    network = resnet_fabric(blocks=18)
    _cycles.cache_clear()
    assert distributed_cost(network, 2) == distributed_cost(network, 2)
    assert (_cycles.cache_info().hits, _cycles.cache_info().misses) == (1, 1)


def test_what_runs_is_open_and_between_images_and_output() -> None:
    network = neural_fabric(columns=2, scales=3, channels=2)
    graph, reach = network.graph, Reach(network.graph)
    gates = torch.tensor(list(itertools.islice(itertools.product([False, True], repeat=len(graph.gates)), 0, 2**13, 7)))
    active = reach.active(gates)
    for choice, runs in list(zip(gates.tolist(), active, strict=True))[::50]:
        names = {gate for gate, is_open in zip(graph.gates, choice, strict=True) if is_open}
        assert reach.names(runs) == _by_walking(graph, names)


def _by_walking(graph: Graph, names: set[str]) -> frozenset[str]:
    """Reachability once more, by sets."""
    alive = {IMAGES}
    for node in graph.nodes:
        if (node.gate is None or node.gate in names) and any(name in alive for name in node.inputs):
            alive.add(node.name)
    needed = {graph.output} & alive
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed |= {name for name in node.inputs if name in alive and name != IMAGES}
    return frozenset(needed)


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ((), "A graph needs at least one node"),
        ((Node("a", (IMAGES,)), Node("a", ("a",))), "Node 'a': names are given once"),
        ((Node("a", ("b",)), Node("b", (IMAGES,))), "Node a takes b, which comes after it: a cycle, or nodes out of order"),
        ((Node("a", ("z",)),), "Node a takes z, which is no node"),
        ((Node("a", ()),), "Node a takes nothing"),
        ((Node("a", (IMAGES,)), Node("b", (IMAGES,))), "Node a is a dead end: nothing that reaches the output b takes it"),
    ],
)
def test_impossible_graphs_are_refused(nodes: tuple[Node, ...], text: str) -> None:
    with pytest.raises(ac.AdjCompressError) as caught:
        Graph(nodes)
    assert text in str(caught.value)


def test_impossible_fabrics_and_costs_are_refused() -> None:
    with pytest.raises(ac.AdjCompressError, match="at least 1 block"):
        ac.create_model("resnet_fabric", 10, blocks=0)
    with pytest.raises(ac.AdjCompressError, match="at least 2 columns, 2 scales and 1 channel"):
        ac.create_model("neural_fabric", 10, columns=1)
    with pytest.raises(ac.AdjCompressError, match="at least 1 machine, not 0"):
        distributed_cost(resnet_fabric(), 0)
    with pytest.raises(ac.AdjCompressError, match="ResNet is no graph of layers"):
        distributed_cost(ac.create_model("resnet18", 10), 2)
    with pytest.raises(ac.AdjCompressError, match="does not reach the output"):
        distributed_cost(resnet_fabric(), 2, {"stem"})
    with pytest.raises(ac.AdjCompressError, match="nodes without: b"):
        GraphNetwork(Graph((Node("a", (IMAGES,)), Node("b", ("a",)))), {"a": nn.Identity()})


def test_a_fabric_for_segmentation_scores_every_pixel() -> None:
    network = neural_fabric(11, columns=3, scales=3, channels=4, segmentation=True).eval()
    assert network(torch.zeros(2, 3, 24, 16)).shape == (2, 11, 24, 16)
    assert any(node.name.endswith("_up") for node in network.graph.nodes)


def test_a_fabric_is_a_model_like_any_other() -> None:
    network = ac.create_model("resnet_fabric", 10).eval()
    plan = ac.plan_widths(network, CIFAR, 2)
    assert ac.count(ac.slice_model(network, plan), CIFAR).macs < ac.count(network, CIFAR).macs
    plain = ac.create_model("neural_fabric", 10, columns=2, scales=3, channels=4).eval()
    assert plain(CIFAR).shape == (1, 10)
