"""Structured substitutes: each equals the dense convolution it stands for, and costs what its closed form says."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import adjcompress as ac
from adjcompress.cost.published import mult_adds
from adjcompress.substitutes import (
    SUBSTITUTES,
    Reconstructed,
    Substitution,
    apply_substitution,
    parameter_count,
    plan_substitution,
    weights_made_once,
)
from adjcompress.substitutes import acdc as acdc_file
from adjcompress.substitutes.acdc import Acdc, dct, dct_matrix, inverse_dct
from adjcompress.substitutes.attention import attention_loss
from adjcompress.substitutes.dimensions import aligned, balanced
from adjcompress.substitutes.hashed import Hashed, places
from adjcompress.substitutes.layer import Substitute
from adjcompress.substitutes.low_rank import LowRank
from adjcompress.substitutes.replace import replacement, separated
from adjcompress.substitutes.shuffle import LinearShuffle, groups_for
from adjcompress.substitutes.tensor_train import AlignedTensorTrain
from adjcompress.substitutes.tucker import Tucker

NAMES = list(SUBSTITUTES)
SETTINGS = {"shuffle": 4, "acdc": 3}
CIFAR, IMAGENET = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 224, 224)


def setting_of(name: str, share: float = 0.4) -> float:
    return SETTINGS.get(name, share)


def convolution(kernel: int = 3, bias: bool = True, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(24, 32, kernel, bias=bias, **options).double()


def dense_kernel(module: nn.Module) -> torch.Tensor:
    """The weight (O, I, kh, kw) of the dense convolution that a replacement computes."""
    if isinstance(module, Substitute):
        return module.dense_weight()
    assert isinstance(module, nn.Sequential)
    depthwise, pointwise = module
    return pointwise.dense_weight() * depthwise.weight[:, 0][None]  # type: ignore[operator, index]


def macs_of(kind: type[Substitute], inputs: int, outputs: int, setting: float, pixels: int, kernel: int, before: int) -> int:
    """MACs in closed form of a substitute that gives `pixels`; the shuffle's first convolution sees `before` its stride."""
    if issubclass(kind, LinearShuffle):
        groups, middle = groups_for(inputs, outputs, setting), kind.middle(outputs)
        return inputs * middle // groups * before + (middle * kernel**2 + middle * outputs // groups) * pixels
    depthwise = inputs * kernel**2 if kernel > 1 else 0
    if issubclass(kind, AlignedTensorTrain):
        (_, o2, _), (r1, r2) = aligned(outputs, inputs), kind.ranks(inputs, outputs, setting)
        return (depthwise + r2 * inputs + r1 * o2 * r2 + r1 * outputs) * pixels
    dense = kind.parameter_count(inputs, outputs, setting) if issubclass(kind, LowRank) else inputs * outputs
    return (depthwise + dense) * pixels


# --- equals the dense convolution -----------------------------------------------------------------------------------

