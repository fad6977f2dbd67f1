"""A network whose widths nobody tuned: as many channels in every layer, whatever its resolution."""

from __future__ import annotations

from torch import Tensor, nn


class ConstantWidth(nn.Module):
    """Eight 3x3 convolutions with batch norm and ReLU, two at each of four resolutions, from half the image's down.

    At equal width a layer costs four times the next resolution's, so most multiply-adds are spent where most of the
    parameters of a network such as ResNet are not.
    """

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.stem = _block(3, channels, stride=2)
        self.stages = nn.Sequential(*(_block(channels, channels, stride=2 if n and n % 2 == 0 else 1) for n in range(8)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, classes)."""
        features: Tensor = self.pool(self.stages(self.stem(images))).flatten(1)
        logits: Tensor = self.fc(features)
        return logits


def constant_width(num_classes: int = 10, channels: int = 48) -> nn.Module:
    """The network, for `--model constant_width:constant_width`."""
    return ConstantWidth(num_classes, channels)


def _block(read: int, made: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(read, made, 3, stride, 1, bias=False), nn.BatchNorm2d(made), nn.ReLU(inplace=True))
