"""The tables of the ways to train: the full and the small network of each, and what it cost, by protocol and length.

And of trained networks that are cut, beside Torch-Pruning.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from accuracy_page import spread, taught_for
from accuracy_ways import PROTOCOLS, results_of
from record import RESULTS
from shown import shown_ms
from vs_torch_pruning_ways import in_blocks


def ways_to_train() -> str:
    """A table for each protocol that was run, with three columns for each length, the protocol's own first."""
    parts = []
    for name in PROTOCOLS:
        results = [json.loads(path.read_text())["figures"] for path in results_of(name)]
        if results:
            parts.append("\n".join(_table(name, results)))
    parts.append("\n".join(_cut()))
    return "\n\n".join(parts)


_CUT = {
    "full": "as it was trained",
    "magnitude": "cut by Torch-Pruning's magnitude, then trained alone",
    "magnitude-rounded": "the same with widths in eights",
    "group-norm": "Torch-Pruning's sparse learning, then cut and trained",
    "inner-cut": "the blocks' inner layers cut, then trained alone",
    "inner": "the same layers in adjoined training, half from labels; and its full network",
    "adjoined": "the papers' way, stages cut; and its full network",
}


def _cut() -> list[str]:
    """Accuracy and milliseconds of what trained networks are cut to, a column for each network and what is equal."""
    results = [json.loads(path.read_text())["figures"] for path in sorted(RESULTS.glob("vs_torch_pruning_*.json"))]
    kinds = {"macs": "multiply-adds", "latency": "milliseconds"}
    titles = " | ".join(
        f"{each['model']}{in_blocks(each)}, {each['images']:,} images, equal {kinds[each['equal']]}, seed {each['seed']}"
        for each in results
    )
    lines = [f"| trained weights | {titles} |", f"| --- |{' ---: |' * len(results)}"]
    for way, words in _CUT.items():
        rows = [next((row for row in each["rows"] if row["way"] == way), None) for each in results]
        if any(rows):
            lines.append(f"| {words} | {' | '.join(_cut_cell(row) for row in rows)} |")
    return lines


def _cut_cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    whole = f"; {100 * row['full_accuracy']:.2f} %" if row["full_accuracy"] is not None else ""
    return f"{100 * row['accuracy']:.2f} %, {row['macs'] / 1e6:.1f} M, {shown_ms(row)}{whole}"


def _table(protocol: str, results: list[dict[str, Any]]) -> list[str]:
    lengths = [figures["recipe"]["epochs"] for figures in results]
    columns = "".join(f" {epochs} epochs: full | small | multiply-adds |" for epochs in lengths)
    lines = [f"| {results[0]['model']}, protocol {protocol} |{columns}", f"| --- |{' ---: | ---: | ---: |' * len(lengths)}"]
    words: dict[str, str] = {}
    for figures in results:
        words |= figures["words"]
    for way, said in words.items():
        own = [[row for row in figures["rows"] if row["way"] == way] for figures in results]
        if any(own):
            cells = (cell for rows, figures in zip(own, results, strict=True) for cell in _cells(protocol, rows, figures))
            lines.append(f"| {said} | {' | '.join(cells)} |")
    return lines


def _cells(protocol: str, rows: list[dict[str, Any]], figures: dict[str, Any]) -> Iterable[str]:
    """Full network, small ones, cost of a way at one length; nothing where it was not run."""
    if not rows:
        return "", "", ""
    tests = {label: [row["test"][label] for row in rows] for label in rows[0]["test"]}
    full = spread(tests.pop("full")) if "full" in tests else ""
    cost = f"{rows[0]['training_macs'] / 1e12:.0f} T{taught_for(protocol, rows[0]['way'], figures['rows'])}"
    several = len(tests) > 1
    smalls = ", ".join(f"{label} {spread(values)}" if several else spread(values) for label, values in tests.items())
    return full, smalls, cost
