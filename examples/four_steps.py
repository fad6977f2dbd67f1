"""The four steps through the Python API: train, extract, export, benchmark.

python examples/four_steps.py            on the digits that come with the package, about a minute on two cores

Training is the papers' way here; the command's default lets the small network learn first (ac.Curriculum).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import torch

import adjcompress as ac
from adjcompress.data import first_pixels


class Printed(ac.Reporter):
    """Hears of the training and prints a line an epoch."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        scores = {name: f"{score['accuracy']:.1%}" for name, score in record["validation"].items()}
        print(f"epoch {record['epoch']}: loss {record['train']['loss']:.3f}, validation {scores}")


def main(epochs: int, limit: int | None) -> None:
    data = ac.load_data("digits")
    if limit:
        data = data.limited(limit)
    example = data.preprocessing.example()

    # 1. Train: a full network, and one of an eighth of its width inside the same weights.
    spec = ac.ModelSpec("resnet18", num_classes=len(data.classes), image_size=data.preprocessing.image_size)
    torch.manual_seed(0)
    model = spec.build()
    plan = ac.plan_widths(model, example, alpha=8)
    print(plan)
    method = ac.AdjoinedMethod(ac.adjoin(model, {"alpha8": plan}))
    run = ac.fit(method, data, ac.recipe("quick").changed(epochs=epochs), "runs/four-steps", model=spec, reporter=Printed())

    # 2. Extract: the small network as a dense one, equal to the last bit, in a file that needs nothing else.
    report = ac.extract_package(run, "alpha8", output=None)
    small = ac.load_package(report.path)
    print(f"{report.path}: {report.package.accuracy['test']:.1%} on the test split, certificate {report.certificate}")

    # 3. Export: ONNX, compared with torch on real images before the file is put in place.
    images = data.preprocessing.normalise(first_pixels(data, data.validation, 7))
    full = method.network.extract("full")
    for network, path in ((small, "small.onnx"), (full, "full.onnx")):
        print(ac.export_onnx(network, path, images).certificate)

    # 4. Benchmark: side by side; the ratio is to the last file.
    for timing in ac.benchmark(["small.onnx", "full.onnx"], duration=1.0).timings:
        print(f"{timing.path}: {timing.latency.p50_ms:.3f} ms, {timing.speedup.value:.2f} times faster")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--limit", type=int, help="use about this many images of each split")
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.limit)
