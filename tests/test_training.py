"""A training that was interrupted ends as if it had not been, and what goes wrong is said."""

from __future__ import annotations

import atexit
import functools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TinyNet, tiny_method, train_tiny
from safetensors.torch import load_file
from test_data import write_folder, write_npz
from torch import Tensor, nn

import adjcompress as ac
from adjcompress.data import DataSpec, read_data, same_images
from adjcompress.methods import METHODS, Method, MethodOptions, StandardMethod, Terms, decay_groups
from adjcompress.running import evaluating
from adjcompress.training import Run, evaluate, hardware_of
from adjcompress.training.batch_norm import synchronised_batch_norm
from adjcompress.training.checkpoint import checkpoints, load_optimizers_, newest_checkpoint, optimizer_tensors
from adjcompress.training.meter import Meter
from adjcompress.training.recipes import RECIPES, make_optimizers, set_rates_
from adjcompress.training.run import held, point_latest_at

SCRIPT = """
import sys, torch
sys.path.insert(0, {tests!r})
from test_training import Path, ac, train_slowly

class Slow(ac.Reporter):
    def step(self, news):
        print(news.epoch, news.step, flush=True)

torch.set_num_threads(1)
train_slowly(Path("run"), sys.argv[1] == "resume", Slow())
"""


def train_slowly(folder: Path, resume: bool, reporter: ac.Reporter) -> None:
    """Three epochs of seven steps, with a checkpoint after each step."""
    digits = read_data(DataSpec("digits", limit=120))
    spec, method = tiny_method(digits)
    recipe = ac.recipe("quick").changed(epochs=3, batch_size=16, label_smoothing=0.1, ema=0.9)
    ac.fit(method, digits, recipe, folder, model=spec, resume=resume, reporter=reporter, checkpoint_minutes=0.0)


def start(folder: Path, mode: str) -> subprocess.Popen[str]:
    script = folder / "train_it.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    return subprocess.Popen([sys.executable, str(script), mode], cwd=folder, stdout=subprocess.PIPE, text=True)


def last_weights(folder: Path) -> dict[str, Tensor]:
    found = newest_checkpoint(folder)
    assert found is not None and found.checkpoint.position.epoch == 3
    return {**found.checkpoint.weights, **found.checkpoint.training}


