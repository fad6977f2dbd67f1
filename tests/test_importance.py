"""What matters most comes first, and the network computes what it did."""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_pruning
from conftest import TinyNet, randomise_
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

import adjcompress as ac
from adjcompress.data import DataSpec, read_data
from adjcompress.methods import MethodOptions
from adjcompress.training import TrainOptions, resume, train
from adjcompress.training.start import _fresh_model
from adjcompress.widths import channel_groups, kept_by_place, order_channels_
from adjcompress.widths.importance import batch_norm_scale, magnitude

IMAGE = torch.zeros(2, 3, 32, 32)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(**changes: Any) -> TrainOptions:
    recipe = ac.recipe("cifar").changed(epochs=2, batch_size=20)
    return TrainOptions(**{"model": "wrn_10_1", "data": DataSpec("digits", limit=60), "recipe": recipe, **changes})


def network_called(name: str) -> nn.Module:
    torch.manual_seed(0)
    return randomise_(TinyNet() if name == "tiny" else ac.create_model(name, 10)).eval()


@pytest.mark.parametrize("importance", ["magnitude", "batch-norm"])
@pytest.mark.parametrize("name", ["tiny", "resnet18", "cifar_resnet20", "mobilenet_v3_small", "densenet121", "regnet_x_400mf"])
def test_ordered_channels_compute_what_they_did(name: str, importance: str, images: Tensor) -> None:
    network = network_called(name)
    before = network(images)
    orders = order_channels_(network, IMAGE, importance)
    assert any(not torch.equal(order, order.sort().values) for order in orders.values())
    torch.testing.assert_close(network(images), before, rtol=1e-4, atol=1e-4)
    assert not network.training


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d(8, affine=True), FrozenBatchNorm2d(8), nn.LocalResponseNorm(3, alpha=1.0)])
def test_a_network_that_would_compute_something_else_is_refused_and_left_as_it_is(norm: nn.Module) -> None:
    network = network_called("tiny")
    network.stem[1] = copy.deepcopy(norm)
    for tensor in (*network.stem[1].parameters(), *network.stem[1].buffers()):
        tensor.data.uniform_(0.5, 1.5)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ac.AdjCompressError, match="--importance magnitude does not fit TinyNet: a layer that is not"):
        order_channels_(network, IMAGE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_groups_that_keep_their_places_are_named() -> None:
    network = ac.create_model("cifar_resnet20", 10)
    plan, inner = ac.plan_widths(network, IMAGE, 2), ac.plan_widths(network, IMAGE, 2, slim=["*.conv1"])
    assert kept_by_place(network, plan, IMAGE, "magnitude") == ("layer2.0.conv2", "layer3.0.conv2")
    assert kept_by_place(network, inner, IMAGE, "magnitude") == ()
    tail = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
    plain = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), tail)
    plan = ac.plan_widths(plain, IMAGE, 2, slim=["*"])
    assert kept_by_place(plain, plan, IMAGE, "batch-norm") == ("4.0",)  # no batch norm tells of it
    assert kept_by_place(plain, plan, IMAGE, "magnitude") == ()


@pytest.mark.parametrize(("name", "importance"), [("tiny", "magnitude"), ("resnet18", "magnitude"), ("resnet18", "batch-norm")])
def test_the_channels_that_are_kept_are_the_most_important(name: str, importance: str) -> None:
    network = network_called(name)
    order_channels_(network, IMAGE, importance)
    score = {"magnitude": magnitude, "batch-norm": batch_norm_scale}[importance]
    for group in channel_groups(network, IMAGE):
        scores = score(network, group)
        assert scores is not None and bool((scores[:-1] >= scores[1:] - 1e-9).all())


