"""A run's page says what was measured and what was not, needs nothing else, and takes names and files as they come."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import matplotlib
import pytest
from adjcompress_cli.main import main
from adjcompress_cli.report import report
from click.testing import CliRunner
from conftest import train_tiny
from hypothesis import given
from hypothesis import strategies as st

import adjcompress as ac
from adjcompress.report import write_report
from adjcompress.report.deployed import read_deployed
from adjcompress.report.labels import Box, place, spread
from adjcompress.report.words import TIMES, UNKNOWN, duration, enumeration, percent, points, printable, quantity, significant

HOSTILE = '"><script>alert(1)</script><img src=x> $x^2$ \u202e{{ 7 * 7 }}'


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: ac.ImageData) -> Iterator[Path]:
    """A folder with runs/tiny, finished after two epochs; tests copy it."""
    folder, before = tmp_path_factory.mktemp("trained"), Path.cwd()
    os.chdir(folder)
    try:
        train_tiny("runs/tiny", digits, epochs=2)
        yield folder
    finally:
        os.chdir(before)


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ac.training.Run:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True, symlinks=True)
    monkeypatch.chdir(tmp_path)
    return ac.open_run(Path("runs/tiny"))


def change(path: Path, how: Callable[[Any], None]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    how(content)
    path.write_text(json.dumps(content))


def certificate(step: str, difference: float) -> dict[str, Any]:
    figures = {"images": 10, "max_difference": difference, "mean_difference": difference / 2, "scale": 8.0, "agreement": 1.0}
    return {"step": step, **figures, "relative": difference / 8}


def timing(path: str, p50_ms: float, speedup: float, **changes: Any) -> dict[str, Any]:
    quantiles = {"min_ms": 0.9 * p50_ms, "p50_ms": p50_ms, "p90_ms": 1.1 * p50_ms, "p99_ms": 1.4 * p50_ms}
    return {
        "path": path,
        "engine": "onnxruntime",
        "provider": "cpu",
        "runtime": "onnxruntime cpu",
        "target": None,
        "threads": 1,
        "batch": 1,
        "latency": {"runs": 800, **quantiles},
        "speedup": {"value": speedup, "low": 0.98 * speedup, "high": 1.02 * speedup},
        "load_ms": 12 * p50_ms,
        "first_ms": 3 * p50_ms,
        "peak_memory_bytes": 30_000_000,
        "parameters": 70_000,
        "macs": 11_000_000,
        "bytes": 290_000,
        "noisy": False,
        **changes,
    }


def everything(folder: Path, small: str = "alpha2") -> dict[str, Any]:
    """A deployed.json with every part: a package, its float and int8 files, three measurements."""
    package, model, int8, full = f"small-{small}.safetensors", "model.onnx", "model-int8.onnx", f"{folder}/full.onnx"
    made = {"package": package, "name": small, "opset": 18, "simplify": False, "tolerance": 1e-4, "bytes": 290_000}
    unblocked = {"layer": "layer2.0.conv1", "channels_in": 16, "channels_out": 20, "wanted_in": 16, "wanted_out": 32}
    quantised = {
        "calibration_images": 256,
        "validation_images": 120,
        "float_accuracy": 0.36,
        "accuracy": 0.35,
        "drop_points": 1.0,
        "max_drop_points": 1.5,
        "float_layers": [{"name": "conv1", "why": "asked for by --int8-keep"}],
        "float_bytes": 290_000,
        "processor": "x64",
        "certificate": certificate("int8", 0.4),
    }
    machine = {"cpu": "Some CPU", "cores": 2, "instructions": ["avx2"], "load": 0.5, "versions": {"onnxruntime": "1.2.3"}}
    measured = [timing(model, 0.25, 3.2), timing(int8, 0.2, 4.0, bytes=80_000), timing(full, 0.8, 1.0, bytes=1_100_000)]
    on_target = [{**item, "target": "one-core"} for item in measured]
    by_openvino = [{**item, "engine": "openvino", "runtime": "openvino cpu"} for item in measured[::2]]
    bench = {"1 thread": measured, "one-core": on_target, "1 thread, openvino": by_openvino}
    return {
        "extract": {
            package: {
                "path": package,
                "name": small,
                "accuracy": {"test": 0.35},
                "certificate": certificate("slice", 0.0),
                **{"parameters": 70_000, "macs": 11_000_000, "bytes": 290_000},
                **{"full_parameters": 270_000, "full_macs": 40_000_000},
            }
        },
        "export": {
            model: {**made, "kind": "float32", "unblocked": [unblocked], "certificate": certificate("export", 1e-6)},
            int8: {**made, "kind": "int8", "int8": quantised, "certificate": certificate("export", 1e-6)},
        },
        "bench": {
            name: {"reference": full, "timings": timings, "machine": machine, "warnings": []} for name, timings in bench.items()
        },
    }


def searched(folder: Path) -> None:
    """Make up a search for the widths of a run, with two budgets."""
    plan = json.loads((folder / "config.json").read_text())["method"]["settings"]["plans"]["alpha2"]
    full, costs = {"macs": 41e6, "params": 272474.0, "latency": 1.9}, {"macs": 20e6, "params": 70000.0, "latency": 0.9}
    kept = [group["kept"] for group in plan["groups"]]
    uniform = [
        {"alpha": alpha, "kept": kept, "costs": {name: cost / alpha for name, cost in full.items()}}
        for alpha in (2.0, 4.0, 8.0)
    ]
    search = {"budgets": ["macs=0.5", "latency=1ms@one-core"], "costs": costs, "full": full, "uniform": uniform}
    (folder / "plan.json").write_text(json.dumps({**plan, "search": search}))
    (folder / "search").mkdir()
    slim = [group for group in plan["groups"] if group["slim"]]
    records = []
    for epoch in (1, 2, 3):
        parts = {name: {"expected": 0.5 + 0.05 / epoch, "likeliest": 0.5} for name in full}
        parts["macs"]["budget"] = parts["latency"]["budget"] = 0.5
        widths = {group["name"]: group["kept"] * (1 + 0.3 / epoch) for group in slim}
        records.append({"epoch": epoch, "search": {"costs": parts, "widths": widths, "temperature": 1.0, "price": 0.1}})
    (folder / "search" / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def deployed(run: ac.training.Run, content: Any) -> None:
    (run.folder / "deployed.json").write_text(content if isinstance(content, str) else json.dumps(content))


class Page(HTMLParser):
    """A page taken apart: its elements, and its text as a reader sees it, every run of spaces one space."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._pieces: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(" ".join(self._pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] != "style":
            self._pieces.append(data)

    @property
    def figures(self) -> list[str]:
        return re.findall(r"<svg.*?</svg>", self.source, flags=re.DOTALL)

    def section(self, name: str) -> str:
        """The source of one section."""
        found = re.search(rf'<section id="{name}">.*?</section>', self.source, flags=re.DOTALL)
        assert found
        return found[0]