def test_a_killed_training_resumes_to_the_same_weights_to_the_last_bit(tmp_path: Path) -> None:
    (tmp_path / "killed").mkdir()
    for mode, last in (("anew", "1 3"), ("resume", "1 6")):
        process = start(tmp_path / "killed", mode)
        assert process.stdout is not None
        for text in process.stdout:
            if text.strip() == last:
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
        process.stdout.close()
        assert process.returncode == -signal.SIGKILL
        assert checkpoints(tmp_path / "killed" / "run")[-1].name.startswith("checkpoint-1.")
    resumed = start(tmp_path / "killed", "resume")
    with one_thread():
        train_slowly(tmp_path / "whole" / "run", False, ac.Reporter())
    resumed.communicate()
    assert resumed.returncode == 0
    first, second = (last_weights(tmp_path / name / "run") for name in ("whole", "killed"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "run" / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    ]
    for one, other in zip(*logs, strict=True):
        assert one["validation"] == other["validation"] and one["epoch"] == other["epoch"]
        assert one["train"]["loss"] == pytest.approx(other["train"]["loss"])
    results = [json.loads((tmp_path / name / "run" / "results.json").read_text())["test"] for name in ("whole", "killed")]
    assert results[0] == results[1]


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch uses one thread: sums of several are of another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Stop(Exception):
    pass


class StopAfter(ac.Reporter):
    def __init__(self, epoch: int) -> None:
        self.last, self.warnings = epoch, list[str]()

    def epoch(self, record: dict[str, int]) -> None:
        if record["epoch"] == self.last:
            raise Stop

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@functools.cache
def _interrupted_once() -> Path:
    """A run of three epochs that was stopped after two; trained once, to be copied."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    digits = read_data(DataSpec("digits", limit=120))
    spec, method = tiny_method(digits)
    recipe = ac.recipe("quick").changed(epochs=3, batch_size=32)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.chdir(folder)
        ac.fit(method, digits, recipe, "run", model=spec, reporter=StopAfter(2))
    return folder / "run"


def interrupted() -> Path:
    """A copy of it, as "run", and the newest here."""
    shutil.copytree(_interrupted_once(), "run")
    point_latest_at(Path("run"))
    return Path("run")


def go_on(digits: ac.ImageData, reporter: ac.Reporter | None = None, **changes: object) -> Run:
    spec, method = tiny_method(digits)
    recipe = ac.recipe("quick").changed(**{"epochs": 3, "batch_size": 32, **changes})
    return ac.fit(method, digits, recipe, "run", model=spec, resume=True, reporter=reporter)


@pytest.mark.parametrize("damage", ["truncate", "flip", "state", "position", "missing"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.chdir(tmp_path)
    newest = checkpoints(interrupted())[-1]
    assert newest.name == "checkpoint-2"
    weights = newest / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "truncate":
        weights.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[-5] ^= 1
        weights.write_bytes(content)
    elif damage == "position":
        (newest / "state.json").write_text((newest / "state.json").read_text().replace('epoch\\": 2', 'epoch\\": 1'))
    elif damage == "state":
        (newest / "state.json").write_text("{")
    else:
        (newest / "training.safetensors").unlink()
    reporter = StopAfter(99)
    run = go_on(digits, reporter)
    assert [record["epoch"] for record in run.log()] == [1, 2, 3]
    assert len(reporter.warnings) == 1
    assert "checkpoint-2 is damaged" in reporter.warnings[0]
    assert "Going on from checkpoint-1 instead" in reporter.warnings[0]
    assert [path.name for path in checkpoints(run.folder)] == ["checkpoint-2", "checkpoint-3"]


def test_where_all_checkpoints_are_damaged_nothing_is_guessed(
    tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in checkpoints(interrupted()):
        (folder / "weights.safetensors").write_bytes(b"")
    with pytest.raises(ac.AdjCompressError, match=r"No checkpoint of run is whole: .*checkpoint-2 is damaged"):
        go_on(digits)


def test_the_last_two_checkpoints_are_kept(tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = train_tiny("run", digits, epochs=4)
    assert [path.name for path in checkpoints(run.folder)] == ["checkpoint-3", "checkpoint-4"]
    assert not list(run.folder.glob(".*"))


def test_a_run_is_not_overwritten_and_not_resumed_as_another(
    tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    interrupted()
    with pytest.raises(ac.AdjCompressError, match="run holds a run already: continue it with --resume"):
        train_tiny("run", digits)
    with pytest.raises(ac.AdjCompressError, match="was started with another recipe"):
        go_on(digits, lr=0.5)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(ac.AdjCompressError, match="other is not empty and holds no run"):
        train_tiny("other", digits)


def test_a_run_of_a_version_that_knew_less_of_its_method_goes_on(
    tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def fitted(**how: Any) -> Run:
        spec = ac.ModelSpec("conftest:TinyNet", 10, image_size=32)
        method = METHODS["dropout"].build(spec.build(), digits.preprocessing.example(2), MethodOptions(dropout=0.3))
        return ac.fit(method, digits, ac.recipe("quick").changed(epochs=2, batch_size=60), "run", model=spec, **how)

    with pytest.raises(Stop):
        fitted(reporter=StopAfter(1))
    config = json.loads(Path("run/config.json").read_text())
    del config["method"]["settings"]["classifier"]
    Path("run/config.json").write_text(json.dumps(config))
    assert fitted(resume=True).ended()["epochs"] == 2


def test_a_run_does_not_go_on_by_another_curriculum(
    tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    interrupted()
    spec, method = tiny_method(digits)
    recipe = ac.recipe("quick").changed(epochs=3, batch_size=32)
    assert isinstance(method, ac.AdjoinedMethod)
    other = ac.AdjoinedMethod(method.network, curriculum=ac.Curriculum(small_first=0.3, widen="zeros"))
    with pytest.raises(ac.AdjCompressError, match="run was started with another method"):
        ac.fit(other, digits, recipe, "run", model=spec, resume=True)


def test_two_processes_do_not_train_in_one_run(tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = interrupted()
    with held(folder), pytest.raises(ac.AdjCompressError, match="run is being trained by another process"):
        go_on(digits)
    with pytest.raises(
        ac.AdjCompressError, match=r"run is at epoch 2 of 3: adjcompress train --resume --run run goes on with it"
    ):
        ac.open_run(folder).ended()
    run = go_on(digits)
    assert run.ended() == run.results() and run.ended()["epochs"] == 3


def test_latest_points_at_the_newest_run(tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ac.AdjCompressError, match="There is no run in runs/ here: make one with adjcompress train"):
        ac.open_run()
    for name in ("runs/a", "runs/b", "elsewhere"):
        train_tiny(name, digits)
        assert ac.open_run().folder.resolve() == Path(name).resolve()


class Exploding(Method):
    """A method whose loss is not finite at one step."""

    name = "exploding"

    def __init__(self, network: nn.Module, step: int) -> None:
        self.network, self.left = network, step

    def settings(self) -> dict[str, object]:
        return {}

    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Terms:
        self.left -= 1
        loss = self.network(images).square().mean()
        return Terms(loss * (math.nan if self.left < 0 else 1), {})

    def parameter_groups(self, weight_decay: float) -> list[dict[str, object]]:
        return decay_groups(self.network, weight_decay)

    def record(self) -> dict[str, object]:
        return {}

    def deployables(self) -> dict[str, nn.Module]:
        return {"full": self.network}


def test_a_loss_that_is_not_finite_stops_with_epoch_step_and_last_good_checkpoint(tmp_path: Path, digits: ac.ImageData) -> None:
    recipe = ac.recipe("quick").changed(epochs=3, batch_size=30)
    method = Exploding(TinyNet(), step=6)
    with pytest.raises(
        ac.AdjCompressError, match=r"The loss is nan in epoch 2, step 3\. The last good checkpoint is checkpoint-1 in"
    ):
        ac.fit(method, digits, recipe, tmp_path / "run")
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["checkpoint-0", "checkpoint-1"]
    method = Exploding(TinyNet(), step=0)
    with pytest.raises(ac.AdjCompressError, match=r"epoch 1, step 1\. The last good checkpoint is checkpoint-0 in"):
        ac.fit(method, digits, recipe, tmp_path / "run2")


def test_a_full_disk_loses_nothing(tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = interrupted()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    limit = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sys.path.insert(0, sys.argv[1])
import pytest
from test_training import ac, go_on
from adjcompress.data import DataSpec, read_data
try:
    go_on(read_data(DataSpec("digits", limit=120)))
except ac.AdjCompressError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", limit, str(Path(__file__).parent)], capture_output=True, text=True, cwd=tmp_path
    )
    assert "checkpoint-3 could not be written: the file would be larger than this process may write" in done.stdout
    for path, content in before.items():
        if path.name != "log.jsonl":
            assert path.read_bytes() == content
    assert not list(folder.glob(".*"))
    assert go_on(digits).results() is not None


def test_weights_that_an_update_ruined_do_not_replace_a_good_checkpoint(tmp_path: Path, digits: ac.ImageData) -> None:
    """The loss of the last step was finite; so it is where another process's was not."""

    class Ruining(Exploding):
        def loss(self, images: Tensor, labels: Tensor, progress: float) -> Terms:
            terms = super().loss(images, labels, progress)
            if self.left == 2:
                self.network.head.weight.register_hook(lambda gradient: gradient * math.nan)
            return terms

    recipe = ac.recipe("quick").changed(epochs=3, batch_size=30)
    with pytest.raises(
        ac.AdjCompressError, match=r"A weight is not finite in epoch 2\. The last good checkpoint is checkpoint-1"
    ):
        ac.fit(Ruining(TinyNet(), step=10), digits, recipe, tmp_path / "run")
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["checkpoint-0", "checkpoint-1"]


def test_a_batch_norm_that_cannot_be_synchronised_is_refused() -> None:
    class Own(nn.BatchNorm2d):
        pass

    network = nn.Sequential(nn.Conv2d(3, 4, 1), Own(4))
    refused = pytest.raises(ac.AdjCompressError, match="Layer 1 is a Own, whose statistics cannot be shared by 2 processes")
    with refused, synchronised_batch_norm(network, 2):
        pass
    with synchronised_batch_norm(network, 1):
        assert type(network[1]) is Own


def test_averaged_weights_are_what_is_deployed(tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = train_tiny("run", digits, epochs=2, ema=0.5)
    found = newest_checkpoint(run.folder)
    assert found is not None
    deployed = run.method().network.state_dict()
    trained = load_file(found.folder / "weights.safetensors")
    assert not all(torch.equal(deployed[name], trained[name]) for name in trained)
    assert all(torch.equal(deployed[name], tensor) for name, tensor in found.checkpoint.deployable.items())


def test_config_holds_everything_and_results_come_from_the_last_weights(tiny_run: Run, digits: ac.ImageData) -> None:
    config = json.loads((tiny_run.folder / "config.json").read_text())
    for key in ("format", "model", "data", "method", "recipe", "seed", "classes", "preprocessing", "versions"):
        assert config[key] is not None
    method = tiny_run.method()
    images = digits.preprocessing.normalise(digits.test.images)
    with torch.no_grad():
        accuracy = (method.network(images).full.argmax(1) == digits.test.labels).double().mean().item()
    results = tiny_run.results()
    assert results is not None and results["test"]["full"]["accuracy"] == pytest.approx(accuracy)
    assert results["test"]["full"]["images"] == len(digits.test)


def test_the_same_seed_gives_the_same_run(tmp_path: Path, digits: ac.ImageData) -> None:
    runs = [train_tiny(str(tmp_path / name), digits) for name in ("a", "b")]
    first, second = (newest_checkpoint(run.folder).checkpoint.weights for run in runs)  # type: ignore[union-attr]
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_of_a_newer_format_or_damaged_is_refused(tiny_run: Run) -> None:
    path = tiny_run.folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "format": 99}))
    with pytest.raises(ac.AdjCompressError, match="has format 99; this version reads format 1"):
        ac.open_run(tiny_run.folder)
    for damage in ("{", "{}", json.dumps({"format": 1}), json.dumps({key: config[key] for key in config if key != "seed"})):
        path.write_text(damage)
        with pytest.raises(ac.AdjCompressError, match=r"config\.json is damaged"):
            ac.open_run(tiny_run.folder)
    for key in ("model", "data", "method", "recipe", "seed", "classes", "preprocessing"):
        for wrong in ("x", 3.5, ["x"], {"x": 1}, *([None] if key != "model" else [])):
            if not isinstance(wrong, list) or key != "classes":
                path.write_text(json.dumps({**config, key: wrong}))
                with pytest.raises(ac.AdjCompressError, match=r"config\.json is damaged"):
                    ac.open_run(tiny_run.folder)
    path.unlink()
    with pytest.raises(ac.AdjCompressError, match="is no run: it has no config"):
        ac.open_run(tiny_run.folder)


