"""The table of the ways to train: the full and the small network of each, and what it cost, by protocol and length."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from accuracy_page import spread, taught_for
from accuracy_ways import PROTOCOLS, results_of


def ways_to_train() -> str:
    """A table for each protocol that was run, with three columns for each length, the protocol's own first."""
    parts = []
    for name in PROTOCOLS:
        results = [json.loads(path.read_text())["figures"] for path in results_of(name)]
        if results:
            parts.append("\n".join(_table(name, results)))
    return "\n\n".join(parts)


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
