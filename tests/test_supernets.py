"""Super networks: graphs of layers with the published counts, their distributed cost, and what of them runs."""

from __future__ import annotations

import itertools
import math
import sys
import types

import pytest
import torch
from conftest import a_graph_table, randomise_
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import adjcompress as ac
from adjcompress.cost import layer_shapes
from adjcompress.models.fabrics import neural_fabric, resnet_fabric
from adjcompress.models.graph import IMAGES, Graph, GraphNetwork, Node
from adjcompress.supernets import (
    CyclesCost,
    LatencyCost,
    MacsCost,
    MeasuredCost,
    OwnCost,
    ParametersCost,
    Reach,
    StochasticSuperNetwork,
    advantages,
    decided_gates,
    distributed_bounds,
    distributed_cost,
    least,
    open_gates,
    parts_of,
    policy_loss,
)
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
        ((Node("keys", (IMAGES,)),), "Node 'keys': names are given once"),
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


def test_an_architecture_is_a_model_by_the_names_of_its_nodes() -> None:
    whole = ac.create_model("resnet_fabric", 10, blocks=1)
    assert isinstance(whole, GraphNetwork)
    plain = [node.name for node in ac.create_model("resnet_fabric", 10, blocks=1, connections=False).graph.nodes]
    network = ac.create_model("resnet_fabric", 10, blocks=1, nodes=plain)
    assert [node.name for node in network.graph.nodes] == plain and not network.graph.gates
    for name, nodes, text in (
        ("resnet_fabric", ["stem", "away"], "away: no such nodes in this graph of"),
        ("resnet_fabric", plain[1:], "takes nothing"),
        ("resnet18", ["stem"], "is no graph of layers, so it has no nodes to choose"),
    ):
        with pytest.raises(ac.AdjCompressError, match=text):
            ac.create_model(name, 10, nodes=nodes)


def test_a_fabric_is_a_model_like_any_other() -> None:
    network = ac.create_model("resnet_fabric", 10).eval()
    plan = ac.plan_widths(network, CIFAR, 2)
    assert ac.count(ac.slice_model(network, plan), CIFAR).macs < ac.count(network, CIFAR).macs
    plain = ac.create_model("neural_fabric", 10, columns=2, scales=3, channels=4).eval()
    assert plain(CIFAR).shape == (1, 10)


# --- drawn architectures --------------------------------------------------------------------------------------------


def small_super_network() -> StochasticSuperNetwork:
    torch.manual_seed(0)
    return StochasticSuperNetwork(randomise_(neural_fabric(5, columns=2, scales=3, channels=4)))  # type: ignore[arg-type]


def connected(network: StochasticSuperNetwork, count: int) -> torch.Tensor:
    """Random architectures that reach the output."""
    drawn = torch.rand(40 * count, len(network.logits), generator=torch.Generator().manual_seed(1)) < 0.6
    return drawn[network.reach.active(drawn)[:, -1]][:count]


def test_every_image_is_run_by_its_own_architecture() -> None:
    network = small_super_network().double().eval()
    images = torch.randn(6, 3, 16, 16, dtype=torch.double)
    gates = connected(network, 6)
    together = network(images, gates)
    for number in range(6):
        alone = network.network.restricted(network.reach.names(network.reach.active(gates[number : number + 1])[0]))
        torch.testing.assert_close(together[number : number + 1], alone(images[number : number + 1]))


def test_groups_of_images_share_an_architecture() -> None:
    network = small_super_network().double().eval()
    images, gates = torch.randn(7, 3, 16, 16, dtype=torch.double), connected(network, 2)
    expected = torch.cat([network(images[:4], gates[:1]), network(images[4:], gates[1:])])
    torch.testing.assert_close(network(images, gates), expected)


def test_the_extracted_network_is_the_masked_one_and_holds_nothing_else() -> None:
    network = small_super_network().double().eval()
    with torch.no_grad():
        network.logits.copy_(torch.where(connected(network, 1)[0], 2.0, -2.0))
    extracted = network.extracted()
    images = torch.randn(3, 3, 16, 16, dtype=torch.double)
    torch.testing.assert_close(extracted(images), network(images))
    assert not extracted.graph.gates
    assert len(extracted.graph.nodes) == int(network.reach.active(network.decided()).sum())
    assert torch.equal(network(images), network(images))  # nothing is drawn in evaluation


def test_batch_norm_sees_the_images_that_use_its_layer_alone() -> None:
    network = small_super_network().train()
    images = torch.randn(4, 3, 16, 16)
    gates = torch.ones(4, len(network.logits), dtype=torch.bool)
    gate = network.network.graph.gates[-1]
    gates[2:, -1] = False
    seen = []
    layer = next(node.name for node in network.network.graph.nodes if node.gate == gate)
    network.network.layers[layer].register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    network(images, gates)
    assert seen == [2]


