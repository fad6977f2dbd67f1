"""The README's first table: for each thing that is promised, the figure that decides it."""

from __future__ import annotations

import json
from pathlib import Path

from accuracy_page import spread
from accuracy_ways import results_of
from record import RESULTS
from shown import shown_ms, shown_timing
from tables_rows import Row, Rows, int8, latency, main_job, paper_counts, quick, read, steps

WAYS = {
    "first-copies": "small first (the default)",
    "adjoined8": "the papers' way",
    "small-longer": "small one alone",
    "standard-longer": "full one alone",
}


def headline() -> str:
    """The table. What was run stands as its script; the whole command is in the result's row of results/README.md or page."""
    parts = (paper_counts, latency, int8, certificates, trained, ways, beside, step, quick)
    lines = ["| what | measured | by |", "| --- | --- | --- |"]
    for row in (row for part in parts for row in part()):
        script = row.command.strip("`").split()[1]
        lines.append(f"| {row.what} | {row.figure} | [{Path(script).name}]({script}) |")
    return "\n".join(lines)


def certificates() -> Rows:
    """What slicing and exporting changed."""
    yield list(main_job())[-1]._replace(what="Largest difference: sliced to training, ONNX to torch (of the largest logit)")


def trained() -> Rows:
    """A network trained on real images, in float and in int8, beside its full one."""
    result = read("deployment_resnet18")
    figures = result["figures"]
    one = {timing["path"]: timing for timing in figures["bench"] if timing["target"] == "one-core"}
    parts = []
    for name in ("full", "alpha8", "alpha8-int8"):
        path = f"resnet18-{name}.onnx"
        timing, accuracy = one[path], 100 * figures["test_accuracy"][path]
        faster = "" if name == "full" else f" ({timing['speedup']['value']:.2f}x faster)"
        parts.append(f"{name} {accuracy:.2f} %, {timing['bytes'] / 1e6:.2f} MB, {shown_timing(timing)}{faster}")
    training = figures["training"]
    what = f"ResNet-18, CIFAR-100 ({training['images']:,} images, {training['epochs']} epochs, the papers' way), one core"
    yield Row.of(result, what, "; ".join(parts))


def ways() -> Rows:
    """The ways to train at equal multiply-adds of training: the full and the small network of each."""
    for path in results_of("cpu"):
        result = json.loads(path.read_text())
        figures = result["figures"]
        found = []
        for way, words in WAYS.items():
            rows = [row for row in figures["rows"] if row["way"] == way]
            if rows:
                both = " and ".join(spread([row["test"][label] for row in rows]) for label in rows[0]["test"])
                found.append(f"{words} {both}")
        epochs = figures["recipe"]["epochs"]
        what = f"The same at alpha 8, full and small network, each way for what {epochs} epochs of the papers' way cost"
        yield Row.of(result, what, "; ".join(found))


_BESIDE = {  # "inner" comes last, with its full network
    "full": "full",
    "magnitude": "Torch-Pruning's magnitude",
    "magnitude-rounded": "the same with widths in eights",
    "inner-cut": "the blocks' inner layers cut",
    "inner": "the same layers in adjoined training",
}


def beside() -> Rows:
    """A trained network, cut and trained on, by ways that are named and not chosen by what they gave."""
    for path in sorted(RESULTS.glob("vs_torch_pruning_*.json")):
        result = read(path.stem)
        figures = result["figures"]
        by_way = {row["way"]: row for row in figures["rows"]}
        parts = []
        for way, title in _BESIDE.items():
            if way in by_way:
                row = by_way[way]
                parts.append(f"{title} {100 * row['accuracy']:.2f} %, {shown_ms(row)}")
        parts[-1] += f", which keeps a full one of {100 * by_way['inner']['full_accuracy']:.2f} %"
        equal, epochs = "multiply-adds" if figures["equal"] == "macs" else "latency", figures["recipe"]["epochs"]
        what = f"{figures['model']}, trained weights, cut to equal {equal}, for what {epochs} epochs cost"
        yield Row.of(result, what, "; ".join(parts))


def step() -> Rows:
    """An adjoined step beside a standard one."""
    rows = [row for row in steps() if row.what.startswith("Adjoined step")]
    yield next(row for row in rows if "resnet50, alpha 4, 224" in row.what)
    yield next(row for row in rows if "shared, resnet50" in row.what)