def test_what_is_damaged_in_a_run_is_one_line(tiny_run: Run) -> None:
    config = json.loads((tiny_run.folder / "config.json").read_text())
    config["model"]["name"] = "cifar_resnet32"  # as if the user's own network had changed
    (tiny_run.folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ac.AdjCompressError, match=r"cifar_resnet32 is no longer the network that runs/tiny trained: Missing"):
        ac.open_run(tiny_run.folder).method()
    (tiny_run.folder / "results.json").write_text("{")
    with pytest.raises(ac.AdjCompressError, match=r"results\.json is damaged .* remove it, and adjcompress train --resume"):
        ac.open_run(tiny_run.folder).results()


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if not recipe.drops])
def test_the_rate_warms_up_and_falls_along_a_cosine(name: str) -> None:
    recipe = ac.recipe(name)
    assert recipe.lr_at(0) == pytest.approx(recipe.lr * recipe.start)
    assert recipe.lr_at(recipe.warmup) == pytest.approx(recipe.lr)
    assert recipe.lr_at(1) == pytest.approx(recipe.lr * recipe.end)
    middle = recipe.warmup + (1 - recipe.warmup) / 2
    assert recipe.lr_at(middle) == pytest.approx(recipe.lr * (1 + recipe.end) / 2)


@pytest.mark.parametrize(
    ("name", "epochs", "batch_size", "weight_decay", "rates"),
    [
        ("substitutes-cifar", 200, 128, 5e-4, {0: 0.1, 59: 0.1, 60: 0.02, 119: 0.02, 120: 4e-3, 159: 4e-3, 160: 8e-4}),
        ("substitutes-darts", 600, 96, 3e-4, {0: 0.025, 300: 0.0125}),
        ("substitutes-imagenet", 90, 256, 1e-4, {0: 0.1, 29: 0.1, 30: 0.01, 59: 0.01, 60: 1e-3, 89: 1e-3}),
        ("supernets-cifar", 300, 64, 1e-4, {0: 0.1, 149: 0.1, 150: 0.01, 224: 0.01, 225: 1e-3, 299: 1e-3}),
        ("supernets-segmentation", 200, 64, 1e-4, {0: 0.1, 129: 0.1, 130: 0.01, 199: 0.01}),
    ],
)
def test_the_other_papers_recipes_are_theirs(
    name: str, epochs: int, batch_size: int, weight_decay: float, rates: dict[int, float]
) -> None:
    recipe = ac.recipe(name)
    assert (recipe.epochs, recipe.batch_size, recipe.weight_decay) == (epochs, batch_size, weight_decay)
    steps = 351  # in an epoch: its first step has its rate, its last one still has it
    for epoch, rate in rates.items():
        for step in (epoch * steps, epoch * steps + (steps - 1 if recipe.drops else 0)):
            assert recipe.lr_at(step / (epochs * steps)) == pytest.approx(rate)
    (optimizer,) = make_optimizers(decay_groups(TinyNet(), weight_decay), recipe, steps=1)
    for group in optimizer.param_groups:
        assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, False, weight_decay)


