"""Wide residual networks for 32 x 32 images: depth 6n + 4, k times the widths 16, 32 and 64.

Zagoruyko and Komodakis 2016 (arXiv:1605.07146): batch norm and ReLU come before each convolution. WRN-28-10 has 36,479,194
parameters at 10 classes.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from adjcompress.errors import AdjCompressError


class PreActivationBlock(nn.Module):
    """BN, ReLU, 3x3, BN, ReLU, 3x3 and a shortcut: (N, inputs, H, W) -> (N, width, H / stride, W / stride).

    Where widths differ the shortcut is a 1x1 convolution of the activated input; else it is the input itself.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        projects = inputs != width or stride != 1
        self.shortcut = nn.Conv2d(inputs, width, 1, stride, bias=False) if projects else None

    def forward(self, images: Tensor) -> Tensor:
        y = self.relu1(self.bn1(images))
        shortcut = images if self.shortcut is None else self.shortcut(y)
        return self.conv2(self.relu2(self.bn2(self.conv1(y)))) + shortcut


class WideResNet(nn.Module):
    """Three stages of `blocks` blocks: (N, 3, H, W) -> (N, classes)."""

    # What arXiv:1906.00859 leaves dense where it substitutes structured layers.
    dense_layers = ("*.shortcut",)

    def __init__(self, blocks: int, widening: int, num_classes: int) -> None:
        super().__init__()
        widths = [16, 16 * widening, 32 * widening, 64 * widening]
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.layer1 = self._stage(widths[0], widths[1], blocks, 1)
        self.layer2 = self._stage(widths[1], widths[2], blocks, 2)
        self.layer3 = self._stage(widths[2], widths[3], blocks, 2)
        self.bn = nn.BatchNorm2d(widths[3])
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(widths[3], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.zeros_(self.fc.bias)

    @staticmethod
    def _stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
        first = PreActivationBlock(inputs, width, stride)
        return nn.Sequential(first, *(PreActivationBlock(width, width, 1) for _ in range(blocks - 1)))

    def forward(self, images: Tensor) -> Tensor:
        y = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        return self.fc(self.relu(self.bn(y)).mean((2, 3)))


def wide_resnet(name: str, num_classes: int) -> WideResNet:
    """The network called "wrn_D_K", of depth D and widening K."""
    match = re.fullmatch(r"wrn_(\d+)_(\d+)", name)
    depth, widening = (int(match[1]), int(match[2])) if match else (0, 0)
    if depth < 10 or depth % 6 != 4 or widening < 1:
        raise AdjCompressError(
            f"Model {name!r} is unknown: a wide residual network is wrn_DEPTH_WIDENING with a depth of 6 n + 4, such as "
            "wrn_16_2 or wrn_28_10; wrn_50_2 is the one for ImageNet."
        )
    return WideResNet((depth - 4) // 6, widening, num_classes)
