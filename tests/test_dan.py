"""A search and the training at its widths: the budget held, both phases resumed, plans that travel, misuse refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TinyNet
from test_search import IMAGE, Smooth, a_table, built
from torch import Tensor

import adjcompress as ac
from adjcompress.adjoined.network import Outputs
from adjcompress.cost import Grid
from adjcompress.data.loader import epoch_batches
from adjcompress.methods import METHODS, DanMethod, MethodOptions, SearchMethod
from adjcompress.report import write_report
from adjcompress.training import TrainOptions, read_plan, resume, train
from adjcompress.training.checkpoint import newest_checkpoint
from adjcompress.training.recipes import make_optimizers
from adjcompress.widths import plan_like

OPTIONS = MethodOptions(budgets=("macs=0.6",))


def test_widths_have_an_optimiser_of_their_own_and_no_weight_decay() -> None:
    method = built(TinyNet(), "macs=0.6")
    groups = {group["name"]: group for group in method.parameter_groups(0.1)}
    assert groups["widths"]["params"] == [method.network.logits] and groups["widths"]["weight_decay"] == 0
    parameters = [parameter for group in groups.values() for parameter in group["params"]]
    assert len(parameters) == len({id(parameter) for parameter in parameters}) == len(list(method.network.parameters()))
    shared, own = make_optimizers(method.parameter_groups(0.1), ac.recipe("cifar"), 100)
    (widths,) = own.param_groups
    assert isinstance(own, torch.optim.Adam) and widths["params"] == [method.network.logits] and widths["weight_decay"] == 0
    assert widths["lr"] == pytest.approx(8 / 0.8 / 100)  # over the steps that choose, the last four fifths
    assert all(parameter is not method.network.logits for group in shared.param_groups for parameter in group["params"])


def test_draws_cool_by_the_same_factor_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    method, seen = built(TinyNet(), "macs=0.6"), []
    draw = method.network.draw
    monkeypatch.setattr(method.network, "draw", lambda temperature, slope: seen.append(temperature) or draw(temperature, slope))
    for progress in (0.0, 0.25, 0.5, 0.75, 1.0):
        method.loss(torch.randn(2, 3, 32, 32), torch.zeros(2).long(), progress)
    assert seen[0] == 4.0 and seen[-1] == pytest.approx(0.3)
    assert [later / earlier for earlier, later in pairwise(seen)] == pytest.approx([(0.3 / 4) ** 0.25] * 4)


def test_a_search_has_the_loss_of_the_training_that_follows() -> None:
    losses = []
    for part in (0.0, 1.0):
        torch.manual_seed(0)
        method = SearchMethod.build(TinyNet(), IMAGE, MethodOptions(budgets=("macs=0.6",), small_labels=part))
        losses.append(float(method.loss(torch.randn(2, 3, 32, 32), torch.zeros(2).long(), 0.9).total.detach()))
    assert losses[0] != losses[1]


def test_a_search_begins_at_its_budget() -> None:
    for budget in ("macs=0.7", "macs=0.5", "params=0.3"):
        method = built(ac.create_model("cifar_resnet20", 10), budget)
        assert method.expected_part()[0].item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("steps", [20, 300])
@pytest.mark.parametrize("budgets", [("macs=0.5",), ("macs=0.6", "params=0.4"), ("latency=0.75@one-core",)])
def test_the_expected_cost_stays_at_the_budget_while_the_search_trades(
    steps: int, budgets: tuple[str, ...], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    if budgets[0].startswith("latency"):  # where layers read a concatenation
        replace(a_table(Smooth(), Grid(16, True), slower=2000), source=str(tmp_path / "table.json")).write()
        asked = MethodOptions(budgets=budgets, table=str(tmp_path / "table.json"))
        method = SearchMethod.build(Smooth(), IMAGE, asked)
    else:
        method = built(ac.create_model("cifar_resnet20", 10), *budgets)
    network = method.network.train()
    optimizer = torch.optim.Adam([network.logits], 8 / steps, betas=(0.9, 0.99))
    wish = torch.randn(network.logits.shape)
    network.forward = lambda images, choice: Outputs(images, {"widest": images * (1 + (choice * wish).sum())})  # type: ignore[method-assign]
    parts = []
    for step in range(steps):
        terms = method.loss(torch.randn(4, 10), torch.zeros(4).long(), step / steps)
        parts.append(terms.parts["part_of_budget"].item())
        terms.total.backward() if terms.total.requires_grad else None
        optimizer.step(), optimizer.zero_grad()
    assert np.abs(np.array(parts) - 1).max() <= 0.01


def test_where_choices_are_soft_the_budget_is_not_used_up_by_one_group() -> None:
    """The likeliest widths cost a third of the budget: every group shares in the rest, whatever a step of it costs."""
    method = built(ac.create_model("resnet18", 10), "macs=0.45", slim=("*",))
    with torch.no_grad():
        method.network.logits.copy_(torch.tensor([2.0, 1.0, 0.0, -1.0]))
    alphas = [group.channels / group.kept for group in method.decide().plan.groups]
    assert max(alphas) / min(alphas) <= 2


def test_the_gradient_of_the_logits_is_that_at_equal_cost() -> None:
    method = built(TinyNet(), "macs=0.6")
    network, wish = method.network, torch.tensor([[1.0, -2.0, 0.5, 3.0]])
    _, slope = method.expected_part()
    torch.manual_seed(1)
    (free,) = torch.autograd.grad((network.draw(2.0) * wish).sum(), network.logits)
    torch.manual_seed(1)
    (held,) = torch.autograd.grad((network.draw(2.0, slope) * wish).sum(), network.logits)
    assert (held * slope).sum().abs() < 1e-6 * held.norm() * slope.norm()
    assert torch.allclose(free - held, -network.price.float() * slope.float(), atol=1e-6) and held.norm() > 0


def test_with_halves_weights_learn_on_one_and_widths_on_the_other() -> None:
    first, second = (epoch_batches(101, 10, 0, epoch, halves=True) for epoch in (0, 1))
    even, odd = (set(torch.cat(batches).tolist()) for batches in (first[::2], first[1::2]))
    assert len(even) == 50 and len(odd) == 51 and not even & odd
    assert set(torch.cat(second[::2]).tolist()) == even and set(torch.cat(second[1::2]).tolist()) == odd
    assert max(len(batch) for batch in first) <= 10 and len(first) == len(second) == 12
    warm = epoch_batches(101, 10, 0, 0, halves=True, first_only=5)
    assert all(set(batch.tolist()) <= even for batch in warm[:5]) and not torch.equal(warm[0], warm[1])
    assert all(torch.equal(*pair) for pair in zip(warm[5:], first[5:], strict=True)) and torch.equal(warm[2], first[2])
    for progress in (0.1, 0.9):
        method = built(TinyNet(), "macs=0.6", halves=True)
        method.network.train()
        images, labels = torch.randn(4, 3, 32, 32), torch.zeros(4).long()
        for step in range(4):
            method.network.zero_grad()
            method.loss(images, labels, progress).total.backward()
            moved = method.network.logits.grad is not None and bool(method.network.logits.grad.any())
            assert moved == (step % 2 == 1 and progress > 0.2)
            assert (method.network.full.head.weight.grad is None) == moved


def test_what_is_frozen_learns_on_neither_half() -> None:
    network = TinyNet()
    network.head.weight.requires_grad_(False)
    method = built(network, "macs=0.6", halves=True)
    for _ in range(3):
        method.loss(torch.randn(4, 3, 32, 32), torch.zeros(4).long(), 0.9).total.backward()
        assert not method.network.full.head.weight.requires_grad


def test_that_the_full_network_would_wait_for_ever_is_said_before_the_search(
    tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = dan_options(digits, method_options=MethodOptions(budgets=("macs=0.6",), small_first=0.9))
    with pytest.raises(ac.AdjCompressError, match="full would wait through all of this training's steps, which are 2"):
        train(replace(options, recipe=options.recipe.changed(batch_size=1000)))
    assert not (tmp_path / "runs").exists()


class Stopped(Exception):
    pass


class StopAt(ac.Reporter):
    """Ends the process's part at the so-manieth event, both phases counted: a phase's start or an epoch's end."""

    def __init__(self, events: int) -> None:
        self.left = events

    def started(self, run: str, recipe: Any, epoch: int) -> None:
        self.count()

    def epoch(self, record: Any) -> None:
        self.count()

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stopped


