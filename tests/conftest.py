"""Small networks and runs that several tests share."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # equalities to the last bit, and two processes, need the CPU

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import DenseNet, MobileNetV2

import adjcompress as ac
from adjcompress.cost import Anchor, Conditions, Grid, LatencyTable, Sweep, fingerprint, layer_shapes
from adjcompress.data import DataSpec, read_data
from adjcompress.models.graph import GraphNetwork
from adjcompress.training import TrainOptions, train
from adjcompress.training.run import point_latest_at


class TinyNet(nn.Module):
    """Three convolutions with batch norm, one sum, and a classifier: the smallest network with a channel group of two."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.first = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16))
        self.head = nn.Linear(16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        y = self.first(self.stem(images))
        y = torch.relu(self.second(y) + y)
        return self.head(y.mean((2, 3)))


class Split(nn.Module):
    """One convolution whose outputs go two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, 2, 1)
        self.first, self.second = nn.Conv2d(12, 8, 1), nn.Conv2d(12, 8, 3, 1, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        first, second = self.stem(images).chunk(2, 1)
        return self.head(torch.cat((self.first(first), self.second(second)), 1).mean((2, 3)))


def randomise_(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random batch-norm weights, biases and statistics, so that no channel is zero and no branch is silent."""
    random = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 1.5),
            ):
                tensor.data.copy_(torch.rand(tensor.shape, generator=random) * (high - low) + low)
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            module.bias.data.copy_(torch.rand(module.bias.shape, generator=random) - 0.5)
    return network


@pytest.fixture(autouse=True)
def one_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark starts each network once in a process of its own: what three starts tell better are timings."""
    monkeypatch.setattr("adjcompress.bench.latency._STARTS", 1)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def digits() -> ac.ImageData:
    """About 120 digits in each split."""
    return read_data(DataSpec("digits", limit=120))


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory, digits: ac.ImageData) -> Path:
    """The folder of a finished adjoined run of one epoch, to be copied."""
    folder = tmp_path_factory.mktemp("trained") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        train_tiny("tiny", digits)
    return folder


@pytest.fixture
def tiny_run(tmp_path: Path, trained_once: Path, monkeypatch: pytest.MonkeyPatch) -> ac.Run:
    """A finished adjoined run of one epoch of its own, with its working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_once, "runs/tiny")
    point_latest_at(Path("runs/tiny"))
    return ac.open_run(Path("runs/tiny"))


def tiny_method(
    digits: ac.ImageData, alphas: tuple[float, ...] = (2,), **options: Any
) -> tuple[ac.ModelSpec, ac.AdjoinedMethod]:
    spec = ac.ModelSpec("cifar_resnet20", len(digits.classes), 32)
    torch.manual_seed(0)
    method = ac.AdjoinedMethod.build(spec.build(), torch.zeros(2, 3, 32, 32), ac.MethodOptions(alphas=alphas, **options))
    return spec, method


def train_tiny(folder: str, digits: ac.ImageData, **changes: object) -> ac.Run:
    spec, method = tiny_method(digits)
    recipe = ac.recipe("quick").changed(**{"epochs": 1, "batch_size": 32, **changes})
    return ac.fit(method, digits, recipe, folder, model=spec)


def short_mobilenet(num_classes: int = 10) -> nn.Module:
    """Inverted residuals, with and without a shortcut and a stride: what MobileNetV2 is made of."""
    return MobileNetV2(num_classes, inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2]])


def short_densenet(num_classes: int = 10) -> nn.Module:
    """Two dense blocks, whose norms follow concatenations: what DenseNet-121 is made of."""
    return DenseNet(16, (2, 2), 32, num_classes=num_classes)


SIZE = (16, 24)


def write_segmentation(root: Path, splits: tuple[str, ...] = ("train", "val", "test"), images: int = 6) -> Path:
    """Images that are light where their class is high: three classes, and 7 in a corner, to be ignored."""
    random = np.random.default_rng(0)
    for split in splits:
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True)
        for number in range(images):
            labels = np.repeat(np.repeat(random.integers(0, 3, (4, 6)), 4, 0), 4, 1).astype(np.uint8)
            light = np.clip(labels[..., None] * 90 + random.integers(0, 60, (*SIZE, 3)), 0, 255).astype(np.uint8)
            labels[:4, :4] = 7
            Image.fromarray(light).save(root / split / "images" / f"{number}.png")
            Image.fromarray(labels).save(root / split / "labels" / f"{number}.png")
    (root / "classes.txt").write_text("0 low\n1 middle\n2 high\n")
    return root


def searched_on_pixels(folder: Path, epochs: int) -> ac.training.Run:
    """A small fabric, searched on such a folder."""
    options = TrainOptions(
        model="neural_fabric",
        model_options={"columns": 2, "scales": 2, "channels": 4},
        data=DataSpec(str(folder), ignore_label=7),
        method="budgeted",
        method_options=ac.MethodOptions(budgets=("macs=0.7",)),
        recipe=ac.recipe("cifar").changed(epochs=epochs, batch_size=2),
    )
    return train(options)


def a_graph_table(network: GraphNetwork) -> LatencyTable:
    """Made-up times of every layer at the widths it has, and a rest that grows with what is written."""
    layers, grid = layer_shapes(network, torch.zeros(1, 3, 32, 32)), Grid(1, False)
    thinner = [*layers[:-1], replace(layers[-1], channels_out=1)]  # any line through two networks will do
    points = {}
    for layer in (*layers, thinner[-1]):
        widths = (layer.channels_in, layer.channels_in), (layer.channels_out, layer.channels_out)
        points.setdefault(layer.shape, set()).update(grid.points(layer.shape, *widths))
    sweeps = [
        Sweep(shape, tuple(sorted(own)), 3 * (tuple(0.1 + 0.01 * number for number in range(len(own))),))
        for shape, own in points.items()
    ]
    here = Conditions("made up", (), 1, "1", 1, 1, False)
    table = LatencyTable(grid, here, tuple(sweeps), {}, "made-up.json")
    own = sum(table.layer_ms(layer.shape, layer.channels_in, layer.channels_out) for layer in layers)
    written = sum(layer.elements for layer in layers)
    less = sum(table.layer_ms(layer.shape, layer.channels_in, layer.channels_out) for layer in thinner)
    ends = (
        Anchor(thinner, less + 2 + 1e-6 * sum(layer.elements for layer in thinner)),
        Anchor(layers, own + 2 + 1e-6 * written),
    )
    return replace(table, anchors={fingerprint(layers): ends})
