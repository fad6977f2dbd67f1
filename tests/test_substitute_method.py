"""Training with substitutes: weight decay by compression, attention transfer, teachers, and substitutes under widths."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from conftest import randomise_
from torch import nn

import adjcompress as ac
from adjcompress.data import DataSpec
from adjcompress.methods import AdjoinedMethod, MethodOptions, SubstituteMethod
from adjcompress.methods.supervised import cross_entropy, tell_progress_
from adjcompress.models.darts import WithAuxiliary
from adjcompress.report import write_report
from adjcompress.substitutes import Substitute, Substitution
from adjcompress.substitutes.attention import attention_loss, attention_map, attention_of, stages
from adjcompress.substitutes.hashed import Hashed
from adjcompress.training import TrainOptions, resume, train
from adjcompress.training.teacher import read_teacher

IMAGE = torch.zeros(2, 3, 32, 32)


def built(name: str = "low_rank", model: str = "wrn_10_1", setting: float = 0.25, **options: Any) -> SubstituteMethod:
    torch.manual_seed(0)
    return SubstituteMethod.build(ac.create_model(model, 10), IMAGE, MethodOptions(substitute=name, setting=setting, **options))


def groups_by_parameter(method: SubstituteMethod) -> dict[str, float]:
    """Each parameter's name and weight decay."""
    names = {id(parameter): name for name, parameter in method.network.named_parameters()}
    return {
        names[id(parameter)]: group["weight_decay"] for group in method.parameter_groups(1.0) for parameter in group["params"]
    }


# --- weight decay by compression ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["low_rank", "shuffle", "tensor_train", "aligned_tensor_train", "tucker", "hashed", "acdc"])
def test_each_substitute_decays_by_its_own_compression(name: str) -> None:
    method = built(name, setting={"shuffle": 2, "acdc": 2}.get(name, 0.25))
    decays = groups_by_parameter(method)
    assert len(decays) == len(list(method.network.parameters()))  # every parameter once
    inside = set()
    for prefix, layer in method.network.named_modules():
        if isinstance(layer, Substitute):
            names = {id(parameter): f"{prefix}.{key}" for key, parameter in layer.named_parameters()}
            compressed = layer.compressed()
            ratio = sum(parameter.numel() for parameter in compressed) / (layer.inputs * layer.outputs)
            for parameter in compressed:
                inside.add(names[id(parameter)])
                assert decays[names[id(parameter)]] == pytest.approx(min(1, ratio))
    for key, decay in decays.items():
        if key not in inside:
            parameter = method.network.get_parameter(key)
            assert decay == (0.0 if parameter.ndim < 2 else 1.0), key  # stem, classifier, depthwise kernels, shortcuts


@pytest.mark.parametrize(
    ("name", "setting", "ratio"), [("low_rank", 0.03, 0.016480), ("shuffle", 7, 0.019737), ("tensor_train", 0.7, 0.066158)]
)
def test_by_the_network_all_decay_by_the_published_ratio(name: str, setting: float, ratio: float) -> None:
    with torch.device("meta"):
        model = ac.create_model("wrn_28_10", 10)
        plan = ac.plan_substitution(model, name, setting=setting)
        dense = sum(parameter.numel() for parameter in model.parameters())
        method = SubstituteMethod(ac.apply_substitution(model, plan, approximate=False), plan, dense, "network")
    (group,) = [group for group in method.parameter_groups(1.0) if group["name"].startswith("substitutes")]
    assert group["weight_decay"] == pytest.approx(ratio, abs=5e-7)


def test_without_scaling_substitutes_decay_like_the_matrices_that_they_stand_for() -> None:
    method = built("hashed", weight_decay_scaling="none")
    (group,) = [group for group in method.parameter_groups(0.1) if group["name"].startswith("substitutes")]
    assert group["weight_decay"] == 0.1


# --- attention transfer ---------------------------------------------------------------------------------------------


