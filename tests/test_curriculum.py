"""Beyond the papers: what is computed once, who learns first, and with what the full network begins."""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import TinyNet, randomise_
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch.overrides import TorchFunctionMode

import adjcompress as ac
from adjcompress.adjoined import Curriculum, restore_unread_, trunk_of, unread_scales, widen_
from adjcompress.data import DataSpec
from adjcompress.data.loader import steps_of
from adjcompress.methods import AdjoinedMethod, MethodOptions
from adjcompress.training import TrainOptions, resume, train
from adjcompress.training.recipes import fill_second_moments_, hand_over_, make_optimizers
from adjcompress.widths import order_channels_

IMAGE = torch.zeros(2, 3, 32, 32)
NETWORKS = {"resnet18": ("conv1", "bn1", "relu", "maxpool", "layer1"), "mobilenet_v2": None, "densenet121": None}


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def adjoined(name: str, trunk: str = "own", alphas: tuple[float, ...] = (2.0,), **options: Any) -> AdjoinedMethod:
    torch.manual_seed(0)
    model = ac.create_model(name, 10)
    return AdjoinedMethod.build(model, IMAGE, MethodOptions(alphas=alphas, trunk=trunk, **options))


def options(**changes: Any) -> TrainOptions:
    recipe = ac.recipe("cifar").changed(epochs=2, batch_size=20)
    asked = MethodOptions(**{"alphas": (2, 4), **changes})
    return TrainOptions(model="wrn_10_1", data=DataSpec("digits", limit=60), recipe=recipe, method_options=asked)


class Convolutions(TorchFunctionMode):
    """Counts the convolutions that are computed."""

    calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += func is torch.conv2d or func is F.conv2d
        return func(*args, **(kwargs or {}))


# --- the trunk


@pytest.mark.parametrize("name", NETWORKS)
def test_a_shared_trunk_is_computed_once_and_each_network_goes_on_from_it(name: str, images: Tensor) -> None:
    network = randomise_(adjoined(name, "shared").network)
    if NETWORKS[name] is not None:
        assert network.trunk == NETWORKS[name]
    parts = [network.full.get_submodule(part) for part in network.trunk]
    inside = sum(isinstance(module, nn.Conv2d) for part in parts for module in part.modules())
    whole = sum(isinstance(module, nn.Conv2d) for module in network.full.modules())
    with Convolutions() as counted:
        network.train()(images)
    assert inside and counted.calls == 2 * whole - inside
    network.eval()
    outputs = network(images)
    torch.testing.assert_close(outputs.smalls["alpha2"], network.extract("alpha2")(images))
    torch.testing.assert_close(outputs.full, network.full(images))
    assert torch.equal(network.small_logits(images)["alpha2"], network.extract("alpha2")(images))


def test_a_shared_trunk_has_one_set_of_statistics_and_gets_the_gradients_of_both(images: Tensor) -> None:
    network = adjoined("resnet18", "shared").network.train()
    state = network.state_dict()
    assert "full.bn1.running_mean" in state and "smalls.alpha2.bn1.running_mean" not in state
    assert "smalls.alpha2.layer2.0.bn1.running_mean" in state
    outputs = network(images)
    assert int(network.full.bn1.num_batches_tracked) == 1 and int(network.full.layer1[1].bn2.num_batches_tracked) == 1
    outputs.smalls["alpha2"].square().sum().backward()
    assert network.full.layer1[0].bn1.weight.grad is not None and network.full.fc.weight.grad is not None
    network.small_logits(images)
    assert int(network.full.bn1.num_batches_tracked) == 2  # alone it measures too, once for all small networks
    extracted = network.extract("alpha2")
    assert torch.equal(extracted.bn1.running_mean, network.full.bn1.running_mean)
    assert "bn1.num_batches_tracked" in extracted.state_dict()


