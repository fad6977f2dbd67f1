"""The baselines train what they say: the same network by the same loop, with one thing changed."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import TinyNet, randomise_
from torch import Tensor, nn

import adjcompress as ac
from adjcompress.adjoined import adjoint_loss
from adjcompress.adjoined.loss import divergence
from adjcompress.data import DataSpec
from adjcompress.methods import METHODS, AdjoinedMethod, DistillMethod, DropoutMethod, MethodOptions, StandardMethod
from adjcompress.methods.dropout import blocks_of
from adjcompress.methods.options import TAKES
from adjcompress.training import TrainOptions, resume, train

IMAGE = torch.zeros(2, 3, 32, 32)
ALPHA = MethodOptions(alphas=(2,))


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(6, 3, 32, 32), torch.randint(0, 10, (6,))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(**changes: Any) -> TrainOptions:
    recipe = ac.recipe("quick").changed(epochs=2, batch_size=20)
    return TrainOptions(**{"model": "wrn_10_1", "data": DataSpec("digits", limit=60), "recipe": recipe, **changes})


def test_distillation_is_cross_entropy_and_the_divergence_from_the_teacher(batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch
    method = DistillMethod.build(TinyNet(), IMAGE, MethodOptions(alphas=(2,), temperature=3.0, weight=0.5))
    teacher = randomise_(TinyNet(), 1)
    method.taught_by_(teacher, IMAGE)
    small, answer = method.network.train()(images), teacher.eval()(images)
    wanted = F.softmax(answer / 3, 1)
    apart = (wanted * (wanted.log() - F.log_softmax(small / 3, 1))).sum(1).mean()
    expected = F.cross_entropy(small, labels) + 0.5 * 9 * apart
    found = method.loss(images, labels, 0.0)
    torch.testing.assert_close(found.total, expected)
    found.total.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert method.deployable == "alpha2" and method.plan is not None
    assert DistillMethod.build(TinyNet(), IMAGE, MethodOptions()).deployable == "alpha8"


def test_a_distilled_run_resumes_with_its_teacher_and_is_extracted(here: Path) -> None:
    asked = {"method": "distill", "method_options": ALPHA}
    train(options(method="standard"), Path("teacher"))
    whole = train(options(**asked, teacher=Path("teacher")), Path("whole"))

    class Killed(ac.Reporter):
        def epoch(self, record: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(options(**asked, teacher=Path("teacher")), Path("killed"), reporter=Killed())
    resumed = resume(Path("killed"))
    first, second = (run.method().network.state_dict() for run in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert "divergence" in whole.log()[-1]["train"]
    report = ac.extract_package(whole)
    assert report.certificate.max_difference == 0 and report.package.name == "alpha2"


def test_dropout_is_there_in_training_alone(batch: tuple[Tensor, Tensor]) -> None:
    images, _ = batch
    model = ac.create_model("cifar_resnet20", 10)
    method = DropoutMethod.build(model, IMAGE, MethodOptions(dropout=0.5, dropout_blocks=0.2))
    seen: list[Tensor] = []
    classifier = [module for module in method.network.modules() if isinstance(module, nn.Linear)][-1]
    classifier.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    method.network.eval()(images)
    method.network.train()(images)
    assert not bool((seen[0] == 0).all(1).any()) and 0.3 < float((seen[1] == 0).float().mean()) < 0.7
    assert len(method.blocks) == 9 == len(blocks_of(model))
    plain = StandardMethod.build(ac.create_model("cifar_resnet20", 10), IMAGE, MethodOptions())
    assert method.network.state_dict().keys() == plain.network.state_dict().keys()
    plain.network.load_state_dict(method.network.state_dict())
    assert torch.equal(plain.network.eval()(images), method.network.eval()(images))


@pytest.mark.parametrize(
    ("name", "first", "count"),
    [
        ("resnet18", "layer1.0", 8),
        ("mobilenet_v2", "features.1", 17),
        ("densenet121", "features.denseblock1.denselayer1", 58),
        ("efficientnet_b0", "features.1.0", 16),
        ("inception_v3", "Mixed_5b", 11),
        ("vit_b_32", "encoder.layers.encoder_layer_0", 12),
        ("darts", "cells.0", 20),
    ],
)
def test_blocks_are_found_in_networks_of_every_kind(name: str, first: str, count: int) -> None:
    found = blocks_of(ac.create_model(name, 10))
    assert (found[0], len(found)) == (first, count)


def test_a_network_without_blocks_has_no_dropout_after_them() -> None:
    with pytest.raises(ac.AdjCompressError, match="--dropout-blocks: VGG has no blocks after which there could be dropout"):
        DropoutMethod.build(ac.create_model("vgg11_bn", 10), IMAGE, MethodOptions(dropout_blocks=0.1))


@pytest.mark.parametrize("precision", ["bf16", "64"])
def test_the_callers_teacher_is_left_as_it_is(here: Path, digits: ac.ImageData, precision: str) -> None:
    teacher = randomise_(TinyNet()).train()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    method = DistillMethod.build(TinyNet(), IMAGE, ALPHA)
    method.taught_by_(teacher, IMAGE)
    recipe = ac.recipe("quick").changed(epochs=1, batch_size=60)
    ac.fit(method, digits, recipe, "run", fabric=ac.launch(ac.Hardware(precision=precision)))
    assert teacher.training and all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_a_run_with_dropout_goes_all_the_way(here: Path) -> None:
    asked = MethodOptions(alphas=(2,), dropout=0.3, dropout_blocks=0.1)
    run = train(options(method="dropout", method_options=asked), Path("run"))
    method = run.method()
    assert isinstance(method, DropoutMethod) and (method.rate, method.block_rate) == (0.3, 0.1) and len(method.blocks) == 3
    assert ac.extract_package(run).certificate.max_difference == 0


def test_small_first_trains_the_small_networks_alone_and_then_both(batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch
    asked = MethodOptions(alphas=(2,), small_first=0.5, schedule="constant")
    method = AdjoinedMethod.build(randomise_(TinyNet()), IMAGE, asked)
    network = method.network.train()
    first = method.loss(images, labels, 0.49)
    (small,) = network.small_logits(images).values()
    torch.testing.assert_close(first.total, F.cross_entropy(small, labels))
    first.total.backward()
    weight = network.full.second[0].weight
    assert weight.grad is not None and bool((weight.grad[:8, :8] != 0).any())
    assert not bool(weight.grad[8:].any()) and not bool(weight.grad[:, 8:].any())  # what the small network does not have
    assert network.full.second[1].weight.grad is None  # the full network's own batch norm
    assert set(method.loss(images, labels, 0.5).parts) == {"cross_entropy", "divergence", "weight"}


def test_the_small_logits_are_those_of_both_together(batch: tuple[Tensor, Tensor]) -> None:
    network = ac.adjoin(randomise_(TinyNet()), {"alpha2": ac.plan_widths(TinyNet(), IMAGE, 2)}).eval()
    assert torch.equal(network.small_logits(batch[0])["alpha2"], network(batch[0]).smalls["alpha2"])


def test_labels_for_the_small_networks_take_their_part() -> None:
    full, small = torch.randn(2, 5, 4)
    labels = torch.randint(0, 4, (5,))
    found = adjoint_loss(full, {"a": small}, labels, 0.7, small_labels=0.25)
    own = F.cross_entropy(small, labels)
    expected = F.cross_entropy(full, labels) + 0.7 * (0.75 * divergence(full, small) + 0.25 * own)
    torch.testing.assert_close(found.total, expected)
    assert found.small_cross_entropy is not None and torch.equal(found.small_cross_entropy, own)


def test_every_choice_is_some_methods_and_every_method_says_what_it_takes() -> None:
    assert TAKES.keys() == METHODS.keys()
    names = {field.name for each in (MethodOptions, TrainOptions) for field in fields(each)}
    taken = set().union(*TAKES.values())
    assert taken <= names
    assert {field.name for field in fields(MethodOptions)} - taken == {"seed", "approximate"}  # which follow from others


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"method": "distill"}, "--method distill needs a --teacher: a run, a package or a weights file"),
        ({"method": "standard", "teacher": Path("x")}, "--teacher goes with --method distill or substitute, not with standard"),
        ({"method_options": MethodOptions(temperature=2)}, "--temperature goes with --method distill, not with adjoined"),
        (
            {"method": "standard", "method_options": MethodOptions(dropout=0.1)},
            "--dropout goes with --method dropout, not with",
        ),
        ({"method": "standard", "method_options": MethodOptions(small_first=0.5)}, "--small-first goes with --method adjoined"),
        (
            {"method_options": MethodOptions(small_first=1.0)},
            "--small-first 1 is a part of the training: at least 0",
        ),
        ({"method_options": MethodOptions(small_labels=-0.1)}, "--small-labels -0.1 is a part of the loss"),
        ({"method": "dropout", "method_options": MethodOptions(dropout=0.0)}, "is --method standard: take that"),
        ({"method": "dropout", "method_options": MethodOptions(dropout=1.0)}, "--dropout 1 must be at least 0 and below 1"),
    ],
)
def test_what_does_not_go_together_is_refused(here: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ac.AdjCompressError) as caught:
        train(options(**changes), Path("run"))
    assert text in str(caught.value)
    assert not Path("run").exists()


def test_teachers_that_do_not_fit_are_refused() -> None:
    method = DistillMethod.build(TinyNet(), IMAGE, ALPHA)
    with pytest.raises(ac.AdjCompressError, match=r"--teacher gives logits \(1, 7\), the small network \(1, 10\)"):
        method.taught_by_(TinyNet(7), IMAGE)
    with pytest.raises(ac.AdjCompressError, match="distill compares answers"):
        method.taught_by_(TinyNet(), IMAGE, ("first",))
    with pytest.raises(ac.AdjCompressError, match="needs its teacher"):
        method.loss(IMAGE, torch.zeros(2).long(), 0.0)
    with pytest.raises(ac.AdjCompressError, match="--temperature 0 must be above 0"):
        DistillMethod.build(TinyNet(), IMAGE, MethodOptions(alphas=(2,), temperature=0.0))
