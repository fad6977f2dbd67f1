"""Renders the tables of README.md, of the guides in examples/ and of results/README.md from benchmarks/results/*.json, so that
no figure there is typed by hand.

python benchmarks/tables.py            prints the table of all results
python benchmarks/tables.py --write    puts all tables into their pages
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tables_dan
from record import RESULTS
from shown import BUSY, shown_timing
from tables_headline import headline
from tables_rows import AFTER, BEFORE, read
from tables_ways import ways_to_train

from adjcompress.files import write_text

ROOT = Path(__file__).parents[1]
START, END = "<!-- {}: python benchmarks/tables.py --write -->", "<!-- end of {} -->"


NETWORKS = {"resnet18": "ResNet-18, CIFAR-100", "mobilenet_v2": "MobileNetV2, photographs"}


def deployment() -> str:
    """Float and int8, full and small, of the networks trained on real images."""
    lines = [
        "| network | file | top-1, test | parameters | bytes | one core | times faster | two cores |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, title in NETWORKS.items():
        figures = read(f"deployment_{name}")["figures"]
        timings = {(timing["path"], timing["target"]): timing for timing in figures["bench"]}
        for path, accuracy in reversed(figures["test_accuracy"].items()):
            one, two = timings[path, "one-core"], timings[path, "two-core"]
            int8 = figures["export"][path]["int8"]
            kept = f", {len(int8['float_layers'])} layers in float" if int8 and int8["float_layers"] else ""
            what = path.removesuffix(".onnx").removeprefix(f"{name}-")
            lines.append(
                f"| {title} | {what}{kept} | {100 * accuracy:.2f} % | {one['parameters']:,} | {one['bytes'] / 1e6:.2f} MB | "
                f"{shown_timing(one)} | {one['speedup']['value']:.2f}x | {shown_timing(two)} |"
            )
    notes = []
    for name, title in NETWORKS.items():
        result = read(f"deployment_{name}")
        training = result["figures"]["training"]
        notes.append(
            f"{title}: {training['images']:,} images, {training['epochs']} epochs of the papers' way, seed {training['seed']}, "
            f"`{result['command']}`"
        )
    return "\n".join([*lines, "", "; ".join(notes) + ". Top-1 of the ONNX files on the whole test split. " + BUSY])


def machines() -> list[str]:
    """What the results were measured on: a line for each machine and its versions, with the results' names."""
    found: dict[str, list[str]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        machine = json.loads(path.read_text())["machine"]
        versions = machine["versions"]
        key = (
            f"{machine['cpu']} with {', '.join(machine['instructions'])}, {machine['cores']} cores, torch {versions['torch']}, "
            f"ONNX Runtime {versions['onnxruntime']}"
        )
        found.setdefault(key, []).append(path.stem)
    return [f"{key}: {', '.join(names)}." for key, names in sorted(found.items(), key=lambda item: -len(item[1]))]


def table() -> str:
    """results/README.md: everything that was measured, with its command, and on which machines."""
    lines = [
        "# What was measured",
        "",
        "Every claim about speed, memory and accuracy that is made in this project. These have pages of their own: the ways to",
        "train ([accuracy.md](accuracy.md)), the papers' claims ([claims.md](claims.md)), searched widths ([dan.md](dan.md)),",
        "substitutes ([substitutes.md](substitutes.md)), super networks ([supernets.md](supernets.md) and",
        "[supernet_camvid.md](supernet_camvid.md)), and pruning ([vs_torch_pruning.md](vs_torch_pruning.md)). Ratios are",
        "measured side by side in one run, interleaved. Machine, versions, repetitions and every single figure are in the JSON",
        "file of each.",
        "",
        "| what | measured | command |",
        "| --- | --- | --- |",
    ]
    lines += [str(row) for part in (*BEFORE, *tables_dan.ALL, *AFTER) for row in part()]
    return "\n".join([*lines, "", "## Machines", "", *(f"- {machine}" for machine in machines()), ""])


def substitutes() -> str:
    """Which substitute to choose when: every form at both budgets, beside the dense and the adjoined networks."""
    result = read("substitutes")
    figures = result["figures"]
    rows = [row for row in figures["rows"] if row.get("attention", True) and row.get("scaling", "matrix") == "matrix"]
    lines = ["| layer | parameters | MACs | ONNX file | one thread | top-1 |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {row['substitute']}{'' if row['setting'] is None else ' ' + format(row['setting'], 'g')} | {row['parameters']:,} | "
        f"{row['macs'] / 1e6:.2f} M | {row['onnx_bytes'] / 1e3:.0f} kB | {row['p50_ms']:.3f} ms | "
        f"{100 * row['accuracy']:.2f} % |"
        for row in sorted(rows, key=lambda row: (row.get("budget") or 10**9, -row["accuracy"]))
    ]
    lines += [
        "",
        f"{figures['model']}, CIFAR-10, {figures['images']:,} images, {figures['recipe']['epochs']} epochs, seed "
        f"{figures['seed']}, `{result['command']}`; with and without attention transfer and scaled decay: "
        "[substitutes.md](../benchmarks/results/substitutes.md).",
    ]
    return "\n".join(lines)


def supernets() -> str:
    """Searched, random and plain architectures: images of classes, and pixels."""
    lines: list[str] = []
    for name in ("supernets", "supernet_camvid"):
        result = read(name)
        figures = result["figures"]
        pixels = figures["rows"][0]["mean_iou"] is not None
        right = "pixels right" if pixels else "top-1"
        lines += [
            f"| {figures['model']} | MACs | parameters | cycles on 1, 2, 4 machines | one thread | {right} |"
            + " mean IoU |" * pixels,
            "| --- | ---: | ---: | --- | ---: | ---: |" + " ---: |" * pixels,
        ]
        for level, kind, rows in grouped(figures["rows"]):
            of = f", of {len(rows)}" if len(rows) > 1 else ""
            cells = [
                level if kind == level else f"{level}, {kind}{of}",
                f"{spread(rows, 'macs', 1e-6, 1)} M",
                f"{spread(rows, 'parameters', 1e-3, 0)} k",
                ", ".join(spread_of([row["cycles"][machines] for row in rows], 0) for machines in ("1", "2", "4")),
                f"{spread(rows, 'p50_ms', 1, 2)} ms",
                f"{spread(rows, 'accuracy', 100, 1)} %",
            ]
            cells += [f"{spread(rows, 'mean_iou', 100, 1)} %"] if pixels else []
            lines.append(f"| {' | '.join(cells)} |")
        lines += [
            "",
            f"{figures['images']:,} images, {figures['recipe']['epochs']} epochs, seed {figures['seed']}, "
            f"`{result['command']}`: [{name}.md](../benchmarks/results/{name}.md).",
            "",
        ]
    return "\n".join(lines[:-1])


def grouped(rows: list[dict[str, Any]]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Rows of a sweep by level and kind, the plain network first, random ones together."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["level"], "random" if row["kind"].startswith("random") else row["kind"]), []).append(row)
    order = ["plain", "searched", "retrained", "random", "adjoined"]
    levels = sorted({level for level, _ in found}, key=lambda level: (level != "plain", level.rstrip("0123456789"), level))
    return [(level, kind, found[level, kind]) for level in levels for kind in order if (level, kind) in found]


def spread(rows: list[dict[str, Any]], key: str, scale: float, digits: int) -> str:
    return spread_of([row[key] * scale for row in rows], digits)


def spread_of(values: list[float], digits: int) -> str:
    """One value, or the lowest and the highest."""
    ends = [f"{value:,.{digits}f}" for value in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


BLOCKS: dict[str, tuple[str, Callable[[], str]]] = {
    "README.md": ("headline", headline),
    "examples/training.md": ("ways", ways_to_train),
    "examples/substitutes.md": ("substitutes", substitutes),
    "examples/supernets.md": ("supernets", supernets),
    "examples/edge.md": ("deployment", deployment),
}
"""The pages with a table among their text: what it is called, and what writes it."""


def pages() -> dict[Path, str]:
    """Every page that has tables, as the results say it should be."""
    found = {RESULTS / "README.md": table()}
    for page, (name, render) in BLOCKS.items():
        before, start, rest = (ROOT / page).read_text().partition(START.format(name))
        _, end, after = rest.partition(END.format(name))
        if not start or not end:
            raise SystemExit(f"{page} lacks the lines between which its table stands: {START.format(name)}")
        found[ROOT / page] = f"{before}{start}\n{render()}\n{end}{after}"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        for path, text in pages().items():
            write_text(path, text)
    else:
        print(table())


if __name__ == "__main__":
    main()
