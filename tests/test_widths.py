"""Channels that are tied are cut together, slicing is exact, and what cannot be cut is named."""

from __future__ import annotations

import gc
import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
from conftest import TinyNet, randomise_
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import adjcompress as ac
from adjcompress.tensors import copied_with
from adjcompress.widths import channel_groups, check_slices, cut
from adjcompress.widths.plan import GroupWidth
from adjcompress.widths.planning import _ranges

NETWORKS = [
    "resnet18",
    "resnet50",
    "wide_resnet50_2",
    "resnext50_32x4d",
    "vgg16_bn",
    "densenet121",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "mnasnet1_0",
    "regnet_y_400mf",
    "convnext_tiny",
    "squeezenet1_1",
    "googlenet",
    "inception_v3",
    "xresnet18",
    "cifar_resnet20",
]


def example_for(name: str) -> Tensor:
    size = 96 if name == "inception_v3" else 32
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_small_network_in_training_equals_the_sliced_one_to_the_last_bit(name: str) -> None:
    images = example_for(name)
    torch.manual_seed(0)
    full = randomise_(ac.create_model(name, 10, images.shape[-1]))
    plans = {f"alpha{alpha}": ac.plan_widths(full, images, alpha) for alpha in (2, 4)}
    network = ac.adjoin(full, plans)
    for seed, small in enumerate(network.smalls.values()):
        randomise_(small, seed)
    network.eval()
    with torch.no_grad():
        smalls = network(images).smalls
        for alpha, logits in smalls.items():
            extracted = network.extract(alpha)
            assert torch.equal(logits, extracted(images))
            assert logits.std() > 0
            sliced = ac.slice_model(full, plans[alpha])
            sliced.load_state_dict(extracted.state_dict())
            assert torch.equal(logits, sliced.eval()(images))
            ratio = ac.count(full, images).parameters / ac.count(extracted, images).parameters
            assert ratio > (3 if alpha == "alpha2" else 8)


def test_a_slice_holds_the_memory_of_its_own_channels_and_shares_none() -> None:
    full = ac.create_model("resnet18", 10)
    before = {name: tensor.clone() for name, tensor in full.state_dict().items()}
    small = ac.slice_model(full, ac.plan_widths(full, example_for("resnet18"), 4))
    theirs = {tensor.data_ptr() for tensor in full.state_dict().values()}
    for name, tensor in small.state_dict(keep_vars=True).items():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size(), name
        assert tensor.data_ptr() not in theirs, name
        assert isinstance(tensor, nn.Parameter) == (name in dict(full.named_parameters()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in full.state_dict().items())


class DeclaredLast(nn.Module):
    """Its stem runs first and is declared last."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.stem = nn.Conv2d(16, 32, 3), nn.Linear(32, 10), nn.Conv2d(3, 16, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.stem(images)).mean((2, 3)))


def test_the_layer_that_runs_first_keeps_its_width_wherever_it_is_declared() -> None:
    small = ac.slice_model(DeclaredLast(), ac.plan_widths(DeclaredLast(), example_for("x"), 4))
    assert (small.stem.out_channels, small.body.out_channels) == (16, 8)


def test_a_stem_that_is_called_layer0_is_no_stage() -> None:
    network = ac.create_model("timm:legacy_seresnet18", 10)
    plan = ac.plan_widths(network, torch.zeros(2, 3, 64, 64), 4)
    assert not any(group.name.startswith(("layer0", "layer1")) and group.kept < group.channels for group in plan.groups)
    assert any(group.name.startswith("layer2") and group.kept < group.channels for group in plan.groups)


class Tied(nn.Module):
    """Two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.second.weight = self.first.weight
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.second(self.first(self.stem(images)))).mean((2, 3))


def test_a_copy_keeps_weights_tied_and_copies_what_is_not_replaced() -> None:
    network = Tied()
    copied = copied_with(network, {"first.weight": network.first.weight.double()})
    assert copied.first.weight is copied.second.weight and copied.first.weight.dtype == torch.double
    assert copied.head.weight is not network.head.weight and torch.equal(copied.head.weight, network.head.weight)
    assert network.first.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "layer", "reason"),
    [
        ("shufflenet_v2_x1_0", "stage2.0", "splits channels"),
        ("vit_b_16", "encoder.layers.encoder_layer_0.self_attention", "attention mixes all its channels"),
        ("swin_t", "features.1.0.attn", "splits channels"),
    ],
)
def test_a_network_that_cannot_be_cut_gets_the_layer_and_the_reason(name: str, layer: str, reason: str) -> None:
    size = 224 if name == "vit_b_16" else 64
    with pytest.raises(ac.AdjCompressError, match=f"Layer {layer}.* cannot be cut: .*{reason}"):
        ac.plan_widths(ac.create_model(name, 10), torch.zeros(1, 3, size, size), 2)