GEOMETRIES = {
    "3x3": {"kernel": 3, "padding": 1},
    "3x3, stride 2, dilation 2": {"kernel": 3, "padding": 2, "stride": 2, "dilation": 2},
    "1x1": {"kernel": 1},
    "1x1, stride 2": {"kernel": 1, "stride": 2, "bias": False},
    "1x1, padded": {"kernel": 1, "padding": 1},
    "circular": {"kernel": 3, "padding": 1, "padding_mode": "circular"},
    "1x7, same": {"kernel": (1, 7), "padding": "same"},
}


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("name", NAMES)
def test_a_replacement_equals_the_dense_convolution_of_its_dense_weight(name: str, geometry: str) -> None:
    torch.manual_seed(0)
    layer = convolution(**GEOMETRIES[geometry])
    module = replacement(layer, SUBSTITUTES[name], setting_of(name), approximate=False)
    images = torch.randn(2, 24, 9, 9, dtype=torch.double)
    bias = layer.bias
    layer.weight = nn.Parameter(dense_kernel(module).detach())
    expected = layer(images)
    assert layer.bias is bias
    torch.testing.assert_close(module(images), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_autograd_through_the_dense_weight(name: str) -> None:
    torch.manual_seed(1)
    module = replacement(convolution(padding=1), SUBSTITUTES[name], setting_of(name), approximate=False)
    images, target = torch.randn(2, 24, 6, 6, dtype=torch.double), torch.randn(2, 32, 6, 6, dtype=torch.double)
    parameters = dict(module.named_parameters())
    bias = next(parameter for key, parameter in parameters.items() if key.endswith("bias"))
    by_module = torch.autograd.grad((module(images) - target).square().sum(), list(parameters.values()))
    dense = F.conv2d(images, dense_kernel(module), bias, padding=1)
    by_dense = torch.autograd.grad((dense - target).square().sum(), list(parameters.values()))
    for key, one, other in zip(parameters, by_module, by_dense, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9, msg=key)


@pytest.mark.parametrize("name", ["tensor_train", "tucker", "hashed", "acdc"])
def test_gradcheck_of_the_reconstruction(name: str) -> None:
    layer = SUBSTITUTES[name](6, 4, 2 if name == "acdc" else 0.6).double()
    names, values = zip(
        *((key, value.detach().clone().requires_grad_()) for key, value in layer.named_parameters()), strict=True
    )

    def weight(*tensors: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(_Dense(layer), dict(zip((f"layer.{n}" for n in names), tensors, strict=True)), ())

    assert torch.autograd.gradcheck(weight, tuple(values))


class _Dense(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self) -> torch.Tensor:
        return self.layer.dense_weight()  # type: ignore[operator, no-any-return]


# --- costs what its closed form says --------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    inputs=st.integers(1, 40).map(lambda number: 2 * number),
    outputs=st.integers(2, 40).map(lambda number: 2 * number),
    share=st.floats(0.01, 1),
    whole=st.integers(1, 9),
    kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]),
)
def test_parameters_and_macs_in_closed_form_are_the_traced_ones(
    name: str, inputs: int, outputs: int, share: float, whole: int, kernel: int, stride: int
) -> None:
    kind, setting = SUBSTITUTES[name], whole if name in SETTINGS else share
    with torch.device("meta"):
        layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    module = replacement(layer, kind, setting, approximate=False)
    counts, pixels = ac.count(module, torch.zeros(1, inputs, 8, 8)), 64 // stride**2
    assert counts.macs == macs_of(kind, inputs, outputs, setting, pixels, kernel, before=64)
    if issubclass(kind, LinearShuffle):
        assert counts.parameters == kind.parameter_count(inputs, outputs, setting, (kernel, kernel))
        return
    depthwise = inputs * kernel**2 if kernel > 1 else 0
    assert counts.parameters == depthwise + kind.parameter_count(inputs, outputs, setting)


PUBLISHED = [
    ("wrn_28_10", None, 0, 36_479_194, 5_245_638_922),
    ("wrn_28_10", "hashed", 1.0, 4_380_138, 629_696_778),  # as many weights as the matrices have: depthwise separable
    ("wrn_28_10", "low_rank", 0.03, 601_162, 83_745_034),
    ("wrn_28_10", "shuffle", 7, 719_994, 101_472_522),
    ("wrn_28_10", "tensor_train", 0.7, 2_413_390, 629_696_778),
    ("wrn_28_10", "hashed", 0.05, 568_426 - 8_960, 629_696_778),  # without the published bias of every layer
    ("wrn_28_10", "acdc", 14, 609_258, 629_696_778),
    ("wrn_50_2", None, 0, 68_883_240, 11_412_824_040),
    ("wrn_50_2", "low_rank", 0.03, 4_353_832, 527_291_368),
    ("wrn_50_2", "shuffle", 1, 17_717_096, 3_220_174_568),
    ("wrn_50_2", "tensor_train", 0.27, 4_341_432, 4_860_992_488),
    ("darts", None, 0, 3_349_342, 537_399_946),
]


@pytest.mark.parametrize(("network", "name", "setting", "parameters", "operations"), PUBLISHED)
def test_the_published_counts_come_out(
    network: str, name: str | None, setting: float, parameters: int, operations: int
) -> None:
    imagenet = network == "wrn_50_2"
    with torch.device("meta"):
        model = ac.create_model(network, num_classes=1000 if imagenet else 10)
    if name:
        plan = plan_substitution(model, name, setting=setting)
        assert parameter_count(model, plan) == parameters
        model = apply_substitution(model, plan, approximate=False)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert mult_adds(model, IMAGENET if imagenet else CIFAR, global_pool=imagenet) == operations


