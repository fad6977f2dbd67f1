"""The commands chain, tell their options, speak JSON alone, and end a user's error with one line."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from adjcompress_cli.main import main
from adjcompress_cli.sections import Sectioned
from adjcompress_cli.show import show, table
from adjcompress_cli.train import _OF_THE_MACHINE
from adjcompress_cli.train_options import settled, train_options
from click.testing import CliRunner, Result

import adjcompress as ac
from adjcompress.bench import measure_table
from adjcompress.data.augment import _AUGMENTATIONS
from adjcompress.deploy import block_channels
from adjcompress.files import checksum
from adjcompress.report.deployed import read_deployed
from adjcompress.training import RECIPES

README = Path(__file__).parents[1] / "README.md"
COMMANDS = ("train", "extract", "export", "bench", "report")
OPTIONS = {
    "train": "--model --data --method --alpha --budget --table --width-step --halves --search-epochs --keep-weights --plan "
    "--slim --keep --align --epochs --batch-size --lr --recipe --seed --weights --run --model-option --substitute --setting "
    "--substitute-layers --dense-layers --weight-decay-scaling --teacher --attention --machines --cost --samples-per-batch "
    "--warm-up --way --weight --small-first --small-labels --growing --widen --trunk --temperature --dropout --dropout-blocks "
    "--importance --mixup --ignore-label --image-size --resume --device --devices --nodes --precision --json --quiet",
    "extract": "--run --alpha -o --reestimate --json --quiet",
    "export": "--from --opset --simplify --tolerance --preprocess --fp16 --external-data --materialise --int8 --calibration "
    "--max-drop --int8-keep --int8-for --ranges --json --quiet",
    "bench": "--reference --threads --batch --target --engine --executor --duration --table --model --image-size --classes "
    "--slim --keep --json --quiet",
    "report": "-o --with --json --quiet",
}
TRAIN = ("train", "--limit", "80", "--epochs", "1", "--batch-size", "8", "--model", "wrn_10_1", "--alpha", "2")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)  # type: ignore[attr-defined]
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_options_each_with_help_and_an_example(name: str) -> None:
    text = run(name, "--help").output
    assert "Example" in text and f"adjcompress {name}" in text
    for option in OPTIONS[name].split():
        assert option in text
    for parameter in command(name).params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_what_a_training_is_asked_stands_under_a_heading() -> None:
    train = command("train")
    assert isinstance(train, Sectioned)
    options = {parameter.opts[-1] for parameter in train.params if parameter.name not in _OF_THE_MACHINE}
    named = [name for names in train.sections.values() for name in names]
    assert len(named) == len(set(named)) and set(named) == options
    lines = run("train", "--help").output.splitlines()
    headings = [lines.index(f"{title}:") for title in (*train.sections, "Options")]
    assert headings == sorted(headings)
    for (title, names), begin, end in zip(train.sections.items(), headings, headings[1:], strict=False):
        assert {line.split()[0] for line in lines[begin:end] if line.startswith("  --")} == set(names), title


@pytest.mark.parametrize(("option", "names"), [("recipe", RECIPES), ("augmentation", _AUGMENTATIONS)])
def test_the_help_names_all_recipes_and_augmentations(option: str, names: dict[str, Any]) -> None:
    told = next(parameter for parameter in command("train").params if parameter.name == option)
    assert isinstance(told, click.Option) and told.help is not None
    assert set(names) <= set(re.split(r"[^\w-]+", told.help))


def test_groups_that_were_lowered_are_told_and_lightning_says_nothing() -> None:
    arguments = (*TRAIN[:-2], "--method", "substitute", "--substitute", "shuffle", "--setting", "3", "--precision", "bf16")
    told = run(*arguments).stderr
    assert re.search(r"^substitute: 3 groups do not fit every layer; there are \d in \d+.* of them\.$", told, re.MULTILINE)
    assert "Using bfloat16" not in told


def test_every_command_is_in_the_readme_and_in_the_help() -> None:
    text, help_text = README.read_text(), run("--help").output
    for name in COMMANDS:
        assert f"adjcompress {name}" in text and f"adjcompress {name}" in help_text


def test_help_does_not_load_torch() -> None:
    """Which is what would make it slow: it answers in a tenth of a second without."""
    code = """
