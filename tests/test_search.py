"""Widths are learnt under a budget: the small network is the sliced one, its cost is counted, the budget is met."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Split, TinyNet, randomise_
from hypothesis import given, settings
from hypothesis import strategies as st
from test_table import HERE, Mixed, made_up_ms
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import adjcompress as ac
from adjcompress.adjoined.decision import LATENCY_MARGIN, TOLERANCE, Limit, decide, used
from adjcompress.adjoined.expected import ExpectedLatency, Sizes, macs_cost, parameters_cost
from adjcompress.adjoined.search import SearchNetwork
from adjcompress.cost import Anchor, Budget, Grid, LatencyTable, Sweep, fingerprint, layer_shapes, parse_budgets
from adjcompress.methods import MethodOptions, SearchMethod
from adjcompress.widths import Candidates, candidate_widths, plan_at
from adjcompress.widths.planning import slim_groups

IMAGE = torch.zeros(2, 3, 32, 32)


class Smooth(nn.Module):
    """SiLU, whose value at 0 is no border, biases everywhere, a squeeze-excitation, and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.SiLU())
        self.left = nn.Sequential(nn.Conv2d(16, 24, 3, 2, 1), nn.SiLU())
        self.right = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.Sigmoid())
        self.depthwise = nn.Sequential(nn.Conv2d(56, 56, 3, 1, 1, groups=56), nn.BatchNorm2d(56), nn.SiLU())
        self.squeeze, self.excite = nn.Conv2d(56, 8, 1), nn.Conv2d(8, 56, 1)
        self.square = nn.Sequential(nn.Conv2d(56, 40, 1), nn.GroupNorm(5, 40), nn.SiLU())
        self.head = nn.Linear(40 * 4, 10)

    def forward(self, images: Tensor) -> Tensor:
        y = self.stem(images)
        y = self.depthwise(torch.cat((self.left(y), self.right(y)), 1))
        y = y * torch.sigmoid(self.excite(torch.nn.functional.silu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        y = torch.nn.functional.adaptive_avg_pool2d(self.square(y), 2)
        return self.head(y.flatten(1))


class Named(nn.Module):
    """Layers whose names are told apart by a dot and an underscore, and activations that share one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.x_0 = nn.Conv2d(3, 24, 3, 2, 1)
        self.x = nn.ModuleList([nn.Conv2d(24, 24, 1)])
        self.x_0_weight = nn.PReLU()
        self.last, self.act = nn.Conv2d(24, 16, 1), nn.PReLU(16)
        self.head = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        y = self.x_0_weight(self.x[0](self.x_0(images)))
        return self.head(self.act(self.last(y)).mean((2, 3)))


class PadsItself(nn.Conv2d):
    """A convolution that pads in its own forward, on one side."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(F.pad(images, (0, 1, 0, 1)))


class Padded(nn.Module):
    """Convolutions that pad more than their padding says."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = PadsItself(3, 16, 3, 2), PadsItself(16, 32, 3, 2)
        self.even = nn.Conv2d(16, 16, 4, padding="same")
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu(self.last(torch.relu(self.even(torch.relu(self.stem(images)))))).mean((2, 3)))


class Normalised(nn.Module):
    """What no trace shows: every channel is divided by all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last, self.head = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 1), nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        y = nn.functional.normalize(self.stem(images), dim=1)
        return self.head(torch.relu(self.last(y)).mean((2, 3)))


class Tied(nn.Module):
    """A convolution whose inputs and outputs are one group, because they are summed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1)
        self.square = nn.Conv2d(12, 12, 3, 1, 1)
        self.last = nn.Conv2d(12, 8, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        y = torch.relu(self.stem(images))
        return self.head(torch.relu(self.last(y + self.square(y))).mean((2, 3)))


def search_network(network: nn.Module, **options: Any) -> SearchNetwork:
    return SearchNetwork(network, candidate_widths(network, IMAGE, **options), IMAGE)


def one_hot(network: SearchNetwork, numbers: list[int]) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(numbers), network.logits.shape[1]).to(torch.double)


def drawn(network: SearchNetwork, seed: int = 0) -> list[int]:
    random = np.random.default_rng(seed)
    return [int(random.integers(len(each.widths))) for each in network.free]


def sliced(network: SearchNetwork, full: nn.Module, numbers: list[int]) -> nn.Module:
    groups = [each.group for each in network.candidates]
    return ac.slice_model(full, plan_at(full, IMAGE, groups, network.widths_at(numbers)))


# --- the network ----------------------------------------------------------------------------------------------------

NETWORKS = {
    "resnet50": lambda: ac.create_model("resnet50", 10),
    "mobilenet_v2": lambda: ac.create_model("mobilenet_v2", 10),
    "densenet121": lambda: ac.create_model("densenet121", 10),
    "cifar_resnet20": lambda: ac.create_model("cifar_resnet20", 10),
    "smooth": Smooth,
    "mixed": Mixed,
    "named": Named,
    "padded": Padded,
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", NETWORKS)
def test_at_a_one_hot_choice_the_small_network_is_the_sliced_one_and_costs_what_it_costs(name: str) -> None:
    torch.manual_seed(0)
    full = randomise_(NETWORKS[name]())
    network = search_network(full, slim=("*",))
    numbers = drawn(network)
    small = sliced(network, full, numbers)
    choice = one_hot(network, numbers)
    sizes = Sizes(full, network.candidates)
    counts = ac.count(small, IMAGE)
    for cost, exact in ((macs_cost(full, sizes, IMAGE), counts.macs), (parameters_cost(full, sizes), counts.parameters)):
        assert cost.expected(choice).item() == exact
        assert cost.exact(np.array([numbers])).tolist() == [exact]
    network.double(), small.double()
    images = torch.randn(3, 3, 32, 32, dtype=torch.double)
    for module in (*network.modules(), *small.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # it would draw for other channels
    for training in (False, True):
        network.train(training), small.train(training)
        expected = small(images)
        found = network(images, choice).smalls["widest"]
        assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()  # double precision


def test_a_soft_choice_weighs_channels_by_the_probability_that_they_are_kept() -> None:
    full = Tied()
    network = search_network(full, slim=("stem",)).double()
    choice = torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.double)  # of 2, 3, 6 and 12 channels
    kept = torch.tensor([1.0] * 2 + [0.9] + [0.7] * 3 + [0.4] * 6, dtype=torch.double)
    views = network._weighed(network.views("widest"), network._including(choice))
    assert torch.allclose(views["square.weight"], full.square.weight * kept.view(1, -1, 1, 1))
    assert torch.allclose(views["last.weight"], full.last.weight * kept.view(1, -1, 1, 1))
    assert views["stem.weight"] is full.stem.weight and views["head.weight"] is full.head.weight


def test_without_a_choice_the_likeliest_widths_are_taken() -> None:
    network = search_network(TinyNet())
    numbers = [len(each.widths) - 2 for each in network.free]
    with torch.no_grad():
        network.logits.copy_(3 * one_hot(network, numbers))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(network(images).smalls["widest"], network(images, one_hot(network, numbers).float()).smalls["widest"])


def test_noise_is_drawn_at_every_step_and_never_chooses_what_is_not_offered() -> None:
    full = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    network = search_network(full, slim=("*",), alphas=(1, 2, 8, 16))
    assert [each.widths for each in network.free] == [(2, 4), (1, 2, 8, 16)]
    draws = torch.stack([network.draw(0.5) for _ in range(400)])
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == 400
    assert torch.allclose(draws.sum(2), torch.ones(400, 2)) and not draws[:, 0, 2:].any()
    with torch.no_grad():
        network.logits[1] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    often = torch.stack([network.draw(1.0).argmax(1) for _ in range(4000)])[:, 1].bincount(minlength=4) / 4000
    assert torch.allclose(often.double(), network.probabilities()[1], atol=0.04)  # Gumbel-max: the softmax of the logits


def test_batch_norm_does_not_divide_the_choice_out() -> None:
    """Mixing before batch norm, as the paper's code does, leaves a far smaller gradient."""
    torch.manual_seed(0)
    full = randomise_(TinyNet())
    network = search_network(full, slim=("first",))
    images, choice = torch.randn(8, 3, 32, 32), torch.full((1, 4), 0.25, requires_grad=True)
    target = torch.randn(8, 10)
    (here,) = torch.autograd.grad((network(images, choice).smalls["widest"] - target).square().mean(), choice)

    def mix(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return output * network._including(choice)[network.get_buffer(network._readers["second.0.weight"])].view(1, -1, 1, 1)

    before = randomise_(TinyNet())
    before.load_state_dict(full.state_dict())
    for convolution in (before.first[0], before.second[0]):
        convolution.register_forward_hook(mix)
    (there,) = torch.autograd.grad((before(images) - target).square().mean(), choice)
    assert (here - here.mean()).norm() > 10 * (there - there.mean()).norm()


def test_what_cannot_be_cut_is_refused_before_the_search() -> None:
    with pytest.raises(ac.AdjCompressError, match=r"Layer last cannot be cut: there the sliced network differs"):
        built(Normalised(), "macs=0.6", slim=("stem",))


def test_groups_of_one_layer_have_names_of_their_own() -> None:
    names = [each.group.name for each in candidate_widths(Split(), IMAGE, slim=("*",))]
    assert "stem" in names and "stem#2" in names and len(set(names)) == len(names)


def test_layer_norms_over_a_free_group_are_refused() -> None:
    network = ac.create_model("convnext_tiny", 10)
    with pytest.raises(ac.AdjCompressError, match=r"normalises over the channels of .* keep that layer whole with --keep"):
        search_network(network)


# --- costs ----------------------------------------------------------------------------------------------------------


def a_table(network: nn.Module, grid: Grid, slower: float = 1.0) -> LatencyTable:
    """Made-up times of every width of every layer, so many times slower."""
    layers = layer_shapes(network, IMAGE)
    sweeps = []
    for shape in dict.fromkeys(layer.shape for layer in layers):
        own = [layer for layer in layers if layer.shape == shape]
        ins, outs = max(layer.channels_in for layer in own), max(layer.channels_out for layer in own)
        low = (shape.group[0], shape.group[1]) if shape.kind == "grouped" else (3 if shape.kind == "stem" else 1, 1)
        points = grid.points(shape, (low[0], ins), (low[1], outs))
        times = tuple(slower * made_up_ms(shape, a, b) + (0.5 if layout == "plain" else 0) for layout, a, b in points)
        sweeps.append(Sweep(shape, points, 3 * (times,)))
    table = LatencyTable(grid, HERE, tuple(sweeps), {}, "made-up.json")
    small = layer_shapes(ac.slice_model(network, ac.plan_widths(network, IMAGE, 4)), IMAGE)
    rest = {end: 3 + 1e-6 * sum(layer.elements for layer in end) for end in (small, layers)}
    own = {end: sum(table.layer_ms(layer.shape, layer.channels_in, layer.channels_out) for layer in end) for end in rest}
    anchors = tuple(Anchor(end, rest[end] + own[end]) for end in rest)
    return LatencyTable(grid, HERE, tuple(sweeps), {fingerprint(layers): anchors}, "made-up.json")


@pytest.mark.parametrize("name", ["mobilenet_v2", "cifar_resnet20", "smooth", "mixed", "tied"])
@pytest.mark.parametrize("grid", [Grid(16, True), Grid(8, False), Grid(1, True)], ids=str)
def test_the_expected_latency_at_a_one_hot_choice_is_the_tables_prediction(name: str, grid: Grid) -> None:
    full = {**NETWORKS, "tied": Tied}[name]()
    network = search_network(full)
    table = a_table(full, grid)
    sizes = Sizes(full, network.candidates)
    cost = ExpectedLatency(full, sizes, table, IMAGE)
    assert cost.full == pytest.approx(table.predict(full, IMAGE).total_ms)
    for seed in range(3):
        numbers = drawn(network, seed)
        predicted = table.predict(sliced(network, full, numbers), IMAGE).total_ms
        assert cost.expected(one_hot(network, numbers)).item() == pytest.approx(predicted, rel=1e-9)
        assert cost.exact(np.array([numbers]))[0] == pytest.approx(predicted, rel=1e-9)


def enumerated(network: SearchNetwork, probabilities: Tensor) -> list[tuple[float, list[int]]]:
    """Every choice, with its probability."""
    counts = [range(len(each.widths)) for each in network.free]
    return [
        (float(torch.stack([probabilities[row, number] for row, number in enumerate(numbers)]).prod()), list(numbers))
        for numbers in itertools.product(*counts)
    ]


@pytest.mark.parametrize("make", [TinyNet, Tied, Mixed])
def test_the_expected_cost_is_the_mean_over_all_choices(make: Any) -> None:
    full = make()
    network = search_network(full, slim=("*",), alphas=(1, 2, 4))
    torch.manual_seed(0)
    probabilities = network._softmax(torch.randn(network.logits.shape, dtype=torch.double))
    sizes = Sizes(full, network.candidates)
    costs: list[Any] = [macs_cost(full, sizes, IMAGE), parameters_cost(full, sizes)]
    if make is not Mixed:  # where several groups feed a layer, latency is interpolated
        costs.append(ExpectedLatency(full, sizes, a_table(full, Grid(16, True)), IMAGE))
    for cost in costs:
        mean = sum(part * cost.exact(np.array([numbers]))[0] for part, numbers in enumerated(network, probabilities))
        assert cost.expected(probabilities).item() == pytest.approx(mean, rel=1e-9)


def test_the_gradient_of_the_expected_cost_is_that_of_the_mean() -> None:
    full = Smooth()
    network = search_network(full, slim=("*",))
    sizes = Sizes(full, network.candidates)
    logits = torch.randn(
        network.logits.shape, dtype=torch.double, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    for cost in (macs_cost(full, sizes, IMAGE), parameters_cost(full, sizes)):
        assert torch.autograd.gradcheck(lambda values: cost.expected(network._softmax(values)) / cost.full, logits)  # noqa: B023


# --- budgets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "amount", "share", "target"),
    [
        ("macs=0.45", 0.45, True, None),
        ("params=1.8M", 1.8e6, False, None),
        ("macs=1e6k", 1e9, False, None),
        ("params=1800000", 1.8e6, False, None),
        ("latency=9ms@one-core", 9.0, False, "one-core"),
        ("latency=250us", 0.25, False, None),
        ("cycles=2000", 2000.0, False, None),
        ("latency=0.5@two-core", 0.5, True, "two-core"),
    ],
)
def test_budgets_are_read(text: str, amount: float, share: bool, target: str | None) -> None:
    budget = Budget.parse(text)
    assert (budget.amount, budget.share, budget.target) == (pytest.approx(amount), share, target)
    assert Budget.parse(str(budget)) == budget
    assert budget.limit(200.0) == pytest.approx(200 * amount if share else amount)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("macs", "is no budget. Examples: macs=0.45, params=1.8M, latency=9ms@one-core"),
        ("flops=0.5", "the cost 'flops' is unknown. Choices: macs, params, latency"),
        ("macs=0.4ms", "macs has the units k, M, G; without a unit"),
        ("latency=9", "latency has the units us, ms, s"),
        ("macs=0", "must be above 0"),
        ("macs=1.2.3", "is no number"),
        ("macs=0.5@one-core", "only a latency has a target"),
        ("latency=9ms@three-core", "target 'three-core' is unknown. Choices: "),
    ],
)
def test_a_budget_that_says_nothing_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(ac.AdjCompressError) as error:
        Budget.parse(text)
    assert message in str(error.value)


