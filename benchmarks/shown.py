"""How is a measured time shown, so that nobody takes a noisy one for more than it is?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BUSY = "~: the machine was busy, the times of the repetitions far apart."


def shown_ms(row: Mapping[str, Any], digits: int = 3) -> str:
    """The median of a row with `p50_ms`; one that was noisy is marked, see BUSY."""
    return f"{'~' * bool(row.get('noisy'))}{row['p50_ms']:.{digits}f} ms"