class Branches(nn.Module):
    """A concatenation of two branches, summed with a convolution of both: parts of a group are tied to different layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.left = nn.Conv2d(8, 12, 1)
        self.right = nn.Conv2d(8, 20, 3, 1, 1)
        self.across = nn.Conv2d(8, 32, 1)
        self.norm = nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 3, 1, 1, groups=32)
        self.grouped = nn.Conv2d(32, 16, 3, 1, 1, groups=4)
        self.head = nn.Linear(16 * 4, 10)

    def forward(self, images: Tensor) -> Tensor:
        y = torch.relu(self.stem(images))
        y = self.norm(torch.cat([self.left(y), self.right(y)], 1) + self.across(y))
        y = torch.nn.functional.silu(self.depthwise(y))
        y = nn.functional.adaptive_avg_pool2d(torch.relu(self.grouped(y)), 2)
        return self.head(y.flatten(1))


def test_parts_of_a_concatenation_that_is_summed_are_groups_of_their_own(images: Tensor) -> None:
    groups = {group.name: group for group in channel_groups(Branches(), images)}
    assert {name: group.channels for name, group in groups.items()} == {"stem": 8}
    # left and right meet a grouped convolution, whose groups straddle the two: they cannot be cut


class Inception(nn.Module):
    """As Branches, without the grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Branches()
        self.body.grouped = nn.Conv2d(32, 16, 3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)


def test_a_summed_concatenation_is_cut_in_its_parts(images: Tensor) -> None:
    network = randomise_(Inception())
    plan = ac.plan_widths(network, images, 4)
    kept = {group.name: (group.channels, group.kept) for group in plan.groups}
    assert kept == {"body.stem": (8, 8), "body.left": (12, 3), "body.right": (20, 5), "body.grouped": (16, 4)}
    assert plan.cuts["body.across.weight"][0] == ((0, 3), (12, 17))
    assert ac.slice_model(network, plan)(images).shape == (4, 10)


@pytest.mark.parametrize(
    ("inputs", "middle", "groups", "alpha", "kept", "groups_left"),
    [(32, 32, 8, 4, 8, 2), (32, 32, 8, 3, 12, 3), (16, 64, 4, 2, 8, 2), (16, 32, 16, 4, 4, 4)],
)
def test_grouped_convolutions_lose_whole_groups(
    inputs: int, middle: int, groups: int, alpha: float, kept: int, groups_left: int
) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, inputs, 1), nn.BatchNorm2d(inputs), nn.ReLU(),
        nn.Conv2d(inputs, middle, 3, groups=groups), nn.BatchNorm2d(middle), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(middle, 5),
    )  # fmt: skip
    images = torch.randn(2, 3, 16, 16)
    plan = ac.plan_widths(randomise_(network), images, alpha, slim=["*"], keep=["0"])
    small = ac.slice_model(network, plan)
    assert small[1].out_channels == kept
    assert (small[4].groups, small[4].in_channels) == (groups_left, kept)
    assert small[4].out_channels == middle * groups_left // groups
    assert small[9].in_features == small[4].out_channels


def test_group_norm_loses_whole_groups() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, 24, 3), nn.GroupNorm(6, 24), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip
    plan = ac.plan_widths(network, torch.randn(2, 3, 16, 16), 5, slim=["1"])
    small = ac.slice_model(network, plan)
    assert (small[1].out_channels, small[2].num_groups, small[2].num_channels) == (8, 2, 8)


def test_a_plan_that_cuts_the_wrong_channels_is_caught_by_the_check(images: Tensor) -> None:
    """On hard-swish and squeeze-excitation, where a cut channel is not zero after its activation."""
    full = ac.create_model("mobilenet_v3_small", 10)
    plan = ac.plan_widths(full, images, 2)
    check_slices(full, plan, images)
    layer = "features.4.block.0.0.weight"
    ((start, stop),) = plan.cuts[layer][1]
    moved = {**plan.cuts, layer: {**plan.cuts[layer], 1: ((start + 1, stop + 1),)}}
    with pytest.raises(ac.AdjCompressError, match=r"Layer features\.4\.block\.0\.0 cannot be cut"):
        check_slices(full, replace(plan, cuts=moved), images)


