"""Claim: without any argument the four commands take at most 6 minutes on two cores, training at most 2 of them.

The full network then gets at least 97 % and the small one 96 % of the digits' test split; and help answers within 0.3 s.

    python benchmarks/quick.py
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from main_job import command
from record import no_options, record

HELP_RUNS = 7


def main() -> None:
    no_options(__doc__)
    seconds: dict[str, float] = {}
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for arguments in (["train"], ["extract"], ["export", "model.onnx"], ["bench"]):
            start = time.perf_counter()
            results[arguments[0]] = command(Path(folder), *arguments)
            seconds[arguments[0]] = time.perf_counter() - start
    waits: list[float] = []
    for _ in range(HELP_RUNS):
        start = time.perf_counter()
        subprocess.run(["adjcompress", "--help"], check=True, capture_output=True)
        waits.append(time.perf_counter() - start)
    accuracy = {name: score["accuracy"] for name, score in results["train"]["test"].items()}
    help_seconds = statistics.median(waits)
    figures = {"seconds": seconds, "help_seconds": help_seconds, "test_accuracy": accuracy}
    print(figures)
    record("quick", figures, f"1 (seed 0); help {HELP_RUNS}, median")
    assert seconds["train"] <= 120 and sum(seconds.values()) <= 360
    assert accuracy["full"] >= 0.97 and accuracy["alpha8"] >= 0.96
    assert help_seconds <= 0.3


if __name__ == "__main__":
    main()
