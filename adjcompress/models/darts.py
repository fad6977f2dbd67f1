"""The network that differentiable architecture search found for 32 x 32 images (arXiv:1806.09055, second order).

36 channels and 20 cells at 10 classes have 3,349,342 parameters without the auxiliary head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from adjcompress.errors import AdjCompressError

# Two (operation, input) for each of a cell's four nodes; inputs 0 and 1 are the two cells before, 2 to 5 the nodes.
_NORMAL = (("sep", 0), ("sep", 1), ("sep", 0), ("sep", 1), ("sep", 1), ("skip", 0), ("skip", 0), ("dil", 2))
_REDUCE = (("max", 0), ("max", 1), ("skip", 2), ("max", 1), ("max", 0), ("skip", 2), ("skip", 2), ("max", 1))


class WithAuxiliary(NamedTuple):
    """Logits (N, classes), and those of the auxiliary head, which exists in training only."""

    logits: Tensor
    auxiliary: Tensor


def relu_conv_bn(inputs: int, outputs: int) -> nn.Sequential:
    """ReLU, 1x1, BN: (N, inputs, H, W) -> (N, outputs, H, W)."""
    return nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


def depthwise_separable(inputs: int, outputs: int, stride: int, dilation: int) -> list[nn.Module]:
    """ReLU, depthwise 3x3, 1x1, BN: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
    return [
        nn.ReLU(),
        nn.Conv2d(inputs, inputs, 3, stride, dilation, dilation, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class FactorizedReduce(nn.Module):
    """Half the resolution by two 1x1 convolutions, on even and on odd pixels: (N, inputs, H, W) -> (N, outputs, H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False)
        self.conv2 = nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, images: Tensor) -> Tensor:
        y = self.relu(images)
        return self.bn(torch.cat([self.conv1(y), self.conv2(y[:, :, 1:, 1:])], 1))


def operation(name: str, channels: int, stride: int) -> nn.Module:
    """One edge of a cell: (N, channels, H, W) -> (N, channels, H / stride, W / stride)."""
    if name == "sep":
        return nn.Sequential(
            *depthwise_separable(channels, channels, stride, 1), *depthwise_separable(channels, channels, 1, 1)
        )
    if name == "dil":
        return nn.Sequential(*depthwise_separable(channels, channels, stride, 2))
    if name == "max":
        return nn.MaxPool2d(3, stride, 1)
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)


class Cell(nn.Module):
    """Two states and the states before it -> four nodes, each the sum of two operations, concatenated (4 channels)."""

    def __init__(self, before: int, last: int, channels: int, reduces: bool, before_reduced: bool) -> None:
        super().__init__()
        first = FactorizedReduce if before_reduced else relu_conv_bn
        self.preprocess0, self.preprocess1 = first(before, channels), relu_conv_bn(last, channels)
        edges = _REDUCE if reduces else _NORMAL
        self.sources = tuple(source for _, source in edges)
        self.operations = nn.ModuleList(operation(name, channels, 2 if reduces and source < 2 else 1) for name, source in edges)

    def forward(self, before: Tensor, last: Tensor, drop: float) -> Tensor:
        states = [self.preprocess0(before), self.preprocess1(last)]
        for node in range(0, len(self.sources), 2):
            edges = [
                _dropped(edge(states[source]), 0.0 if isinstance(edge, nn.Identity) else drop)
                for edge, source in zip(self.operations[node : node + 2], self.sources[node : node + 2], strict=True)
            ]
            states.append(edges[0] + edges[1])
        return torch.cat(states[2:], 1)


class Darts(nn.Module):
    """(N, 3, 32, 32) -> (N, classes); with `auxiliary`, in training, WithAuxiliary.

    `drop_path`: the probability at the end of training with which an edge is dropped for an image; it grows with `progress`.
    """

    # What arXiv:1906.00859 leaves dense where it substitutes structured layers.
    dense_layers = ("auxiliary.*",)
    # What stays behind when the network leaves training, and the options that build it without.
    training_only = ("auxiliary",)
    deployed_options: ClassVar[Mapping[str, Any]] = {"auxiliary": False}
    progress: Tensor

    def __init__(self, num_classes: int, channels: int, cells: int, auxiliary: bool, drop_path: float) -> None:
        super().__init__()
        if not (isinstance(cells, int) and cells >= 3 and isinstance(channels, int) and channels >= 2 and channels % 2 == 0):
            raise AdjCompressError(
                f"Model darts needs 3 cells or more and an even number of channels, not {cells} and {channels}."
            )
        if not (isinstance(drop_path, float | int) and 0 <= drop_path < 1):
            raise AdjCompressError(f"Model darts: drop_path={drop_path} must be at least 0 and below 1.")
        self.drop_path = drop_path
        self.register_buffer("progress", torch.zeros(()), persistent=False)
        self.stem = nn.Sequential(nn.Conv2d(3, 3 * channels, 3, padding=1, bias=False), nn.BatchNorm2d(3 * channels))
        before, last, width, reduced = 3 * channels, 3 * channels, channels, False
        self.cells = nn.ModuleList()
        for number in range(cells):
            reduces = number in (cells // 3, 2 * cells // 3)
            width *= 2 if reduces else 1
            self.cells.append(Cell(before, last, width, reduces, reduced))
            before, last, reduced = last, 4 * width, reduces
            if number == 2 * cells // 3:
                self.auxiliary = auxiliary_head(last, num_classes) if auxiliary else None
        self.auxiliary_after = 2 * cells // 3
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, num_classes)

    def forward(self, images: Tensor) -> Tensor | WithAuxiliary:
        before = last = self.stem(images)
        drop = self.drop_path * float(self.progress) if self.training and self.drop_path else 0.0
        auxiliary = None
        for number, cell in enumerate(self.cells):
            before, last = last, cell(before, last, drop)
            if self.training and self.auxiliary is not None and number == self.auxiliary_after:
                auxiliary = self.auxiliary(last)
        logits = self.classifier(self.pool(last).flatten(1))
        return logits if auxiliary is None else WithAuxiliary(logits, auxiliary)


def auxiliary_head(inputs: int, num_classes: int) -> nn.Sequential:
    """Logits from the middle of the network: (N, inputs, 8, 8) -> (N, classes)."""
    return nn.Sequential(
        nn.ReLU(),
        nn.AvgPool2d(5, 3),
        nn.Conv2d(inputs, 128, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.Conv2d(128, 768, 2, bias=False),
        nn.BatchNorm2d(768),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(768, num_classes),
    )


def _dropped(images: Tensor, probability: float) -> Tensor:
    """Each image's values are zero with `probability`, and scaled up otherwise."""
    if not probability:
        return images
    kept = torch.rand(len(images), 1, 1, 1, device=images.device) >= probability
    return images * kept / (1 - probability)


def darts(num_classes: int = 10, channels: int = 36, cells: int = 20, auxiliary: bool = False, drop_path: float = 0.0) -> Darts:
    """The DARTS_V2 network of arXiv:1806.09055, for (N, 3, 32, 32): of `cells` cells and `channels` channels in the first.

    With `auxiliary` it gives a second head's logits in training; `drop_path` is the rate that it grows to.
    """
    return Darts(num_classes, channels, cells, auxiliary, drop_path)
