"""Every example runs, on few images and steps."""

from __future__ import annotations

import json
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import adjcompress as ac
from adjcompress.data import first_pixels
from adjcompress.deploy import ExportOptions, export_package
from adjcompress.training import Run

EXAMPLES = Path(__file__).parents[1] / "examples"
TRAIN = "--limit 60 --epochs 1 --model wrn_10_1 --alpha 2 --batch-size 4 --json"


def environment(**more: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "TRAIN": TRAIN, "OMP_NUM_THREADS": "1", **more}


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Runs an example as Python would, but in this process: a new one would load torch again. What it printed."""

    def run(name: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, "--epochs", "1", "--limit", "80"])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_the_four_steps(python: Callable[[str], str]) -> None:
    output = python("four_steps.py")
    assert "max_difference=0.0" in output and "small.onnx: " in output and "times faster" in output


def test_a_model_of_ones_own(python: Callable[[str], str], tmp_path: Path) -> None:
    output = python("own_model.py")
    assert "max_difference=0.0" in output
    lines = {line.split()[0]: line.split()[2:4] for line in output.splitlines() if len(line.split()) > 4}
    assert lines["fine.0"] == ["48", "12"] and lines["coarse.0"] == ["80", "20"] and lines["pointwise.0"] == ["256", "64"]
    assert (tmp_path / "own.onnx").is_file()


def test_a_search_for_widths(python: Callable[[str], str]) -> None:
    output = python("search_widths.py")
    parts = [float(line.split("(")[1].rstrip(")")) for line in output.splitlines() if line.startswith(("macs", "params"))]
    assert 0.98 <= max(parts[0] / 0.5, parts[1] / 0.4) <= 1 and "accuracy on the test split" in output


def test_shrinking_a_trained_network(python: Callable[[str], str], tmp_path: Path) -> None:
    lines = python("shrink_trained.py").splitlines()
    assert "tensor_train at setting" in lines[-4] and "in 12 layers" in lines[-4]
    assert "of 691," in lines[-3] and "shrunk.onnx" in lines[-3]
    assert (tmp_path / "shrunk.onnx").stat().st_size < 600_000  # 70 thousand parameters, dense it would be 0.5 MB


def test_an_architecture_in_a_graph_of_ones_own(python: Callable[[str], str], tmp_path: Path) -> None:
    lines = python("own_graph.py").splitlines()
    assert "budget macs=0.4" in lines[-4] and lines[-3].startswith("open: stage") and "MACs" in lines[-2]
    assert "agreement=1.0" in lines[-1] and (tmp_path / "own-graph.onnx").is_file()


def test_two_processes_on_one_machine(tmp_path: Path) -> None:
    command = [str(EXAMPLES / "several_processes.sh")]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warning: " not in done.stderr and "deprecated" not in done.stderr
    assert json.loads(done.stdout)["test"]["alpha2"]["images"] > 0
    runs = [path for path in (tmp_path / "runs").iterdir() if path.is_dir() and not path.is_symlink()]
    assert [path.name for path in runs] == ["digits-wrn_10_1-adjoined"] and ac.open_run(runs[0]).config["processes"] == 2
    again = ("--model", "wrn_10_1", "--alpha", "2", "--limit", "80", "--devices", "2", "--run", str(runs[0]))
    command = [str(Path(sys.executable).with_name("adjcompress")), "train", *again]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.count("holds a run already: continue it with --resume, or choose another --run.") == 1


def test_two_machines(tmp_path: Path) -> None:
    """Two launchers that meet over the network: here both on this machine, in one folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = str(EXAMPLES / "several_processes.sh")
    machines = [
        subprocess.Popen(
            [command, "machine", str(rank), address],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        outputs = [machine.communicate(timeout=120) for machine in machines]
    except subprocess.TimeoutExpired:
        for machine in machines:
            machine.terminate()
        outputs = [machine.communicate() for machine in machines]  # what both said is the way to the cause
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    printed = [stdout for stdout, _ in outputs if stdout.strip()]
    assert len(printed) == 1 and json.loads(printed[0])["test"]["full"]["images"] > 0


@pytest.mark.parametrize("preprocess", [False, True])
def test_the_edge_program_sees_what_the_network_was_trained_to_see(
    tiny_run: Run, digits: ac.ImageData, preprocess: bool
) -> None:
    package = ac.extract_package(tiny_run, "full").path
    export_package(package, "model.onnx", digits, ExportOptions(preprocess=preprocess))
    pixels = first_pixels(digits, digits.test, 1)
    Image.fromarray(pixels[0].permute(1, 2, 0).numpy()).save("digit.png")
    program = EXAMPLES / "edge" / "classify.py"
    command = [sys.executable, str(program), "model.onnx", "digit.png"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    likely = ac.load_package(package)(digits.preprocessing.normalise(pixels)).softmax(1)[0].sort(descending=True)
    expected = [f"{value:6.1%}  {digits.classes[index]}" for value, index in zip(*likely, strict=True)]
    assert lines == expected[:5]
    for missing in (("none.onnx", "digit.png"), ("model.onnx", "none.png")):
        refused = subprocess.run([sys.executable, str(program), *missing], check=False, capture_output=True, text=True)
        assert refused.returncode == 1 and refused.stderr.startswith("none.") and "Traceback" not in refused.stderr
    text = program.read_text()
    assert len(text.splitlines()) < 60
    imported = {line.split()[1].split(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "PIL"}