class HiddenShuffle(nn.Module):
    """Reorders channels by an index, which the dependency graph takes for an element-wise operation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.after, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        y = self.conv(self.stem(images)).flip(1)
        return self.head(torch.relu(self.after(y)).mean((2, 3)))


def test_a_network_that_moves_channels_behind_the_trace_is_refused(images: Tensor) -> None:
    with pytest.raises(ac.AdjCompressError, match="Layer after cannot be cut"):
        ac.plan_widths(HiddenShuffle(), images, 2, slim=["conv"])


def test_slicing_leaves_the_original_alone(images: Tensor) -> None:
    full = ac.create_model("resnext50_32x4d", 10)
    before = {name: tensor.clone() for name, tensor in full.state_dict().items()}
    numbers = str(full)
    ac.slice_model(full, ac.plan_widths(full, images, 4))
    assert str(full) == numbers
    assert all(torch.equal(before[name], tensor) for name, tensor in full.state_dict().items())
    assert full.training


def test_a_network_in_double_precision_stays_as_it_was(images: Tensor) -> None:
    full = ac.create_model("cifar_resnet20", 10).double()
    before = {name: tensor.clone() for name, tensor in full.state_dict().items()}
    ac.plan_widths(full, images.double(), 2)
    assert all(torch.equal(before[name], tensor) for name, tensor in full.state_dict().items())


class Flipped(nn.Module):
    """Channels in reverse order, which no trace shows; no batch norm, and biases that begin as zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 3)
        self.norm, self.third, self.head = nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3), nn.Linear(8, 5)
        nn.init.zeros_(self.third.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, images: Tensor) -> Tensor:
        y = self.second(self.first(images).relu()).flip(1)
        return self.head(self.third(self.norm(y)).mean((2, 3)))


def test_a_plan_is_tried_out_on_more_than_zeros() -> None:
    with pytest.raises(ac.AdjCompressError, match="Layer third cannot be cut: there the sliced network differs"):
        ac.plan_widths(Flipped(), torch.zeros(2, 3, 16, 16), 2, slim=["second"])


def test_a_weight_that_layers_share_is_not_cut_and_not_adjoined(images: Tensor) -> None:
    network = Tied()
    with pytest.raises(
        ac.AdjCompressError, match=r"first\.weight and second\.weight are one tensor, so neither layer can be cut"
    ):
        ac.plan_widths(network, images, 2, slim=["stem", "first"])
    network.second = nn.Conv2d(8, 8, 3, padding=1)
    plan = ac.plan_widths(network, images, 2, slim=["stem"])
    network.again = network.stem  # one layer under two names
    assert ac.slice_model(network, plan).again.weight.shape[0] == 4
    with pytest.raises(ac.AdjCompressError, match=r"stem\.weight and again\.weight are one layer under two names"):
        ac.adjoin(network, {"alpha2": plan})


def test_a_layer_under_two_names_that_is_not_cut_is_one_layer(images: Tensor) -> None:
    network = Tied()
    network.second, network.again = nn.Conv2d(8, 8, 3, padding=1), network.head
    adjoined = ac.adjoin(network, {"alpha2": ac.plan_widths(network, images, 2, slim=["stem"])}).eval()
    small = adjoined.extract("alpha2")
    assert small.again is small.head and small.stem.weight.shape[0] == 4
    assert torch.equal(adjoined(images).smalls["alpha2"], small(images))
    with pytest.raises(ac.AdjCompressError, match=r"first\.weight and second\.weight are one tensor, which no adjoined"):
        ac.adjoin(Tied(), adjoined.plans)


def test_one_pattern_may_stand_alone(images: Tensor) -> None:
    full = ac.create_model("cifar_resnet20", 10)
    assert ac.plan_widths(full, images, 2, slim="layer3") == ac.plan_widths(full, images, 2, slim=["layer3"])
    assert ac.plan_widths(full, images, 2, keep="layer3") == ac.plan_widths(full, images, 2, keep=["layer3"])


