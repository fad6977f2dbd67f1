"""What may a network cost? Budgets as a user writes them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from adjcompress.errors import AdjCompressError, check_choice, pick
from adjcompress.machine import TARGET_CORES

_COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_UNITS = {
    "macs": _COUNTS,
    "params": _COUNTS,
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "cycles": {"": 1.0},
    "cost": {"": 1.0},
}
_EXAMPLES = "macs=0.45, params=1.8M, latency=9ms@one-core, cycles=16"


@dataclass(frozen=True)
class Budget:
    """At most this much of one cost.

    `cost`: "macs", "params", "latency", "cycles" (of a distributed computation) or "cost" (a function of the user's own).
    `amount`: a part of the full network's cost where `share`, else a number of MACs, parameters or cycles, or milliseconds.
    `target`: on which target a latency is meant, as in "latency=9ms@one-core".
    """

    cost: str
    amount: float
    share: bool
    target: str | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read "macs=0.45", "params=1.8M" or "latency=9ms@one-core"; a number up to 1 without a unit is a share."""
        match = re.fullmatch(r"(\w+)\s*=\s*([0-9.]+(?:e[-+]?[0-9]+)?)([A-Za-z]*)(?:@([\w-]+))?", text.strip())
        if not match:
            raise AdjCompressError(f"--budget {text!r} is no budget. Examples: {_EXAMPLES}.")
        cost, number, unit, target = match.groups()
        units = pick(_UNITS, cost, f"--budget {text!r}: the cost")
        try:
            amount = float(number)
        except ValueError:
            raise AdjCompressError(f"--budget {text!r}: {number} is no number. Examples: {_EXAMPLES}.") from None
        if not (amount > 0 and math.isfinite(amount)):
            raise AdjCompressError(f"--budget {text!r} must be above 0, and finite.")
        if target is not None:
            if cost != "latency":
                raise AdjCompressError(f"--budget {text!r}: only a latency has a target; leave @{target} out.")
            check_choice(TARGET_CORES, target, f"--budget {text!r}: target")
        if not unit and amount <= 1:
            return cls(cost, amount, True, target)
        if unit not in units:
            allowed = ", ".join(name for name in units if name)
            raise AdjCompressError(
                f"--budget {text!r}: {cost} has {f'the units {allowed}' if allowed else 'no units'}; without a unit a number "
                f"up to 1 is a part of the full network's. Examples: {_EXAMPLES}."
            )
        return cls(cost, amount * units[unit], False, target)

    def limit(self, full: float) -> float:
        """The most that is allowed, in the cost's own unit, where the full network costs `full`."""
        return self.amount * full if self.share else self.amount

    def __str__(self) -> str:
        where = f"@{self.target}" if self.target else ""
        if self.share:
            return f"{self.cost}={self.amount:.9g}{where}"
        if self.cost == "latency":
            return f"latency={self.amount:.9g}ms{where}"
        units = reversed(_UNITS[self.cost].items())
        name, size = next((name, size) for name, size in units if self.amount >= size or size == 1)
        return f"{self.cost}={self.amount / size:.9g}{name}"


def parse_budgets(texts: Sequence[str]) -> tuple[Budget, ...]:
    """Read several budgets, one in each text or several with commas between them; each cost may have one."""
    texts = (texts,) if isinstance(texts, str) else texts
    budgets = tuple(Budget.parse(part) for text in texts for part in text.split(","))
    costs = [budget.cost for budget in budgets]
    for cost in costs:
        if costs.count(cost) > 1:
            raise AdjCompressError(f"--budget {cost} is given {costs.count(cost)} times: one cost has one budget.")
    return budgets
