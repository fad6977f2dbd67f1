"""On which machines, and with which versions, was a run trained and measured?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adjcompress.report.gather import RunFacts
from adjcompress.report.words import UNKNOWN, printable

_FACTS = (
    ("cpu", "CPU"),
    ("instructions", "instructions"),
    ("cores", "cores"),
    ("memory_gib", "memory, GiB"),
    ("gpu", "GPU"),
    ("system", "system"),
    ("device", "trained on"),
    ("processes", "processes"),
    ("precision", "precision"),
    ("load", "load before measuring"),
)


@dataclass(frozen=True)
class MachineTable:
    """A column for the training and for every machine that something was measured on; a row for each fact known."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def machine_table(run: RunFacts) -> MachineTable:
    """What config.json says of the training, and each benchmark of its machine; the same machine once."""
    trained = {**_mapping(run.config.get("machine")), **run.config}
    measured: dict[str, Mapping[str, Any]] = {}
    for bench in run.deployed.benches:
        if bench.machine and not any(_same(bench.machine, known) for known in measured.values()):
            measured[bench.label] = bench.machine
    if len(measured) == 1:
        measured = dict(zip(["measuring"], measured.values(), strict=True))
    machines = {"training": trained, **measured}
    rows = [(title, *(_shown(facts.get(key)) for facts in machines.values())) for key, title in _FACTS]
    versions = [_mapping(facts.get("versions")) for facts in machines.values()]
    for package in dict.fromkeys(name for found in versions for name in found):
        rows.append((printable(package), *(_shown(found.get(package)) for found in versions)))
    known = tuple(row for row in rows if any(cell != UNKNOWN for cell in row[1:]))
    return MachineTable(tuple(printable(name) for name in machines), known)


def _same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two benchmarks saw the same machine; its load differs every time."""
    return {**first, "load": None} == {**second, "load": None}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _shown(value: Any) -> str:
    if value is None or value == [] or value == ():
        return UNKNOWN
    if isinstance(value, list | tuple):
        return printable(", ".join(str(item) for item in value))
    return printable(f"{value:g}" if isinstance(value, float) else value)
