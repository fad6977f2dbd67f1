"""Claim: fewer channels are slower where they leave ONNX Runtime's blocks, and alignment mends it.

ResNet-50 (torchvision's, random weights, 224 px, batch 1) with 15 in place of 64 channels per base width has fewer
parameters than with 16 and is slower; planned with the alignment that suits this machine it is not.

    python benchmarks/alignment.py --duration 20
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from record import record

import adjcompress as ac
from adjcompress.deploy import align_auto, block_channels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration", type=float, default=20.0, help="seconds for each number of threads")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    example = torch.randn(7, 3, 224, 224)
    full = ac.create_model("resnet50", 1000).eval()
    settings = {"16": (4.0, 1), "15": (64 / 15, 1), "15 aligned": (64 / 15, align_auto())}
    figures: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, (alpha, align) in settings.items():
            small = ac.slice_model(full, ac.plan_widths(full, example[:1], alpha, slim=["*"], align=align))
            files.append(Path(folder) / f"{name}.onnx")
            report = ac.export_onnx(small, files[-1], example)
            counts = ac.count(small, example)
            figures[name] = {
                "parameters": counts.parameters,
                "macs": counts.macs,
                "unblocked": [str(layer) for layer in report.unblocked],
            }
        bench = ac.benchmark(files, files[0], threads=arguments.threads, duration=arguments.duration)
    for timing in bench.timings:
        figures[timing.path.stem][timing.setting] = {
            "p50_ms": timing.latency.p50_ms,
            "times_faster_than_16": timing.speedup.value,
            "interval": [timing.speedup.low, timing.speedup.high],
            "runs": timing.latency.runs,
            "noisy": timing.latency.noisy,
        }
        print(f"{timing.path.stem:12} {timing.setting:10} {timing.latency.p50_ms:7.2f} ms  {timing.speedup.value:.2f}x")
    record("alignment", {"block_channels": block_channels(), "align": align_auto(), "widths": figures}, "see runs")


if __name__ == "__main__":
    main()