def test_magnitudes_are_those_of_torch_pruning() -> None:
    network = network_called("resnet18")
    groups = channel_groups(network, IMAGE)
    ours = {layer: magnitude(network, group) for group in groups for layer in group.producers}
    names = {module: name for name, module in network.named_modules()}
    theirs = torch_pruning.importance.GroupMagnitudeImportance(p=2, group_reduction="mean", normalizer=None, bias=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch_pruning.DependencyGraph().build_dependency(network, IMAGE, verbose=False)
        found = 0
        for group in graph.get_all_groups(root_module_types=[nn.Conv2d]):
            root = names[group[0].dep.target.module]
            torch.testing.assert_close(ours[root], theirs(group).double(), rtol=1e-4, atol=1e-6)
            found += 1
    assert found == len(groups)


def test_pieces_of_grouped_convolutions_move_whole() -> None:
    network = network_called("regnet_x_400mf")
    groups = {group.name: group for group in channel_groups(network, IMAGE)}
    orders = order_channels_(network, IMAGE)
    grouped = [name for name in orders if groups[name].quantum > 1]
    assert grouped
    for name in grouped:
        quantum = groups[name].quantum
        pieces = orders[name].view(-1, quantum)
        assert bool((pieces == pieces[:, :1] + torch.arange(quantum)).all()) and bool((pieces[:, 0] % quantum == 0).all())


def test_a_run_keeps_the_important_channels_and_is_rebuilt(here: Path) -> None:
    first = train(options(method="standard"), Path("first"))
    trained = ac.extract_package(first).path
    run = train(options(weights=trained, importance="magnitude", method_options=MethodOptions(alphas=(2,))), Path("second"))
    assert ac.extract_package(run, "alpha2").certificate.max_difference == 0
    asked, data = options(weights=trained, importance="magnitude"), read_data(DataSpec("digits", limit=60))
    fresh = _fresh_model(asked, ac.ModelSpec("wrn_10_1", 10), data)
    network = _fresh_model(replace(asked, importance=None), ac.ModelSpec("wrn_10_1", 10), data)
    order_channels_(network, data.preprocessing.example(2))
    assert all(torch.equal(first, second) for first, second in zip(fresh.parameters(), network.parameters(), strict=True))
    with pytest.raises(ac.AdjCompressError, match="--method standard cuts none here"):
        train(options(weights=trained, importance="magnitude", method="standard"), Path("third"))
    with pytest.raises(ac.AdjCompressError, match="--method standard cuts none here"):
        whole = ac.MethodOptions(alphas=(1,))
        train(options(weights=trained, importance="magnitude", method="standard", method_options=whole), Path("third"))
    with pytest.raises(ac.AdjCompressError, match="--importance orders the channels of trained weights: give --weights too"):
        train(options(importance="magnitude"), Path("third"))
    with pytest.raises(ac.AdjCompressError, match=r"--importance 'size' is unknown\. Choices: magnitude, batch-norm"):
        train(options(importance="size", weights=trained), Path("third"))
    assert not Path("third").exists()


def test_mixed_images_have_mixed_labels_and_a_resumed_run_ends_the_same(here: Path) -> None:
    recipe = ac.recipe("cifar").changed(epochs=2, batch_size=20)
    asked = options(method="standard", recipe=recipe.changed(mixup=0.4, label_smoothing=0.1))
    whole = train(asked, Path("whole"))

    class Killed(ac.Reporter):
        def epoch(self, record: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(asked, Path("killed"), reporter=Killed())
    config = json.loads(Path("killed/config.json").read_text())
    assert config["recipe"].pop("clip_norm") is None  # as a version wrote it that did not know of clipping
    Path("killed/config.json").write_text(json.dumps(config))
    resumed = resume(Path("killed"))
    first, second = (run.method().network.state_dict() for run in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    plain = train(options(method="standard", recipe=recipe.changed(label_smoothing=0.1)), Path("plain"))
    assert plain.log()[0]["train"]["cross_entropy"] != whole.log()[0]["train"]["cross_entropy"]
    with pytest.raises(ac.AdjCompressError, match=r"--mixup -1 must be 0 or more"):
        ac.recipe("cifar").changed(mixup=-1)
