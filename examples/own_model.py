"""A network of one's own, with a concatenation and a depthwise convolution: adjoined, cut out and shipped.

    python examples/own_model.py

The same through the command line, in the folder that holds this file:

    adjcompress train --model own_model:network --alpha 4 --way papers --epochs 10
    adjcompress extract
    adjcompress export model.onnx
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import adjcompress as ac
from adjcompress.data import first_pixels


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    padding = kernel // 2
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.SiLU())


class TwoViews(nn.Module):
    """A coarse and a fine branch, concatenated, then mixed by a depthwise and a pointwise convolution."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = conv(3, 32, 3, 2)
        self.fine = conv(32, 48, 3)
        self.coarse = conv(32, 80, 5)
        self.depthwise = conv(128, 128, 3, 2, groups=128)
        self.pointwise = conv(128, 256, 1)
        self.classifier = nn.Linear(256, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        y = self.stem(images)
        y = torch.cat([self.fine(y), self.coarse(y)], 1)
        y = self.pointwise(self.depthwise(y))
        return self.classifier(y.mean((2, 3)))


def network(num_classes: int) -> nn.Module:
    """What `own_model:network` names."""
    return TwoViews(num_classes)


def main(epochs: int, limit: int | None) -> None:
    data = ac.load_data("digits")
    if limit:
        data = data.limited(limit)
    sys.path.insert(0, str(Path(__file__).parent))  # so that a package finds own_model again
    spec = ac.ModelSpec("own_model:network", num_classes=len(data.classes), image_size=32)
    torch.manual_seed(0)
    method = ac.AdjoinedMethod.build(spec.build(), data.preprocessing.example(2), ac.MethodOptions(alphas=(4,)))
    # The branches keep a quarter each; the depthwise convolution follows both, the pointwise one reads what is left.
    print(method.network.plans["alpha4"])
    run = ac.fit(method, data, ac.recipe("quick").changed(epochs=epochs), "runs/own-model", model=spec)
    report = ac.extract_package(run)
    print(f"{report.path}: {report.package.parameters} of {report.full_parameters} parameters")
    print(f"{report.package.accuracy['test']:.1%} on the test split, {report.certificate}")
    images = data.preprocessing.normalise(first_pixels(data, data.validation, 7))
    print(ac.export_onnx(ac.load_package(report.path), "own.onnx", images).certificate)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--limit", type=int, help="use about this many images of each split")
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.limit)
