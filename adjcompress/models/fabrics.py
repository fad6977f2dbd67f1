"""Networks with more connections than one needs, from which a search may choose. arXiv:1706.00046.

The ResNet fabric is a CIFAR ResNet whose later stages also see the blocks of the stage before; the convolutional neural fabric
(arXiv:1606.02492) is a grid of scales and columns. Convolutions have biases, as in the published counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from adjcompress.errors import AdjCompressError
from adjcompress.models.graph import IMAGES, Graph, GraphNetwork, Node


def basic_block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """3x3, BN, ReLU, 3x3, BN: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, 1, 1),
        nn.BatchNorm2d(outputs),
    )


def projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """1x1, BN: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


def _check_numbers(name: str, **options: object) -> None:
    for option, value in options.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise AdjCompressError(f"{name}: {option} is a whole number, not {value!r}.")


class _Builder:
    """Collects nodes and their layers."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.layers: dict[str, nn.Module] = {}

    def add(
        self,
        name: str,
        inputs: Sequence[str],
        layer: nn.Module,
        gate: str | None = None,
        cycles: int = 1,
        place: tuple[int, int] | None = None,
    ) -> str:
        self.nodes.append(Node(name, tuple(inputs), gate, cycles, place))
        self.layers[name] = layer
        return name

    def network(self) -> GraphNetwork:
        return GraphNetwork(Graph(tuple(self.nodes)), self.layers)


def resnet_fabric(num_classes: int = 10, blocks: int = 3, connections: bool = True) -> GraphNetwork:
    """Three stages of `blocks` basic blocks, 16, 32 and 64 channels; with `connections` each later block sees two or three of
    the stage before: (N, 3, 32, 32) -> (N, classes). Without, it is the plain ResNet of depth 6 blocks + 2.

    Blocks and connections have gates; what a block is added to has none, so every architecture reaches the output.
    """
    _check_numbers("resnet_fabric", blocks=blocks)
    if blocks < 1:
        raise AdjCompressError(f"A ResNet fabric needs at least 1 block in a stage, not {blocks}.")
    build, widths = _Builder(), (16, 32, 64)
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU())
    entered = [build.add("stem", [IMAGES], stem, place=(0, 0))]  # what entered each stage
    sums: list[list[str]] = []
    for stage, width in enumerate(widths):
        sums.append([])
        for block in range(blocks):
            before = sums[stage][-1] if block else entered[stage]
            inputs, stride = (widths[stage - 1], 2) if stage and not block else (width, 1)
            place = f"stage{stage + 1}_block{block}"
            taken = [build.add(place, [before], basic_block(inputs, width, stride), gate=place)]
            skip = nn.Identity() if stride == 1 else projection(inputs, width, stride)
            taken.append(build.add(f"{place}_skip", [before], skip, cycles=int(stride > 1)))
            for source in _mirrored(block, blocks) if stage and connections else ():
                taken += _connection(build, place, source, stage, sums, entered, widths)
            at = (1 + stage * blocks + block, 0)
            sums[stage].append(build.add(f"{place}_sum", taken, nn.ReLU(), place=at))
        entered.append(sums[stage][-1])
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))
    build.add("output", [entered[-1]], head, place=(1 + 3 * blocks, 0))
    return build.network()


def _mirrored(block: int, blocks: int) -> list[int]:
    """Which blocks of the stage before a block also takes; below 0: what entered that stage."""
    return [
        blocks - block - 2,
        *([blocks - 1 - block] if block > 0 else []),
        *([blocks - block - 3] if block < blocks - 1 else []),
    ]


