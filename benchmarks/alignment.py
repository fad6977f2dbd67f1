"""Claim: fewer channels are slower where they leave ONNX Runtime's blocks, and alignment mends it.

Of networks with random weights, at batch 1: those cut to widths that do not fit the blocks beside the same planned with the
alignment that suits this machine. ResNet-50 (torchvision's, 224 px) with 15 in place of 64 channels per base width has fewer
parameters than with 16 and is slower; of ResNet-18 (32 px) and ResNet-50 at the papers' layers, alpha 3 leaves the blocks.

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

ALL, PAPERS = ("*",), None  # which layers are cut
SUBJECTS: dict[str, tuple[str, int, dict[str, tuple[float, tuple[str, ...] | None, bool]]]] = {
    "ResNet-50 with 16, 15, and 15 aligned channels per base width, 224 px": (
        "resnet50",
        224,
        {"16": (4.0, ALL, False), "15": (64 / 15, ALL, False), "15 aligned": (64 / 15, ALL, True)},
    ),
    **{
        f"{words} at alpha 3, its widths rounded up, and aligned, {size} px": (
            model,
            size,
            {"alpha 3": (3.0, PAPERS, False), "alpha 3 aligned": (3.0, PAPERS, True)},
        )
        for words, model, size in (("ResNet-18", "resnet18", 32), ("ResNet-50", "resnet50", 224))
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=20.0, help="seconds for each network and number of threads")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    figures = {words: measured(*subject, arguments) for words, subject in SUBJECTS.items()}
    record("alignment", {"block_channels": block_channels(), "align": align_auto(), "networks": figures}, "see runs")


def measured(
    model: str, size: int, settings: dict[str, tuple[float, tuple[str, ...] | None, bool]], arguments: argparse.Namespace
) -> dict[str, dict[str, object]]:
    """Counts, layers outside of blocks, and times side by side of a network cut by all settings."""
    example, full = torch.randn(7, 3, size, size), ac.create_model(model, 1000).eval()
    figures: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, (alpha, slim, aligned) in settings.items():
            plan = ac.plan_widths(full, example[:1], alpha, slim, align=align_auto() if aligned else 1)
            small = ac.slice_model(full, plan)
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
            "times_faster_than_the_first": timing.speedup.value,
            "interval": [timing.speedup.low, timing.speedup.high],
            "runs": timing.latency.runs,
            "noisy": timing.latency.noisy,
        }
        print(f"{model} {timing.path.stem:16} {timing.setting:10} {timing.latency.p50_ms:7.2f} ms  {timing.speedup.value:.2f}x")
    return figures


if __name__ == "__main__":
    main()