def test_a_page_tells_the_result_and_where_it_came_from(run: ac.training.Run) -> None:
    deployed(run, everything(run.folder))
    page = Page(write_report(run))
    results = run.results()
    assert results
    full, small = (results["test"][name]["accuracy"] for name in ("full", "alpha2"))
    headline = re.search("<h1>(.*?)</h1>", page.source)
    assert headline
    counts = {name: ac.count(net, run.preprocessing.example()).parameters for name, net in run.method().deployables().items()}
    fewer = significant(counts["full"] / counts["alpha2"])
    assert headline[1].split(", ") == [
        f"alpha2: {fewer}{TIMES} fewer parameters",
        f"3.20{TIMES} faster",
        points(100 * (small - full)),
    ]
    for text in ("Some CPU", "1.2.3", f"full {100 * full:.2f} %", "ONNX Runtime CPU, target one-core, 1 thread"):
        assert text in page.text


def test_the_command_of_a_run_from_before_there_were_ways_repeats_it(run: ac.training.Run) -> None:
    config = json.loads((run.folder / "config.json").read_text())
    for method, told in (("adjoined", "adjcompress train --way papers"), ("standard", "adjcompress train --method")):
        config["notes"] = {"options": {"method": method, "detach": False, "epochs": 3}}
        (run.folder / "config.json").write_text(json.dumps(config))
        text = Page(write_report(ac.open_run(run.folder))).text
        assert told in text and "--no-detach" not in text


def test_a_full_network_that_waits_is_told(run: ac.training.Run) -> None:
    told = "For 1 of 2 epochs the small networks learn alone, and the full one waits."
    assert told not in Page(write_report(run)).text
    config = json.loads((run.folder / "config.json").read_text())
    config["method"]["settings"]["small_first"] = 0.5
    (run.folder / "config.json").write_text(json.dumps(config))
    assert told in Page(write_report(ac.open_run(run.folder))).text


