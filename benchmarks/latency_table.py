"""Claim: layers measured one by one predict the latency of whole networks that were never measured.

For each network, random width plans that no two layers need agree on, from nearly full to a sixteenth, aligned to 4, 8 or
16; none of them was used to build the table. Predicted and measured (ONNX Runtime, one thread, 224 px, batch 1, all plans
of a network side by side): rank correlation at least 0.95, median relative error at most 10 %.

A shared machine's clock differs by some per cent between the minutes in which the table was measured and those in which the
plans are. So the network itself is timed beside its plans: what it takes now, over what the table says that it took, is the
machine's drift, and the plans' times are divided by it. The errors without that are recorded too.

    python benchmarks/latency_table.py

What was measured for the table is kept in --table: a second run does not measure it again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import record
from torch import Tensor, nn

import adjcompress as ac
from adjcompress.bench.table import conditions, measure_table
from adjcompress.cost import LatencyTable

SLIM = ("*",)
LARGEST_ALPHA = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["resnet50", "mobilenet_v2", "resnet18"])
    parser.add_argument("--plans", type=int, default=32, help="for each network")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of measuring for each network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, default=Path(tempfile.gettempdir()) / "adjcompress-latency-table.json")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    example = torch.randn(7, 3, 224, 224, generator=torch.Generator().manual_seed(arguments.seed))
    for name in arguments.networks:
        network = ac.create_model(name, 1000).eval()
        report = measure_table(arguments.table, network, example[:1], slim=SLIM, alpha=LARGEST_ALPHA)
        print(f"{name}: {report.shapes} shapes, {report.points} widths, {report.measured} times in {report.seconds:.0f} s")
        pairs, drift = compare(network, example, LatencyTable.read(arguments.table), arguments)
        figures[name] = {
            "table": {key: getattr(report, key) for key in ("shapes", "points", "measured", "seconds", "unsettled")},
            "drift": drift,
            **judge([(pair["predicted_ms"], pair["measured_ms"] / drift) for pair in pairs]),
            "without_drift": judge([(pair["predicted_ms"], pair["measured_ms"]) for pair in pairs]),
            "plans": pairs,
        }
        summary = {key: value for key, value in figures[name].items() if key not in ("table", "plans")}
        print(name, json.dumps(summary), flush=True)
    record("latency_table", figures, "every plan as many rounds as fit the duration: see rounds; table: 3 to 5 passes")
    for name, figure in figures.items():
        assert figure["spearman"] >= 0.95 and figure["median_relative_error"] <= 0.10, name


def compare(
    network: nn.Module, example: Tensor, table: LatencyTable, arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], float]:
    """Predict and measure random slices of a network, side by side; and the machine's drift since the table was measured."""
    assert not table.differences(conditions())
    random = np.random.default_rng(arguments.seed)
    groups = ac.plan_widths(network, example[:1], 1, SLIM).groups
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.onnx" for number in range(arguments.plans)]
        start = time.perf_counter()
        for file in files:
            most, align = random.uniform(0.5, np.log2(LARGEST_ALPHA)), int(random.choice([4, 8, 16]))
            alphas = {group.name: float(min(group.channels, 2 ** random.uniform(0, most))) for group in groups}
            small = ac.slice_model(network, ac.plan_widths(network, example[:1], alphas, SLIM, align=align))
            ac.export_onnx(small, file, example)
            estimate = table.predict(small, example[:1])
            pairs.append({"align": align, "macs": ac.count(small, example).macs, "predicted_ms": estimate.total_ms})
        print(f"  {len(files)} networks exported in {time.perf_counter() - start:.0f} s", flush=True)
        whole = Path(folder) / "whole.onnx"
        ac.export_onnx(network, whole, example)
        reference, *timings = ac.benchmark([whole, *files], threads=(1,), duration=arguments.duration).timings
    for pair, timing in zip(pairs, timings, strict=True):
        pair |= {"measured_ms": timing.latency.p50_ms, "rounds": timing.latency.runs, "noisy": timing.latency.noisy}
    return pairs, reference.latency.p50_ms / table.predict(network, example[:1]).total_ms


def judge(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """How well the first of each pair foretells the second."""
    predicted, measured = np.array(pairs).T
    errors = np.abs(predicted / measured - 1)
    ranks = [np.argsort(np.argsort(values)) for values in (predicted, measured)]
    return {
        "number_of_plans": len(pairs),
        "spearman": float(np.corrcoef(ranks[0], ranks[1])[0, 1]),
        "median_relative_error": float(np.median(errors)),
        "largest_relative_error": float(errors.max()),
        "mean_signed_error": float(np.mean(predicted / measured - 1)),
        "fastest_ms": float(measured.min()),
        "slowest_ms": float(measured.max()),
    }


if __name__ == "__main__":
    main()