def test_a_layer_that_no_image_needs_is_not_run() -> None:
    network = small_super_network().train()
    gates = connected(network, 1)
    runs = network.reach.names(network.reach.active(gates)[0])
    called = set()
    for name, layer in network.network.layers.items():
        layer.register_forward_pre_hook(lambda _module, _inputs, name=name: called.add(name))
    network(torch.randn(4, 3, 16, 16), gates)
    assert called == runs != set(network.network.layers)


def test_an_image_that_does_not_reach_the_output_gets_zeros_and_a_network_that_does_not_is_refused() -> None:
    network = small_super_network().eval()
    closed = torch.zeros(1, len(network.logits), dtype=torch.bool)
    gates = torch.cat([connected(network, 1), closed])
    logits = network(torch.randn(2, 3, 16, 16), gates)
    assert logits[0].abs().max() > 0 and torch.equal(logits[1], torch.zeros(5))
    with pytest.raises(ac.AdjCompressError, match="No architecture reaches the output"):
        network(torch.randn(2, 3, 16, 16), closed)
    with torch.no_grad():
        network.logits.fill_(-1)
    with pytest.raises(ac.AdjCompressError, match="do not reach the output: train longer"):
        network.extracted()


def test_gradients_reach_the_weights_of_what_ran_alone() -> None:
    network = small_super_network().train()
    gates = connected(network, 2)
    runs = network.reach.active(gates).any(0)
    network(torch.randn(4, 3, 16, 16), gates).square().sum().backward()
    for node, ran in zip(network.network.graph.nodes, runs.tolist(), strict=True):
        for parameter in network.network.layers[node.name].parameters():
            assert (parameter.grad is not None) == ran


# --- the policy's gradient ------------------------------------------------------------------------------------------


def four_gates() -> StochasticSuperNetwork:
    """images -> a (gate 0) -> b; images -> c (gate 1) -> b; b -> d (gates 2 and 3 beside each other) -> output."""
    nodes = (
        Node("a", (IMAGES,), "a"),
        Node("c", (IMAGES,), "c"),
        Node("b", ("a", "c")),
        Node("d", ("b",), "d"),
        Node("e", ("b",), "e"),
        Node("output", ("d", "e")),
    )
    network = StochasticSuperNetwork(GraphNetwork(Graph(nodes), {node.name: nn.Identity() for node in nodes}))
    with torch.no_grad():
        network.logits.copy_(torch.tensor([0.5, -1.0, 1.5, 0.2]))
    return network.double()


@pytest.mark.parametrize("count", [2, 3])
def test_the_mean_estimated_gradient_is_the_exact_one(count: int) -> None:
    """Every batch of `count` architectures that can be drawn, each with its probability: no sampling error is left."""
    network = four_gates()
    every = torch.tensor(list(itertools.product([False, True], repeat=4)))
    worth = torch.randn(16, generator=torch.Generator().manual_seed(2), dtype=torch.double)  # any loss and cost
    likelihood = network.log_likelihood(every)
    (exact,) = torch.autograd.grad((likelihood.exp() * worth).sum(), network.logits)
    with torch.no_grad():
        probability = network.log_likelihood(every).exp()
    assert float(probability.sum()) == pytest.approx(1)
    mean = torch.zeros(4, dtype=torch.double)
    for batch in itertools.product(range(16), repeat=count):
        chosen = list(batch)
        loss = policy_loss(network.log_likelihood(every[chosen]), advantages(worth[chosen], torch.zeros(())))
        (estimate,) = torch.autograd.grad(loss, network.logits)
        mean += estimate * probability[chosen].prod()
    torch.testing.assert_close(mean, exact)


def test_the_baseline_of_a_single_architecture_is_what_came_before() -> None:
    assert advantages(torch.tensor([3.0]), torch.tensor(1.0)).tolist() == [2.0]


def test_gates_start_open_and_are_drawn_by_their_probability() -> None:
    network = small_super_network()
    assert network.probabilities().tolist() == pytest.approx([0.9526] * len(network.logits), abs=1e-4)
    torch.manual_seed(0)
    with torch.no_grad():
        network.logits.fill_(-1.0)
    assert network.draw(4000).double().mean() == pytest.approx(0.2689, abs=0.01)


# --- costs ----------------------------------------------------------------------------------------------------------