def test_a_cost_has_one_budget() -> None:
    with pytest.raises(ac.AdjCompressError, match="macs is given 2 times"):
        parse_budgets(["macs=0.5", "params=0.5", "macs=0.4"])
    assert parse_budgets(["macs=0.4545,params=6.7M"]) == parse_budgets(["macs=0.4545", "params=6.7M"])


def built(network: nn.Module, *budgets: str, **options: Any) -> SearchMethod:
    return SearchMethod.build(network, IMAGE, MethodOptions(budgets=budgets, **options))


def test_a_budget_beyond_the_candidates_says_what_is_possible() -> None:
    with pytest.raises(
        ac.AdjCompressError, match=r"macs=0.001 is below the least .* smallest possible is .* the largest .*1 of"
    ):
        built(TinyNet(), "macs=0.001")
    with pytest.raises(ac.AdjCompressError, match=r"widest candidates already meet the budget.*smallest possible"):
        built(TinyNet(), "params=1e9")
    with pytest.raises(ac.AdjCompressError, match=r"widest candidates already meet the budget"):
        built(TinyNet(), "macs=1")
    with pytest.raises(ac.AdjCompressError, match=r"params=1G is met by the widest candidates, so it decides nothing beside"):
        built(TinyNet(), "macs=0.5", "params=1e9")
    with pytest.raises(ac.AdjCompressError, match="needs a --budget, such as"):
        built(TinyNet())
    with pytest.raises(ac.AdjCompressError, match=r"--weight 0: a search follows the divergence"):
        built(TinyNet(), "macs=0.5", weight=0.0)
    with pytest.raises(ac.AdjCompressError, match=r"needs --table: measure one with adjcompress bench --table"):
        built(TinyNet(), "latency=0.5")