def test_the_attention_loss_is_the_published_formula() -> None:
    torch.manual_seed(0)
    ours = {"a": torch.randn(3, 5, 4, 4), "b": torch.randn(3, 7, 2, 2)}
    theirs = {"a": torch.randn(3, 9, 4, 4), "b": torch.randn(3, 2, 2, 2)}
    expected = 0.0
    for name in ours:
        maps = [features[name].pow(2).mean(1).reshape(3, -1) for features in (ours, theirs)]
        first, second = (map / map.norm(dim=1, keepdim=True) for map in maps)
        expected += 1000 * 3 / 2 * (first - second).pow(2).mean().item()
    found = attention_loss(*({name: attention_map(features) for name, features in side.items()} for side in (ours, theirs)))
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("wrn_10_1", ("layer1", "layer2", "layer3")),
        ("resnet18", ("layer1", "layer2", "layer3", "layer4")),
        ("mobilenet_v2", ("features.3", "features.6", "features.13", "features.18")),
        ("densenet121", tuple(f"features.{kind}{n}" for n in range(1, 5) for kind in ("denseblock", "transition"))[:-1]),
    ],
)
def test_stages_are_found_by_default(model: str, expected: tuple[str, ...]) -> None:
    assert stages(ac.create_model(model, 10).eval(), torch.zeros(1, 3, 64, 64)) == expected


def test_maps_are_of_the_named_layers_and_the_teacher_learns_nothing() -> None:
    method, teacher = built(), ac.create_model("wrn_10_1", 10).eval()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    method.taught_by_(teacher, IMAGE)
    assert method.attention == ("layer1", "layer2", "layer3")
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    terms = method.loss(images, labels, 0.5)
    with torch.no_grad(), attention_of(method.network, method.attention) as own:
        logits = method.network(images)  # in training mode, as in the loss: batch statistics
    with torch.no_grad(), attention_of(teacher, method.attention) as wanted:
        teacher(images)
    assert terms.parts["attention"].item() == pytest.approx(attention_loss(own, wanted).item(), rel=1e-4)
    assert terms.total.item() == pytest.approx((F.cross_entropy(logits, labels) + terms.parts["attention"]).item(), rel=1e-4)
    terms.total.backward()
    assert method.teacher is not None and not method.teacher.training
    assert all(parameter.grad is None for parameter in (*teacher.parameters(), *method.teacher.parameters()))
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


