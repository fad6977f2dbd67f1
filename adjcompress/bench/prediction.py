"""How long will a network take here, by a table that may be from elsewhere?"""

from __future__ import annotations

import warnings
from pathlib import Path

from adjcompress.bench.table import conditions
from adjcompress.cost import LatencyTable


def read_table(path: str | Path) -> LatencyTable:
    """Read a latency table; one made on another machine or with another runtime gives a warning that says what differs.

    Its numbers of threads and images are the table's own business: it predicts for these.
    """
    table = LatencyTable.read(path)
    made = table.conditions
    differences = table.differences(conditions(made.threads, made.batch, made.spinning))
    if differences:
        warnings.warn(f"{path} holds for another machine; {'; '.join(differences)}. Measure it here again.", stacklevel=2)
    return table