def test_a_recipe_survives_json() -> None:
    for recipe in RECIPES.values():
        written = json.loads(json.dumps(recipe.to_json()))
        assert ac.Recipe(**written) == recipe
        assert ac.Recipe(**written).to_json() == written == recipe.to_json()  # by which a run that goes on is compared


def test_the_papers_recipe_is_theirs() -> None:
    recipe = ac.recipe("papers-cifar")
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.weight_decay) == (150, 64, 1e-3, 1e-2)
    assert (recipe.momentum_at(0), recipe.momentum_at(0.1), recipe.momentum_at(1)) == (0.95, 0.85, 0.95)
    assert recipe.lr_at(0) == pytest.approx(1e-4)
    assert recipe.lr_at(1) == pytest.approx(1e-8)
    (optimizer,) = make_optimizers(decay_groups(TinyNet(), recipe.weight_decay), recipe, steps=1)
    set_rates_(optimizer, recipe, 0.1)
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["weight_decay"]) == (pytest.approx(1e-3), (0.85, 0.99), 1e-2)


def test_a_method_that_lacks_what_the_loop_needs_cannot_be_made() -> None:
    class Forgetful(Exploding):
        loss = Method.loss

    with pytest.raises(TypeError, match=r"abstract method.*loss"):
        Forgetful(TinyNet(), 1)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"epochs": 0}, "--epochs 0 must be at least 1"),
        ({"batch_size": 0}, "--batch-size 0 must be at least 1"),
        ({"warmup": 1.0}, "A recipe's warm-up, 1, must be at least 0 and below 1"),
        ({"weight_decay": -0.1}, "A recipe's weight decay, -0.1, must be 0 or more"),
        ({"lr": 0.0}, "--lr 0.0 must be above 0"),
        ({"lr": math.inf}, "--lr inf must be above 0"),
        ({"clip_norm": -1.0}, "--clip-norm -1.0 must be above 0"),
        ({"ema": 1.0}, "--ema 1.0 must lie between 0 and 1"),
        ({"label_smoothing": 1.0}, "--label-smoothing 1.0"),
        ({"drops": (0.1, 0.5)}, r"A recipe's drops, \(0\.1, 0\.5\), must rise, between its warm-up, 0\.2, and 1"),
        ({"drops": (0.5, 0.5)}, "must rise"),
        ({"drop": 1.0}, "A recipe's drop, 1, must lie between 0 and 1"),
    ],
)
def test_recipes_that_cannot_be_are_refused(changes: dict[str, float], text: str) -> None:
    with pytest.raises(ac.AdjCompressError, match=text):
        ac.recipe("quick").changed(**changes)
    with pytest.raises(ac.AdjCompressError, match=text):
        ac.Recipe(**{**ac.recipe("quick").to_json(), **changes})