def test_a_page_is_written_into_the_run_unless_told_otherwise(run: ac.training.Run) -> None:
    assert write_report(run) == Path("runs/tiny/report.html")
    assert write_report(run, "elsewhere/page.html").is_file()
    Path("folder").mkdir()
    with pytest.raises(ac.AdjCompressError, match="it is a folder; name a file"):
        write_report(run, "folder")


def test_the_same_run_gives_the_same_bytes_whatever_style_a_user_has_set(run: ac.training.Run) -> None:
    deployed(run, everything(run.folder))
    first = write_report(run, "first.html").read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "svg.fonttype": "path"}):
        second = write_report(run, "second.html").read_bytes()
        assert matplotlib.rcParams["font.size"] == 30
    assert first == second


def test_a_page_loads_nothing(run: ac.training.Run) -> None:
    deployed(run, everything(run.folder))
    page = Page(write_report(run))
    for tag, attributes in page.elements:
        assert tag not in ("script", "img", "iframe", "object", "embed", "base", "audio", "video"), tag
        for name, value in attributes.items():
            assert name != "src" and not name.startswith("on")
            assert name != "href" or str(value).startswith(("#", "data:,")), value
    assert set(re.findall(r"url\((.)", page.source)) <= {"#"}
    assert not re.search(r"https?:|@import|//cdn", page.source)


def test_every_figure_has_a_label_ids_of_its_own_and_the_page_s_colours(run: ac.training.Run) -> None:
    deployed(run, everything(run.folder))
    page = Page(write_report(run))
    assert len(page.figures) == 10  # 2 of training, 4 of cost, 3 of latency, 1 of widths
    labels = [attributes.get("aria-label") for tag, attributes in page.elements if tag == "svg"]
    assert all(labels) and len(set(labels)) == len(labels)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    used = set(re.findall(r'(?:href="|url\()#([\w-]+)', page.source))
    assert used <= set(ids)
    for figure in page.figures:
        assert not re.search(r"#[0-9a-f]{6}\b|rgb\(", figure)
    light, dark = (set(re.findall(r"(--[\w-]+):", part)) for part in page.source.split("prefers-color-scheme: dark")[:2])
    assert set(re.findall(r"var\((--[\w-]+)\)", page.source)) <= light
    assert light == dark


def test_names_from_files_are_shown_and_never_run(run: ac.training.Run) -> None:
    def rename(config: Any) -> None:
        config["classes"] = [HOSTILE, *config["classes"][1:]]
        config["data"]["source"] = HOSTILE
        config["notes"] = {"options": {"data": HOSTILE}}

    change(run.folder / "config.json", rename)
    content = everything(run.folder)
    content["extract"] = {HOSTILE: {**content["extract"].popitem()[1], "name": HOSTILE}}
    content["export"] = {HOSTILE: {**content["export"]["model.onnx"], "name": HOSTILE, "kind": HOSTILE}}
    content["bench"] = {HOSTILE: content["bench"]["1 thread"]}
    content["bench"][HOSTILE]["timings"][0] |= {"path": HOSTILE, "runtime": HOSTILE, "target": HOSTILE}
    content["bench"][HOSTILE]["machine"] = {"cpu": HOSTILE, HOSTILE: HOSTILE, "versions": {HOSTILE: HOSTILE}}
    deployed(run, content)
    page = Page(write_report(ac.open_run(run.folder)))
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert "\u202e" not in page.source and "{{ 7 * 7 }}" in page.source and " 49" not in page.text
    assert page.source.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 10


def test_a_run_from_a_folder_whose_name_is_no_text_gives_a_page(run: ac.training.Run) -> None:
    folder = Path(os.fsdecode(b"runs/\xff\xe5\x9b\xbe <b>"))
    shutil.copytree(run.folder, folder)
    assert "&lt;b&gt;" in Page(write_report(ac.open_run(folder))).source


def test_what_was_not_measured_is_said_with_the_command_that_does(run: ac.training.Run) -> None:
    page = Page(write_report(run))
    for text in (
        "No latency was measured: adjcompress bench",
        "No network was extracted yet: adjcompress extract.",
        "No network was exported yet: adjcompress export model.onnx.",
        "Nothing was measured on a machine yet: adjcompress bench",
    ):
        assert text in page.text
    assert "faster" not in page.section("training") and "is damaged" not in page.text