def test_costs_of_the_whole_network_are_the_published_ones() -> None:
    network = resnet_fabric()
    assert MacsCost(network, CIFAR).full == 91_140_736
    assert ParametersCost(network).full == 760_586
    assert CyclesCost(neural_fabric(columns=8, channels=1), 2).full == 90


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_an_architectures_cost_is_that_of_its_extracted_network(data: st.DataObject) -> None:
    network = resnet_fabric()
    chosen = data.draw(st.sets(st.sampled_from(network.graph.gates)))
    reach = Reach(network.graph)
    active = reach.active(open_gates(network.graph, chosen))
    alone = network.restricted(reach.names(active[0]))
    assert float(ParametersCost(network).of(active)[0]) == sum(parameter.numel() for parameter in alone.parameters())
    assert float(CyclesCost(network, 2).of(active)[0]) == distributed_cost(alone, 2)
    assert float(MacsCost(network, CIFAR).of(active)[0]) == ac.count(alone, CIFAR).macs + additions(alone, CIFAR)


def test_a_sum_with_the_images_is_an_addition_too() -> None:
    graph = Graph((Node("a", (IMAGES,)), Node("b", (IMAGES, "a")), Node("c", ("a", "b"))))
    network = GraphNetwork(graph, {name: nn.Conv2d(3, 3, 1) for name in ("a", "b", "c")})
    cost, pixels = MacsCost(network, torch.zeros(1, 3, 4, 4)), 16
    assert cost.full == 3 * 9 * pixels + 2 * 3 * pixels


def test_the_cheapest_architecture_of_a_resnet_fabric_is_its_skips() -> None:
    network = resnet_fabric()
    cost = ParametersCost(network)
    closed = float(cost.of(Reach(network.graph).active(open_gates(network.graph, ())))[0])
    assert least(network, cost) == pytest.approx(closed)
    fabric = neural_fabric(columns=2, scales=3, channels=2)
    assert least(fabric, CyclesCost(fabric, 1)) < 12  # one way down: five edges and nodes at most


@pytest.mark.parametrize("value", [math.nan, -1, "much", math.inf])
def test_a_cost_of_the_users_own_is_checked(value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("costs_of_mine")
    module.price = lambda names: value if len(names) < 10 else len(names)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "costs_of_mine", module)
    network = resnet_fabric()
    cost = OwnCost(network, "costs_of_mine:price")
    assert cost.full == len(network.graph.nodes)
    few = torch.zeros(1, len(network.graph.nodes), dtype=torch.bool)
    few[:, :4] = True
    with pytest.raises(ac.AdjCompressError, match="a number from 0 on is expected"):
        cost.of(few)
    with pytest.raises(ac.AdjCompressError, match=r"cannot be imported \(.*\): package.module:function is expected"):
        OwnCost(network, "costs_of_mine:nothing")


def test_the_latency_of_an_architecture_is_what_the_table_says_of_its_layers() -> None:
    network = resnet_fabric(blocks=1)
    table, reach = a_graph_table(network), Reach(network.graph)
    cost = LatencyCost(network, table, CIFAR)
    assert cost.full == pytest.approx(table.predict(network, CIFAR).total_ms)
    gates = torch.rand(10, len(reach.gates), generator=torch.Generator().manual_seed(0)) < 0.5
    active = reach.active(gates)
    for each, ms in zip(active, cost.of(active).tolist(), strict=True):
        layers = layer_shapes(network.restricted(reach.names(each)), CIFAR)
        own = sum(table.layer_ms(layer.shape, layer.channels_in, layer.channels_out) for layer in layers)
        assert ms == pytest.approx(own + 2 + 1e-6 * sum(layer.elements for layer in layers))
    with pytest.raises(ac.AdjCompressError, match="does not know this network"):
        LatencyCost(resnet_fabric(blocks=2), table, CIFAR)


def test_a_whole_architecture_is_measured_once_and_the_network_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    network = resnet_fabric(blocks=1).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    runs: list[int] = []
    once = MeasuredCost._once
    monkeypatch.setattr(
        MeasuredCost, "_once", lambda self, architecture: (runs.append(len(architecture.layers)), once(self, architecture))[1]
    )
    cost = MeasuredCost(network, CIFAR)
    active = Reach(network.graph).active(torch.zeros(3, len(network.graph.gates), dtype=torch.bool))
    times = cost.of(active)
    assert len(runs) == 2 * runs.count(runs[0]) and runs[-1] < runs[0] and len(set(times.tolist())) == 1
    assert float(times[0]) > 0 and network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_what_does_not_reach_the_output_costs_the_whole_network() -> None:
    network = neural_fabric(10, columns=2, scales=2, channels=4)
    reach = Reach(network.graph)
    gates = torch.stack([torch.zeros(len(reach.gates), dtype=torch.bool), torch.ones(len(reach.gates), dtype=torch.bool)])
    for cost in (MacsCost(network, CIFAR), ParametersCost(network), CyclesCost(network, 2)):
        assert parts_of(cost, reach.active(gates)).tolist() == [1, 1]