def test_a_compiled_trunk_is_computed_once_and_measured_once(images: Tensor) -> None:
    def compiled(trunk: bool) -> tuple[int, nn.Module]:
        torch._dynamo.reset()
        first = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.BatchNorm2d(8))
        last = nn.Sequential(nn.Conv2d(8, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
        full = nn.Sequential(OrderedDict(first=first, last=last))
        plans, found = {"small": ac.plan_widths(full, IMAGE, 2, slim=["last"])}, []
        network = ac.adjoin(full, plans, trunk=ac.trunk_of(full, plans.values(), IMAGE) if trunk else ()).train()

        def forward(graph: torch.fx.GraphModule, _inputs: Any) -> Any:
            found.append(sum("convolution" in str(node.target) for node in graph.graph.nodes))
            return make_boxed_func(graph.forward)

        partition = min_cut_rematerialization_partition
        backend = aot_autograd(fw_compiler=forward, bw_compiler=lambda graph, _: graph, partition_fn=partition)
        eager, outputs = copy.deepcopy(network), torch.compile(network, backend=backend)(images)
        torch.testing.assert_close(outputs.smalls, eager(images).smalls)
        torch.testing.assert_close(network.state_dict(), eager.state_dict())
        return found[0], network

    assert compiled(trunk=False)[0] == 5  # of three layers each, the very first is the same
    convolutions, network = compiled(trunk=True)
    assert network.trunk == ("first",) and convolutions == 4
    assert int(network.full.first[1].num_batches_tracked) == 1


def test_own_trunks_are_as_they_were(images: Tensor) -> None:
    torch.manual_seed(0)
    plain = ac.adjoin(ac.create_model("resnet18", 10), {"alpha2": ac.plan_widths(ac.create_model("resnet18", 10), IMAGE, 2)})
    assert plain.state_dict().keys() == adjoined("resnet18").network.state_dict().keys()
    assert plain.trunk == ()


def test_a_network_whose_first_layer_is_cut_has_no_trunk() -> None:
    with pytest.raises(ac.AdjCompressError, match="has no trunk, for its first layer is cut already"):
        adjoined("resnet18", "shared", slim=["*"])
    with pytest.raises(ac.AdjCompressError, match=r"--trunk 'both' is unknown\. Choices: own, shared"):
        adjoined("resnet18", "both")


class Twice(nn.Module):
    """A layer that runs before the slim one and after it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.again = nn.BatchNorm2d(8)
        self.slim = nn.Conv2d(8, 16, 1)
        self.back = nn.Conv2d(16, 8, 1)
        self.last = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        before = self.again(self.first(images))
        return self.last(self.again(self.back(F.relu(self.slim(before)))).mean((2, 3)))


class InPlace(nn.Module):
    """A network that changes in place what its trunk computed."""

    def __init__(self, relu: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.slim = nn.Conv2d(8, 16, 1, bias=False)
        self.last = nn.Linear(16, 10)
        self.relu = relu

    def forward(self, images: Tensor) -> Tensor:
        before = self.norm(self.first(images))
        before = F.relu(before, inplace=True) if self.relu else before.mul_(2)
        return self.last(self.slim(before).mean((2, 3)))


class Scaled(nn.Module):
    """A network with a parameter of its own that is cut: it is read where it is, not where the network begins."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.slim = nn.Conv2d(8, 16, 1)
        self.scale = nn.Parameter(torch.ones(16, 1, 1))
        self.last = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.last((self.slim(self.first(images)) * self.scale).mean((2, 3)))


class Called(nn.Module):
    """A stem that is called with a keyword, one slope for all channels, and a scale that is told by the network itself."""

    class Stem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, images: Tensor, scale: float) -> Tensor:
            return self.convolution(input=images) * scale

    class Level(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("level", torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                self.get_buffer("level").lerp_(x.detach().abs().mean(), 0.1)
            return x / self.get_buffer("level")

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act, self.slim = self.Stem(), nn.PReLU(), nn.Conv2d(8, 16, 1)
        self.level, self.last = self.Level(), nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.level(self.act(self.slim(self.act(self.stem(images, scale=2.0))))).mean((2, 3)))


@pytest.mark.parametrize("trunk", ["own", "auto"])
def test_a_network_of_somebody_elses_layers_is_widened_exactly(trunk: str, images: Tensor) -> None:
    asked = MethodOptions(alphas=(2,), slim=["slim"], trunk=trunk, small_first=0.5, widen="copies")
    network = AdjoinedMethod.build(Called(), IMAGE, asked).network.train()
    for _ in range(3):
        network.small_logits(images)
    assert not torch.equal(network.smalls["alpha2"].level.level, network.full.level.level)
    before = network.eval().small_logits(images)["alpha2"]
    widen_(network, "alpha2", IMAGE, copies=True)
    torch.testing.assert_close(network(images).full, before)
    torch.testing.assert_close(network.extract("alpha2")(images), before)
    assert order_channels_(network.full, IMAGE)


def test_trunks_that_cannot_be_shared_are_refused() -> None:
    plan = ac.plan_widths(network := randomise_(Twice()), IMAGE, 2, slim=["slim"])
    with pytest.raises(ac.AdjCompressError, match="layer again runs before the first layer that is cut, and again after it"):
        trunk_of(network, [plan], IMAGE)
    for relu in (False, True):
        asked = MethodOptions(alphas=(2,), slim=["slim"], trunk="shared")
        with pytest.raises(ac.AdjCompressError, match="--trunk shared does not fit InPlace"):
            AdjoinedMethod.build(InPlace(relu), IMAGE, asked)  # as it is built: all zeros through fresh batch norms
    plan = ac.plan_widths(network := Scaled(), IMAGE, 2, slim=["slim"])
    assert trunk_of(network, [plan], IMAGE) == ("first",)


def test_a_trunk_is_tried_out_on_two_images_though_one_was_given() -> None:
    network = ac.create_model("resnet18", 10)  # at 32 pixels its last batch norms see one place of each image
    one = torch.randn(1, 3, 32, 32)
    trunk = trunk_of(network, [ac.plan_widths(network, one, 4)], one)
    assert "conv1" in trunk and "layer1" in trunk
    method = AdjoinedMethod.build(network, one, MethodOptions(alphas=(4,), trunk="auto"))
    assert method.network.trunk == trunk


def test_without_version_counters_the_first_convolution_is_computed_again_and_the_same() -> None:
    network = ac.create_model("cifar_resnet20", 10)
    adjoined_network = ac.adjoin(network, {"alpha2": ac.plan_widths(network, IMAGE, 2)}).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        full, smalls = adjoined_network(images)
    expected = adjoined_network(images)
    torch.testing.assert_close(full, expected.full)
    torch.testing.assert_close(smalls["alpha2"], expected.smalls["alpha2"])


def test_a_trunk_that_does_not_fit_is_refused_without_a_method_too() -> None:
    plan = ac.plan_widths(network := InPlace(relu=False), IMAGE, 2, slim=["slim"])
    with pytest.raises(ac.AdjCompressError, match="--trunk shared does not fit InPlace"):
        trunk_of(network, [plan], IMAGE)
    for trunk, message in ((("nope",), "a module 'nope', and InPlace has none"), (("slim",), "Module slim is cut")):
        with pytest.raises(ac.AdjCompressError, match=message):
            ac.adjoin(network, {"alpha2": plan}, trunk=trunk)


def test_a_hook_of_the_users_runs_once_in_each_network() -> None:
    network = randomise_(Scaled())
    plan, images = ac.plan_widths(network, IMAGE, 2, slim=["slim"]), torch.randn(2, 3, 32, 32)
    network.first.register_forward_hook(lambda _module, _inputs, output: output * 2)
    adjoined_network = ac.adjoin(network, {"alpha2": plan}).eval()
    torch.testing.assert_close(adjoined_network(images).smalls["alpha2"], adjoined_network.extract("alpha2")(images))
    with pytest.raises(ac.AdjCompressError, match="layer first has a forward hook"):
        trunk_of(network, [plan], IMAGE)
    with pytest.raises(ac.AdjCompressError, match="layer first has a forward hook"):
        ac.adjoin(network, {"alpha2": plan}, trunk=["first"])


def test_what_is_frozen_stays_as_it_is_also_where_small_networks_learn_apart(images: Tensor) -> None:
    network = ac.create_model("cifar_resnet20", 10)
    frozen = network.layer2[1].conv1.weight.requires_grad_(False)
    before = frozen.clone()
    method = AdjoinedMethod.build(network, IMAGE, MethodOptions(alphas=(2,), small_first=0.5, widen="auto"))
    assert method.curriculum.widen == "fresh"
    (optimizer,) = make_optimizers(method.parameter_groups(0.1), ac.recipe("cifar"), 100)
    for progress in (0.2, 0.4, 0.6):
        method.loss(images, torch.zeros(4).long(), progress).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(method.network.state_dict()["full.layer2.1.conv1.weight"], before)
    assert not method.network.extract("alpha2").layer2[1].conv1.weight.requires_grad
    asked = MethodOptions(alphas=(2,), small_first=0.5, widen="copies")
    with pytest.raises(ac.AdjCompressError, match=r"--widen copies would change layer2\.1\.conv1\.weight, which is frozen"):
        AdjoinedMethod.build(network, IMAGE, asked)
    frozen.requires_grad_(True)
    network.conv1.weight.requires_grad_(False)  # which no network has in another width
    method = AdjoinedMethod.build(network, IMAGE, asked)
    network.layer3.requires_grad_(False)  # after it was built
    method.parameter_groups(0.1)
    method.loss(images, torch.zeros(4).long(), 0.6)


def test_what_is_frozen_changes_no_state_dict() -> None:
    shapes = []
    for frozen in (False, True):
        network = ac.create_model("cifar_resnet20", 10)
        network.layer2.requires_grad_(not frozen)
        method = AdjoinedMethod.build(network, IMAGE, MethodOptions(alphas=(2,), small_first=0.5, widen="fresh"))
        shapes.append({name: tensor.shape for name, tensor in method.network.state_dict().items()})
    assert shapes[0] == shapes[1]


# --- the full network begins


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("name", ["tiny", "resnet18", "cifar_resnet20", "mobilenet_v2", "densenet121", "regnet_x_400mf"])
def test_the_full_network_begins_with_what_the_small_one_computes(name: str, copies: bool, images: Tensor) -> None:
    model = TinyNet() if name == "tiny" else ac.create_model(name, 10)
    network = randomise_(ac.adjoin(model, {"small": ac.plan_widths(model, IMAGE, 2)})).eval()
    before = network.extract("small")
    widen_(network, "small", IMAGE, copies)
    small = network(images).smalls["small"]
    assert torch.equal(small, before(images))  # nothing that it reads has changed
    torch.testing.assert_close(network.full(images), small, rtol=1e-4, atol=1e-4)


def test_copies_are_filters_of_the_small_network_and_all_filters_learn(images: Tensor) -> None:
    network = adjoined("resnet18").network.train()
    fresh = network.full.layer2[0].conv1.weight.detach().clone()
    widen_(network, "alpha2", IMAGE, copies=True)
    weight = network.full.layer2[0].conv1.weight
    assert torch.equal(weight[64:], weight[:64]) and torch.equal(weight[:64], fresh[:64])
    second = network.full.layer2[0].conv2.weight
    assert not bool(second[:, 64:].any()) and bool(second[:, :64].any())
    network.full(images).square().sum().backward()
    assert second.grad is not None and bool((second.grad[:, 64:] != 0).any())


def test_widening_that_would_not_be_exact_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for changes in ({"beta": 0.5}, {"name": "convnext_tiny"}):
        name = str(changes.pop("name", "cifar_resnet20"))
        with pytest.raises(ac.AdjCompressError, match="--widen zeros does not fit here"):
            adjoined(name, widen="zeros", small_first=0.5, **changes)
    monkeypatch.setattr("adjcompress.adjoined.widen._take_over_own_", lambda *_: None)
    with pytest.raises(ac.AdjCompressError, match="--widen zeros does not fit here"):
        adjoined("cifar_resnet20", widen="zeros", small_first=0.5)


@pytest.mark.parametrize("apart", [True, False])
def test_weights_that_nobody_reads_are_as_large_as_at_first_when_the_full_network_joins(
    images: Tensor, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = adjoined("resnet18", small_first=0.5)
    network = method.network.train()
    if not apart:
        monkeypatch.setattr(network, "learn_apart_", list)
    first = {name: parameter.detach().clone() for name, parameter in network.full.named_parameters()}
    (optimizer,) = make_optimizers(method.parameter_groups(0.5), ac.recipe("cifar"), 100)
    labels = torch.zeros(4).long()
    for _ in range(6):
        method.loss(images, labels, 0.2).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    weight = network.full.layer3[0].conv1.weight
    name = "layer3.0.conv1.weight"
    assert torch.equal(weight.detach()[128:], first[name][128:]) is apart
    method.loss(images, labels, 0.5)
    torch.testing.assert_close(weight[128:].detach(), first[name][128:], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(weight[:, 64:].detach(), first[name][:, 64:], rtol=1e-4, atol=1e-7)
    assert not torch.equal(weight[:128, :64].detach(), first[name][:128, :64])
    scales = unread_scales(network)
    restore_unread_(network, scales)
    torch.testing.assert_close(unread_scales(network), scales)


def test_weights_that_a_random_mask_takes_out_are_not_decayed_either() -> None:
    method = adjoined("cifar_resnet20", small_first=0.5, beta=0.5)
    network = method.network.train()
    layer = "layer3.0.conv1.weight"
    weight = network.full.get_parameter(layer)
    first = weight.detach().clone()
    mask = network.mask_of("alpha2", layer)
    assert mask is not None and mask.shape == (32, 16, 3, 3)
    unread = torch.ones_like(first, dtype=torch.bool)
    unread[:32, :16] = mask == 0
    (optimizer,) = make_optimizers(method.parameter_groups(0.5), ac.recipe("cifar"), 100)
    images, labels = torch.randn(4, 3, 32, 32), torch.zeros(4).long()
    for _ in range(3):
        method.loss(images, labels, 0.2).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    method.loss(images, labels, 0.5)
    torch.testing.assert_close(weight.detach()[unread], first[unread], rtol=1e-4, atol=1e-7)
    assert not torch.equal(weight.detach()[~unread], first[~unread])


# --- who learns when


@pytest.mark.parametrize(
    ("name", "alphas", "recipe", "changes"),
    [
        ("resnet18", (8.0,), "cifar", {}),
        ("cifar_resnet20", (2.0, 8.0, 4.0), "quick", {"growing": True}),
        ("conftest:short_densenet", (4.0, 2.0), "cifar", {}),  # what it concatenates is kept in several ranges
    ],
)
def test_learning_apart_is_learning_in_the_full_weights(
    name: str, alphas: tuple[float, ...], recipe: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without weight decay, which entries that nobody reads are spared only apart; in double precision, across the joining."""
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    labels, found = torch.arange(6), []
    for apart in (True, False):
        method = adjoined(name, "shared", alphas, small_first=0.6, **changes)
        network = method.network.double().train()
        if not apart:
            monkeypatch.setattr(network, "learn_apart_", list)
        (optimizer,) = make_optimizers(method.parameter_groups(0.0), ac.recipe(recipe).changed(lr=0.01), 100)
        keys = list(network.state_dict())
        for step in range(5):
            if step == 3:
                hand_over_(optimizer, method.successions(0.6))
                fill_second_moments_(optimizer)
            method.loss(images, labels, step / 5).total.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step == 2:
                state, widest = copy.deepcopy(network.state_dict()), method.by_size[-1]
                torch.testing.assert_close(network.eval().small_logits(images)[widest], network.extract(widest)(images))
                network.load_state_dict(state)
                network.train()
        found.append((keys, state, network.state_dict()))
    assert found[0][0] == found[1][0]
    for one, other in zip(found[0][1:], found[1][1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_small_networks_of_which_none_holds_the_others_learn_in_the_full_weights(images: Tensor) -> None:
    model = ac.create_model("cifar_resnet20", 10)
    plans = {name: ac.plan_widths(model, IMAGE, 2, slim=[f"{name}.*"]) for name in ("layer2", "layer3")}
    method = AdjoinedMethod(ac.adjoin(model, plans), curriculum=Curriculum(small_first=0.5))
    method.parameter_groups(0.0)
    assert method.network.apart is None and not list(method.successions(0.5))
    method.loss(images, torch.zeros(4).long(), 0.0).total.backward()
    assert model.layer2[1].conv1.weight.grad is not None


def test_a_network_that_is_trained_again_begins_with_what_it_has_learnt(images: Tensor) -> None:
    method, labels = adjoined("cifar_resnet20", small_first=0.5), torch.zeros(4).long()
    network, recipe = method.network.train(), ac.recipe("cifar").changed(lr=0.1)

    def steps(optimizer: torch.optim.Optimizer, progress: float) -> None:
        for _ in range(3):
            method.loss(images, labels, progress).total.backward()
            optimizer.step()
            optimizer.zero_grad()

    (optimizer,) = make_optimizers(method.parameter_groups(0.5), recipe, 100)
    steps(optimizer, 0.2)
    learnt = network.extract("alpha2").state_dict()
    method.parameter_groups(0.5)  # stopped while the small network learns alone: nothing of that is lost
    torch.testing.assert_close(network.extract("alpha2").state_dict(), learnt, rtol=0, atol=0)

    (optimizer,) = make_optimizers(method.parameter_groups(0.5), recipe, 100)
    steps(optimizer, 0.5)
    weight = network.full.layer3[1].conv1.weight
    full = weight.detach().clone()
    (optimizer,) = make_optimizers(method.parameter_groups(0.5), recipe, 100)
    assert not bool(network.get_buffer("joined"))
    steps(optimizer, 0.2)
    assert torch.equal(weight.detach()[32:], full[32:])  # what the full network alone has does not decay meanwhile
    method.loss(images, labels, 0.5)
    assert bool(network.get_buffer("joined"))
    torch.testing.assert_close(weight.detach()[32:], full[32:], rtol=1e-4, atol=1e-7)


def test_a_network_that_is_asked_while_small_ones_learn_apart_says_what_they_have_learnt(images: Tensor) -> None:
    method = adjoined("cifar_resnet20", small_first=0.5)
    network = method.network.train()
    (optimizer,) = make_optimizers(method.parameter_groups(0.0), ac.recipe("cifar"), 100)
    method.loss(images, torch.zeros(4).long(), 0.2).total.backward()
    optimizer.step()
    network.eval()
    full = network.extract("full")(images)
    optimizer.param_groups[0]["lr"] = 1.0
    method.loss(images, torch.ones(4).long(), 0.2).total.backward()
    optimizer.step()
    assert not torch.equal(method.deployables()["full"].eval()(images), full)  # newer than when it was last asked
    assert torch.equal(network.extract("full")(images), network(images).full)
    small = network(images).smalls["alpha2"]
    assert torch.equal(small, network.extract("alpha2")(images)) and torch.equal(small, network.small_logits(images)["alpha2"])


def test_growing_networks_join_from_the_smallest_on(images: Tensor) -> None:
    method = adjoined("cifar_resnet20", alphas=(2, 8, 4), small_first=0.6, growing=True)
    assert method.by_size == ("alpha8", "alpha4", "alpha2")
    joined = [method.curriculum.joined(method.by_size, progress) for progress in (0.0, 0.19, 0.21, 0.41, 0.59, 0.6)]
    assert [len(names) for names in joined] == [1, 1, 2, 3, 3, 3]
    labels = torch.zeros(4).long()
    loss = method.loss(images, labels, 0.0)
    torch.testing.assert_close(loss.total, F.cross_entropy(method.network.small_logits(images, ["alpha8"])["alpha8"], labels))


@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_full_network_is_widened_once_and_a_resumed_run_ends_the_same(here: Path, ema: float | None) -> None:
    asked, half = options(small_first=0.5, widen="copies", growing=True, trunk="shared"), ac.Hardware(precision="bf16")
    # Small images: a CPU without instructions for bf16 emulates it, at a hundredth of the speed.
    asked = replace(asked, recipe=asked.recipe.changed(epochs=3, ema=ema), data=DataSpec("digits", 16, limit=60))
    whole = train(asked, Path("whole"), half)

    class Killed(ac.Reporter):
        def epoch(self, record: Any) -> None:
            if record["epoch"] in (1, 2):  # before the full network joins, and after it
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(asked, Path("killed"), half, Killed())
    with pytest.raises(KeyboardInterrupt):
        resume(Path("killed"), half, Killed())
    resumed = resume(Path("killed"), half)
    first, second = (run.method().network.state_dict() for run in (whole, resumed))
    assert bool(first["joined"]) and all(torch.equal(first[name], second[name]) for name in first)
    joined = whole.log()[1]["train"]
    assert joined["weight"] > 0.9  # the mean over the steps that had it
    report = ac.extract_package(whole, "alpha2")
    assert report.certificate.max_difference == 0
    method = whole.method()
    assert isinstance(method, AdjoinedMethod) and method.curriculum == Curriculum(0.5, 0.0, True, "copies")
    assert method.network.trunk == ("conv1", "layer1", "layer2.0.bn1", "layer2.0.relu1")


def test_a_network_is_measured_from_when_it_learns_and_its_average_begins_then(here: Path) -> None:
    asked = options(small_first=0.7, growing=True)
    asked = replace(asked, recipe=asked.recipe.changed(epochs=3), data=DataSpec("digits", 16, limit=60))
    steps = 3 * steps_of(len(ac.read_data(asked.data).train), asked.recipe.batch_size)
    last = replace(asked, method_options=replace(asked.method_options, small_first=1 - 1 / steps))  # joins in the last step
    run, averaged = train(last, Path("run")), train(replace(last, recipe=last.recipe.changed(ema=0.9)), Path("averaged"))
    first, second = (each.method().network.state_dict() for each in (run, averaged))
    assert all(torch.equal(first[name], second[name]) for name in first)
    run = train(asked, Path("other"))
    assert [list(record["validation"]) for record in run.log()] == [
        ["alpha4"],
        ["alpha2", "alpha4"],
        ["full", "alpha2", "alpha4"],
    ]


def test_entries_that_begin_late_take_steps_as_large_as_the_others(images: Tensor) -> None:
    weight = nn.Parameter(torch.ones(4))
    (optimizer,) = make_optimizers([{"params": [weight], "weight_decay": 0.0, "name": "decay"}], ac.recipe("quick"), 100)
    for _ in range(300):
        weight.grad = torch.tensor([1.0, -1.0, 1.0, 0.0])  # nothing reads the last one yet
        optimizer.step()
    fill_second_moments_(optimizer)
    moments = optimizer.state[weight]["exp_avg_sq"]
    assert moments[3] == moments[0] == moments[1] > 0
    (momentum,) = make_optimizers([{"params": [weight], "weight_decay": 0.0, "name": "decay"}], ac.recipe("cifar"), 100)
    before = dict(momentum.state[weight])
    fill_second_moments_(momentum)
    assert momentum.state[weight] == before


def test_a_search_refuses_what_its_second_phase_would(here: Path) -> None:
    for changes, text in (({"widen": "zeros"}, "--widen zeros needs a part"), ({"trunk": "both"}, "--trunk 'both' is unknown")):
        asked = options(budgets=("macs=0.6",), **changes)
        with pytest.raises(ac.AdjCompressError, match=text):
            train(replace(asked, method="dan"), Path("run"))
        assert not Path("run").exists()


def test_widths_that_were_searched_are_trained_with_a_shared_trunk(here: Path) -> None:
    asked = options(budgets=("macs=0.6",), trunk="shared", small_first=0.5, alphas=(1, 2))
    run = train(replace(asked, method="dan", search_epochs=1), Path("run"))
    method = run.method()
    assert isinstance(method, AdjoinedMethod) and method.network.trunk and method.curriculum.small_first == 0.5
    assert ac.extract_package(run).certificate.max_difference == 0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"widen": "copies"}, "--widen copies needs a part of the training before the full network: give --small-first 0.8"),
        ({"growing": True, "small_first": 0.5, "alphas": (2,)}, "--growing lets several small networks join in turn"),
        ({"growing": True}, "--growing needs a part of the training before the full network"),
        ({"small_first": 0.9}, "full would wait through all of this training's steps, which are 6: give more --epochs"),
        ({"widen": "copy", "small_first": 0.5}, "--widen 'copy' is unknown. Choices: copies, fresh, zeros, auto."),
    ],
)
def test_curricula_that_say_nothing_are_refused(here: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ac.AdjCompressError) as caught:
        train(options(**changes), Path("run"))
    assert text in str(caught.value) and not Path("run").exists()


def test_what_is_left_to_the_tool_is_what_fits_the_model() -> None:
    def chosen(name: str, **changes: Any) -> tuple[str, bool]:
        method = adjoined(name, widen="auto", trunk="auto", **changes)
        told = method.doubt() or ""
        assert ("The full ConvNeXt begins afresh" in told) == (name == "convnext_tiny")
        assert (AdjoinedMethod.restore(ac.create_model(name, 10), method.settings()).doubt() or "") == told
        return method.curriculum.widen, bool(method.network.trunk)

    assert chosen("cifar_resnet20", small_first=0.5) == ("copies", True)
    assert chosen("cifar_resnet20") == ("fresh", True)  # nothing to widen from
    assert chosen("cifar_resnet20", small_first=0.5, slim=["*"]) == ("copies", False)  # cut from the first layer on
    assert chosen("convnext_tiny", small_first=0.5, alphas=(5,))[0] == "fresh"  # its layer norms see all channels