def dan_options(digits: ac.ImageData, **changes: Any) -> TrainOptions:
    chosen = {"model": "wrn_10_1", "method": "dan", "method_options": OPTIONS, "search_epochs": 2, **changes}
    return TrainOptions(data=digits.spec, recipe=ac.recipe("quick").changed(epochs=2, batch_size=40), **chosen)


@pytest.fixture(scope="module")
def dan_run(tmp_path_factory: pytest.TempPathFactory, digits: ac.ImageData) -> Any:
    folder = tmp_path_factory.mktemp("dan")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return ac.open_run(train(dan_options(digits), Path("runs/dan")).folder.resolve())


@pytest.mark.parametrize("events", [1, 2, 4, 5])
def test_both_phases_resume_to_the_same_weights_and_widths(
    events: int, dan_run: Any, tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Stopped):
        train(dan_options(digits), Path("runs/dan"), reporter=StopAt(events))
    if events < 4:
        with pytest.raises(ac.AdjCompressError, match="still searching for its widths: go on with adjcompress train --resume"):
            ac.open_run(Path("runs/dan"))
    run = resume()
    assert run.config["method"] == dan_run.config["method"]
    assert (run.folder / "plan.json").read_text() == (dan_run.folder / "plan.json").read_text()
    mine, theirs = newest_checkpoint(run.folder), newest_checkpoint(dan_run.folder)
    assert mine is not None and theirs is not None
    assert all(torch.equal(tensor, theirs.checkpoint.weights[name]) for name, tensor in mine.checkpoint.weights.items())
    with pytest.raises(ac.AdjCompressError, match="is finished: there is nothing to resume"):
        resume()