import sys
from adjcompress_cli.main import main
main(sys.argv[1:], standalone_mode=False)
assert not {"torch", "rich", "numpy"} & set(sys.modules)
"""
    for arguments in (["--help"], *([name, "--help"] for name in COMMANDS)):
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)


def test_the_four_commands_chain_without_arguments(folder: Path) -> None:
    assert run(*TRAIN).exit_code == 0
    assert bool(ac.open_run().method().network.get_buffer("joined"))  # the full network has learnt as well
    extracted = run("extract")
    assert "largest difference to the network in training 0" in extracted.output
    assert "Certificate: largest difference to torch" in run("export", "model.onnx").output
    bench = run("bench", "--duration", "0.1")
    assert "model.onnx" in bench.output and "full.onnx" in bench.output
    assert {path.name for path in folder.iterdir()} == {"runs", "small-alpha2.safetensors", "model.onnx", "bench.json"}
    report = json.loads((folder / "bench.json").read_text())
    assert [Path(timing["path"]).name for timing in report["timings"]] == ["model.onnx", "full.onnx"]
    assert report["timings"][0]["parameters"] < report["timings"][1]["parameters"]


@pytest.mark.parametrize(
    ("arguments", "first", "epochs"),
    [
        ("", 0.8, 50),
        ("--recipe cifar", 0.8, 100),
        ("--recipe cifar --epochs 7", 0.8, 7),
        ("--way papers", 0, 20),
        ("--small-first 0", 0, 20),
        ("--schedule linear", 0, 20),
        ("--weight 2", 0, 20),
        ("--small-first 0.5 --way small-first", 0.5, 50),
        ("--recipe papers-cifar", 0, 150),
        ("--recipe papers-cifar --way small-first", 0.8, 375),
        ("--beta 0.5", 0, 20),
        ("--substitute low_rank --setting 0.3", 0, 20),
        ("--weights trained.pt", 0, 20),
        ("--weights trained.pt --way small-first", 0.8, 50),
        ("--method dan --budget macs=0.5", 0, 20),
        ("--method standard", 0, 20),
    ],
)
def test_the_small_networks_learn_first_where_nothing_speaks_against_it(arguments: str, first: float, epochs: int) -> None:
    train = command("train")
    asked = train_options(settled(train.make_context("train", arguments.split()).params))
    method = asked.method_options
    assert (method.small_first, asked.recipe.epochs) == (first, epochs)
    by_way = (method.small_labels, method.detach, method.widen, method.trunk)
    widen = "fresh" if "--weights" in arguments else "auto"  # filters that know something are not replaced
    assert by_way == ((0.5, True, widen, "auto") if first else (0.0, False, "fresh", "own"))


def test_a_way_is_told_and_its_parts_may_be_chosen_otherwise(folder: Path) -> None:
    said = run(*TRAIN, "--no-detach", "--widen", "zeros")
    assert said.exit_code == 0 and "Small networks first: alone for 0.8 of 1 epochs" in said.stderr
    settings = json.loads((folder / "runs/latest/config.json").read_text())["method"]["settings"]
    assert settings["widen"] == "zeros" and not settings["detach"] and settings["small_labels"] == 0.5 and settings["trunk"]
    assert "--way small-first" in (page := (folder / "runs/latest/report.html").read_text()) and "--no-detach" in page
    (folder / "runs/latest/results.json").unlink()
    assert run("train", "--resume", "--way", "small-first", "--small-first", "0.8", "--no-detach").exit_code == 0
    for arguments, text in (
        (
            ("--way", "small-first", "--small-first", "0"),
            "--small-first 0 has no small network learn first: give --way papers.",
        ),
        (("--method", "standard", "--way", "papers"), "--way goes with --method adjoined, not with standard: leave it out."),
        (("--way", "paper"), "--way 'paper' is unknown. Choices: papers, small-first."),
    ):
        failed = run(*TRAIN, *arguments, "--run", "other")
        assert failed.exit_code == 1 and failed.stderr == f"Error: {text}\n" and not Path("other").exists()


def test_the_way_to_the_edge(folder: Path) -> None:
    assert run(*TRAIN, "--align", "auto").exit_code == 0
    assert (folder / "runs/latest/report.html").is_file()
    run("extract")
    assert run("export", "raw.onnx", "--preprocess").exit_code == 0
    said = run("export", "q.onnx", "--int8", "--calibration", "16", "--max-drop", "100")
    assert "Calibrating on 16 training images" in said.stderr and "in float, a drop of" in said.stdout
    bench = run("bench", "q.onnx", "raw.onnx", "--target", "one-core", "--duration", "0.1")
    assert bench.exit_code == 0 and "one-core" in bench.stdout and "load" in bench.stdout
    kept = json.loads((folder / "runs/latest/deployed.json").read_text())
    assert set(kept["export"]) == {"raw.onnx", "q.onnx"} and set(kept["bench"]) == {"one-core"}
    assert kept["export"]["q.onnx"]["name"] == "alpha2" and kept["export"]["q.onnx"]["package"] == "small-alpha2.safetensors"
    page = run("report", "-o", "page.html")
    assert page.stdout == "Report: page.html\n"
    text = (folder / "page.html").read_text()
    assert "q.onnx" in text and "one-core" in text and "small-alpha2.safetensors" in text


SEARCH = ("train", "--limit", "80", "--epochs", "1", "--batch-size", "8", "--model", "wrn_10_1", "--method", "dan")


def test_a_search_under_a_budget_and_its_plan_on_other_data(folder: Path) -> None:
    from test_data import write_npz

    result = run(*SEARCH, "--budget", "macs=0.6", "--budget", "params=0.5", "--search-epochs", "2")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("macs 0.") == 2 and "search: recipe quick, 2 epochs" in result.stderr
    report = json.loads(run("extract", "--json").stdout)
    assert report["name"] == "dan" and report["certificate"]["max_difference"] == 0
    parts = (report["macs"] / report["full_macs"] / 0.6, report["parameters"] / report["full_parameters"] / 0.5)
    assert 0.98 <= max(parts) <= 1
    page = Path("runs/latest/report.html").read_text()
    assert "The search for widths" in page and page.count("Widths over the search") == 1 and "alpha 4" in page
    assert "--budget macs=0.6" in page and "--budget params=0.5" in page
    plan = str(Path("runs/latest/plan.json").resolve())
    other = ("--data", str(write_npz(folder / "data.npz")), "--epochs", "1", "--batch-size", "8")
    again = run("train", "--method", "dan", "--model", "wrn_10_1", "--plan", plan, *other, "--json")
    assert again.exit_code == 0, again.stderr
    kept = json.loads((folder / json.loads(again.stdout)["run"] / "config.json").read_text())["method"]["settings"]["plans"][
        "dan"
    ]
    widths = [group["kept"] for group in kept["groups"]]
    assert widths == [group["kept"] for group in json.loads(Path(plan).read_text())["groups"]]


def test_a_run_outside_of_runs_is_followed_too_and_with_json_standard_output_is_json_alone(folder: Path) -> None:
    train = json.loads(run(*TRAIN, "--run", "elsewhere/mine", "--json").stdout)
    assert train["test"]["alpha2"]["images"] > 0
    extract = json.loads(run("extract", "--json").stdout)
    assert extract["certificate"]["max_difference"] == 0
    export = json.loads(run("export", "model.onnx", "--json").stdout)
    assert export["certificate"]["relative"] <= 1e-4
    bench = json.loads(run("bench", "--duration", "0.05", "--json").stdout)
    assert [Path(timing["path"]).name for timing in bench["timings"]] == ["model.onnx", "full.onnx"]
    assert bench["timings"][1]["speedup"]["value"] == 1
    kept = json.loads((folder / "elsewhere/mine/deployed.json").read_text())
    assert set(kept) == {"extract", "export", "bench"} and len(kept["export"]) == 2


def test_a_table_of_layers_is_measured_for_the_newest_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adjcompress.bench.table._LAYER_SECONDS", 0.01)
    monkeypatch.setattr("adjcompress.bench.table._NETWORK_SECONDS", 0.05)
    monkeypatch.setitem(measure_table.__kwdefaults__, "max_passes", 1)
    monkeypatch.setattr("adjcompress.cost.latency._SHAKY", 1.0)  # one short pass is in doubt always
    monkeypatch.setattr("adjcompress.cost.latency._RIGHT", math.inf)
    run(*TRAIN)
    asked = ("bench", "--table", "table.json", "--slim", "layer3.0.conv1")
    result = run(*asked)
    assert result.exit_code == 0, result.stderr
    assert "layer shapes at" in result.stdout and ac.LatencyTable.read("table.json").sweeps
    again = run(*asked, "--json")
    assert json.loads(again.stdout)["measured"] == 0


def test_names_are_shown_as_they_are_and_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    table(("model[v2]", "figure"), [("a[bold].onnx", "1")])
    show({"loss": math.nan, "parts": [1.5, {"x": math.inf}]}, lambda: None, as_json=True, quiet=False)
    shown, _, told = capsys.readouterr().out.partition("{")
    assert "model[v2]" in shown and "a[bold].onnx" in shown
    assert json.loads("{" + told) == {"loss": None, "parts": [1.5, {"x": None}]}


def test_quiet_is_quiet() -> None:
    for arguments in (TRAIN, ("extract",), ("export", "model.onnx")):
        result = run(*arguments, "--quiet")
        assert (result.exit_code, result.output) == (0, "")


def test_progress_off_a_terminal_is_a_line_an_epoch() -> None:
    lines = run(*TRAIN).stderr.splitlines()
    assert lines[0] == "runs/digits-wrn_10_1-adjoined: recipe quick, 1 epochs"
    assert lines[1] == "Small networks first: alone for 0.8 of 1 epochs, then with the full one; --way papers begins with all."
    assert lines[2].startswith("epoch   1  loss ") and "alpha2" in lines[2] and "images/s" in lines[2]


@pytest.mark.skipif(block_channels() == 1, reason="ONNX Runtime has no blocked layout on this processor: nothing is outside it")
def test_widths_that_do_not_fit_this_cpu_are_named_before_they_are_trained() -> None:
    arguments = (*TRAIN[:-2], "--method", "standard", "--alpha", "1.5")
    told = run(*arguments).stderr.splitlines()[0]
    assert re.match(r"Warning: alpha1_5: \d of 9 convolutions do not fit the blocks of \d+ channels .* --align auto, do", told)
    assert "Warning" not in run(*arguments, "--align", "auto").stderr
    assert run(*arguments, "--quiet").stderr == ""


def test_a_second_run_gets_a_name_of_its_own() -> None:
    for name in ("digits-wrn_10_1-adjoined", "digits-wrn_10_1-adjoined-2"):
        assert json.loads(run(*TRAIN, "--json").stdout)["run"] == f"runs/{name}"


def test_several_small_networks_are_chosen_by_alpha() -> None:
    run(*TRAIN, "--alpha", "4")
    result = run("extract")
    assert result.exit_code == 1 and "has several small networks: choose one of --alpha 2, --alpha 4" in result.stderr
    assert json.loads(run("extract", "--alpha", "4", "--json").stdout)["name"] == "alpha4"
    assert json.loads(run("extract", "--alpha", "1", "--json").stdout)["name"] == "full"


def test_a_table_is_measured_for_the_network_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def measure(path: Path, network: Any, example: Any, **options: Any) -> None:
        asked.append((list(network.modules())[-1].out_features, tuple(example.shape), options["slim"], options["target"]))
        raise ac.AdjCompressError("enough")

    monkeypatch.setattr("adjcompress.bench.measure_table", measure)
    network = ("--model", "wrn_10_1", "--image-size", "48", "--classes", "7", "--slim", "layer3")
    assert "enough" in run("bench", "--table", "t.json", *network, "--target", "one-core").stderr
    assert asked == [(7, (1, 3, 48, 48), ("layer3",), "one-core")]


def test_a_finished_run_is_not_resumed_and_an_unfinished_one_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    run(*TRAIN)
    assert "is finished: there is nothing to resume" in run("train", "--resume").stderr
    Path("runs/latest/results.json").unlink()
    result = run("train", "--resume", "--alpha", "4")
    assert result.exit_code == 1 and "was started with --alpha [2.0]; --resume cannot change it to [4.0]" in result.stderr
    assert run(*TRAIN, "--resume").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("train", "--model", "resnet81"), "Model 'resnet81' is unknown. Choices: resnet18"),
        (("train", "--data", "cifar"), "Data 'cifar' is unknown. Choices: cifar10, cifar100"),
        (
            ("train", "--method", "adjoint"),
            "Method 'adjoint' is unknown. Choices: adjoined, budgeted, dan, distill, dropout",
        ),
        (("train", "--method", "dan"), "--method dan needs a --budget, such as --budget macs=0.45"),
        (("train", "--method", "dan", "--budget", "macs=0.0001"), "the smallest possible is"),
        (("train", "--method", "dan", "--budget", "speed=2"), "the cost 'speed' is unknown. Choices: macs, params, latency"),
        (("train", "--method", "dan", "--budget", "latency=1ms"), "needs --table: measure one with adjcompress bench --table"),
        (("train", "--budget", "macs=0.5"), "--budget goes with --method dan or budgeted, or with a --substitute"),
        (("train", "--method", "substitute"), "--method substitute needs --substitute NAME, such as low_rank"),
        (("train", "--method", "substitute", "--budget", "params=0.4"), "--method substitute needs --substitute NAME"),
        (("train", "--substitute", "low_rank"), "low_rank needs either a setting or a number of parameters"),
        (
            ("train", "--method", "dan", "--substitute", "low_rank"),
            "--substitute goes with --method adjoined or substitute, not with dan",
        ),
        (("train", "--substitute", "tucker", "--setting", "0.3"), "cannot be cut: its weight is reconstructed as a whole"),
        (
            ("train", "--method", "substitute", "--substitute", "shuffle", "--budget", "params=1k"),
            "A budget of 1,000 parameters is below the smallest that shuffle reaches on these layers",
        ),
        (
            ("train", "--method", "substitute", "--substitute", "acdc", "--setting", "1.5"),
            "acdc takes a whole number of layers",
        ),
        (("train", "--model-option", "depth"), "--model-option 'depth': NAME=VALUE is expected, such as drop_path=0.2"),
        (("train", "--model-option", "depth=3"), "Model resnet18 does not take these arguments"),
        (("train", "--model", "wrn_17_2"), "a wide residual network is wrn_DEPTH_WIDENING with a depth of 6 n + 4"),
        (("train", "--plan", "none.json"), "--plan none.json cannot be read"),
        (("bench", "a.onnx", "--classes", "10"), "--classes belongs to --table: give --table as well"),
        (("train", "--align", "wide"), "--align 'wide' is neither a number nor auto"),
        (("bench", "--table", "t.json", "a.onnx"), "--table measures the layers of a network, not files"),
        (("bench", "--table", "t.json", "--threads", "1,2"), "A table holds for one number of threads"),
        (("bench", "a.onnx", "--target", "one-core", "--threads", "2"), "--threads is settled by --target"),
        (("bench", "a.onnx", "--model", "resnet18"), "--model belongs to --table: give --table as well"),
        (("export", "a.onnx", "--max-drop", "2"), "--max-drop belongs to --int8: give --int8 as well"),
        (("bench", "a.onnx", "--engine", "tvm"), "Engine 'tvm' is unknown. Choices: "),
        (("report", "nowhere"), "nowhere is no run"),
        (("train", "--recipe", "slow"), "Recipe 'slow' is unknown. Choices: quick"),
        (("train", "--schedule", "cubic"), "Schedule 'cubic' is unknown. Choices: quadratic"),
        (("train", "--alpha", "0.5"), "--alpha 0.5 is below 1"),
        (("train", "--alpha", "1"), "--alpha 1 is the full network itself"),
        (("train", "--alpha", "1000"), "--alpha 1000 is above the width of layer layer2.0.conv1"),
        (("train", "--slim", "stage7"), "--slim 'stage7' matches no layer"),
        (("train", "--beta", "2"), "--beta 2 must be at least 0 and below 1"),
        (("train", "--beta", "-0.5"), "--beta -0.5 must be at least 0 and below 1"),
        (("train", "--weight", "-1"), "--weight -1 must be 0 or more"),
        (("train", "--method", "standard", "--schedule", "linear"), "--schedule goes with --method adjoined or dan"),
        (("train", "--method", "standard", "--beta", "0.5"), "--beta goes with --method adjoined or dan, not with standard"),
        (("train", "--method", "standard", "--slim", "layer4"), "--slim, --keep and --align say how a network is cut"),
        (
            ("train", "--method", "standard", "--alpha", "2", "--model", "darts", "--model-option", "auxiliary=true"),
            "auxiliary",
        ),
        (("train", "--new-classifier"), "--new-classifier lets the last layer of trained weights start afresh"),
        (("train", "--augmentation", "crop-flop"), "Augmentation 'crop-flop' is unknown. Choices: crop-flip"),
        (("train", "--batch-size", "0"), "--batch-size 0"),
        (("train", "--batch-size", "1"), "With steps of one image, layer layer4.0.bn1 normalises by the variance of a single"),
        (("bench", "--table", "t.json", "--duration", "1"), "--duration"),
        (("bench", "--table", "t.json", "--engine", "torch"), "--engine"),
        (("bench", "--table", "t.json", "--model", "resnet18", "--image-size", "-5"), "--image-size -5 is too small"),
        (("train", "--model", "timm:resnet10t", "--model-option", "foo=1"), "timm:resnet10t does not take these arguments"),
        (("train", "--nodes", "0"), "must be at least 1"),
        (("train", "--image-size", "4"), "--image-size 4 is too small"),
        (("train", "--validation", "0", "--data", "{npz}"), "--validation 0.0 must lie between 0 and 1"),
        (("train", "--limit", "0"), "--limit 0 must be at least 1"),
        (("train", "--seed", "-1"), "--seed -1 must be 0 or more"),
        (("train", "--seed", str(2**63)), f"--seed {2**63} must be 0 or more, and below 2^63"),
        (("train", "--method", "standard", "--model", "inception_v3"), "Model inception_v3 does not take 32x32 images"),
        (("train", "--run", "data.npz"), "data.npz is a file: choose a folder for --run"),
        (("extract", "--run", "data.npz"), "data.npz is no run"),
        (("train", "--clip-norm", "0"), "--clip-norm 0.0 must be above 0"),
        (("train", "--precision", "16"), "Precision '16' is unknown. Choices: bf16"),
        (("train", "--epochs", "0"), "--epochs 0 must be at least 1"),
        (("train", "--device", "cuda"), "--device cuda: this machine has no CUDA GPU"),
        (("train", "--weights", "none.pth"), "none.pth does not exist"),
        (("train", "--resume"), "There is no run in runs/ here"),
        (("extract",), "There is no run in runs/ here: make one with adjcompress train"),
        (("extract", "--run", "nowhere"), "nowhere is no run"),
        (("export", "model.onnx"), "No package was made here yet: run adjcompress extract first"),
        (("export", "model.onnx", "--from", "none.safetensors"), "none.safetensors does not exist"),
        (("train", "--alpha", "2", "--alpha", "4", "--alpha", "2"), "--alpha 2 is given twice"),
        (("train", "--model", ":net"), "Model :net: package.module:function is expected"),
        (("train", "--model", "timm:zzzzzz"), "timm's model 'zzzzzz' is unknown. timm.list_models() names them"),
        (("bench", "--table", "t.json", "--model", "resnet18", "--classes", "0"), "--classes 0 must be at least 1"),
        (("bench", "none.onnx", "--duration", "nan"), "--duration nan must be seconds above 0"),
        (("bench", "."), ". is a folder: name an ONNX file in it"),
        (("bench",), "No ONNX file was made here yet: run adjcompress export model.onnx first"),
        (("bench", "none.onnx"), "none.onnx does not exist"),
        (("bench", "none.onnx", "-o", "data.npz"), "data.npz: the output must end in .json"),
        (("report", "-o", "data.npz"), "data.npz: a report must end in .html"),
        (("bench", "none.onnx", "-o", "."), ".: the output must end in .json"),
        (("train", "--weights", "."), ". is a folder: --weights takes"),
        (("export", "model.onnx", "--from", "."), ". is a folder: packages are made by adjcompress extract"),
        (("train", "--method", "dan", "--budget", "latency=1ms", "--table", "."), " is a folder: name a latency table in it"),
        (("train", "--data", "nowhere/"), "Data nowhere/ does not exist: a folder with train/ and test/"),
        (("train", "--model", "resnet19"), " more. Or timm:NAME, or package.module:function"),
        (("train", "--device", "cpu", "--devices", "1000"), "--devices 1000: a process for each core is the most"),
        (("bench", "none.onnx", "--threads", "100000"), "--threads 100000: "),
        (("bench", "none.onnx", "--threads", "one"), "--threads 'one': numbers separated by commas"),
    ],
)
def test_bad_input_gets_one_line_exit_code_1_and_leaves_nothing(
    folder: Path, arguments: tuple[str, ...], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from test_data import write_npz

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    npz = write_npz(folder / "data.npz")
    result = run(*(argument.format(npz=npz) for argument in arguments))
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ") and text in line
    assert [path.name for path in folder.iterdir()] == ["data.npz"]


@pytest.mark.parametrize(
    "arguments",
    [
        (*TRAIN, "--run", "file/run"),
        ("extract", "-o", "file/small.safetensors"),
        ("export", "file/small.onnx"),
        ("bench", "none.onnx", "-o", "file/bench.json"),
        ("report", "-o", "file/report.html"),
    ],
)
@pytest.mark.usefixtures("tiny_run")
def test_a_place_below_a_file_is_one_line(arguments: tuple[str, ...]) -> None:
    Path("file").write_text("kept")
    if arguments[0] == "export":
        assert run("extract", "--quiet").exit_code == 0
    result = run(*arguments)
    assert result.exit_code == 1 and Path("file").read_text() == "kept"
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: file/") and line.endswith("; choose another place.")


@pytest.mark.usefixtures("tiny_run")
def test_a_file_of_something_else_is_not_replaced() -> None:
    config = Path("runs/tiny/config.json").read_text()
    for arguments in (("bench", "none.onnx", "-o", "runs/tiny/config.json"), ("report", "-o", "kept.html")):
        Path("kept.html").write_text("kept")
        result = run(*arguments)
        assert result.exit_code == 1 and "is there already, and holds something else" in result.stderr
    assert Path("runs/tiny/config.json").read_text() == config and Path("kept.html").read_text() == "kept"


def test_a_training_that_was_stopped_is_named_by_the_next_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("adjcompress.training.loop._Training.finish", stopped)
        result = run(*TRAIN)
    assert result.exit_code == 1
    assert "Stopped. adjcompress train --resume --run runs/digits-wrn_10_1-adjoined goes on with it." in result.stderr
    result = run(*TRAIN)
    assert result.exit_code == 0 and "runs/digits-wrn_10_1-adjoined was not trained to its end: adjcompress" in result.stderr
    assert "was not trained" not in run(*TRAIN).stderr
    search = (*TRAIN[:-2], "--method", "dan", "--budget", "macs=0.6")
    with monkeypatch.context() as patch:
        patch.setattr("adjcompress.training.loop._Training.finish", stopped)
        assert run(*search).exit_code == 1
    assert "runs/digits-wrn_10_1-dan was not trained to its end: adjcompress" in run(*search).stderr


def test_a_run_that_lost_its_last_checkpoint_says_so_and_trains_the_rest_again() -> None:
    arguments = ("--limit", "80", "--epochs", "2", "--batch-size", "8", "--model", "wrn_10_1", "--alpha", "2", "--run", "it")
    assert run("train", *arguments).exit_code == 0
    assert run("extract", "--run", "it", "-o", "before.safetensors").exit_code == 0
    weights = Path("it/checkpoint-2/weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    for asked in (("extract", "--run", "it"), ("train", "--method", "distill", "--alpha", "2", "--teacher", "it")):
        result = run(*asked)
        assert (
            result.exit_code == 1 and "it ended after epoch 2, but its newest whole checkpoint is checkpoint-1" in result.stderr
        )
    assert not Path("small-alpha2.safetensors").exists()
    assert run("train", "--resume", "--run", "it").exit_code == 0
    assert run("extract", "--run", "it", "-o", "after.safetensors").exit_code == 0
    assert Path("after.safetensors").read_bytes() == Path("before.safetensors").read_bytes()
    for folder in Path("it").glob("checkpoint-*"):
        shutil.rmtree(folder)
    for asked in (("extract", "--run", "it"), ("train", "--resume", "--run", "it")):
        assert "it has no checkpoint any more: train a new --run" in run(*asked).stderr


def test_a_training_that_has_not_ended_is_extracted_as_far_as_it_is() -> None:
    recipe = ("--limit", "80", "--epochs", "4", "--batch-size", "8", "--model", "wrn_10_1", "--alpha", "2")
    assert run("train", *recipe, "--small-first", "0.5", "--run", "it").exit_code == 0
    Path("it/results.json").unlink()
    shutil.rmtree("it/checkpoint-4")
    assert "at epoch 3 of 4: adjcompress train --resume --run it" in run("extract", "--run", "it", "--alpha", "1").stdout
    result = run("train", "--method", "distill", "--alpha", "2", "--teacher", "it")
    assert result.exit_code == 1 and "--teacher it is at epoch 3 of 4" in result.stderr


def test_a_full_network_that_waits_is_compared_with_as_the_run_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    method = ("--substitute", "low_rank", "--setting", "0.3", "--small-first", "0.5")
    with monkeypatch.context() as patch:
        patch.setattr("adjcompress.adjoined.AdjoinedNetwork.learn_together_", stopped)
        assert run(*TRAIN, *method, "--epochs", "2", "--run", "it").exit_code == 1
    for asked in (("extract", "--run", "it"), ("export", "model.onnx"), ("bench", "--duration", "0.1")):
        assert run(*asked).exit_code == 0
    full = ac.load_package("it/full.safetensors")
    assert (
        ac.count(full, torch.zeros(1, 3, 32, 32)).macs
        == json.loads(Path("it/deployed.json").read_text())["extract"]["small-alpha2.safetensors"]["full_macs"]
    )


def test_timings_stay_with_every_run_of_which_a_file_was_timed() -> None:
    for name, seed in (("a", "0"), ("b", "1")):
        assert run(*TRAIN, "--run", f"runs/{name}", "--seed", seed).exit_code == 0
        assert run("extract", "--run", f"runs/{name}", "-o", f"{name}.safetensors").exit_code == 0
        Path(name).mkdir()
        assert run("export", f"{name}/model.onnx", "--from", f"{name}.safetensors").exit_code == 0
    assert run("bench", "a/model.onnx", "--reference", "b/model.onnx", "--duration", "0.1").exit_code == 0
    for name in ("a", "b"):
        timings = read_deployed(Path(f"runs/{name}")).timings
        known = {timing.path: timing.name for timing in timings}
        assert known == {f"{each}/model.onnx": "alpha2" if each == name else None for each in ("a", "b")}
    Path("runs/b/config.json").write_text("{")
    result = run("bench", "a/model.onnx", "b/model.onnx", "--duration", "0.1")
    assert result.exit_code == 0 and "times faster" in result.stdout and "runs/b/config.json is damaged" in result.stderr


def test_a_network_that_has_not_begun_to_learn_is_not_extracted(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = ("--limit", "80", "--epochs", "4", "--batch-size", "8", "--model", "wrn_10_1", "--alpha", "2")

    class Killed(Exception):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("adjcompress.adjoined.AdjoinedNetwork.learn_together_", killed)
        with pytest.raises(Killed):
            run("train", *recipe, "--small-first", "0.5", "--run", "it")
    result = run("extract", "--run", "it", "--alpha", "1")
    assert result.exit_code == 1 and "Network full has not begun to learn yet: it is at epoch 2 of 4" in result.stderr
    assert "This training has not ended" in run("extract", "--run", "it").stdout
    for asked in (("export", "model.onnx"), ("bench", "--duration", "0.1")):
        assert run(*asked).exit_code == 0
    timed = json.loads(Path("bench.json").read_text())["timings"]
    assert [timing["path"] for timing in timed] == ["model.onnx", "it/full.onnx"]
    kept = json.loads(Path("it/deployed.json").read_text())
    assert kept["export"]["it/full.onnx"]["untrained"] and len(next(iter(kept["bench"].values()))["timings"]) == 2
    for asked in (("train", "--resume", "--run", "it"), ("extract",), ("export", "model.onnx"), ("bench", "--duration", "0.1")):
        assert run(*asked).exit_code == 0
    exported = json.loads(Path("it/deployed.json").read_text())["export"].values()
    (full,) = (each for each in exported if each["sha256"] == checksum(Path("it/full.onnx")))
    assert "untrained" not in full


@pytest.mark.usefixtures("tiny_run")
def test_figures_of_one_file_stay_when_another_is_measured() -> None:
    assert run("extract", "--quiet").exit_code == 0
    for name in ("a.onnx", "b.onnx"):
        assert run("export", name, "--quiet").exit_code == 0
        assert run("bench", name, "--duration", "0.1", "--quiet").exit_code == 0
    assert list(json.loads(Path("runs/tiny/deployed.json").read_text())["bench"]) == ["1 thread", "1 thread: b.onnx"]


def test_a_run_without_a_full_network_is_benchmarked_alone() -> None:
    for arguments in ((*TRAIN, "--method", "standard"), ("extract",), ("export", "model.onnx")):
        assert run(*arguments).exit_code == 0
    bench = json.loads(run("bench", "--duration", "0.1", "--json").stdout)
    assert [timing["path"] for timing in bench["timings"]] == ["model.onnx"]


def test_a_network_of_substitutes_goes_all_the_way(folder: Path) -> None:
    short = ("--limit", "80", "--epochs", "1", "--batch-size", "8", "--model", "wrn_10_2")
    assert run("train", *short, "--method", "standard", "--run", "runs/teacher").exit_code == 0
    asked = ("--method", "substitute", "--substitute", "hashed", "--budget", "params=0.065", "--teacher", "runs/teacher")
    trained = run("train", *short, *asked)
    assert trained.exit_code == 0, trained.stderr
    report = json.loads(run("extract", "--json").stdout)
    assert report["name"] == "substitute" and report["certificate"]["max_difference"] == 0
    assert report["parameters"] <= 0.065 * report["full_parameters"]
    assert "6 layers are stored as what their weights are made of" in run("export", "small.onnx").output
    dense = json.loads(run("export", "dense.onnx", "--materialise", "--json").stdout)
    assert dense["kind"] == "float32 materialised" and dense["bytes"] > 1.5 * Path("small.onnx").stat().st_size
    bench = json.loads(run("bench", "small.onnx", "dense.onnx", "--duration", "0.1", "--json").stdout)
    assert all(timing["load_ms"] > 0 and timing["peak_memory_bytes"] > 0 for timing in bench["timings"])
    beside = json.loads(run("bench", "--duration", "0.1", "--json").stdout)
    assert Path(beside["timings"][-1]["path"]).name == "dense.onnx" and "runs/" in beside["timings"][-1]["path"]
    page = Path("runs/latest/report.html").read_text()
    assert "hashed at" in page and "substitute float32 materialised" in page and "--materialise" in page


def test_a_resumed_run_keeps_its_precision() -> None:
    run(*TRAIN, "--precision", "bf16")
    Path("runs/latest/results.json").unlink()
    assert run("train", "--resume").exit_code == 0
    assert ac.open_run().config["precision"] == "bf16"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("adjcompress.training.train", broken)
    with pytest.raises(ZeroDivisionError):
        run("train")


def test_a_lost_package_or_onnx_file_says_how_to_make_it_again() -> None:
    run(*TRAIN)
    run("extract")
    Path("small-alpha2.safetensors").unlink()
    assert "is gone: run adjcompress extract again" in run("export", "model.onnx").stderr


def test_a_run_starts_from_weights() -> None:
    run(*TRAIN)
    run("extract", "--alpha", "1")
    assert run(*TRAIN, "--weights", "full.safetensors").exit_code == 0


def test_an_export_is_checked_on_images_that_the_network_did_not_learn_from(folder: Path) -> None:
    import torch
    from adjcompress_cli.export import _images
    from test_data import write_npz

    npz = str(write_npz(folder / "data.npz"))
    short = ("--model", "wrn_10_1", "--epochs", "1", "--batch-size", "4")
    trained = run("train", *short, "--data", npz, "--seed", "3", "--validation", "0.2")
    assert trained.exit_code == 0, trained.stderr
    assert run("extract", "--alpha", "8").exit_code == 0
    held_out = ac.open_run().data().validation.batch(torch.arange(8))[0]
    again = _images(Path("small-alpha8.safetensors"), npz).validation.batch(torch.arange(8))[0]
    assert torch.equal(held_out, again)