def test_the_depthwise_separable_network_that_all_start_from() -> None:
    with torch.device("meta"):
        model = ac.create_model("wrn_28_10", 10)
        plan = plan_substitution(model, "low_rank", setting=0.03)
    layers = [model.get_submodule(name) for name in plan.layers]
    assert len(layers) == 24
    pointwise = sum(layer.in_channels * layer.out_channels for layer in layers)  # type: ignore[operator]
    spatial = sum(layer.in_channels * 9 for layer in layers)  # type: ignore[operator]
    assert 36_479_194 - 9 * pointwise + pointwise + spatial == 4_380_138
    published = sum(Tucker.published_parameters(layer.in_channels, layer.out_channels, 0.67) for layer in layers)  # type: ignore[arg-type]
    assert 4_380_138 - pointwise + published == 2_381_200


def test_dimensions_are_the_published_ones() -> None:
    assert balanced(160, 160) == (32, 32, 25)
    assert balanced(320, 160) == (40, 40, 32)
    assert balanced(640, 640) == (80, 80, 64)
    assert balanced(512, 512) == (64, 64, 64)
    assert aligned(1024, 1024) == (32, 32, 1024)
    assert aligned(160, 320) == (16, 10, 320)


@given(outputs=st.integers(1, 700), inputs=st.integers(1, 700))
def test_dimensions_multiply_to_the_matrix(outputs: int, inputs: int) -> None:
    for rule in (balanced, aligned):
        assert math.prod(rule(outputs, inputs)) == outputs * inputs


# --- the best approximation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["low_rank", "tensor_train", "tucker", "hashed", "aligned_tensor_train"])
def test_at_the_largest_setting_the_matrix_itself_comes_out(name: str) -> None:
    torch.manual_seed(2)
    matrix = torch.randn(32, 24, dtype=torch.double)
    layer = SUBSTITUTES[name](24, 32, 1.0).double()
    layer.approximate_(matrix)
    torch.testing.assert_close(layer.dense_weight().flatten(1), matrix, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "acdc"])
def test_what_the_form_can_express_is_found_again(name: str) -> None:
    torch.manual_seed(3)
    made, found = (SUBSTITUTES[name](24, 32, setting_of(name)) for _ in range(2))
    matrix = made.dense_weight().detach().flatten(1)
    found.approximate_(matrix)
    torch.testing.assert_close(found.dense_weight().flatten(1), matrix, rtol=1e-3, atol=1e-4)


def test_low_rank_and_shuffle_and_hashed_are_least_squares() -> None:
    torch.manual_seed(4)
    matrix = torch.randn(32, 24)
    for name in ("low_rank", "shuffle", "hashed"):
        layer = SUBSTITUTES[name](24, 32, setting_of(name))
        layer.approximate_(matrix)
        error = (layer.dense_weight().flatten(1) - matrix).square().sum()
        slopes = torch.autograd.grad(error, layer.compressed())
        assert max(float(slope.abs().max()) for slope in slopes) < 1e-2, name