@pytest.mark.parametrize(
    ("teacher", "attention", "text"),
    [
        (lambda: ac.create_model("wrn_10_1", 7), (), "The teacher knows 7 classes and the data has 10"),
        (lambda: ac.create_model("wrn_10_1", 10), ("layer7",), "--attention layer7: The network has no layer of that name"),
        (lambda: ac.create_model("mobilenet_v2", 10), ("layer1",), "The teacher has no layer of that name"),
        (
            lambda: ac.create_model("resnet18", 10),
            ("layer2",),
            "the attention maps differ in size, 16x16 and the teacher's 4x4",
        ),
        (lambda: ac.create_model("wrn_10_1", 10), ("fc",), "the layer gives no images (N, C, H, W)"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(teacher: Any, attention: tuple[str, ...], text: str) -> None:
    with pytest.raises(ac.AdjCompressError) as caught:
        built().taught_by_(teacher(), IMAGE, attention)
    assert text in str(caught.value)


# --- darts: what its own training needs -----------------------------------------------------------------------------


def test_an_auxiliary_head_adds_two_fifths_of_its_loss_in_training_alone() -> None:
    network = ac.create_model("darts", 10, channels=4, cells=3, auxiliary=True)
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([1, 2])
    outputs = network.train()(images)
    assert isinstance(outputs, WithAuxiliary)
    expected = F.cross_entropy(outputs.logits, labels) + 0.4 * F.cross_entropy(outputs.auxiliary, labels)
    assert cross_entropy(outputs, labels).item() == pytest.approx(expected.item())
    assert network.eval()(images).shape == (2, 10)


def test_paths_are_dropped_more_and_more_as_training_goes_on() -> None:
    torch.manual_seed(0)
    network = ac.create_model("darts", 10, channels=4, cells=3, drop_path=0.9).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    images = torch.randn(2, 3, 32, 32)
    tell_progress_(network, 0.0)
    assert torch.equal(network(images), network(images))
    tell_progress_(network, 1.0)
    assert not torch.equal(network(images), network(images))


# --- runs, teachers, resuming ---------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(**changes: Any) -> TrainOptions:
    asked = MethodOptions(substitute="hashed", budgets=("params=0.15",))
    return TrainOptions(
        **{
            "model": "wrn_10_1",
            "data": DataSpec("digits", limit=80),
            "method": "substitute",
            "method_options": asked,
            "recipe": ac.recipe("quick").changed(epochs=2, batch_size=40),
            **changes,
        }
    )


def standard() -> TrainOptions:
    return options(
        method="standard", method_options=MethodOptions(), recipe=ac.recipe("quick").changed(epochs=1, batch_size=40)
    )


def test_a_run_with_a_teacher_resumes_to_the_same_bits_and_its_package_rebuilds_it(here: Path) -> None:
    teacher = train(standard(), Path("teacher"))
    whole = train(options(teacher=teacher.folder), Path("whole"))
    settings = whole.config["method"]["settings"]
    assert settings["attention"] == ["layer1", "layer2", "layer3"]
    assert settings["substitution"]["substitute"] == "hashed"
    assert whole.log()[-1]["train"]["attention"] > 0

    class Killed(ac.Reporter):
        def epoch(self, record: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(options(teacher=teacher.folder), Path("killed"), reporter=Killed())
    resumed = resume(Path("killed"))
    for one, other in zip(whole.method().network.parameters(), resumed.method().network.parameters(), strict=True):
        assert torch.equal(one, other)

    report = ac.extract_package(whole)
    assert report.path.name == "small-substitute.safetensors"
    assert report.package.parameters <= 0.15 * report.full_parameters
    assert report.certificate.max_difference == 0
    assert isinstance(ac.package_info(report.path).substitution, Substitution)
    loaded = ac.load_package(report.path)
    assert torch.equal(loaded(IMAGE), whole.method().network(IMAGE))
    page = write_report(whole).read_text()
    assert "hashed at" in page and "attention transfer at layer1, layer2, layer3" in page


def test_a_teacher_that_changed_is_not_taken_for_the_same(here: Path) -> None:
    weights = Path("teacher.pt")
    torch.save(ac.create_model("wrn_10_1", 10).state_dict(), weights)

    class Killed(ac.Reporter):
        def epoch(self, record: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(options(teacher=weights), Path("run"), reporter=Killed())
    torch.save(ac.create_model("wrn_10_1", 10).state_dict(), weights)
    with pytest.raises(ac.AdjCompressError, match="is no longer the teacher that run began with"):
        resume(Path("run"))
    weights.unlink()
    with pytest.raises(ac.AdjCompressError, match="does not exist: it takes a run's folder, a package or a weights file"):
        resume(Path("run"))


def test_a_teacher_comes_from_a_package(here: Path) -> None:
    spec = ac.ModelSpec("wrn_10_1", 10, 32)
    torch.manual_seed(0)
    network = ac.substitute(randomise_(spec.build()), "low_rank", 0.5).eval()
    plan = ac.plan_substitution(spec.build(), "low_rank", setting=0.5)
    data = ac.load_data("digits")
    of_data = {"classes": data.classes, "preprocessing": data.preprocessing}
    ac.save_package(network, "teacher.safetensors", model=spec, substitution=plan, **of_data)
    teacher, _ = read_teacher(Path("teacher.safetensors"), ac.ModelSpec("resnet18", 10), data)
    assert torch.equal(teacher(IMAGE), network(IMAGE))


def test_a_teacher_of_other_classes_or_images_or_no_package_is_refused(here: Path) -> None:
    spec, data = ac.ModelSpec("wrn_10_1", 10, 32), ac.load_data("digits")
    names = tuple(f"animal{number}" for number in range(10))
    ac.save_package(spec.build(), "animals.safetensors", model=spec, classes=names, preprocessing=data.preprocessing)
    with pytest.raises(ac.AdjCompressError, match=r"knows 10 classes \(animal0, animal1, animal2 and 7 more\) and the data"):
        read_teacher(Path("animals.safetensors"), spec, data)
    other = dataclasses.replace(data.preprocessing, mean=(0.1, 0.2, 0.3))
    ac.save_package(spec.build(), "grey.safetensors", model=spec, classes=data.classes, preprocessing=other)
    with pytest.raises(ac.AdjCompressError, match="give one that was trained on images normalised alike"):
        read_teacher(Path("grey.safetensors"), spec, data)
    larger = dataclasses.replace(data.preprocessing, image_size=64)
    ac.save_package(spec.build(), "large.safetensors", model=spec, classes=data.classes, preprocessing=larger)
    with pytest.raises(ac.AdjCompressError, match="was trained on 64x64 images, the data has 32x32"):
        read_teacher(Path("large.safetensors"), spec, data)
    safetensors.torch.save_file({"a": torch.zeros(1)}, "odd.safetensors", {"adjcompress": "{}"})
    with pytest.raises(ac.AdjCompressError, match=r"odd\.safetensors is damaged: its metadata cannot be read"):
        read_teacher(Path("odd.safetensors"), spec, data)


@pytest.mark.parametrize("precision", ["64", "bf16"])
def test_a_teacher_teaches_in_every_precision(here: Path, precision: str) -> None:
    torch.save(ac.create_model("wrn_10_1", 10).state_dict(), "teacher.pt")
    one = ac.recipe("quick").changed(epochs=1, batch_size=40)
    run = train(options(teacher=Path("teacher.pt"), recipe=one), Path("run"), ac.Hardware(precision=precision))
    assert run.log()[-1]["train"]["attention"] > 0


def test_averaged_weights_leave_a_hash_what_it_is(here: Path) -> None:
    averaged = ac.recipe("quick").changed(epochs=2, batch_size=8, ema=0.9)
    run = train(options(recipe=averaged), Path("run"))
    last = run.log()[-1]["validation"]["substitute"]["loss"]
    network = run.method().network.eval()
    data = run.data()
    images, labels = data.preprocessing.normalise(data.validation.images), data.validation.labels  # type: ignore[attr-defined]
    assert F.cross_entropy(network(images), labels).item() == pytest.approx(last, rel=1e-3)
    for layer in (module for module in network.modules() if isinstance(module, Hashed)):
        assert torch.equal(layer.order, Hashed(layer.inputs, layer.outputs, layer.setting).order)


def test_attention_at_a_layer_that_is_worked_on_in_place() -> None:
    torch.manual_seed(0)
    method = built("low_rank", "vgg11_bn")
    method.taught_by_(ac.create_model("vgg11_bn", 10), IMAGE, ("features.5", "features.9"))
    method.loss(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]), 0.0).total.backward()
    assert all(parameter.grad is not None for parameter in method.network.parameters())


def test_depthwise_kernels_of_one_pixel_decay_as_all_others_do() -> None:
    method = built("shuffle", "resnet18", setting=2)
    decays = groups_by_parameter(method)
    assert decays["layer2.0.downsample.0.depthwise.weight"] == decays["layer2.0.conv1.depthwise.weight"] == 1.0


def test_by_the_network_the_decay_under_widths_is_that_of_the_substituted_network() -> None:
    asked = MethodOptions(substitute="low_rank", setting=0.1, weight_decay_scaling="network")
    torch.manual_seed(0)
    alone = SubstituteMethod.build(ac.create_model("wrn_10_1", 10), IMAGE, asked)
    torch.manual_seed(0)
    method = AdjoinedMethod.build(ac.create_model("wrn_10_1", 10), IMAGE, dataclasses.replace(asked, alphas=(2,)))
    again = AdjoinedMethod.restore(ac.create_model("wrn_10_1", 10), json.loads(json.dumps(method.settings())))
    decays = [
        {group["weight_decay"] for group in each.parameter_groups(1.0) if group["name"].startswith("substitutes")}
        for each in (alone, method, again)
    ]
    assert decays[0] == decays[1] == decays[2] and len(decays[0]) == 1


def test_an_auxiliary_head_is_not_cut_and_paths_are_dropped_under_widths_too() -> None:
    small = {"channels": 8, "cells": 3}
    with pytest.raises(ac.AdjCompressError, match="A network with an auxiliary head cannot be cut"):
        AdjoinedMethod.build(ac.create_model("darts", 10, auxiliary=True, **small), IMAGE, MethodOptions(alphas=(2,)))
    method = AdjoinedMethod.build(ac.create_model("darts", 10, drop_path=0.5, **small), IMAGE, MethodOptions(alphas=(2,)))
    method.loss(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]), 0.75)
    assert method.network.full.progress == method.network.smalls["alpha2"].progress == 0.75


def test_trained_weights_are_what_substitutes_start_from(here: Path) -> None:
    torch.manual_seed(3)
    model = randomise_(ac.create_model("wrn_10_1", 10))
    torch.save(model.state_dict(), "trained.pt")
    asked = MethodOptions(substitute="low_rank", setting=1.0, approximate=True, substitute_layers=("layer3.0.shortcut",))
    method = SubstituteMethod.build(model, IMAGE, asked)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(method.network.eval()(images), model.eval()(images), rtol=1e-3, atol=1e-3)


# --- under widths ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "setting"), [("low_rank", 0.3), ("shuffle", 2), ("shuffle", 4)])
@pytest.mark.parametrize("model", ["wrn_10_2", "resnet18"])
def test_a_substituted_network_is_the_full_one_of_an_adjoined_run(model: str, name: str, setting: float) -> None:
    torch.manual_seed(0)
    asked = MethodOptions(substitute=name, setting=setting, alphas=(2,))
    method = AdjoinedMethod.build(randomise_(ac.create_model(model, 10)), IMAGE, asked)
    small = method.network.extract("alpha2")
    images = torch.randn(2, 3, 32, 32)
    method.network.eval()
    assert torch.equal(small(images), method.logits(images)["alpha2"])
    assert ac.count(small, IMAGE).parameters < 0.75 * ac.count(method.network.full, IMAGE).parameters
    again = AdjoinedMethod.restore(ac.create_model(model, 10), json.loads(json.dumps(method.settings())))
    again.network.load_state_dict(method.network.state_dict())
    assert torch.equal(again.network.eval().extract("alpha2")(images), small(images))
    decays = [group for group in method.parameter_groups(1.0) if group["name"].startswith("substitutes")]
    assert decays and all(group["weight_decay"] <= 1 for group in decays)
    assert sum(len(group["params"]) for group in method.parameter_groups(1.0)) == len(list(method.network.parameters()))


@pytest.mark.parametrize("name", ["hashed", "tensor_train", "tucker", "acdc", "aligned_tensor_train"])
def test_substitutes_that_cannot_be_cut_say_so(name: str) -> None:
    asked = MethodOptions(substitute=name, setting=2 if name == "acdc" else 0.3, alphas=(2,))
    with pytest.raises(ac.AdjCompressError, match=r"cannot be cut: .* \(low_rank and shuffle can be cut\)"):
        AdjoinedMethod.build(ac.create_model("wrn_10_1", 10), IMAGE, asked)


# --- what cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"method_options": MethodOptions(budgets=("params=0.4",))}, "--method substitute needs --substitute NAME"),
        ({"model_options": {"num_classes": 5}}, "--model-option num_classes: the data and --model say that already"),
        ({"model": "darts", "model_options": {"cells": "a"}}, "Model darts needs 3 cells or more"),
        ({"model": "darts", "model_options": {"drop_path": 1.5}}, "drop_path=1.5 must be at least 0 and below 1"),
        (
            {"model": "googlenet", "model_options": {"aux_logits": True}, "data": DataSpec("digits", 64, limit=80)},
            "gives GoogLeNetOutputs in training, where logits (N, classes) are expected",
        ),
        (
            {"method_options": MethodOptions(substitute="hashed", setting=0.3, slim=("layer2",))},
            "--slim goes with --method adjoined, dan, distill, dropout or standard, not with substitute",
        ),
        ({"method_options": MethodOptions()}, "--method substitute needs --substitute NAME"),
        (
            {"method": "standard", "method_options": MethodOptions(substitute="hashed", setting=0.3)},
            "--substitute goes with --method adjoined or substitute, not with standard",
        ),
        ({"method": "dan"}, "--substitute goes with --method adjoined or substitute, not with dan"),
        ({"attention": ("layer1",)}, "--attention needs a --teacher"),
        ({"method": "adjoined", "teacher": Path("x")}, "--teacher goes with --method distill or substitute, not with adjoined"),
        ({"teacher": Path("nowhere")}, "--teacher nowhere does not exist: it takes a run's folder, a package or a weights"),
        (
            {"method": "adjoined", "method_options": MethodOptions(setting=0.3)},
            "--setting belongs to a --substitute: name one, or leave --setting out",
        ),
        (
            {"method_options": MethodOptions(substitute="hashed", setting=0.3, budgets=("params=0.4",))},
            "--setting and --budget both say how large the substitutes are",
        ),
        (
            {"method_options": MethodOptions(substitute="hashed", budgets=("macs=0.4",))},
            "--budget macs=0.4: a substitute's budget is one number of parameters",
        ),
        ({"method_options": MethodOptions(substitute="hashed")}, "hashed needs either a setting or a number of parameters"),
        (
            {"method_options": MethodOptions(substitute="hashed", setting=0.3, alphas=(2,))},
            "--alpha goes with --method adjoined, dan, distill, dropout or standard, not with substitute: leave it out",
        ),
        (
            {"method_options": MethodOptions(substitute="hashed", setting=0.3, weight_decay_scaling="some")},
            "--weight-decay-scaling 'some' is unknown. Choices: ",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(here: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ac.AdjCompressError) as caught:
        train(options(**changes), Path("run"))
    assert text in str(caught.value)
    assert not Path("run").exists()


def test_the_stem_and_first_stage_of_a_substituted_network_keep_their_width() -> None:
    """As in the papers: the depthwise layer that begins the second stage has the first one's channels."""
    asked = MethodOptions(alphas=(2,), substitute="low_rank", setting=0.3, trunk="shared")
    method = AdjoinedMethod.build(ac.create_model("resnet18", 10), torch.zeros(2, 3, 32, 32), asked)
    widths = {group.name: (group.channels, group.kept) for group in method.network.plans["alpha2"].groups}
    assert widths["conv1"] == (64, 64) and widths["layer2.0.conv2.pointwise.expand"] == (128, 64)
    assert "layer1" in method.network.trunk


def test_an_auxiliary_head_stays_behind_when_the_network_leaves(here: Path) -> None:
    small = {"cells": 3, "channels": 4, "auxiliary": True}
    asked = MethodOptions(substitute="low_rank", setting=0.3)
    run = train(options(model="darts", model_options=small, method_options=asked), "run")
    report = ac.extract_package(run)
    assert report.package.model.options["auxiliary"] is False
    network = ac.load_package(report.path)
    assert not any(name.startswith("auxiliary") for name in network.state_dict())
    assert report.package.parameters == sum(parameter.numel() for parameter in network.parameters())
    dense = ac.create_model("darts", 10, cells=3, channels=4)
    assert (report.beside, report.full_parameters) == ("dense", sum(parameter.numel() for parameter in dense.parameters()))


def test_an_adjoined_network_of_substitutes_is_compared_with_its_own_full_one(here: Path) -> None:
    wanted = MethodOptions(substitute="low_rank", setting=0.3, alphas=(2.0,))
    run = train(options(method="adjoined", method_options=wanted), "run")
    report, full = ac.extract_package(run), run.method().deployables()["full"]
    assert (report.beside, report.full_parameters) == ("full", ac.count(full, IMAGE).parameters)
    with pytest.raises(ac.AdjCompressError, match="--weight-decay-scaling 'matrx' is unknown"):
        wrong = dataclasses.replace(wanted, weight_decay_scaling="matrx")
        train(options(method="adjoined", method_options=wrong), "other")
    assert not Path("other").exists()