def test_a_resnet_keeps_stem_and_first_stage_as_in_the_papers(images: Tensor) -> None:
    for name in ("resnet50", "xresnet18", "cifar_resnet20"):
        plan = ac.plan_widths(ac.create_model(name, 10), images, 2)
        for group in plan.groups:
            assert group.slim == (not group.name.startswith(("conv1", "stem", "layer1"))), group


def test_other_networks_keep_the_first_convolution(images: Tensor) -> None:
    plan = ac.plan_widths(ac.create_model("vgg11", 10), images, 4)
    assert [group.slim for group in plan.groups] == [False] + [True] * (len(plan.groups) - 1)


@settings(max_examples=60, deadline=None)
@given(alpha=st.floats(1, 8), align=st.sampled_from([1, 4, 8, 16]))
def test_kept_channels_are_the_first_ceil_rounded_up_to_the_alignment(alpha: float, align: int) -> None:
    plan = ac.plan_widths(TinyNet(), torch.zeros(1, 3, 16, 16), alpha, align=align)
    for group in plan.groups:
        if group.slim:
            assert group.kept >= math.ceil(group.channels / alpha - 1e-9)
            assert group.kept % align == 0 or group.kept == group.channels
            assert group.kept - group.channels / alpha < align + 1e-9 or group.kept == group.channels


def test_finding_groups_leaves_the_garbage_collector_as_it_was() -> None:
    for frozen in (False, True):
        if frozen:
            gc.freeze()
        count = gc.get_freeze_count()
        ac.plan_widths(TinyNet(), torch.zeros(1, 3, 16, 16), 2)
        assert (gc.get_freeze_count() > 0) == frozen == (count > 0) and gc.isenabled()
    gc.unfreeze()


def test_alpha_by_pattern_and_slim_and_keep_choose_layers(images: Tensor) -> None:
    network = ac.create_model("resnet18", 10)
    plan = ac.plan_widths(network, images, {"layer3": 4, "layer4.*": 2})
    kept = {group.name: group.channels / group.kept for group in plan.groups}
    assert (kept["layer2.0.conv1"], kept["layer3.0.conv1"], kept["layer4.0.conv1"]) == (1, 4, 2)
    plan = ac.plan_widths(network, images, 2, slim=["layer4"], keep=["layer4.1.conv1"])
    assert {group.name for group in plan.groups if group.slim} == {"layer4.0.conv1", "layer4.0.conv2"}


def test_an_alpha_for_a_pattern_that_matches_nothing_is_refused(images: Tensor) -> None:
    with pytest.raises(ac.AdjCompressError, match="alpha 'layer9' matches no layer"):
        ac.plan_widths(ac.create_model("resnet18", 10), images, {"layer9": 4})


def test_keep_adds_to_what_is_kept_by_default(images: Tensor) -> None:
    plan = ac.plan_widths(ac.create_model("vgg11", 10), images, 2, keep=["features.3"])
    assert [group.name for group in plan.groups if not group.slim] == ["features.0", "features.3"]


def test_a_plan_is_json_both_ways_and_a_readable_table(images: Tensor) -> None:
    plan = ac.plan_widths(ac.create_model("densenet121", 10), images, 3)
    assert ac.WidthPlan.from_json(json.dumps(plan.to_json())) == plan
    text = str(plan).splitlines()
    assert text[0].split() == ["group", "layers", "channels", "kept", "alpha"]
    assert any("rounded up from 42.6667" in line for line in text)
    with pytest.raises(ac.AdjCompressError, match="This is no width plan"):
        ac.WidthPlan.from_json("{}")
    tensor = next(iter(plan.cuts))
    for wrong in ([], [[0, 2.5]], [[4, 2]], [[0, 10_000]], [[4, 6], [0, 2]], [[-1, 2]]):
        damaged = plan.to_json()
        damaged["cuts"] = {**damaged["cuts"], tensor: {"0": wrong}}
        with pytest.raises(ac.AdjCompressError, match=f"This is no width plan: ValueError .* of {tensor}"):
            ac.WidthPlan.from_json(damaged)