def test_an_unknown_recipe_lists_the_choices() -> None:
    with pytest.raises(ac.AdjCompressError, match=r"Recipe 'quik' is unknown\. Choices: quick, cifar"):
        ac.recipe("quik")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_of_another_kind_than_is_trained_is_refused(dtype: torch.dtype, tmp_path: Path, digits: ac.ImageData) -> None:
    with pytest.raises(ac.AdjCompressError, match=rf"parameters of {dtype}: train network\.float\(\)"):
        ac.fit(StandardMethod(TinyNet().to(dtype)), digits, ac.recipe("quick"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_hardware_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for hardware, text in (
        (ac.Hardware(device="cuda"), "--device cuda: this machine has no CUDA GPU"),
        (ac.Hardware(device="gpu"), "Device 'gpu' is unknown"),
        (ac.Hardware(precision="8"), "Precision '8' is unknown"),
        (ac.Hardware(devices=0), "must be at least 1"),
    ):
        with pytest.raises(ac.AdjCompressError, match=text):
            ac.launch(hardware)


def test_bf16_training_runs(tmp_path: Path, digits: ac.ImageData) -> None:
    spec, method = tiny_method(digits)
    recipe = ac.recipe("cifar").changed(epochs=1, batch_size=64)
    run = ac.fit(method, digits, recipe, tmp_path / "bf16", model=spec, fabric=ac.launch(ac.Hardware("cpu", precision="bf16")))
    assert run.config["precision"] == "bf16"
    assert run.results() is not None


def test_evaluation_counts_every_image_once_and_leaves_the_mode(digits: ac.ImageData) -> None:
    network = TinyNet().train()
    batches = [(digits.test.images[:70], digits.test.labels[:70]), (digits.test.images[70:], digits.test.labels[70:])]
    score = evaluate({"full": network}, batches, digits.preprocessing.normalise, 10)["full"]
    assert network.training and score.images == len(digits.test)
    with torch.no_grad():
        logits = network.eval()(digits.preprocessing.normalise(digits.test.images))
    assert score.accuracy == pytest.approx((logits.argmax(1) == digits.test.labels).double().mean().item())
    assert score.loss == pytest.approx(nn.functional.cross_entropy(logits, digits.test.labels).item(), abs=1e-5)


def test_tensorboard_sees_every_epoch_of_a_resumed_run(
    tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    interrupted()
    run = go_on(digits)
    events = EventAccumulator(str(run.folder)).Reload()
    assert {"lr", "train/loss", "accuracy/full", "accuracy/alpha2"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("accuracy/full")] == [1, 2, 3]
    expected = [record["validation"]["full"]["accuracy"] for record in run.log()]
    assert [event.value for event in events.Scalars("accuracy/full")] == pytest.approx(expected)


# --- several processes ----------------------------------------------------------------------------------------------

DISTRIBUTED = """
import atexit, os, sys, torch
sys.path.insert(0, {tests!r})
from test_training import Path, train_both_ways

torch.set_num_threads(1)
end = Path("connected-" + os.environ["RANK"])  # a file each: what two processes print can come out as one line
atexit.register(lambda: end.write_text(str(torch.distributed.is_initialized())))  # runs after what launch registers
train_both_ways(Path("two"), 16)
"""


def train_both_ways(folder: Path, batch_size: int) -> None:
    """Six steps of the papers' way, and of the small network first, in all processes of this launch."""
    digits = read_data(DataSpec("digits", image_size=16, limit=120))
    digits = replace(digits, train=digits.train.subset(torch.arange(95)), test=digits.test.subset(torch.arange(33)))
    fabric = ac.launch(ac.Hardware("cpu", precision="64"))
    recipe = ac.recipe("cifar").changed(epochs=2, batch_size=batch_size, augmentation="none", lr=0.05)
    first = {"small_first": 0.5, "small_labels": 0.5, "detach": True, "widen": "copies", "trunk": "shared"}
    for name, options in {"papers": {}, "first": first}.items():
        spec, method = tiny_method(digits, **options)
        ac.fit(method, digits, recipe, folder / name, model=spec, fabric=fabric)


def test_two_processes_equal_one_with_twice_the_batch(tmp_path: Path) -> None:
    """In double precision: in single, six steps of a deep network turn 1e-7 into 1e-3. Also where the full network rests.

    A third of the steps have 31 images, of which one process takes 16 and the other 15.
    """
    script = tmp_path / "train_it.py"
    script.write_text(DISTRIBUTED.format(tests=str(Path(__file__).parent)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    two = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
    ]
    subprocess.run(two, cwd=tmp_path, check=True, env=environment, capture_output=True)
    assert [(tmp_path / f"connected-{rank}").read_text() for rank in range(2)] == ["False", "False"]
    train_both_ways(tmp_path / "one", 32)
    for way in ("papers", "first"):
        one, both = (newest_checkpoint(tmp_path / name / way) for name in ("one", "two"))
        assert one is not None and both is not None
        for name, tensor in one.checkpoint.weights.items():
            other = both.checkpoint.weights[name]
            assert torch.allclose(tensor.double(), other.double(), rtol=1e-6, atol=1e-8), (way, name)
        results = [json.loads((tmp_path / name / way / "results.json").read_text())["test"] for name in ("one", "two")]
        assert results[0]["full"]["images"] == results[1]["full"]["images"]
        assert ac.open_run(tmp_path / "two" / way).config["processes"] == 2


def test_sgd_takes_parameters_whose_first_gradient_comes_late() -> None:
    recipe = ac.recipe("cifar")
    ours, plain = ([nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))] for _ in range(2))
    groups = [{"name": "decay", "params": ours, "weight_decay": 0.1}]
    (first,) = make_optimizers(groups, recipe, 10)
    second = torch.optim.SGD(plain, recipe.lr, recipe.momentum, weight_decay=0.1, nesterov=True)
    for step in range(3):
        for parameters, optimizer in ((ours, first), (plain, second)):
            for parameter in parameters[: 1 + min(step, 1)]:
                parameter.grad = torch.full_like(parameter, step + 1.0)
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(ours, plain)


def test_every_process_of_a_resumed_epoch_sums_the_same_names() -> None:
    kept = {"loss": 6.0, "images of loss": 4.0, "divergence": 1.0, "images of divergence": 2.0}
    first, other = Meter(kept), Meter(kept, first=False)
    assert first.sums() == kept and other.sums() == dict.fromkeys(kept, 0.0)
    other.add({"loss": torch.tensor(3.0)}, 2)
    assert other.sums().keys() == first.sums().keys() and other.sums()["loss"] == 6.0
    means = first.means(ac.launch(ac.Hardware("cpu")))
    assert means == {"loss": 1.5, "divergence": 0.5}


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_resumed_optimizer_lies_in_memory_as_its_weights(kind: str) -> None:
    """Fused optimisers read weights and states in the order of memory: of channels-last weights, states must be so too."""
    ends = []
    for resumed in (False, True):
        torch.manual_seed(0)
        layer = nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
        [optimizer] = make_optimizers(decay_groups(layer, 0.0), ac.recipe("cifar").changed(optimizer=kind, lr=0.1), 10)
        for step in range(4):
            if resumed and step == 2:
                kept = {name: tensor.contiguous() for name, tensor in optimizer_tensors([optimizer]).items()}
                [optimizer] = make_optimizers(decay_groups(layer, 0.0), ac.recipe("cifar").changed(optimizer=kind, lr=0.1), 10)
                load_optimizers_([optimizer], kept)
            layer.weight.grad = torch.randn(8, 4, 3, 3).contiguous(memory_format=torch.channels_last)
            layer.bias.grad = torch.zeros(8)  # type: ignore[union-attr]
            optimizer.step()
        ends.append(layer.weight.detach().clone())
    assert torch.equal(*ends)


def test_networks_that_are_looked_at_are_left_as_they_were() -> None:
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout())
    network[0].eval()  # frozen, in a network that trains
    with pytest.raises(ZeroDivisionError), evaluating(network):
        assert not any(module.training for module in network.modules()) and not torch.is_grad_enabled()
        raise ZeroDivisionError
    assert torch.is_grad_enabled()
    assert [module.training for module in network.modules()] == [True, False, True]


def test_a_run_goes_on_compiled_and_in_as_many_processes_as_it_began(tmp_path: Path, digits: ac.ImageData) -> None:
    run = train_tiny(str(tmp_path / "run"), digits, epochs=1)
    config = json.loads((run.folder / "config.json").read_text())
    assert config["compile"] is False and hardware_of(run) == ac.Hardware(devices=1, precision="32", compile=False)
    changed = config | {"compile": True, "processes": 2, "precision": "64"}
    (run.folder / "config.json").write_text(json.dumps(changed))
    assert hardware_of(ac.open_run(run.folder)) == ac.Hardware(devices=2, precision="64", compile=True)


def test_thin_strided_pointwise_convolutions_are_not_trained_channels_last(digits: ac.ImageData, tmp_path: Path) -> None:
    """In that order their backward pass writes beyond its memory, on CPUs with AVX2."""
    orders = {}
    for name, alpha in (("wrn_10_1", 8.0), ("cifar_resnet20", 2.0)):
        model = ac.create_model(name, 10)
        method = ac.AdjoinedMethod.build(model, torch.zeros(2, 3, 32, 32), ac.MethodOptions(alphas=(alpha,)))
        fabric = ac.launch(ac.Hardware(precision="32"))
        ac.fit(method, digits, ac.recipe("quick").changed(epochs=1, batch_size=60), tmp_path / name, fabric=fabric)
        orders[name] = model.layer2[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert orders == {"wrn_10_1": False, "cifar_resnet20": True}


def test_other_images_in_the_place_of_those_that_were_trained_on_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = ac.recipe("quick").changed(epochs=1)
    run = ac.train(ac.TrainOptions(model="wrn_10_1", data=DataSpec(str(write_npz(Path("a.npz")))), recipe=recipe), Path("run"))
    assert len(run.data().train) == 36
    (tmp_path / "run" / "results.json").unlink()
    write_npz(Path("a.npz"), x_train=np.zeros((40, 16, 16, 3), np.uint8))
    text = r"a\.npz holds other images than run was trained on \(of 36 train and 4 validation"
    for goes_on in (lambda: ac.resume("run"), lambda: ac.extract_package(run, "full")):
        with pytest.raises(ac.AdjCompressError, match=text):
            goes_on()
    write_npz(Path("a.npz"))
    assert len(run.data().train) == 36


def test_files_of_other_names_are_other_images(tmp_path: Path) -> None:
    data = ac.load_data(str(write_folder(tmp_path)), image_size=16, validation=0.2)
    before = data.fingerprint()
    assert same_images(ac.load_data(str(tmp_path), image_size=16, validation=0.2).fingerprint(), before)
    first = min((tmp_path / "train" / "cat").iterdir())
    first.rename(first.with_stem("other"))
    assert not same_images(ac.load_data(str(tmp_path), image_size=16, validation=0.2).fingerprint(), before)


def test_a_level_of_difference_in_some_pixels_is_another_machine_s_rounding(digits: ac.ImageData) -> None:
    def with_one(added: int) -> ac.ImageData:
        images = digits.test.images.clone()
        images[:, :, ::3, ::3] = (images[:, :, ::3, ::3].int() + added).clamp(0, 255).byte()
        return replace(digits, test=replace(digits.test, images=images))

    assert same_images(digits.fingerprint(), with_one(1).fingerprint())
    assert not same_images(digits.fingerprint(), with_one(60).fingerprint())