def test_a_timing_is_of_the_file_that_was_timed_and_not_of_another_in_its_place(run: ac.training.Run) -> None:
    content = everything(run.folder)
    (measured,) = content["bench"]["1 thread"]["timings"][:1]
    content["bench"] = {"1 thread": {**content["bench"]["1 thread"], "timings": [{**measured, "sha256": "of the float file"}]}}
    content["export"]["model.onnx"]["sha256"] = "of the float file"
    content["export"]["model-int8.onnx"]["sha256"] = "of the int8 file"
    deployed(run, content)
    (found,) = read_deployed(run.folder).timings
    assert (found.name, found.kind) == ("alpha2", "float32")
    moved = {**measured, "path": "elsewhere/same.onnx", "sha256": "of the int8 file"}
    foreign = {**measured, "path": "../b/model.onnx", "sha256": "of another run's"}
    content["bench"]["1 thread"]["timings"] += [moved, foreign]
    content["export"]["model.onnx"] = {**content["export"]["model-int8.onnx"], "sha256": "of what was exported there later"}
    deployed(run, content)
    found = [(each.path, each.name, each.kind) for each in read_deployed(run.folder).timings]
    assert found == [
        ("model.onnx", None, "float32"),
        ("elsewhere/same.onnx", "alpha2", "int8"),
        ("../b/model.onnx", None, "float32"),
    ]


def test_load_and_first_inference_are_told_or_said_to_be_missing(run: ac.training.Run) -> None:
    content = everything(run.folder)
    deployed(run, content)
    page = Page(write_report(run))
    assert "first inference" in page.text and "3.00 ms" in page.text and "0.750 ms" in page.text
    for bench in content["bench"].values():
        bench["timings"] = [{k: v for k, v in item.items() if k not in ("load_ms", "first_ms")} for item in bench["timings"]]
    deployed(run, content)
    assert "Load and first inference were not measured." in Page(write_report(run)).text


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", "7", "null", '{"bench": 5}', '{"extract": {"a": 1}}', '{"bench": {"x": {"timings": [1]}}}', "\x00"],
)
def test_a_damaged_deployed_json_is_said_to_be_damaged(run: ac.training.Run, damage: str) -> None:
    deployed(run, damage)
    page = Page(write_report(run))
    assert "runs/tiny/deployed.json is damaged" in page.text
    assert "run adjcompress extract, export and bench again" in page.text
    assert len(page.figures) == 6  # all that do not come from that file


@pytest.mark.parametrize("text", ["{}", '{"bench": {"x": {"timings": [{"path": "a.onnx"}]}}}', '{"extract": {"a": {}}}'])
def test_a_deployed_json_that_lacks_parts_is_taken_as_it_is(run: ac.training.Run, text: str) -> None:
    deployed(run, text)
    assert "is damaged" not in Page(write_report(run)).text


def test_damaged_results_and_log_lines_are_said_to_be_damaged(run: ac.training.Run) -> None:
    (run.folder / "results.json").write_text('{"test": {"full": 3}}')
    lines = (run.folder / "log.jsonl").read_text().splitlines()
    (run.folder / "log.jsonl").write_text(f'{lines[0]}\n{{"epoch": 2}}\n')
    page = Page(write_report(run))
    assert "results.json is damaged" in page.text and "log.jsonl is damaged after epoch 1" in page.text
    assert "This training is not finished: 1 of 2 epochs done" in page.text


def test_a_run_in_training_has_a_page_with_what_there_is(run: ac.training.Run) -> None:
    (run.folder / "results.json").unlink()
    page = Page(write_report(run))
    assert "points so far" in page.text.replace("\xa0", " ")
    assert "The test split is looked at once, at the end; that has not happened yet." in page.text
    for path in run.folder.glob("checkpoint-*"):
        shutil.rmtree(path)
    (run.folder / "log.jsonl").unlink()
    page = Page(write_report(run))
    assert "No epoch is finished yet, so there are no curves." in page.text
    assert "has no checkpoint yet" in page.text
    assert len(page.figures) == 1  # the widths stand in config.json


