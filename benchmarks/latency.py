"""Claim: ResNet-50 at alpha 4 is at least 3 times faster than the full network (ONNX Runtime, one thread, 224 px, batch 1).

Both stems, alpha 4, 8 and 16, random weights, interleaved; the papers claim 3x and 5x. On a GPU: throughput.py.

    python benchmarks/latency.py --duration 30
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from record import record

import adjcompress as ac


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration", type=float, default=30.0, help="seconds for each network and number of threads")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    figures: dict[str, dict[str, Any]] = {}
    example = torch.randn(7, 3, 224, 224)
    for name in ("resnet50", "xresnet50"):
        full = ac.create_model(name, 1000).eval()
        smalls = {f"alpha{alpha}": ac.slice_model(full, ac.plan_widths(full, example[:1], alpha)) for alpha in (4, 8, 16)}
        networks = {**smalls, "full": full}
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / f"{name}-{kind}.onnx" for kind in networks]
            for network, path in zip(networks.values(), files, strict=True):
                ac.export_onnx(network, path, example)
            report = ac.benchmark(files, threads=arguments.threads, duration=arguments.duration)
        for timing in report.timings:
            key = f"{timing.path.stem}, {timing.threads} threads"
            figures[key] = {
                "p50_ms": timing.latency.p50_ms,
                "min_ms": timing.latency.min_ms,
                "runs": timing.latency.runs,
                "times_faster": timing.speedup.value,
                "interval": [timing.speedup.low, timing.speedup.high],
                "noisy": timing.latency.noisy,
            }
            print(f"{key:28} p50 {timing.latency.p50_ms:7.2f} ms  {timing.speedup.value:.2f}x")
    record("latency", {"cpu": figures}, "as many rounds as fit the duration: see runs")
    for name in ("resnet50",):
        assert figures[f"{name}-alpha4, 1 threads"]["times_faster"] >= 3


if __name__ == "__main__":
    main()
