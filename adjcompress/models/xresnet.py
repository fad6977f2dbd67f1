"""The residual networks that the papers train on ImageNet: a deep stem, and shortcuts that pool before they project.

He et al. 2018 (arXiv:1812.01187), the tweaks B, C and D, with the last batch norm of each block starting at weight 0.
xresnet50 has 25,603,976 parameters and 4.676 GMACs at 224 px and 1000 classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, activation: bool = True) -> nn.Sequential:
    """Convolution, batch norm and, by choice, ReLU: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if activation:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Block(nn.Module):
    """Two 3x3 convolutions (expansion 1) or a bottleneck (expansion 4), and a shortcut.

    (N, inputs, H, W) -> (N, width * expansion, H / stride, W / stride). The stride sits on a 3x3 convolution.
    """

    def __init__(self, inputs: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        outputs = width * expansion
        if expansion == 1:
            self.convs = nn.Sequential(
                conv_bn(inputs, width, 3, stride),
                conv_bn(width, outputs, 3, activation=False),
            )
        else:
            self.convs = nn.Sequential(
                conv_bn(inputs, width, 1),
                conv_bn(width, width, 3, stride),
                conv_bn(width, outputs, 1, activation=False),
            )
        shortcut: list[nn.Module] = []
        if stride != 1:
            shortcut.append(nn.AvgPool2d(2, ceil_mode=True))
        if inputs != outputs:
            shortcut.append(conv_bn(inputs, outputs, 1, activation=False))
        self.shortcut = nn.Sequential(*shortcut)
        self.relu = nn.ReLU(inplace=True)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        return self.convs[-1][1]  # type: ignore[index]

    def forward(self, images: Tensor) -> Tensor:
        return self.relu(self.convs(images) + self.shortcut(images))


class XResNet(nn.Module):
    """(N, 3, H, W) -> (N, classes). `blocks` is the number of blocks in each of the four stages."""

    def __init__(self, blocks: Sequence[int], expansion: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 32, 3, 2), conv_bn(32, 64, 3), conv_bn(64, 64, 3))
        self.pool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        stages = []
        for stage, repeats in enumerate(blocks):
            width, stride = 64 * 2**stage, 1 if stage == 0 else 2
            layers = []
            for index in range(repeats):
                layers.append(Block(inputs, width, stride if index == 0 else 1, expansion))
                inputs = width * expansion
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, Block):
                nn.init.zeros_(module.last_norm.weight)  # a block starts as its shortcut

    def forward(self, images: Tensor) -> Tensor:
        y = self.pool(self.stem(images))
        y = self.layer4(self.layer3(self.layer2(self.layer1(y))))
        return self.fc(self.avgpool(y).flatten(1))


def xresnet18(num_classes: int = 1000) -> XResNet:
    """18 layers in blocks of two 3x3 convolutions. (N, 3, H, W) -> (N, num_classes)."""
    return XResNet([2, 2, 2, 2], 1, num_classes)


def xresnet34(num_classes: int = 1000) -> XResNet:
    """34 layers in blocks of two 3x3 convolutions. (N, 3, H, W) -> (N, num_classes)."""
    return XResNet([3, 4, 6, 3], 1, num_classes)


def xresnet50(num_classes: int = 1000) -> XResNet:
    """50 layers in blocks of a bottleneck. (N, 3, H, W) -> (N, num_classes)."""
    return XResNet([3, 4, 6, 3], 4, num_classes)


def xresnet50x2(num_classes: int = 1000) -> XResNet:
    """The 50X2 of arXiv:2006.05624: 98 layers, twice the bottlenecks of xresnet50. (N, 3, H, W) -> (N, num_classes)."""
    return XResNet([6, 8, 12, 6], 4, num_classes)


def xresnet101(num_classes: int = 1000) -> XResNet:
    """101 layers in blocks of a bottleneck. (N, 3, H, W) -> (N, num_classes)."""
    return XResNet([3, 4, 23, 3], 4, num_classes)


def xresnet152(num_classes: int = 1000) -> XResNet:
    """152 layers in blocks of a bottleneck. (N, 3, H, W) -> (N, num_classes)."""
    return XResNet([3, 8, 36, 3], 4, num_classes)
