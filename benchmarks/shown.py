"""How is shown what was measured, so that nobody takes it for more than it is: a noisy time, and on which machine?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BUSY = "~: the machine was busy, the times of the repetitions far apart."


def shown_ms(row: Mapping[str, Any], digits: int = 3) -> str:
    """The median of a row with `p50_ms`; one that was noisy is marked, see BUSY."""
    return f"{'~' * bool(row.get('noisy'))}{row['p50_ms']:.{digits}f} ms"


def shown_timing(timing: Mapping[str, Any], digits: int = 3) -> str:
    """The same of a timing as bench.json has it."""
    return shown_ms({**timing["latency"], "noisy": timing["noisy"]}, digits)


def measured_on(result: Mapping[str, Any]) -> str:
    """The machines of a result, of its first part and of what was added, with the versions of what computes."""
    return "; ".join(dict.fromkeys(_machine(part["machine"]) for part in (result, *result.get("added", []))))


def _machine(facts: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("torch", "onnxruntime") if name in facts["versions"])
    on = facts["gpu"] or f"{facts['cores']} cores of {facts['cpu']} ({', '.join(facts['instructions'])})"
    return f"{on}, {versions}"
