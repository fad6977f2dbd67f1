"""Claim: low rank and shuffle at a quarter of the MACs run at least twice as fast; reconstructed files cost load time only.

Two parts, both exported, one thread, ONNX Runtime, batch 1, side by side. Four layers of 320 channels at 16 x 16 and of 640 at
8 x 8 (the shapes of WRN-28-10), each with batch norm and ReLU, dense against substitutes. And WRN-28-10 with each reconstructed
substitute at its published setting: the file that makes its weights at load beside the one with dense weights.

    python benchmarks/substitute_latency.py

writes results/substitute_latency.json.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from record import record
from torch import nn

import adjcompress as ac
from adjcompress.deploy import ExportOptions

# A quarter of the MACs (low_rank 0.125, shuffle in 2 groups), and settings that others have measured.
LAYERS = (
    ("low_rank", 0.125),
    ("low_rank", 0.24),
    ("shuffle", 2),
    ("shuffle", 8),
    ("aligned_tensor_train", 0.125),
    ("aligned_tensor_train", 0.24),
)
SHAPES = ((320, 16), (640, 8))
WHOLE = (("tensor_train", 0.7), ("tucker", 0.67), ("hashed", 0.05), ("acdc", 14))


class Layers(nn.Module):
    """Four 1x1 convolutions with batch norm and ReLU: (N, channels, side, side) -> (N, channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images).mean((2, 3))


def layers(folder: Path, duration: float) -> list[dict[str, Any]]:
    rows = []
    for channels, side in SHAPES:
        dense, example = Layers(channels).eval(), torch.randn(7, channels, side, side)
        names = [f"layers.{number}" for number in (0, 3, 6, 9)]
        variants: dict[str, nn.Module] = {"dense": dense}
        for name, setting in LAYERS:
            plan = ac.plan_substitution(dense, name, setting=setting, layers=names)
            variants[f"{name} {setting:g}"] = ac.apply_substitution(dense, plan, approximate=False)
        files = []
        for label, network in variants.items():
            files.append(folder / f"{label.replace(' ', '-')}-{channels}.onnx")
            ac.export_onnx(network.eval(), files[-1], example)
        report = ac.benchmark(files, reference=files[0], threads=(1,), duration=duration)
        whole = ac.count(dense, example).macs
        for (label, network), timing in zip(variants.items(), report.timings, strict=True):
            rows.append(
                {
                    "layer": label,
                    "channels": channels,
                    "side": side,
                    "macs_part": ac.count(network, example).macs / whole,
                    "p50_ms_of_one": timing.latency.p50_ms / 4,
                    "times_faster": timing.speedup.value,
                    "low": timing.speedup.low,
                    "high": timing.speedup.high,
                }
            )
            print(rows[-1], flush=True)
    return rows


def files(folder: Path, duration: float) -> list[dict[str, Any]]:
    dense, example = ac.create_model("wrn_28_10", 10).eval(), torch.randn(7, 3, 32, 32)
    rows = []
    for name, setting in WHOLE:
        network = ac.substitute(dense, name, setting, approximate=False).eval()
        paths = [folder / f"{name}-{kind}.onnx" for kind in ("made", "dense")]
        reports = [ac.export_onnx(network, path, example, ExportOptions(materialise=path is paths[1])) for path in paths]
        timings = ac.benchmark(paths, reference=paths[1], threads=(1,), duration=duration).timings
        rows.append(
            {
                "substitute": name,
                "setting": setting,
                **{
                    kind: {
                        "bytes": report.bytes,
                        "load_ms": timing.load_ms,
                        "peak_memory_bytes": timing.peak_memory_bytes,
                        "p50_ms": timing.latency.p50_ms,
                    }
                    for kind, report, timing in zip(("made", "materialised"), reports, timings, strict=True)
                },
                "times_faster": timings[0].speedup.value,
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration", type=float, default=15.0)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = {"layers": layers(folder, arguments.duration), "files": files(folder, arguments.duration)}
    record("substitute_latency", figures, f"{arguments.duration:g} s of rounds each")


if __name__ == "__main__":
    main()
