"""Which convolutions and linear layers does a network run, of which shapes and widths?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adjcompress.cost.materialise import looked_at
from adjcompress.running import watching

Kind = Literal["stem", "conv", "depthwise", "grouped", "linear"]
Pair = tuple[int, int]


@dataclass(frozen=True)
class LayerShape:
    """Everything that decides a layer's time but its widths.

    `kind`: "stem" is a convolution of the image itself, "grouped" one of `group` = (inputs, outputs) channels in each of its
    groups; `group` is (0, 0) elsewhere. `size`: height and width of its input, with what a layer pads in its own forward, or
    on one side only; of a linear layer (rows, 1).
    """

    kind: Kind
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    group: Pair
    size: Pair

    @property
    def output_size(self) -> Pair:
        height, width = (
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, padding, dilation, kernel, stride in zip(
                self.size, self.padding, self.dilation, self.kernel, self.stride, strict=True
            )
        )
        return height, width

    @property
    def tied(self) -> bool:
        """Whether outputs follow inputs: a depthwise or grouped convolution has one width."""
        return self.kind in ("depthwise", "grouped")

    def __str__(self) -> str:
        if self.kind == "linear":
            return "linear layer"
        kind = {"conv": "convolution", "stem": "convolution of the image"}.get(self.kind, f"{self.kind} convolution")
        (kernel_h, kernel_w), (height, width) = self.kernel, self.size
        stride = "" if self.stride == (1, 1) else f", stride {self.stride[0]}"
        return f"{kernel_h}x{kernel_w} {kind}{stride}, {height}x{width} px"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LayerShape:
        pairs = {name: (value[0], value[1]) for name, value in data.items() if name != "kind"}
        return cls(kind=data["kind"], **pairs)


@dataclass(frozen=True)
class Layer:
    """One layer of a network with its widths."""

    name: str
    shape: LayerShape
    channels_in: int
    channels_out: int

    @property
    def elements(self) -> int:
        """Numbers that it writes for one image."""
        height, width = self.shape.output_size
        return self.channels_out * height * width


def layer_shapes(network: nn.Module, example: Tensor) -> tuple[Layer, ...]:
    """Every convolution and linear layer of `network` as it runs on one image of `example` (N, C, H, W), in order.

    Nothing is computed where the network allows it: its copy runs on the meta device. The network is left as it was.
    """
    return looked_at(network, example, _layers)


def _layers(network: nn.Module, image: Tensor) -> tuple[Layer, ...]:
    found: list[Layer] = []
    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}

    def see(name: str, inputs: Tensor, outputs: Tensor) -> None:
        stem = not found and inputs.shape == image.shape
        found.append(_layer(name, layers[name], inputs, outputs, stem))

    with torch.no_grad(), watching(layers, see):
        network(image)
    return tuple(found)


def _layer(name: str, module: Any, inputs: Tensor, outputs: Tensor, stem: bool) -> Layer:
    one: Pair = (1, 1)
    if isinstance(module, nn.Linear):
        rows = inputs[..., 0].numel()
        shape = LayerShape("linear", one, one, (0, 0), one, (0, 0), (rows, 1))
        return Layer(name, shape, module.in_features, module.out_features)
    dilation, kernel = module.dilation, module.kernel_size
    if module.padding == "same":
        padding = tuple(step * (side - 1) // 2 for step, side in zip(dilation, kernel, strict=True))
    else:
        padding = (0, 0) if module.padding == "valid" else module.padding
    group: Pair = (0, 0)
    kind: Kind = "stem" if stem else "conv"
    if module.groups > 1:
        group = (module.in_channels // module.groups, module.out_channels // module.groups)
        kind = "depthwise" if group == one else "grouped"
    size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
    shape = LayerShape(kind, tuple(kernel), tuple(module.stride), tuple(padding), tuple(dilation), group, size)
    written = (int(outputs.shape[-2]), int(outputs.shape[-1]))
    if shape.output_size != written:  # it pads more than it says
        sides = zip(written, shape.stride, shape.dilation, shape.kernel, shape.padding, strict=True)
        height, width = ((out - 1) * stride + step * (side - 1) + 1 - 2 * pad for out, stride, step, side, pad in sides)
        shape = replace(shape, size=(height, width))
    return Layer(name, shape, module.in_channels, module.out_channels)


def fingerprint(layers: Sequence[Layer]) -> str:
    """What a network and all its slices have in common: how their layers run, in order, without widths and groups."""
    shapes = [layer.shape for layer in layers]
    runs = [(shape.kernel, shape.stride, shape.padding, shape.dilation, shape.size) for shape in shapes]
    return hashlib.sha256(json.dumps(runs).encode()).hexdigest()[:16]