def test_acdc_comes_nearer_than_any_scale_of_its_start() -> None:
    torch.manual_seed(5)
    matrix = torch.randn(16, 16)
    errors = []
    for layers in (1, 4, 8):
        layer = Acdc(16, 16, layers)
        layer.approximate_(matrix)
        errors.append(float((layer.matrix().detach() - matrix).square().sum() / matrix.square().sum()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] < 0.75  # 128 of 256 numbers: a random subspace of that size would leave 0.5, none of it 1


def test_a_kernel_is_separated_best() -> None:
    torch.manual_seed(6)
    spatial, matrix = torch.randn(8, 3, 3), torch.randn(12, 8)
    kernel = matrix[:, :, None, None] * spatial[None]
    found_spatial, found_matrix = separated(kernel)
    torch.testing.assert_close(found_matrix[:, :, None, None] * found_spatial[None], kernel, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found_spatial.flatten(1).norm(dim=1), torch.ones(8))


def test_shuffle_fits_a_whole_kernel_by_alternating_least_squares() -> None:
    torch.manual_seed(7)
    made = LinearShuffle(24, 32, 2, kernel=(3, 3), padding=(1, 1))
    kernel = made.dense_weight().detach()
    found = LinearShuffle(24, 32, 2, kernel=(3, 3), padding=(1, 1))
    found.approximate_kernel_(kernel)
    left = float((found.dense_weight().detach() - kernel).square().sum() / kernel.square().sum())
    assert left < 0.05


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_of_zeros_is_fitted_by_zeros(name: str) -> None:
    layer = convolution(bias=False, padding=1)
    nn.init.zeros_(layer.weight)
    module = replacement(layer, SUBSTITUTES[name], setting_of(name), approximate=True)
    assert dense_kernel(module).abs().max() < 1e-6


def test_a_substituted_trained_network_starts_from_its_weights() -> None:
    torch.manual_seed(8)
    model = ac.create_model("wrn_10_1", 10).eval()
    images = torch.randn(4, 3, 32, 32)
    distances = []
    for share in (0.2, 0.5, 1.0):
        network = ac.substitute(model, "low_rank", setting=share)
        distances.append(float((network(images) - model(images)).detach().norm()))
    separable = apply_substitution(model, plan_substitution(model, "low_rank", setting=1.0), approximate=False)
    assert distances[0] > distances[2]
    assert float((separable(images) - model(images)).detach().norm()) > distances[2]


# --- one by one -----------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(inputs=st.integers(1, 60), outputs=st.integers(1, 60))
def test_the_hash_sends_every_entry_to_a_place_of_its_own(inputs: int, outputs: int) -> None:
    assert sorted(places(inputs, outputs).flatten().tolist()) == list(range(inputs * outputs))


def test_every_hashed_weight_is_used_about_equally_often() -> None:
    layer = Hashed(50, 40, 0.07)
    used = torch.bincount(layer.order % len(layer.weight), minlength=len(layer.weight))
    assert len(layer.weight) == 140
    assert used.min() == 14
    assert used.max() == 15


def test_neighbours_in_the_hashed_matrix_are_not_tied() -> None:
    """Rows that share one pattern, shifted, would make the matrix far from random: no two rows look alike."""
    layer = Hashed(64, 64, 0.1)
    numbers = (layer.order % len(layer.weight)).view(64, 64)
    same = max(
        int((numbers[first] == numbers[second].roll(shift)).sum())
        for first in range(8)
        for second in range(first)
        for shift in range(64)
    )
    assert same <= 5  # of 64, where 0.16 are expected of chance


@pytest.mark.parametrize("size", [2, 6, 16, 160])
def test_the_cosine_transform_by_fft_is_the_matrix_product(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(5, size, dtype=torch.double)
    matrix = dct_matrix(size, rows)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size, dtype=torch.double))
    monkeypatch.setattr(acdc_file, "FFT_FROM", 1)
    torch.testing.assert_close(dct(rows), rows @ matrix.T)
    torch.testing.assert_close(inverse_dct(rows), rows @ matrix)


def test_shuffle_groups_are_lowered_until_they_divide() -> None:
    assert groups_for(16, 160, 7) == 4
    assert groups_for(160, 160, 7) == 5
    assert groups_for(160, 160, 8) == 8
    lowered, kept = LinearShuffle(160, 160, 7), LinearShuffle(160, 160, 8)
    assert (lowered.groups, lowered.used, kept.used) == (5, 5, 8)
    assert "setting=7 (used=5)" in repr(lowered) and "setting=8, " in repr(kept)


def test_a_weight_is_made_once_in_a_step_however_often_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, made = Hashed(8, 8, 0.5), 0
    matrix = layer.matrix

    def counted() -> torch.Tensor:
        nonlocal made
        made += 1
        return matrix()

    monkeypatch.setattr(layer, "matrix", counted)
    images = torch.randn(1, 8, 4, 4)
    with weights_made_once(layer):
        layer(layer(images)).sum().backward()
    assert made == 1
    layer(images).sum().backward()  # and anew in the next
    assert made == 2


