"""Claim: plans decided under --budget latency are, measured after export, at most 5 % slower than asked.

For each network and each budget, given as a part of the full network's predicted latency, the plan that a search would decide
on, its scores drawn at random. Measured as benchmarks/latency_table.py does (ONNX Runtime, one thread, 224 px, batch 1, all
plans of a network beside the network itself), by the same table: give the --table that it has kept. What the machine is
slower or faster by than when the table was measured, the drift of the network itself, is divided out of `over_asked`.

    python benchmarks/dan_latency.py --table adjcompress-latency-table.json
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import record

import adjcompress as ac
from adjcompress.adjoined.decision import decide
from adjcompress.cost import LatencyTable
from adjcompress.methods import MethodOptions, SearchMethod

PARTS = (0.3, 0.45, 0.6, 0.75)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2", "resnet18"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--align", type=int, default=4)
    parser.add_argument("--duration", type=float, default=30.0, help="seconds of measuring for each network")
    parser.add_argument("--table", type=Path, required=True)
    arguments = parser.parse_args()
    figures = {name: compare(name, arguments) for name in arguments.networks}
    record("dan_latency", figures, f"{arguments.seeds} seeds for each budget; every plan as many rounds as fit the duration")
    for name, figure in figures.items():
        assert figure["worst"] <= 0.05, name


def compare(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Asked, predicted and measured latency of the plans of one network."""
    example = torch.randn(7, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    network = ac.create_model(name, 1000).eval()
    full_ms = LatencyTable.read(arguments.table).predict(network, example[:1]).total_ms
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "whole.onnx"]
        ac.export_onnx(network, files[0], example)
        for part in PARTS:
            budget = MethodOptions(
                budgets=(f"latency={part}@one-core",), table=str(arguments.table), slim=("*",), align=arguments.align
            )
            method = SearchMethod.build(network, example[:1], budget)
            for seed in range(arguments.seeds):
                scores = np.log(
                    np.random.default_rng(seed).dirichlet(np.ones(method.network.logits.shape[1]), len(method.counts))
                )
                found = method.found_at(decide(scores, method.counts, method.part_used))
                files.append(Path(folder) / f"{part}-{seed}.onnx")
                ac.export_onnx(ac.slice_model(network, found.plan), files[-1], example)
                rows.append({"asked_ms": part * full_ms, "predicted_ms": found.costs["latency"], "macs": found.costs["macs"]})
        reference, *timings = ac.benchmark(files, threads=(1,), duration=arguments.duration).timings
    drift = reference.latency.p50_ms / full_ms
    for row, timing in zip(rows, timings, strict=True):
        row |= {"measured_ms": timing.latency.p50_ms, "over_asked": timing.latency.p50_ms / drift / row["asked_ms"] - 1}
        print(
            f"{name}: asked {row['asked_ms']:.2f} ms, measured {row['measured_ms'] / drift:.2f} ms ({row['over_asked']:+.1%})"
        )
    return {"full_ms": full_ms, "drift": drift, "worst": max(row["over_asked"] for row in rows), "plans": rows}


if __name__ == "__main__":
    main()