def test_a_search_goes_on_that_a_version_with_fewer_options_began(
    tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Stopped):
        train(dan_options(digits), Path("runs/dan"), reporter=StopAt(2))
    path = Path("runs/dan/search/config.json")
    config = json.loads(path.read_text())
    del config["method"]["settings"]["options"]["growing"]
    path.write_text(json.dumps(config))
    assert resume().results() is not None


def test_the_searched_network_meets_the_budget_and_is_extracted_to_the_last_bit(dan_run: Any, tmp_path: Path) -> None:
    report = ac.extract_package(dan_run, output=tmp_path / "small.safetensors")
    assert report.certificate.max_difference == 0
    assert 0.98 * 0.6 <= report.package.macs / report.full_macs <= 0.6
    found = read_plan(dan_run.folder / "plan.json")
    assert report.package.name == "dan" and report.package.plan == found == read_plan(dan_run.folder / "config.json")
    log = ac.open_run(dan_run.folder / "search").log()
    assert len(log) == 2 and log[-1]["search"]["costs"]["macs"]["budget"] == 0.6
    assert set(log[-1]["search"]["widths"]) == {
        group.name for group in found.groups if group.name in log[-1]["search"]["widths"]
    }
    assert "test" not in (ac.open_run(dan_run.folder / "search").results() or {})  # looked at once, by the training


