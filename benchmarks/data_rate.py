"""Claim: the loader alone delivers at least 5 times the images that training ResNet-18 at 32 px consumes.

Measured in turn, several times: the standard training step alone on a batch that is there, and loading with augmentation
alone, from memory and, with --folder, from files.

    python benchmarks/data_rate.py --data cifar100.npz --folder photos
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from record import record

import adjcompress as ac
from adjcompress.data import ImageData, TrainingBatches, augmentation, read_data
from adjcompress.data.splits import DataSpec

BATCH = 128


def loading_rate(data: ImageData, name: str, epoch: int, most: int = 12_800) -> float:
    """Images per second, augmented and normalised; for files the second epoch on, when the workers are running."""
    augment = augmentation(name, data)
    batches = TrainingBatches(data.train, augment.file(data.preprocessing), BATCH, 0, torch.device("cpu"))
    start, images = time.perf_counter(), 0
    for pixels, _ in batches.epoch(epoch):
        data.preprocessing.normalise(augment.batch(pixels.float()))
        images += len(pixels)
        if images >= most:
            break
    return images / (time.perf_counter() - start)


def training_rate(steps: int = 8) -> float:
    network = ac.create_model("resnet18", 100)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, fused=True)
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(0, 100, (BATCH,))
    for step in range(steps + 2):
        if step == 2:
            start = time.perf_counter()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    return steps * BATCH / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--folder", type=Path, help="a folder of images, shown at 32 px")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    data = read_data(DataSpec(arguments.data, 32))
    rates: dict[str, list[float]] = {}
    for epoch in range(arguments.rounds):
        rates.setdefault("training", []).append(training_rate())
        for name in ("none", "crop-flip", "papers-cifar", "papers-imagenet"):
            rates.setdefault(f"memory, {name}", []).append(loading_rate(data, name, epoch))
        if arguments.folder:
            files = read_data(DataSpec(str(arguments.folder), 32))
            for name in ("crop-flip", "papers-imagenet"):
                rates.setdefault(f"files, {name}", []).append(loading_rate(files, name, epoch))
    median = {name: statistics.median(values) for name, values in rates.items()}
    figures = {name: {"images_per_second": rate, "over_training": rate / median["training"]} for name, rate in median.items()}
    for name, figure in figures.items():
        print(f"{name:26} {figure['images_per_second']:9.0f} images/s  {figure['over_training']:6.1f} times training")
    record("data_rate", figures, arguments.rounds)
    assert all(figure["over_training"] >= 5 for name, figure in figures.items() if name != "training")


if __name__ == "__main__":
    main()
