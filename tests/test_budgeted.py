"""An architecture is learnt under a budget, extracted as it was trained, and misuse is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import a_graph_table
from torch import Tensor, nn

import adjcompress as ac
from adjcompress.data import DataSpec, Preprocessing, TensorSplit, augmentation
from adjcompress.deploy.extract import _reestimated_
from adjcompress.methods import BudgetedMethod, MethodOptions
from adjcompress.models.graph import GraphNetwork
from adjcompress.report import write_report
from adjcompress.supernets import LatencyCost, MeasuredCost, StochasticSuperNetwork
from adjcompress.training import TrainOptions, resume, train
from adjcompress.training.checks import check_training

IMAGE = torch.zeros(2, 3, 32, 32)
SMALL = {"columns": 2, "scales": 3, "channels": 4}


def options(**changes: Any) -> TrainOptions:
    return TrainOptions(
        **{
            "model": "neural_fabric",
            "model_options": SMALL,
            "data": DataSpec("digits", limit=80),
            "method": "budgeted",
            "method_options": MethodOptions(budgets=("params=0.6",)),
            "recipe": ac.recipe("quick").changed(epochs=4, batch_size=16),
            **changes,
        }
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("budget", ["macs=0.3", "cycles=0.5"])
def test_drawn_architectures_come_to_the_budget_and_the_decided_one_costs_what_they_do(samples: int, budget: str) -> None:
    """The loss says that every gate is worth something, some more; no image is looked at."""
    torch.manual_seed(0)
    asked = MethodOptions(budgets=(budget,), samples_per_batch=samples)
    method = BudgetedMethod.build(ac.create_model("resnet_fabric", 10), IMAGE, asked)
    network, worth, steps = method.network.train(), torch.rand(len(method.network.logits)) * 0.05, 160

    def stands_in(images: Tensor, gates: Tensor | None = None) -> Tensor:
        chosen = torch.ones(1, len(worth), dtype=torch.bool) if gates is None else gates
        missing = ((~chosen).float() @ worth).repeat_interleave(-(-len(images) // len(chosen)))[: len(images)]
        return torch.nn.functional.pad((2 - 3 * missing + 0.3 * torch.randn(len(images)))[:, None], (0, 9))

    network.forward = stands_in  # type: ignore[method-assign, assignment]
    (gates,) = [group for group in method.parameter_groups(0.0) if group["name"] == "gates"]
    optimizer = torch.optim.Adam(gates["params"], gates["own"]["travel"] / steps, betas=(0.9, 0.99))
    for step in range(steps):
        terms = method.loss(torch.zeros(16, 3, 2, 2), torch.zeros(16).long(), step / steps)
        if terms.total.requires_grad:
            terms.total.backward()
        optimizer.step(), optimizer.zero_grad()
    assert float(network.mean_cost) == pytest.approx(method.limit, rel=0.1)
    cost = method.decided_cost()
    assert cost is not None and cost == pytest.approx(method.limit, rel=0.25)  # a gate of this fabric is a tenth of it
    kept = network.decided()[0]
    assert worth[kept].mean() > worth[~kept].mean()


def test_gates_have_an_optimiser_of_their_own_and_no_weight_decay() -> None:
    method = BudgetedMethod.build(ac.create_model("neural_fabric", 10, **SMALL), IMAGE, MethodOptions(budgets=("params=0.6",)))
    groups = {group["name"]: group for group in method.parameter_groups(0.1)}
    assert [group["weight_decay"] for group in groups.values()] == [0.1, 0.0, 0.0]
    assert groups["gates"]["params"] == [method.network.logits] and "own" in groups["gates"]
    assert all(parameter.ndim > 1 for parameter in groups["decay"]["params"])
    assert sum(len(group["params"]) for group in groups.values()) == len(list(method.network.parameters()))


def test_a_run_resumes_to_the_same_bits_and_its_package_is_the_architecture(here: Path) -> None:
    fabric: dict[str, Any] = {"model": "resnet_fabric", "model_options": {"blocks": 1}}
    whole = train(options(**fabric), Path("whole"))

    class Killed(ac.Reporter):
        def epoch(self, record: Any) -> None:
            if record["epoch"] == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(options(**fabric), Path("killed"), reporter=Killed())
    resumed = resume(Path("killed"))
    first, second = (run.method().network.state_dict() for run in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    record = whole.log()[-1]["architecture"]
    assert set(record) == {"cost", "drawn", "budget", "price", "gates"} and record["budget"] == pytest.approx(0.6)

    report = ac.extract_package(whole)
    assert report.certificate.max_difference == 0 and report.package.parameters < report.full_parameters
    network = ac.load_package(report.path)
    assert isinstance(network, GraphNetwork) and not network.graph.gates
    assert network(IMAGE).shape == (2, 10)
    exported = ac.export_package(report.path, "small.onnx", whole.data())
    assert exported.certificate.relative < 1e-4
    adjoined = options(method="adjoined", method_options=MethodOptions(alphas=(2,)), **fabric)
    small = ac.extract_package(train(adjoined, Path("both")))
    assert small.certificate.max_difference == 0  # a fabric can be the full network of an adjoined run


def test_a_search_under_a_latency_is_one_of_architectures_measured_or_of_a_table(here: Path) -> None:
    model = ac.create_model("resnet_fabric", 10, blocks=1)
    measured = BudgetedMethod.build(model, IMAGE, MethodOptions(budgets=("latency=0.7",)))
    assert isinstance(measured.cost, MeasuredCost) and measured.limit == pytest.approx(0.7)
    measured.network.train()
    terms = measured.loss(torch.rand(4, 3, 32, 32), torch.arange(4), 0.5)
    assert torch.isfinite(terms.total) and 0 < float(terms.parts["cost"]) <= 1
    a_graph_table(model).write()
    asked = MethodOptions(budgets=("latency=0.9@one-core",), table="made-up.json")
    told = BudgetedMethod.build(model, IMAGE, asked)
    assert isinstance(told.cost, LatencyCost)
    again = BudgetedMethod.restore(model, told.settings())
    assert again.cost.full == pytest.approx(told.cost.full)
    Path("made-up.json").unlink()
    looked_at = BudgetedMethod.restore(model, told.settings())  # to extract or report, no table is needed
    assert looked_at.limit == told.limit and looked_at.deployables()
    with pytest.raises(ac.AdjCompressError, match="is gone, by which the search began"):
        looked_at.loss(torch.rand(4, 3, 32, 32), torch.arange(4), 0.5)


def test_policy_samples_are_kept_where_they_do_not_reach_the_output_and_weights_train_in_those_that_do() -> None:
    method = BudgetedMethod.build(ac.create_model("neural_fabric", 10, **SMALL), IMAGE, MethodOptions(budgets=("params=0.6",)))
    torch.manual_seed(0)
    with torch.no_grad():
        method.network.logits.fill_(0.5)
    drawn = method.network.draw(200)
    reached = method.network.reach.active(drawn)[:, -1]
    trained = method._connected(drawn)
    assert 0 < int(reached.sum()) < 200
    assert torch.equal(trained[reached], drawn[reached]) and bool(method.network.reach.active(trained)[:, -1].all())


def test_the_last_part_of_the_training_is_the_decided_architectures_own() -> None:
    method = BudgetedMethod.build(ac.create_model("neural_fabric", 10, **SMALL), IMAGE, MethodOptions(budgets=("params=0.6",)))
    method.network.train()
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    method.loss(images, labels, 0.5)
    assert not method.network.settled
    terms = method.loss(images, labels, 0.85)
    assert method.network.settled and set(terms.parts) == {"cross_entropy"}
    cost = method.decided_cost()
    assert cost is not None and 0.4 < cost <= 0.6 == pytest.approx(method.limit)
    own = F.cross_entropy(method.network(images, method.network.decided()), labels)
    torch.testing.assert_close(terms.total.detach(), own.detach())


def test_batch_norms_are_measured_on_all_of_a_sorted_split(here: Path) -> None:
    """A training split sorted by class gives the statistics of a shuffled one, to what 5,000 images tell."""
    data = ac.load_data("digits")
    assert isinstance(data.train, TensorSplit)
    dark = torch.zeros(8000, 3, 8, 8, dtype=torch.uint8)
    light = torch.full((8000, 3, 8, 8), 255, dtype=torch.uint8)
    labels = torch.arange(2).repeat_interleave(8000)
    sorted_ = replace(data, train=TensorSplit(torch.cat([dark, light]), labels), preprocessing=Preprocessing(8))
    network = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    _reestimated_(network, sorted_, augmentation("none", sorted_), torch.zeros(2, 3, 8, 8))
    ends = sorted_.preprocessing.normalise(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1))
    torch.testing.assert_close(network[0].running_var, ends.var(0, unbiased=False).flatten(), rtol=0.02, atol=0)


def test_several_processes_are_refused_in_one_line(digits: ac.ImageData) -> None:
    method = BudgetedMethod.build(ac.create_model("resnet_fabric", 10, blocks=1), IMAGE, MethodOptions(budgets=("macs=0.5",)))
    check_training(method, digits, ac.recipe("quick"), 1)
    with pytest.raises(ac.AdjCompressError, match="--method budgeted needs one process here, not 2: every process would run"):
        check_training(method, digits, ac.recipe("quick"), 2)


def test_a_budget_that_is_not_met_is_said(here: Path) -> None:
    method = BudgetedMethod.build(ac.create_model("neural_fabric", 10, **SMALL), IMAGE, MethodOptions(budgets=("params=0.6",)))
    assert "was not met: the architecture costs 1.67 of it" in str(method.shortcoming())
    with torch.no_grad():
        method.network.logits.fill_(-1)
    assert "do not reach the output" in str(method.shortcoming())
    heard: list[str] = []

    class Listening(ac.Reporter):
        def warn(self, text: str) -> None:
            heard.append(text)

    one = ac.recipe("quick").changed(epochs=1, batch_size=80)  # one step, and all gates open
    run = train(options(recipe=one), Path("run"), reporter=Listening())
    assert heard == [(run.results() or {})["shortcoming"]] and "was not met" in heard[0]
    assert "was not met" in write_report(run).read_text()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model": "resnet18", "model_options": {}}, "--method budgeted chooses in a graph of layers, and ResNet is none"),
        ({"method_options": MethodOptions()}, "--method budgeted needs a --budget, such as --budget macs=0.5"),
        ({"method_options": MethodOptions(budgets=("macs=0.5", "params=0.5"))}, "--method budgeted has one budget"),
        ({"method_options": MethodOptions(budgets=("macs=1",))}, "--budget macs=1 allows the whole network"),
        ({"method_options": MethodOptions(budgets=("params=10",))}, "is below the least that was found to reach the output"),
        (
            {"method_options": MethodOptions(budgets=("latency=2ms@one-core",))},
            "without a --table whole architectures are measured, by torch on one thread",
        ),
        (
            {"method_options": MethodOptions(budgets=("macs=0.5",), table="t.json")},
            "--table belongs to --budget latency=..., not to macs=0.5",
        ),
        ({"method_options": MethodOptions(budgets=("latency=1s",))}, "--budget latency=1000ms allows the whole network"),
        ({"method_options": MethodOptions(budgets=("cost=0.5",))}, "needs the cost itself: --cost package.module:function"),
        (
            {"method_options": MethodOptions(budgets=("macs=0.5",), cost="a:b")},
            "--cost belongs to --budget cost=...",
        ),
        ({"method_options": MethodOptions(budgets=("macs=0.5",), machines=2)}, "--machines belongs to --budget cycles"),
        (
            {"recipe": ac.recipe("quick").changed(ema=0.9), "method_options": MethodOptions(budgets=("macs=0.5",))},
            "--ema does not go with --method budgeted: its weights belong to architectures that change",
        ),
        ({"method_options": MethodOptions(budgets=("cycles=0.5",), table="t.json")}, "--table belongs to --budget latency"),
        ({"model_options": {"columns": "two"}}, "neural_fabric: columns is a whole number, not 'two'"),
        ({"method_options": MethodOptions(budgets=("macs=0.5",), samples_per_batch=0)}, "--samples-per-batch 0 must be at"),
        ({"method_options": MethodOptions(budgets=("macs=0.5",), warm_up=1.0)}, "--warm-up 1 must be at least 0 and below 1"),
        (
            {"method_options": MethodOptions(budgets=("macs=0.5",), alphas=(2,))},
            "--alpha goes with --method adjoined, dan, distill, dropout or standard, not",
        ),
        (
            {"method": "adjoined", "method_options": MethodOptions(alphas=(2,), machines=2)},
            "--machines goes with --method budgeted, not with adjoined",
        ),
        (
            {"method": "dan", "method_options": MethodOptions(budgets=("cycles=20",))},
            "dan's cost 'cycles' is unknown. Choices: macs, params, latency",
        ),
    ],
)
def test_what_cannot_be_is_refused(here: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ac.AdjCompressError) as caught:
        train(options(**changes), Path("run"))
    assert text in str(caught.value)
    assert not Path("run").exists()


def test_gates_are_settled_once_though_their_optimiser_has_momentum(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle, decided = StochasticSuperNetwork.settle_, []

    def told(network: StochasticSuperNetwork, gates: Tensor) -> None:
        decided.append(gates.clone())
        settle(network, gates)

    monkeypatch.setattr(StochasticSuperNetwork, "settle_", told)
    run = train(options(), here / "run")
    (gates,) = decided
    network = run.method().network
    assert isinstance(network, StochasticSuperNetwork) and not (network.logits.abs() == network.logits.abs()[0]).all()
    assert torch.equal(network.decided()[0], gates)