def test_reconstruction_keeps_its_precision_under_autocast() -> None:
    layer = Acdc(16, 16, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.dense_weight().dtype == torch.float32
        assert layer(torch.randn(1, 16, 4, 4)).dtype == torch.bfloat16


def test_a_materialised_network_computes_the_same() -> None:
    from adjcompress.cost.materialise import materialised

    torch.manual_seed(9)
    for name in NAMES:
        network = ac.substitute(ac.create_model("wrn_10_1", 10), name, setting_of(name), approximate=False).eval().double()
        plain = materialised(network)
        assert not any(isinstance(module, Reconstructed) for module in plain.modules())
        images = torch.randn(2, 3, 16, 16, dtype=torch.double)
        torch.testing.assert_close(plain(images), network(images), msg=name)


# --- choosing layers and settings -----------------------------------------------------------------------------------


def test_layers_are_chosen_as_in_the_paper() -> None:
    with torch.device("meta"):
        wrn, wide, darts = (ac.create_model(name, 10) for name in ("wrn_16_2", "wrn_50_2", "darts"))
    chosen = plan_substitution(wrn, "low_rank", setting=0.1).layers
    assert len(chosen) == 12
    assert not any("shortcut" in name for name in chosen)
    assert "layer1.0.downsample.0" in plan_substitution(wide, "low_rank", setting=0.1).layers
    assert "conv1" not in plan_substitution(wide, "low_rank", setting=0.1).layers
    squeezing = plan_substitution(ac.create_model("efficientnet_b0", 10), "low_rank", setting=0.1).layers
    assert not any("fc1" in name for name in squeezing)
    every = plan_substitution(darts, "low_rank", setting=0.1).layers
    assert not any(name.startswith(("auxiliary", "stem")) for name in every)


class HeadFirst(nn.Module):
    """A network whose layers are declared in the reverse of the order in which they run."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(16, 10, 1)
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.stem = nn.Conv2d(3, 16, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(images)).relu()).mean((2, 3))


def test_the_first_layer_and_the_classifier_are_those_that_run_so() -> None:
    example = torch.zeros(1, 3, 8, 8)
    assert plan_substitution(HeadFirst(), "low_rank", setting=0.5, example=example).layers == ("body",)
    replaced = ac.substitute(HeadFirst(), "low_rank", 0.5, example=example)
    assert type(replaced.stem) is type(replaced.head) is nn.Conv2d
    assert replaced(example).shape == (1, 10)


def test_layers_are_chosen_by_patterns() -> None:
    model = ac.create_model("wrn_10_1", 10)
    plan = plan_substitution(model, "low_rank", setting=0.2, layers=["layer3", "layer2.*"], dense=["layer3.0.conv2"])
    assert plan.layers == ("layer2.0.conv1", "layer2.0.conv2", "layer2.0.shortcut", "layer3.0.conv1", "layer3.0.shortcut")


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v2", "densenet121", "vgg11_bn", "squeezenet1_1", "googlenet"])
@pytest.mark.parametrize("name", ["low_rank", "shuffle", "hashed"])
def test_substitutes_go_into_any_cnn(model: str, name: str) -> None:
    torch.manual_seed(0)
    network = ac.create_model(model, 10).eval()
    smaller = ac.substitute(network, name, setting=2 if name == "shuffle" else 0.1, approximate=False)
    images = torch.randn(1, 3, 64, 64)
    assert smaller(images).shape == (1, 10)
    plan = plan_substitution(network, name, setting=2 if name == "shuffle" else 0.1)
    assert sum(parameter.numel() for parameter in smaller.parameters()) == parameter_count(network, plan)


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_setting_within_a_budget_is_found(name: str) -> None:
    with torch.device("meta"):
        model = ac.create_model("wrn_16_2", 10)
    plan = plan_substitution(model, name, parameters=60_000)
    assert parameter_count(model, plan) <= 60_000
    step = {"shuffle": -1, "acdc": 1}.get(name, 1e-5)
    larger = Substitution(name, plan.setting + step, plan.layers)
    if name != "shuffle" or plan.setting > 1:
        assert parameter_count(model, larger) > 60_000
    replaced = apply_substitution(model, plan, approximate=False)
    assert sum(parameter.numel() for parameter in replaced.parameters()) == parameter_count(model, plan)


def test_a_substitution_survives_json() -> None:
    plan = plan_substitution(ac.create_model("wrn_10_1", 10), "tucker", setting=0.3)
    assert Substitution.from_json(plan.to_json()) == plan


def test_the_network_that_is_replaced_is_left_alone() -> None:
    model = ac.create_model("wrn_10_1", 10)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ac.substitute(model, "hashed", setting=0.1)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


# --- what cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("low_rank", {"parameters": 100}, "below the smallest that low_rank reaches on these layers"),
        ("low_rank", {"parameters": 10**9}, "above the dense network's 691,674: nothing is to be replaced"),
        ("low_rank", {"parameters": 600_000}, "of depthwise convolutions with dense 1x1 ones on these layers, which low_rank"),
        ("acdc", {"setting": math.nan}, "acdc takes a whole number of layers from 1 on as its setting, not nan"),
        ("shuffle", {"setting": math.inf}, "shuffle takes a whole number of groups from 1 on as its setting, not inf"),
        ("low_rank", {"setting": 1.5}, "low_rank takes a setting above 0 and up to 1, not 1.5"),
        ("shuffle", {"setting": 2.5}, "shuffle takes a whole number of groups from 1 on as its setting, not 2.5"),
        ("acdc", {"setting": 0}, "acdc takes a whole number of layers from 1 on as its setting, not 0"),
        ("low_rnk", {"setting": 1}, "Substitute 'low_rnk' is unknown. Choices: low_rank"),
        ("low_rank", {}, "low_rank needs either a setting or a number of parameters"),
        ("low_rank", {"setting": 0.1, "layers": ["layer9"]}, "--substitute-layers 'layer9' matches no convolution that can be"),
        ("low_rank", {"setting": 0.1, "dense": ["*"]}, "No layer of WideResNet is left to replace"),
    ],
)
def test_impossible_substitutions_are_refused(name: str, options: Any, text: str) -> None:
    with torch.device("meta"):
        model = ac.create_model("wrn_16_2", 10)
    with pytest.raises(ac.AdjCompressError) as caught:
        plan_substitution(model, name, **options)
    assert text in str(caught.value)


def test_acdc_refuses_odd_sizes() -> None:
    with pytest.raises(ac.AdjCompressError, match="its size, the larger of the two, must be even"):
        plan_substitution(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 15, 1), nn.Conv2d(15, 2, 1)), "acdc", setting=2)


def test_a_weight_that_two_layers_share_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1))
    model[2].weight = model[1].weight
    with pytest.raises(
        ac.AdjCompressError,
        match=r"2 shares its weight. Leave it dense: --dense-layers 1 --dense-layers 2\.",
    ):
        plan_substitution(model, "low_rank", setting=0.5)


def test_attention_is_compared_layer_by_layer_in_whichever_order_they_ran() -> None:
    random = torch.Generator().manual_seed(0)
    maps = {name: torch.rand(2, 16, generator=random) for name in ("a", "b")}
    assert attention_loss(maps, {"b": maps["b"], "a": maps["a"]}) == 0


def test_what_exists_in_training_only_is_no_part_of_a_budget() -> None:
    plain, headed = (ac.create_model("darts", 10, 32, cells=3, channels=4, auxiliary=auxiliary) for auxiliary in (False, True))
    assert ac.count(headed, CIFAR).parameters == ac.count(plain, CIFAR).parameters
    found = [plan_substitution(model, "low_rank", parameters=2_500) for model in (plain, headed)]
    assert found[0].setting == found[1].setting


def test_a_plan_for_another_network_is_refused() -> None:
    plan = plan_substitution(ac.create_model("wrn_16_2", 10), "low_rank", setting=0.1)
    with pytest.raises(ac.AdjCompressError, match="is for another network: ResNet has no convolution layer1"):
        other = Substitution("low_rank", 0.1, ("layer1.0.conv9",))
        apply_substitution(ac.create_model("resnet18", 10), other, approximate=False)
    assert isinstance(apply_substitution(ac.create_model("wrn_16_2", 10), plan, approximate=False), nn.Module)


def test_every_substitute_says_what_its_setting_is() -> None:
    assert {kind.setting_is for kind in SUBSTITUTES.values()} == {"share", "groups", "layers"}
    assert all(issubclass(kind, Substitute) for kind in SUBSTITUTES.values())