def _connection(
    build: _Builder,
    place: str,
    source: int,
    stage: int,
    sums: Sequence[Sequence[str]],
    entered: Sequence[str],
    widths: Sequence[int],
) -> list[str]:
    """A strided block and its projection from the stage before, behind one gate."""
    if source >= 0:
        taken, inputs, stride = sums[stage - 1][source], widths[stage - 1], 2
    else:
        taken, inputs, stride = entered[stage - 1], widths[max(stage - 2, 0)], 2 if stage == 1 else 4
    name = f"{place}_from_{source if source >= 0 else 'entry'}"
    return [
        build.add(name, [taken], basic_block(inputs, widths[stage], stride), gate=name),
        build.add(f"{name}_projection", [taken], projection(inputs, widths[stage], stride), gate=name),
    ]


class _Entry(nn.Sequential):
    """3x3, BN, ReLU on images whose sides can be halved as often as there are scales below the finest."""

    def __init__(self, channels: int, scales: int) -> None:
        super().__init__(nn.Conv2d(3, channels, 3, 1, 1), nn.BatchNorm2d(channels), nn.ReLU())
        self.multiple = 2 ** (scales - 1)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-2] % self.multiple or images.shape[-1] % self.multiple:
            raise ValueError(f"at {self.multiple.bit_length()} scales, sides must be multiples of {self.multiple}")
        values: Tensor = super().forward(images)
        return values


class UpConvolution(nn.Module):
    """Nearest x2, 3x3, BN: (N, inputs, H, W) -> (N, outputs, 2 H, 2 W)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.bn(self.conv(F.interpolate(images, scale_factor=2.0)))


def neural_fabric(
    num_classes: int = 10,
    columns: int = 8,
    scales: int = 6,
    channels: int = 128,
    segmentation: bool = False,
) -> GraphNetwork:
    """A grid of `columns` x `scales` nodes of `channels` channels, scale 0 the finest.

    Each node sums three edges of the column before (same scale, one finer, one coarser), and applies ReLU; the first column
    also runs down the scales, the last one down to the class scores of the coarsest node, (N, 3, H, W) -> (N, classes); with
    `segmentation` up to those of the finest, -> (N, classes, H, W). Sides must be multiples of 2 ** (scales - 1). Edges have
    gates, nodes none.
    """
    _check_numbers("neural_fabric", columns=columns, scales=scales, channels=channels)
    if columns < 2 or scales < 2 or channels < 1:
        raise AdjCompressError(
            f"A neural fabric needs at least 2 columns, 2 scales and 1 channel, not {columns}, {scales} and {channels}."
        )
    build = _Builder()

    def edge(name: str, source: str, step: int) -> str:
        stride = 2 if step > 0 else 1
        layer: nn.Module = nn.Sequential(nn.Conv2d(channels, channels, 3, stride, 1), nn.BatchNorm2d(channels))
        return build.add(name, [source], UpConvolution(channels, channels) if step < 0 else layer, gate=name)

    before = [build.add("column0_scale0", [IMAGES], _Entry(channels, scales), place=(0, 0))]
    for scale in range(1, scales):
        down = edge(f"column0_scale{scale}_down", before[-1], 1)
        before.append(build.add(f"column0_scale{scale}", [down], nn.ReLU(), place=(0, scale)))
    for column in range(1, columns):
        last = column == columns - 1
        here: dict[int, str] = {}
        for scale in reversed(range(scales)) if last and segmentation else range(scales):
            place = f"column{column}_scale{scale}"
            taken = [
                edge(f"{place}_from{source}", before[source], scale - source)
                for source in (scale - 1, scale, scale + 1)
                if 0 <= source < scales
            ]
            neighbour = scale + 1 if segmentation else scale - 1
            if last and neighbour in here:
                taken.append(edge(f"{place}_{'up' if segmentation else 'down'}", here[neighbour], scale - neighbour))
            here[scale] = build.add(place, taken, nn.ReLU(), place=(column, scale))
        before = [here[scale] for scale in range(scales)]
    read = nn.Conv2d(channels, num_classes, 1)
    head = read if segmentation else nn.Sequential(read, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    build.add("output", [before[0] if segmentation else before[-1]], head, place=(columns, 0 if segmentation else scales - 1))
    return build.network()
