"""Claim: on a GPU the small networks of ResNet-50 are 3 to 5 times faster, at batch 1 and at the batch that serves most images.

Both stems, alpha 4, 8 and 16, random weights, 224 px, torch, channels last, interleaved; on CUDA as graphs. Every network has
the batch of --batches at which it gives most images a second: throughput is compared at each one's own best.

    python benchmarks/throughput.py --duration 5
    python benchmarks/throughput.py --device cpu --batches 1 4 --size 64      # to rehearse it; nothing is recorded
"""

from __future__ import annotations

import argparse
from statistics import median
from typing import Any

import torch
from record import record
from torch import nn

import adjcompress as ac
from adjcompress.bench import time_networks

NETWORKS = ("resnet50", "xresnet50")
ALPHAS = (4, 8, 16)


def compare(networks: dict[str, nn.Module], arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Of every network the milliseconds at batch 1, and images a second at its best batch, both over the full network's."""
    found: dict[str, dict[int, float]] = {name: {} for name in networks}
    for batch in sorted({1, *arguments.batches}):
        images = torch.randn(batch, 3, arguments.size, arguments.size, device=arguments.device)
        for name, times in time_networks(networks, images, arguments.duration).items():
            found[name][batch] = median(times)
    rows: dict[str, dict[str, Any]] = {}
    for name, medians in found.items():
        best = max(medians, key=lambda batch: batch / medians[batch])
        rows[name] = {
            "ms_by_batch": medians,
            "p50_ms": medians[1],
            "best_batch": best,
            "images_per_second": 1000 * best / medians[best],
        }
    for row in rows.values():
        row["times_faster"] = rows["full"]["p50_ms"] / row["p50_ms"]
        row["times_the_images"] = row["images_per_second"] / rows["full"]["images_per_second"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 64, 128, 256])
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds for each batch, all networks together")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here")
    figures = {}
    example = torch.zeros(1, 3, arguments.size, arguments.size)
    for model in NETWORKS:
        full = ac.create_model(model, 1000).eval()
        smalls = {f"alpha{alpha}": ac.slice_model(full, ac.plan_widths(full, example, alpha)) for alpha in ALPHAS}
        figures[model] = compare({"full": full, **smalls}, arguments)
        for name, row in figures[model].items():
            print(
                f"{model} {name}: {row['p50_ms']:.2f} ms at batch 1 ({row['times_faster']:.2f}x), "
                f"{row['images_per_second']:.0f} images/s at batch {row['best_batch']} ({row['times_the_images']:.2f}x)"
            )
    if arguments.device == "cuda":
        record("throughput", figures, f"as many rounds as fit {arguments.duration:g} s for each batch, at least 10")


if __name__ == "__main__":
    main()
