"""The README's first tables: for each thing that is promised, the figure that decides it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from accuracy_page import spread
from accuracy_ways import results_of
from record import RESULTS
from shown import shown_ms, shown_timing
from tables_rows import Rows, int8, latency, main_job, paper_counts, quick, read, steps
from vs_torch_pruning_ways import in_blocks

WAYS = {
    "first-copies": "small first (the default)",
    "adjoined8": "the papers' way",
    "small-longer": "small one alone",
    "standard-longer": "full one alone",
}


def headline() -> str:
    """A table for each question. What was run stands as its script; the whole command is in the result's row or page."""
    tables = (_promises(), _trained(), _ways(), _beside())
    return "\n\n".join("\n".join(table) for table in tables)


def _promises() -> Iterator[str]:
    """What holds whatever is trained: sizes, times, differences."""
    yield from _header("size and speed", ["measured", "by"], right=False)
    for row in (row for part in (paper_counts, latency, int8, certificates, step, quick) for row in part()):
        yield f"| {row.what} | {row.figure} | {_link(row.command)} |"


def certificates() -> Rows:
    """What slicing and exporting changed."""
    yield list(main_job())[-1]._replace(what="Largest difference: sliced to training, ONNX to torch (of the largest logit)")


def step() -> Rows:
    """An adjoined step beside a standard one."""
    rows = [row for row in steps() if row.what.startswith("Adjoined step")]
    yield next(row for row in rows if "resnet50, alpha 4, 224" in row.what)
    yield next(row for row in rows if "shared, resnet50" in row.what)


def _trained() -> Iterator[str]:
    """A network trained on real images, in float and in int8, beside its full one."""
    result = read("deployment_resnet18")
    figures = result["figures"]
    training = figures["training"]
    yield from _header(
        f"ResNet-18, CIFAR-100, {training['images']:,} images, {training['epochs']} epochs of the papers' way, "
        f"by {_link(result['command'])}",
        ["top-1, test", "bytes", "one core", "times faster"],
    )
    one = {timing["path"]: timing for timing in figures["bench"] if timing["target"] == "one-core"}
    for name in ("full", "alpha8", "alpha8-int8"):
        path = f"resnet18-{name}.onnx"
        timing, accuracy = one[path], 100 * figures["test_accuracy"][path]
        cells = [
            f"{accuracy:.2f} %",
            f"{timing['bytes'] / 1e6:.2f} MB",
            shown_timing(timing),
            f"{timing['speedup']['value']:.2f}x",
        ]
        yield f"| {name} | {' | '.join(cells)} |"


def _ways() -> Iterator[str]:
    """The ways to train at equal multiply-adds of training: the full and the small network of each, by length."""
    results = [json.loads(path.read_text()) for path in results_of("cpu")]
    lengths = [f"{result['figures']['recipe']['epochs']} epochs: full | small" for result in results]
    yield from _header(
        f"the same network and images at alpha 8, each way for what that many epochs of the papers' way cost, "
        f"by {_link(results[0]['command'])}",
        lengths,
        columns=2 * len(results),
    )
    for way, words in WAYS.items():
        cells = []
        for result in results:
            tests = [row["test"] for row in result["figures"]["rows"] if row["way"] == way]
            cells += [
                spread([test[label] for test in tests]) if label in (tests or [{}])[0] else "" for label in ("full", "alpha8")
            ]
        yield f"| {words} | {' | '.join(cells)} |"


_BESIDE = {
    "full": "as trained",
    "magnitude": "Torch-Pruning's magnitude",
    "inner-cut": "the blocks' inner layers cut",
    "inner": "the same layers adjoined, and its full network",
}


def _beside() -> Iterator[str]:
    """A trained network, cut and trained on, by ways that are named and not chosen by what they gave."""
    results = [read(path.stem) for path in sorted(RESULTS.glob("vs_torch_pruning_*.json"))]
    link = _link(results[0]["command"])
    yield from _header(f"trained networks, cut and trained on for the same multiply-adds, by {link}", list(_BESIDE.values()))
    for result in results:
        figures = result["figures"]
        by_way = {row["way"]: row for row in figures["rows"]}
        cells = [f"{100 * by_way[way]['accuracy']:.2f} %, {shown_ms(by_way[way])}" for way in _BESIDE]
        cells[-1] += f"; {100 * by_way['inner']['full_accuracy']:.2f} %"
        equal = "multiply-adds" if figures["equal"] == "macs" else "latency"
        epochs = figures["recipe"]["epochs"]
        yield f"| {figures['model']}{in_blocks(figures)}, to equal {equal}, {epochs} epochs' cost | {' | '.join(cells)} |"


def _header(what: str, titles: list[str], *, right: bool = True, columns: int | None = None) -> Iterator[str]:
    """The first two lines of a table; figures stand at the right."""
    yield f"| {what} | {' | '.join(titles)} |"
    yield f"| --- |{(' ---: |' if right else ' --- |') * (columns or len(titles))}"


def _link(command: str) -> str:
    script = command.strip("`").split()[1]
    return f"[{Path(script).name}]({script})"
