"""Claim: the four commands, with widths learnt under a budget, take the embedded digits to a network that meets it.

python benchmarks/dan_job.py --budget macs=0.45
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from main_job import command
from record import record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="macs=0.45")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = command(folder, "train", "--method", "dan", "--budget", arguments.budget)
        extract = command(folder, "extract")
        export = command(folder, "export", "model.onnx")
        bench = command(folder, "bench")
    figures = {"train": train, "extract": extract, "export": export, "bench": bench["timings"]}
    record("dan_job", figures, "1 seed (0); bench: see runs")
    part = extract["macs"] / extract["full_macs"]
    assert 0.98 * 0.45 <= part <= 0.45 or arguments.budget != "macs=0.45", part


if __name__ == "__main__":
    main()