def beside(*prices: tuple[int, str]) -> GraphNetwork:
    """1x1 convolutions between images and output side by side, of so many channels and behind these gates."""
    nodes, layers, ends = [], {}, []
    for number, (channels, gate) in enumerate(prices):
        nodes += [Node(f"wide{number}", (IMAGES,), gate), Node(f"narrow{number}", (f"wide{number}",), gate)]
        layers[f"wide{number}"], layers[f"narrow{number}"] = nn.Conv2d(3, channels, 1), nn.Conv2d(channels, 4, 1)
        ends.append(f"narrow{number}")
    nodes.append(Node("output", tuple(ends)))
    layers["output"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return GraphNetwork(Graph(tuple(nodes)), layers)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_least_cost_of_chains_side_by_side_is_the_least_there_is(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=5))
    gates = [f"gate{data.draw(st.integers(0, 2))}" for _ in sizes]
    network = beside(*zip(sizes, gates, strict=True))
    cost, reach = ParametersCost(network), Reach(network.graph)
    every = torch.tensor(list(itertools.product([False, True], repeat=len(reach.gates))))
    active = reach.active(every)
    assert least(network, cost) == pytest.approx(float(cost.of(active[active[:, -1]]).min()))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_what_is_decided_is_connected_and_within_the_limit_where_anything_is(data: st.DataObject) -> None:
    network = neural_fabric(10, columns=2, scales=3, channels=4)
    cost, reach = MacsCost(network, CIFAR), Reach(network.graph)
    worth = torch.tensor(data.draw(st.lists(st.floats(-3, 3), min_size=len(reach.gates), max_size=len(reach.gates))))
    limit = data.draw(st.floats(least(network, cost) / cost.full, 1.0))
    gates = decided_gates(reach, cost, limit, worth)
    active = reach.active(gates[None])
    assert bool(active[0, -1])
    part = float(parts_of(cost, active)[0])
    if part <= limit:  # no single gate can be opened any more that would be used and still fit
        for gate in (~gates).nonzero()[:, 0].tolist():
            more = gates.clone()
            more[gate] = True
            larger = float(parts_of(cost, reach.active(more[None]))[0])
            assert larger <= part or larger > limit
    assert part <= limit * (1 + 1e-6)


def test_where_closing_what_is_worth_least_leaves_a_dear_way_a_cheap_one_is_taken() -> None:
    network = neural_fabric(10, columns=2, scales=3, channels=4)
    cost, reach = MacsCost(network, CIFAR), Reach(network.graph)
    assert least(network, cost) / cost.full <= 0.25
    gates = decided_gates(reach, cost, 0.25, torch.tensor([1.0, 0, 0, 1, 0, 0, 0, 0, -1, 0, 0]))
    assert float(parts_of(cost, reach.active(gates[None]))[0]) <= 0.25


def test_gates_worth_most_are_decided_on() -> None:
    network = beside((4, "a"), (4, "b"), (4, "c"))
    cost, reach = ParametersCost(network), Reach(network.graph)
    assert decided_gates(reach, cost, 0.7, torch.tensor([0.3, 2.0, 1.0])).tolist() == [False, True, True]
    assert decided_gates(reach, cost, 0.34, torch.tensor([0.3, -2.0, -1.0])).tolist() == [True, False, False]


@pytest.mark.parametrize("size", [1, 2])
def test_a_single_picture_teaches_batch_norms_that_see_many_values(size: int) -> None:
    network = StochasticSuperNetwork(neural_fabric(10, columns=2, scales=2, channels=4, segmentation=True)).train()
    network(torch.randn(1, 3, 2 * size, 2 * size))
    # at size 1 the coarse scale has one pixel, of which nothing can be learnt; the finer one has four
    assert int(network.network.layers["column1_scale1_from1"][1].num_batches_tracked) == size - 1
    assert int(network.network.layers["column0_scale0"][1].num_batches_tracked) == 1


def test_an_identity_of_the_images_costs_no_cycle() -> None:
    nodes = (Node("skip", (IMAGES,), None, 0), Node("conv", (IMAGES,)), Node("sum", ("skip", "conv")))
    assert distributed_cost(Graph(nodes), 1) == 2 == distributed_bounds(Graph(nodes), 1).high
    with pytest.raises(ac.AdjCompressError, match="Node a takes 2 cycles: a layer takes 1, an identity 0"):
        Graph((Node("a", (IMAGES,), None, 2),))


@pytest.mark.parametrize("value", [torch.tensor(2.0), 3])
def test_a_cost_of_the_users_own_may_be_any_number(value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("own_cost")
    module.price = lambda names: value  # type: ignore[attr-defined]
    module.broken = lambda names: 1 / 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_cost", module)
    network = resnet_fabric(blocks=1)
    assert OwnCost(network, "own_cost:price").full == float(value)  # type: ignore[arg-type]
    with pytest.raises(
        ac.AdjCompressError, match=r"own_cost:broken failed on .* nodes \(ZeroDivisionError: division by zero\)"
    ):
        OwnCost(network, "own_cost:broken")