def test_a_run_of_one_network_has_a_page(digits: ac.ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = ac.ModelSpec("cifar_resnet20", 10, 32)
    done = ac.fit(ac.StandardMethod(spec.build()), digits, ac.recipe("quick").changed(epochs=1), "runs/alone", model=spec)
    page = Page(write_report(done))
    assert re.search(r"<h1>full: [\d.]+\s% top-1, 270\sk parameters</h1>", page.source)
    assert "nothing is cut from its network" in page.text
    assert "Trained from Python, with adjcompress.fit" in page.text


def test_other_runs_stand_in_the_plots_and_the_run_itself_only_once(run: ac.training.Run) -> None:
    shutil.copytree(run.folder, "runs/another")
    alone = Page(write_report(run)).section("cost")
    both = Page(write_report(run, None, [ac.open_run(Path("runs/another")), run])).section("cost")
    for name, there in (("full", 1), ("alpha2", 1)):
        assert alone.count(f">{name}</text>") == 3 * there  # no latency was measured
        assert both.count(f">{name}</text>") == 6 * there
    assert "another" in both and "tiny (this run)" in both and "(this run)" not in alone


def test_latencies_of_other_machines_are_not_compared(run: ac.training.Run) -> None:
    shutil.copytree(run.folder, "runs/another")
    content = everything(run.folder)
    deployed(run, content)
    other = ac.open_run(Path("runs/another"))
    deployed(other, everything(other.folder))
    rows = Page(write_report(run, None, [other])).section("networks")
    assert len(re.findall("0.250\\sms", rows)) == 2
    change(other.folder / "deployed.json", lambda read: [b["machine"].update(cpu="Another") for b in read["bench"].values()])
    rows = Page(write_report(run, None, [other])).section("networks")
    assert len(re.findall("0.250\\sms", rows)) == 1


@pytest.mark.parametrize(
    ("where", "key", "value", "state"),
    [
        (("extract", "small-alpha2.safetensors", "certificate"), "max_difference", 0.0, "passed"),
        (("extract", "small-alpha2.safetensors", "certificate"), "max_difference", 1e-9, "failed"),
        (("export", "model.onnx", "certificate"), "relative", 1e-4, "passed"),
        (("export", "model.onnx", "certificate"), "relative", 1.1e-4, "failed"),
        (("export", "model.onnx"), "certificate", None, "open"),
        (("export", "model-int8.onnx", "int8"), "drop_points", 1.5, "passed"),
        (("export", "model-int8.onnx", "int8"), "drop_points", 1.6, "failed"),
    ],
)
def test_a_certificate_passes_by_its_own_rule(
    run: ac.training.Run, where: tuple[str, ...], key: str, value: Any, state: str
) -> None:
    content = everything(run.folder)
    part = content
    for name in where:
        part = part[name]
    part[key] = value
    deployed(run, content)
    states = re.findall(r'<li class="(\w+)">', Page(write_report(run)).section("certificates"))
    assert sorted(states) == sorted([state, "passed", "passed", "passed"])


def test_an_int8_file_has_the_accuracy_measured_and_a_place_in_plots_that_is_told_as_derived(run: ac.training.Run) -> None:
    deployed(run, everything(run.folder))
    page = Page(write_report(run))
    measured = everything(run.folder)["export"]["model-int8.onnx"]["int8"]["accuracy"]
    assert re.search(rf"alpha2 int8 \S {100 * measured:.2f} %", page.text)
    assert "alpha2 int8: not run on the test split; the plots show the network's own accuracy less the" in page.text


def test_the_commands_on_the_page_are_commands_that_exist(run: ac.training.Run) -> None:
    options = {"data": "a file.npz", "alpha": [2.0, 4.0], "epochs": 3, "lr": 0.0123456789, "slim": [], "detach": True}
    change(run.folder / "config.json", lambda config: config.update(notes={"options": {**options, "weights": None}}))
    deployed(run, everything(run.folder))
    page = Page(write_report(ac.open_run(run.folder)))
    written = re.findall(r"<pre><code>(.*?)</code></pre>", page.source, flags=re.DOTALL)
    parsed = [shlex.split(text.replace("&#39;", "'").replace("\\\n", " ")) for text in written]
    assert [words[:2] for words in parsed] == [
        ["adjcompress", name] for name in ("train", "extract", "export", "export", "bench", "bench", "bench")
    ]
    for words in parsed:
        group = click.Context(main)
        command = main.get_command(group, words[1])  # type: ignore[attr-defined]
        assert command is not None
        command.make_context(words[1], words[2:], parent=group)  # raises where an option does not exist
    train = parsed[0]
    assert train[train.index("--data") + 1] == "a file.npz" and train.count("--alpha") == 2 and "--detach" in train
    assert float(train[train.index("--lr") + 1]) == 0.0123456789 and "--weights" not in train


def test_the_command_writes_the_newest_run_and_tells_where(run: ac.training.Run) -> None:
    result = CliRunner().invoke(report, ["--json"], catch_exceptions=False)
    assert json.loads(result.stdout) == {"run": "runs/tiny", "path": "runs/tiny/report.html", "with": []}
    shutil.copytree(run.folder, "runs/another")
    result = CliRunner().invoke(report, ["runs/tiny", "-o", "page.html", "--with", "runs/another"], catch_exceptions=False)
    assert result.output == "Report: page.html\n" and "another" in Path("page.html").read_text()
    assert CliRunner().invoke(report, ["--quiet"], catch_exceptions=False).output == ""
    with pytest.raises(ac.AdjCompressError, match="nowhere is no run"):
        CliRunner().invoke(report, ["--with", "nowhere"], catch_exceptions=False)


coordinates = st.tuples(st.floats(0, 400), st.floats(0, 250))


@given(st.lists(st.tuples(coordinates, st.floats(10, 120)), max_size=12))
def test_labels_touch_neither_one_another_nor_points(found: list[tuple[tuple[float, float], float]]) -> None:
    dots, bounds = [point for point, _ in found], Box(0, 0, 400, 250)
    placed = [item.box for item in place(dots, [(width, 15.0) for _, width in found], bounds) if item is not None]
    for index, box in enumerate(placed):
        assert box.within(bounds)
        assert not any(box.touches(other) for other in placed[index + 1 :])
        assert not any(box.left < x < box.right and box.bottom < y < box.top for x, y in dots)


@given(st.lists(st.floats(0, 200), min_size=1, max_size=10))
def test_spread_positions_keep_their_order_and_their_distance(positions: list[float]) -> None:
    moved = spread(positions, 15, 0, 200)
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    for first, second in pairwise(order):
        assert moved[second] - moved[first] >= 15 - 1e-6
    assert min(moved) >= -1e-6 and max(moved) <= 200 + 1e-6


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (quantity(11227812), "11.2 M"),
        (quantity(44949808, "B"), "44.9 MB"),
        (quantity(999_950), "1.00 M"),
        (quantity(12), "12.0"),
        (quantity(None), UNKNOWN),
        (significant(0.258224), "0.258"),
        (significant(1234567), "1,234,567"),
        (significant(3.884e-7, 2), "3.9e-07"),
        (significant(0), "0"),
        (percent(0.35139), "35.14 %"),
        (points(-6.064), "−6.06 points"),  # noqa: RUF001
        (points(0.0), "±0.00 points"),
        (points(-0.001), "±0.00 points"),
        (points(0.5), "+0.50 points"),
        (duration(622), "10 min 22 s"),
        (duration(7322), "2 h 2 min"),
        (duration(59.6), "1 min 0 s"),
        (enumeration(["a"]), "a"),
        (enumeration(["a", "b", "c"]), "a, b and c"),
        (printable("a\x00b\tc\u202e\udcff"), "a�b c��"),
    ],
)
def test_figures_are_written_for_people(written: str, expected: str) -> None:
    assert written.replace("\xa0", " ") == expected