def test_a_plan_for_another_network_is_refused(images: Tensor) -> None:
    plan = ac.plan_widths(ac.create_model("resnet18", 10), images, 2)
    with pytest.raises(ac.AdjCompressError, match="The width plan is for another network"):
        ac.slice_model(ac.create_model("resnet50", 10), plan)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"alpha": 0.5}, r"--alpha 0\.5 is below 1"),
        ({"alpha": float("nan")}, r"--alpha nan is below 1"),
        ({"alpha": 129}, r"--alpha 129 is above the width of layer layer2\.0\.conv1, which has 128 channels"),
        ({"alpha": 2, "align": 0}, r"--align 0 must be 1 or more"),
        (
            {"alpha": 2, "slim": ["layer5.*"]},
            r"--slim 'layer5\.\*' matches no layer of ResNet .*layer1 \(4\), layer2 \(5\), layer3 \(5\), layer4 \(5\)",
        ),
        ({"alpha": 2, "keep": ["fc"]}, r"--keep 'fc' matches no layer"),
        ({"alpha": 2, "keep": ["*"]}, r"No layer of ResNet is slim"),
    ],
)
def test_widths_that_cannot_be_are_refused(images: Tensor, options: dict[str, object], text: str) -> None:
    with pytest.raises(ac.AdjCompressError, match=text):
        ac.plan_widths(ac.create_model("resnet18", 10), images, **options)


@given(st.sets(st.integers(0, 40), min_size=1))
def test_ranges_hold_exactly_the_indices(indices: set[int]) -> None:
    ranges = _ranges(sorted(indices))
    assert set(itertools.chain.from_iterable(range(start, stop) for start, stop in ranges)) == indices
    assert all(first[1] < second[0] for first, second in itertools.pairwise(ranges))


def test_gradients_flow_back_through_a_cut() -> None:
    weight = torch.randn(6, 4, 3, 3, requires_grad=True)
    cut(weight, {0: ((0, 2), (4, 5)), 1: ((1, 3),)}).sum().backward()
    expected = torch.zeros(6, 4, 3, 3)
    for row in (0, 1, 4):
        expected[row, 1:3] = 1
    assert torch.equal(weight.grad, expected)


def test_reestimated_statistics_are_the_mean_over_the_batches() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout())
    batches = [torch.randn(8, 3, 4, 4) * scale + scale for scale in (1.0, 2.0, 3.0)]
    assert ac.reestimate_batch_norm_(network, batches) == 3
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    variances = torch.stack([batch.transpose(0, 1).flatten(1).var(1) for batch in batches]).mean(0)
    assert torch.allclose(network[0].running_mean, means, atol=1e-6)
    assert torch.allclose(network[0].running_var, variances, atol=1e-5)
    assert network.training and network[0].momentum == 0.1
    uneven = [batches[0], batches[1][:2]]  # ten images: each of the second batch is one of them
    ac.reestimate_batch_norm_(network, uneven)
    assert torch.allclose(network[0].running_mean, torch.cat(uneven).mean((0, 2, 3)), atol=1e-6)
    before = network[0].running_mean.clone()
    with pytest.raises(ac.AdjCompressError, match="0 batches"):
        ac.reestimate_batch_norm_(network, [])
    assert torch.equal(network[0].running_mean, before)


def test_a_certificate_measures_what_differs(images: Tensor) -> None:
    same = ac.compare("slice", lambda batch: batch.mean((2, 3)), lambda batch: batch.mean((2, 3)), [images])
    assert (same.max_difference, same.agreement, same.images, same.relative) == (0, 1, 4, 0)
    other = ac.compare("slice", lambda batch: batch.mean((2, 3)), lambda batch: batch.mean((2, 3)) + 0.5, [images])
    assert other.max_difference == pytest.approx(0.5) and other.agreement == 1
    broken = ac.compare("slice", lambda batch: batch.mean((2, 3)), lambda batch: batch.mean((2, 3)) / 0, [images])
    assert broken.max_difference == math.inf
    halves = ac.compare("slice", lambda batch: batch.mean((2, 3)), lambda batch: -batch.mean((2, 3)), list(images.split(3)))
    whole = ac.compare("slice", lambda batch: batch.mean((2, 3)), lambda batch: -batch.mean((2, 3)), [images])
    assert halves.to_json() == pytest.approx(whole.to_json())


def test_a_group_says_when_alpha_did_not_divide() -> None:
    assert GroupWidth("a", ("a",), 10, 4, 10 / 3, True).note == "rounded up from 3.33333"
    assert GroupWidth("a", ("a",), 8, 4, 4, True).note == ""
