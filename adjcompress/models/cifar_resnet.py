"""The residual networks made for 32 x 32 images: 6n + 2 layers, widths 16, 32 and 64.

He et al. 2015 (arXiv:1512.03385), section 4.2. Shortcuts are of option A: where the resolution halves, every second pixel
is taken and the new channels are zero, so a shortcut has no parameters. ResNet-20 has 269,722 parameters at 10 classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PaddedShortcut(nn.Module):
    """Every second pixel; zeros for the channels that the input lacks, half of them in front of its own.

    (N, inputs, H, W) -> (N, outputs, ceil(H / 2), ceil(W / 2)). `selection` (outputs, inputs) is 1 where an output channel
    is an input channel; by it the surgery knows such a layer, and cuts rows for outputs and columns for inputs. The forward
    pass uses its shape alone.
    """

    selection: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.before = (outputs - inputs) // 2
        self.register_buffer("selection", torch.zeros(outputs, inputs), persistent=False)
        self.selection[self.before : self.before + inputs].fill_diagonal_(1)

    def forward(self, images: Tensor) -> Tensor:
        outputs, inputs = self.selection.shape
        before = min(self.before, outputs)
        return F.pad(images[:, :, ::2, ::2], (0, 0, 0, 0, before, outputs - before - inputs))  # below 0 it crops


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, inputs, H, W) -> (N, width, H / stride, W / stride)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Identity() if stride == 1 else PaddedShortcut(inputs, width)

    def forward(self, images: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(images)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(images))


class CifarResNet(nn.Module):
    """`blocks` basic blocks in each of three stages: (N, 3, H, W) -> (N, classes)."""

    def __init__(self, blocks: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1)
        self.layer2 = self._stage(16, 32, blocks, 2)
        self.layer3 = self._stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(inputs, width, stride)
        return nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(blocks - 1)))

    def forward(self, images: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(images)))
        y = self.layer3(self.layer2(self.layer1(y)))
        return self.linear(y.mean((2, 3)))


def cifar_resnet20(num_classes: int = 10) -> CifarResNet:
    """20 layers, 0.27 M parameters for 10 classes. (N, 3, H, W) -> (N, num_classes)."""
    return CifarResNet(3, num_classes)


def cifar_resnet32(num_classes: int = 10) -> CifarResNet:
    """32 layers, 0.46 M parameters for 10 classes. (N, 3, H, W) -> (N, num_classes)."""
    return CifarResNet(5, num_classes)


def cifar_resnet44(num_classes: int = 10) -> CifarResNet:
    """44 layers, 0.66 M parameters for 10 classes. (N, 3, H, W) -> (N, num_classes)."""
    return CifarResNet(7, num_classes)


def cifar_resnet56(num_classes: int = 10) -> CifarResNet:
    """56 layers, 0.85 M parameters for 10 classes. (N, 3, H, W) -> (N, num_classes)."""
    return CifarResNet(9, num_classes)


def cifar_resnet110(num_classes: int = 10) -> CifarResNet:
    """110 layers, 1.7 M parameters for 10 classes. (N, 3, H, W) -> (N, num_classes)."""
    return CifarResNet(18, num_classes)