def test_a_network_whose_batch_norms_were_measured_anew_has_its_accuracy_of_after_that(run: ac.training.Run) -> None:
    content = everything(run.folder)
    package = content["extract"]["small-alpha2.safetensors"]
    package |= {"accuracy": {"test": 0.4321}, "reestimated": certificate("re-estimate", 0.8)}
    content["export"]["model-int8.onnx"]["int8"]["ranges"] = "average"
    content["export"]["model.onnx"]["tolerance"] = 1e-2
    untrained = {**content["export"]["model.onnx"], "name": "dense", "untrained": True}
    content["export"]["dense.onnx"] = untrained
    deployed(run, content)
    change(run.folder / "config.json", lambda config: config.update(compile=True, notes={"options": {}}))
    run = ac.open_run(run.folder)
    page = Page(write_report(run))
    assert "alpha2 43.21" in page.text.replace("\u00a0", " ").replace("\u202f", " ")
    assert "Then its batch norms were measured anew, which moved a logit by at most 0.10 of the largest" in page.text
    assert "--reestimate" in page.text and "--ranges average" in page.text
    assert "adjcompress train --device cpu --compile" in page.text and "--tolerance 0.01" in page.text
    assert "adjcompress export dense.onnx" not in page.text and "10 random images" in page.text
    content["extract"]["other.safetensors"] = {**package, "accuracy": {"test": 0.1234}}  # no file was exported from it
    deployed(run, content)
    assert "alpha2 43.21" in Page(write_report(run)).text.replace("\u00a0", " ").replace("\u202f", " ")
