"""results/accuracy.md: what the ways to train made of both networks, from their JSON.

python benchmarks/accuracy_page.py
"""

from __future__ import annotations

import json
from statistics import mean, stdev
from typing import Any

from accuracy_ways import PROTOCOLS, TEACHER, results_of
from record import RESULTS
from shown import measured_on

from adjcompress.files import write_text

SEEN = " (the trained weights have seen them)"


def write_page() -> None:
    """Write results/accuracy.md anew."""
    write_text(RESULTS / "accuracy.md", page())


def page() -> str:
    """results/accuracy.md, from the JSON of every protocol that was measured."""
    lines = ["# Accuracy of the ways to train", ""]
    for path in results_of(*PROTOCOLS):
        lines += section(path.stem, json.loads(path.read_text()))
    return "\n".join(lines)


def section(stem: str, content: dict[str, Any]) -> list[str]:
    """The table of one protocol and length, from what `stem`.json holds."""
    figures = content["figures"]
    name = figures["protocol"]
    rows = figures["rows"]
    sizes: dict[str, dict[str, int]] = {}
    before = "bf16" if "avx512_bf16" in content["machine"]["instructions"] else "32"  # rows that do not say it
    asked, epochs = figures["protocols_epochs"], figures["recipe"]["epochs"]
    shorter = f", {epochs} epochs in place of {asked}" if epochs != asked else f", {epochs} epochs"
    for row in rows:
        sizes |= row["networks"]
    networks = "; ".join(
        f"{label} {size['parameters']:,} parameters, {size['macs'] / 1e6:.1f} M MACs"
        + (f", {figures['bytes'][label] / 1e6:.2f} MB, {figures['p50_ms'][label]:.3f} ms" if label in figures["p50_ms"] else "")
        for label, size in sizes.items()
    )
    lines = [
        f"## Protocol {name}: {figures['model']}{shorter}",
        "",
        f"{figures['images']:,} training images; top-1 on the test images, looked at once, with the last weights; "
        "mean over seeds, and deviation; beside it the same networks on the held-out images, by which a way is chosen"
        f"{SEEN * PROTOCOLS[name].weighted}. "
        "Seconds are of runs beside others on the same machine: compare them roughly. "
        f"One thread, ONNX Runtime, batch 1: {networks}. "
        f"{measured_on(content)}. `{content['command']}`",
        "",
        "| way | full | small | on validation | epochs | images seen | MACs in training | seconds | precision | seeds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for way, words in figures["words"].items():
        own = [row for row in rows if row["way"] == way]
        if own:
            smalls = [label for label in own[0]["test"] if label != "full"]
            small = ", ".join(
                f"{label} {spread([row['test'][label] for row in own])}"
                if len(smalls) > 1
                else spread([row["test"][label] for row in own])
                for label in smalls
            )
            full = spread([row["test"]["full"] for row in own]) if "full" in own[0]["test"] else ""
            lines.append(
                f"| {words} | {full} | {small} | {validated(own)} | {own[0]['epochs']} | {own[0]['images'] / 1e3:,.0f} k | "
                f"{own[0]['training_macs'] / 1e12:.1f} T{taught_for(name, way, rows)} | "
                f"{mean(row['seconds'] for row in own):.0f}{' *' * any(row.get('added') for row in own)} | "
                f"{', '.join(sorted({row.get('precision', before) for row in own}))} | "
                f"{', '.join(str(row['seed']) for row in own)} |"
            )
    if any(row.get("added") for row in rows):
        lines += ["", "\\* Added later, on another machine: its seconds do not compare with the rest's."]
    anew = [
        f"{row['way']}, seed {row['seed']}: {label} {100 * before:.2f} % and {100 * after:.2f} %"
        for row in rows
        for label, (before, after) in row["measured_anew"].items()
    ]
    lines += ["", f"On validation, as trained and with batch norms measured anew after slicing: {'; '.join(anew)}."] * bool(
        anew
    )
    left = [words for way, words in figures["words"].items() if way in figures["not_run"]]
    if left:
        lines += ["", f"Not run: {'; '.join(left)}."]
    return [*lines, "", f"![validation over the cost of training]({stem}.svg)", ""]


def taught_for(protocol: str, way: str, rows: list[dict[str, Any]]) -> str:
    """What the teacher of a way was trained for, which its own multiply-adds do not hold."""
    if "distill" not in way:
        return ""
    if PROTOCOLS[protocol].weighted:
        return "; its teacher's are not known"
    teachers = [row["training_macs"] for row in rows if row["way"] == TEACHER]
    return f" + {teachers[0] / 1e12:.1f} T for its teacher" if teachers else ""


def validated(rows: list[dict[str, Any]]) -> str:
    """Top-1 on validation after the last epoch, of every network in the order of its columns, mean over seeds."""
    last = [row["curve"][-1]["accuracy"] for row in rows]
    return ", ".join(f"{100 * mean(each[label] for each in last):.2f}" for label in rows[0]["test"]) + " %"


def spread(values: list[float]) -> str:
    """Top-1 in per cent, with the deviation over several seeds."""
    deviation = f" +- {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.2f}{deviation} %"


if __name__ == "__main__":
    write_page()