def test_a_layer_that_makes_its_weight_is_named() -> None:
    network = TinyNet()
    name = next(name for name, module in network.named_modules() if isinstance(module, nn.Linear))
    weight_norm(network.get_submodule(name))
    with pytest.raises(ac.AdjCompressError, match=rf"Layer {name} makes its weight from other parameters, so its channels"):
        built(network, "macs=0.5")


def test_layers_that_are_not_counted_are_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.Flatten(2), nn.Conv1d(8, 16, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    network.append(nn.Linear(16, 10))
    with pytest.raises(ac.AdjCompressError, match="Layer 2 is a Conv1d: a width search counts two-dimensional convolutions"):
        built(network, "macs=0.5", slim=("*",))


def test_a_plan_says_what_it_leaves_of_the_budget() -> None:
    found = built(TinyNet(), "macs=0.74").decide()
    told = found.to_json()["search"]
    assert told["part_of_budget"] == found.part_of_budget < 1 - TOLERANCE
    assert told["shortcoming"] == found.shortcoming() and "More of them, with --alpha or --width-step" in told["shortcoming"]


def test_a_search_whose_table_is_gone_or_another_is_not_restored(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    replace(a_table(TinyNet(), Grid(16, True), slower=5000), source=str(path)).write()
    kept = built(TinyNet(), "macs=0.6", table=str(path)).settings()
    assert SearchMethod.restore(TinyNet(), kept).table == kept["table"]
    other = {**kept, "groups": [{**kept["groups"][0], "widths": [2, 16]}]}
    with pytest.raises(ac.AdjCompressError, match="began with other candidate widths than this version makes"):
        SearchMethod.restore(TinyNet(), other)
    path.write_text(path.read_text() + " ")
    with pytest.raises(ac.AdjCompressError, match=r"is not the latency table that the search began with: put that back"):
        SearchMethod.restore(TinyNet(), kept)
    path.unlink()
    with pytest.raises(ac.AdjCompressError, match=r"table\.json is gone, by which the search began: put that back"):
        SearchMethod.restore(TinyNet(), kept)


def test_the_expected_latency_does_not_jump_where_another_candidate_becomes_the_likeliest() -> None:
    full = Smooth()
    network = search_network(full, slim=("*",))
    cost = ExpectedLatency(full, Sizes(full, network.candidates), a_table(full, Grid(16, True), slower=2000), IMAGE)
    logits = torch.randn(network.logits.shape, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    for row in range(len(logits)):
        tied = logits.clone()
        tied[row, :2] = logits[row].max() + 1  # two likeliest candidates, then one a trifle more
        values = []
        for more in (-1e-6, 1e-6):
            tied[row, 0] = tied[row, 1] + more
            values.append(cost.expected(network._softmax(tied)).item())
        assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_a_plan_under_a_latency_keeps_what_is_in_reserve(tmp_path: Path) -> None:
    table = a_table(TinyNet(), Grid(16, True), slower=5000)
    path = tmp_path / "table.json"
    replace(table, source=str(path)).write()
    whole = table.predict(TinyNet(), IMAGE).total_ms
    narrow = table.predict(ac.slice_model(TinyNet(), ac.plan_widths(TinyNet(), IMAGE, 8)), IMAGE).total_ms
    with pytest.raises(
        ac.AdjCompressError, match=r"\(5% of a latency is kept in reserve: here .* ms may be used\) is below the least"
    ):
        built(TinyNet(), f"latency={narrow * 1.01:.6f}ms@one-core", table=str(path))
    asked = narrow + 0.6 * (whole - narrow)
    method = built(TinyNet(), f"latency={asked:.6f}ms@one-core", table=str(path), width_step=1)
    for seed in range(4):
        torch.manual_seed(seed)
        with torch.no_grad():
            method.network.logits.normal_()
        found = method.decide()
        predicted = table.predict(ac.slice_model(TinyNet(), found.plan), IMAGE).total_ms
        assert found.costs["latency"] == pytest.approx(predicted)
        assert found.part_of_budget == pytest.approx(predicted / (asked * (1 - LATENCY_MARGIN))) and found.part_of_budget <= 1
        assert (found.part_of_budget >= 1 - TOLERANCE) == (found.shortcoming() is None)
    assert method.record()["search"]["costs"]["latency"]["budget"] == pytest.approx(asked / whole, rel=1e-4)


def test_a_search_says_where_its_table_is_in_doubt(tmp_path: Path) -> None:
    table, path = a_table(TinyNet(), Grid(16, True), slower=5000), tmp_path / "table.json"
    replace(table, source=str(path)).write()
    assert built(TinyNet(), "latency=0.98", table=str(path)).doubt() is None
    moved = [
        replace(each, passes_ms=tuple(tuple((1 + n) * ms for ms in each.passes_ms[0]) for n in range(3)))
        for each in table.sweeps
    ]
    replace(table, sweeps=tuple(moved), source=str(path)).write()
    assert built(TinyNet(), "macs=0.6", table=str(path)).doubt() is None  # which does not hold by it
    method = built(TinyNet(), "latency=0.98", table=str(path))
    assert f"{path} is in doubt: the times of layers that take 100% of this network still moved" in str(method.doubt())
    assert method.decide().to_json()["search"]["doubt"] == method.doubt()


def test_a_table_that_lacks_a_layer_or_means_other_cores_says_how_to_measure_it(tmp_path: Path) -> None:
    table = a_table(TinyNet(), Grid(16, True))
    path = tmp_path / "table.json"
    LatencyTable(table.grid, table.conditions, table.sweeps, table.anchors, str(path)).write()
    budget = f"latency={0.9985 * table.predict(TinyNet(), IMAGE).total_ms / (1 - LATENCY_MARGIN):.5f}ms"
    assert built(TinyNet(), f"{budget}@one-core", table=str(path)).limits[0].cost.name == "latency"
    with pytest.raises(
        ac.AdjCompressError, match=r"at a time and 2 threads; .*holds batch 1 and 1 threads.* --target two-core"
    ):
        built(TinyNet(), f"{budget}@two-core", table=str(path))
    assert built(TinyNet(), "macs=0.6", table=str(path)).costs["latency"].full > 3  # not asked for, and told all the same
    method = built(TinyNet(), budget, table=str(path))
    assert SearchMethod.restore(TinyNet(), method.settings()).budgets == method.budgets
    path.write_text(path.read_text() + " ")
    with pytest.raises(ac.AdjCompressError, match="is not the latency table that the search began with"):
        SearchMethod.restore(TinyNet(), method.settings())
    LatencyTable(table.grid, table.conditions, table.sweeps[1:], table.anchors, str(path)).write()
    with pytest.raises(ac.AdjCompressError, match=r"has no times of this layer.* bench --table .*table.json"):
        built(TinyNet(), budget, table=str(path))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("budgets", [("macs=0.45",), ("macs=0.4545", "params=0.27"), ("params=0.2",)])
def test_the_decision_meets_every_budget_and_uses_one_of_them_up(budgets: tuple[str, ...], seed: int) -> None:
    full = ac.create_model("resnet50", 10)
    candidates = candidate_widths(full, IMAGE)
    sizes = Sizes(full, candidates)
    costs = {cost.name: cost for cost in (macs_cost(full, sizes, IMAGE), parameters_cost(full, sizes))}
    limits = [Limit(costs[budget.cost], budget) for budget in parse_budgets(budgets)]
    scores = np.log(np.random.default_rng(seed).dirichlet(np.ones(4), len(sizes.counts_of)))
    chosen = decide(scores, sizes.counts_of, lambda choices: used(limits, choices))
    plan = plan_at(full, IMAGE, [each.group for each in candidates], widths_of(candidates, chosen.tolist()))
    counts, whole = ac.count(ac.slice_model(full, plan), IMAGE), ac.count(full, IMAGE)
    parts = {"macs": counts.macs / whole.macs, "params": counts.parameters / whole.parameters}
    assert 0.98 <= max(parts[limit.budget.cost] / limit.budget.amount for limit in limits) <= 1


def widths_of(candidates: tuple[Candidates, ...], numbers: list[int]) -> list[int]:
    chosen = iter(numbers)
    return [each.widths[next(chosen)] if each.free else each.widths[0] for each in candidates]


def made_up_costs(seed: int, part: float, groups: int) -> tuple[Any, Any]:
    """Scores (groups, 4), and what part of a budget choices use: sums that rise with every width."""
    random = np.random.default_rng(seed)
    costs = random.uniform(0.1, 1, (groups, 4)).cumsum(1)
    limit = costs[:, 0].sum() + part * (costs[:, -1] - costs[:, 0]).sum()
    rows = np.arange(groups)
    return np.log(random.dirichlet(np.ones(4), groups)), lambda choices: costs[rows, choices].sum(1) / limit


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.floats(0.05, 0.95), st.integers(2, 5))
def test_of_few_choices_the_decision_is_the_likeliest_in_the_window(seed: int, part: float, groups: int) -> None:
    scores, measure = made_up_costs(seed, part, groups)
    every = np.array(list(itertools.product(range(4), repeat=groups)))
    parts, likelihood = measure(every), scores[np.arange(groups), every].sum(1)
    chosen = decide(scores, [4] * groups, measure)
    inside = (parts >= 0.98) & (parts <= 1)
    if inside.any():
        assert scores[np.arange(groups), chosen].sum() == pytest.approx(likelihood[inside].max())
        assert 0.98 <= measure(chosen[None])[0] <= 1
    else:
        assert measure(chosen[None])[0] == pytest.approx(parts[parts <= 1].max())


@pytest.mark.parametrize("part", [0.15, 0.5, 0.85])
@pytest.mark.parametrize("seed", range(4))
def test_of_many_choices_the_decision_is_nearly_the_likeliest_in_the_window(
    seed: int, part: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, measure = made_up_costs(seed, part, 8)
    best = decide(scores, [4] * 8, measure)
    monkeypatch.setattr("adjcompress.adjoined.decision._ENUMERATED", 0)
    found = decide(scores, [4] * 8, measure)
    assert 0.98 <= measure(found[None])[0] <= 1
    rows = np.arange(8)
    assert scores[rows, found].sum() >= scores[rows, best].sum() - 1.0


def test_where_the_likeliest_widths_fit_they_are_the_decision() -> None:
    scores = np.log(np.array([[0.1, 0.9], [0.7, 0.3]]))
    chosen = decide(scores, [2, 2], lambda choices: 0.99 + 0 * choices.sum(1))
    assert chosen.tolist() == [1, 0]


# --- candidates -----------------------------------------------------------------------------------------------------


def test_candidates_are_aligned_and_fit_grouped_convolutions() -> None:
    network = ac.create_model("resnext50_32x4d", 10)
    by_name = {each.group.name: each.widths for each in candidate_widths(network, IMAGE, align=24)}
    groups = {group.name: group for group, slim in slim_groups(network, IMAGE) if slim}
    for name, group in groups.items():
        for width in by_name[name][:-1]:
            assert width % 24 == 0 and width % group.quantum == 0
    assert by_name["layer1.0.conv1"] == (128,)


def test_candidates_may_be_a_grid_of_channel_counts() -> None:
    by_name = {
        each.group.name: each.widths for each in candidate_widths(ac.create_model("resnet18", 10), IMAGE, step=48, align=16)
    }
    assert by_name["layer2.0.conv1"] == (48, 96, 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alphas": (4,)}, "needs two candidates at least"),
        ({"alphas": (1, 0.5)}, "--alpha 0.5 is below 1"),
        ({"step": 24, "align": 16}, "--width-step 24 must be 1 or more and a multiple of --align 16"),
        ({"step": 10}, "--width-step 10 breaks layer .* cut in pieces of 8"),
        ({"alphas": (1, 2), "align": 4096}, "single candidate width, so there is nothing to search"),
        ({"align": 0}, "--align 0 must be 1 or more"),
    ],
)
def test_candidates_that_break_an_alignment_or_a_group_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ac.AdjCompressError, match=message):
        candidate_widths(ac.create_model("resnext50_32x4d", 10), IMAGE, **options)
