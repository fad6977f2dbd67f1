"""Which widths of a layer are measured, and which of them stand for any other?"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from adjcompress.cost.layers import LayerShape, Pair

# In blocks of channels: 1, 2, 3, 4, 6, 8, 12, ..., 3072
BLOCKS = (1, *(scale * 2**power for power in range(11) for scale in (2, 3)))
_ALIGNED = 4  # ONNX Runtime pads a multiple of this many inputs to whole blocks
_FEWEST = 4  # the smallest width that is measured; fewer channels count as this many
_STEP = 16  # between measured widths where the runtime knows no blocks

Layout = Literal["stem", "narrow", "blocked", "plain", "grouped", "linear"]
Point = tuple[Layout, int, int]


@dataclass(frozen=True)
class Grid:
    """Which widths are measured, and which of them stand for any other.

    `block_channels`: how many channels a block of the runtime holds, 1 where it knows no blocks. `pads_outputs`: whether
    any number of outputs is padded to whole blocks, or only multiples of 4. `blocks`: measured widths, in blocks.
    """

    block_channels: int
    pads_outputs: bool
    blocks: tuple[int, ...] = BLOCKS

    def layout(self, shape: LayerShape, channels_in: int, channels_out: int) -> Layout:
        """How the runtime holds a layer's channels. Within a layout its time is smooth; between them it jumps.

        "blocked": in blocks. "narrow": fewer inputs than a block are put in order first and read one by one, so 12 take
        twice the time of 16. "plain": 4 does not divide the inputs, and an ordinary matrix product does the work; depthwise
        up to 7 times slower.
        """
        if shape.kind in ("stem", "grouped", "linear"):
            return shape.kind
        narrow = shape.kind == "conv" and channels_in < self.block_channels
        odd_outputs = channels_out % _ALIGNED and not self.pads_outputs
        if self.block_channels == 1 or odd_outputs or (channels_in % _ALIGNED and not narrow):
            return "plain"
        return "narrow" if narrow else "blocked"

    def axes(self, layout: Layout, shape: LayerShape, channels_in: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The measured widths of inputs and outputs in one layout, rising; `channels_in` is a stem's, which never changes."""
        if layout == "grouped":
            return tuple(count * shape.group[0] for count in self.blocks), tuple(
                count * shape.group[1] for count in self.blocks
            )
        if layout == "plain":
            return self._odd, self._odd
        if layout == "linear":
            return (_FEWEST, *self._whole), (_FEWEST, *self._whole)
        if layout == "blocked":
            return self._whole, self._whole
        return ((channels_in,) if layout == "stem" else (_FEWEST, self.block_channels - 1)), self._whole

    @cached_property
    def _whole(self) -> tuple[int, ...]:
        """Widths of whole blocks."""
        return tuple(count * (self.block_channels if self.block_channels > 1 else _STEP) for count in self.blocks)

    @cached_property
    def _odd(self) -> tuple[int, ...]:
        """Widths that fit no block, twice as far apart."""
        step = self._whole[0] // self.blocks[0]
        return (_FEWEST + 1, *(count * step + 1 for count in self.blocks if count.bit_count() == 1))

    def corners(self, shape: LayerShape, channels_in: int, channels_out: int) -> tuple[tuple[Point, float], ...]:
        """The measured points that a layer lies between, at most four, with their weights: bilinear, in whole blocks."""
        layout = self.layout(shape, channels_in, channels_out)
        axis_in, axis_out = self.axes(layout, shape, channels_in)
        if layout == "blocked":
            channels_in = self._whole_blocks(channels_in)
        if layout in ("stem", "narrow", "blocked"):
            channels_out = self._whole_blocks(channels_out)
        if shape.tied:
            return tuple(
                ((layout, axis_in[index], axis_out[index]), weight) for index, weight in _between(axis_in, channels_in)
            )
        return tuple(
            ((layout, axis_in[i], axis_out[o]), weight_in * weight_out)
            for i, weight_in in _between(axis_in, channels_in)
            for o, weight_out in _between(axis_out, channels_out)
        )

    def points(self, shape: LayerShape, inputs: Pair, outputs: Pair) -> tuple[Point, ...]:
        """All points that layers need whose widths lie in `inputs` and `outputs`, each (lowest, highest)."""
        ins = self._telling(shape, inputs, side=0)
        if shape.tied:
            pairs = [(channels, channels // shape.group[0] * shape.group[1]) for channels in ins]
        else:
            pairs = [(channels, other) for channels in ins for other in self._telling(shape, outputs, side=1)]
        return tuple(sorted({point for pair in pairs for point, _ in self.corners(shape, *pair)}))

    def _telling(self, shape: LayerShape, reach: Pair, side: int) -> list[int]:
        """Widths in a range that together lie between the same points as all of its widths."""
        low, high = reach
        if low == high:
            return [low]
        layouts: tuple[Layout, ...] = ("narrow", "blocked", "plain")
        if shape.kind in ("grouped", "linear"):
            layouts = (self.layout(shape, low, low),)
        measured = {width for layout in layouts for width in self.axes(layout, shape, low)[side] if low < width < high}
        if shape.kind == "grouped":
            return sorted({low, high} | measured)
        odd, whole = {low + 1, high - 1}, {-(-low // _ALIGNED) * _ALIGNED, high // _ALIGNED * _ALIGNED}
        return sorted({low, high} | measured | {width for width in odd | whole if low < width < high})

    def _whole_blocks(self, channels: int) -> int:
        return -(-channels // self.block_channels) * self.block_channels


def _between(axis: Sequence[int], width: int) -> tuple[tuple[int, float], ...]:
    """Positions on a rising axis that `width` lies between, with their weights; below its start counts as its start."""
    after = bisect.bisect_left(axis, width)
    if after == 0 or axis[min(after, len(axis) - 1)] == width:
        return ((after, 1.0),)
    if after == len(axis):
        return ((after - 1, 1.0),)
    share = (width - axis[after - 1]) / (axis[after] - axis[after - 1])
    return ((after - 1, 1.0 - share), (after, share))