def test_the_page_shows_the_search_or_says_that_it_cannot_be_read(dan_run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "dan"
    shutil.copytree(dan_run.folder, folder)
    page = write_report(ac.open_run(folder)).read_text()
    for words in ("The search for widths", "Costs over the search", "Widths over the search", "The plan beside uniform ones"):
        assert page.count(words) == 1
    content = json.loads((folder / "plan.json").read_text())
    part = content["search"]["costs"]["macs"] / content["search"]["full"]["macs"]
    assert f">{part:.3f}<" in page and ">0.600<" in page
    told = {**content["search"], "doubt": "the table is in doubt", "shortcoming": "too little was used"}
    (folder / "plan.json").write_text(json.dumps({**content, "search": told}))
    page = write_report(ac.open_run(folder)).read_text()
    assert "the table is in doubt" in page and "too little was used" in page
    for damage in ("{", "[]", json.dumps({**content, "search": {}}), json.dumps({**content, "search": None})):
        (folder / "plan.json").write_text(damage)
        page = write_report(ac.open_run(folder)).read_text()
        assert "The search for widths cannot be read" in page and "Costs over the search" not in page


def test_groups_that_importance_cannot_order_are_named_once_their_widths_are_found(
    tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(ac.create_model("cifar_resnet20", 10).state_dict(), "weights.pth")
    heard: list[str] = []

    class Ears(ac.Reporter):
        def warn(self, text: str) -> None:
            heard.append(text)

    monkeypatch.setattr("adjcompress.training.start.fit", lambda *_, **__: None)  # said before the network is trained
    options = dan_options(digits, model="cifar_resnet20", importance="magnitude", weights=Path("weights.pth"))
    train(options, Path("runs/dan"), reporter=Ears())
    assert [text for text in heard if "--importance magnitude cannot order layer" in text]


@pytest.mark.parametrize("keep", [False, True])
def test_the_training_starts_afresh_or_from_the_searchs_weights(
    keep: bool, tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    begins: list[Tensor] = []

    def watched(method: Any, *arguments: Any, **options: Any) -> Any:
        begins.append(method.network.full.conv1.weight.detach().clone())
        return ac.fit(method, *arguments, **options)

    monkeypatch.setattr("adjcompress.training.start.fit", watched)
    train(dan_options(digits, keep_weights=keep, search_epochs=1), Path("runs/dan"))
    searched = ac.open_run(Path("runs/dan/search")).method().network.full.conv1.weight
    assert torch.equal(begins[1], begins[0]) != keep and torch.equal(begins[1], searched) == keep


def test_halves_and_half_precision_go_through_both_phases(
    tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = dan_options(digits, method_options=MethodOptions(budgets=("macs=0.6",), halves=True), search_epochs=1)
    options = replace(options, data=replace(digits.spec, image_size=16))  # where bf16 is emulated it is very slow
    run = train(options, Path("runs/dan"), ac.Hardware(precision="bf16"))
    assert run.config["precision"] == "bf16" and set((run.results() or {})["test"]) == {"full", "dan"}
    moved = ac.open_run(Path("runs/dan/search")).method().network.logits
    assert moved.abs().max() > 0.1


def test_a_plan_is_used_on_other_data_and_by_other_methods(dan_run: Any, digits: ac.ImageData) -> None:
    plan = read_plan(dan_run.folder / "plan.json")
    network, image = ac.create_model("wrn_10_1", 37), torch.zeros(2, 3, 48, 48)
    for method, name in (("dan", "dan"), ("adjoined", "plan"), ("standard", "plan")):
        made = METHODS[method].build(network, image, MethodOptions(plan=plan))
        other = made.plan_of(name)
        assert other is not None and [group.kept for group in other.groups] == [group.kept for group in plan.groups]
        assert made.deployables()[name](image).shape == (2, 37)


@pytest.mark.parametrize(
    ("method", "options", "more", "message"),
    [
        ("adjoined", {"budgets": ("macs=0.5",)}, {}, "--budget goes with --method dan or budgeted, or with a"),
        ("standard", {}, {"keep_weights": True}, "--keep-weights goes with --method dan, not with standard"),
        ("dan", {"budgets": ("macs=0.5",), "beta": 0.5}, {}, "--beta thins the weights of a fixed small network"),
        (
            "dan",
            {"budgets": ("macs=0.5",), "alphas": (1, 2), "width_step": 8},
            {},
            "--alpha and --width-step both give candidates",
        ),
        ("dan", {"budgets": ("macs=0.5",)}, {"search_epochs": 0}, "--search-epochs 0 must be at least 1"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    method: str, options: dict[str, Any], more: dict[str, Any], message: str, digits: ac.ImageData, tmp_path: Path
) -> None:
    with pytest.raises(ac.AdjCompressError, match=message):
        train(
            dan_options(digits, method=method, method_options=MethodOptions(**options), **{"search_epochs": None, **more}),
            tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


def test_a_method_made_in_python_refuses_what_the_command_does(dan_run: Any) -> None:
    plan, network = read_plan(dan_run.folder / "plan.json"), ac.create_model("wrn_10_1", 10)
    for name, value in {"halves": True, "width_step": 4, "table": "nothing.json", "budgets": ("macs=0.5",)}.items():
        option = "--budget" if name == "budgets" else f"--{name.replace('_', '-')}"
        with pytest.raises(ac.AdjCompressError, match=f"--plan gives the widths, so {option} would do nothing"):
            DanMethod.build(network, IMAGE, MethodOptions(plan=plan, **{name: value}))  # type: ignore[arg-type]
    for name, value in {"beta": -1.0, "weight": float("nan"), "setting": 0.0, "halves": True}.items():
        with pytest.raises(ac.AdjCompressError, match=f"--{name} "):
            METHODS["adjoined"].build(network, IMAGE, MethodOptions(**{name: value}))  # type: ignore[arg-type]


def test_the_second_phase_starts_from_the_weights_that_the_run_began_with(
    tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(ac.Reporter):
        def epoch(self, record: Any) -> None:
            raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    torch.save(ac.create_model("wrn_10_1", 10).state_dict(), "w.pth")
    options = dan_options(digits, search_epochs=1)
    options = replace(options, weights=Path("w.pth"), recipe=options.recipe.changed(epochs=1))
    with pytest.raises(KeyboardInterrupt):
        train(options, Path("run"), reporter=Killed())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    torch.save(ac.create_model("wrn_10_1", 10).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ac.AdjCompressError, match=r"w\.pth no longer holds the weights that .*run began with: put those back"):
        resume(tmp_path / "run")


def test_a_plan_of_another_network_is_refused(dan_run: Any, tmp_path: Path) -> None:
    plan = read_plan(dan_run.folder / "plan.json")
    with pytest.raises(ac.AdjCompressError, match=r"width plan is for another network: it has .* Use it with the model"):
        plan_like(ac.create_model("resnet18", 10), IMAGE, plan)
    with pytest.raises(ac.AdjCompressError, match="--plan gives the widths, so --align would do nothing"):
        DanMethod.build(ac.create_model("wrn_10_1", 10), IMAGE, MethodOptions(plan=plan, align=8))
    group = {"name": "a", "layers": ["a"], "channels": 8, "kept": "4", "asked": 4, "slim": True}
    damages = ("{", "{}", "[]", '{"method": "dan"}', '{"method": {"settings": {"plans": [1]}}}', "3")
    for damage in (*damages, json.dumps({"groups": [group], "cuts": {}, "shapes": {}})):
        (tmp_path / "plan.json").write_text(damage)
        with pytest.raises(ac.AdjCompressError, match=r"plan.json cannot be read .* give a run's plan.json or config.json"):
            read_plan(tmp_path / "plan.json")
