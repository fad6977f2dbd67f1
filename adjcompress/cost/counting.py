"""How many parameters, multiply-adds and bytes does a network take?

A MAC is one multiply-add of a convolution or a matrix product, for one image; biases, batch norm and activations are not
counted, nor is what makes a layer's weight out of fewer numbers, which is done once when a network is loaded. So ResNet-50
at 224 px has 4.089 GMACs and 25,557,032 parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from adjcompress.cost.materialise import looked_at
from adjcompress.tensors import deployed_parameters, deployed_part


@dataclass(frozen=True)
class LayerCount:
    """One module that owns parameters: its name and class, its own parameters, its MACs for one image."""

    name: str
    kind: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class Counts:
    """Costs of a network: parameters, MACs for one image, bytes of its state dict, and each layer's share."""

    parameters: int
    macs: int
    bytes: int
    per_layer: tuple[LayerCount, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def macs_of(self, parts: Iterable[str]) -> int:
        """MACs of the layers that are these modules, or lie within them: "layer1" has those of layer1.0.conv1."""
        parts = tuple(parts)
        return sum(layer.macs for layer in self.per_layer if any(f"{layer.name}.".startswith(f"{part}.") for part in parts))


def count(network: nn.Module, example: Tensor) -> Counts:
    """Count what `network` costs for one image.

    `example` is a batch (N, C, H, W); its values and N do not matter. Where the network allows it nothing is computed: its
    copy runs on the meta device, so ResNet-50 takes a quarter of a second. What exists in training only, an auxiliary head, is
    not counted. The network is left as it was.
    """
    flops = looked_at(network, example, _flops)
    by_module = {name: sum(by_operation.values()) // 2 for name, by_operation in flops.items()}
    root = type(network).__name__
    layers = tuple(
        LayerCount(
            name,
            type(module).__name__,
            sum(parameter.numel() for parameter in module.parameters(recurse=False)),
            by_module.get(f"{root}.{name}", 0) if not list(module.children()) or hasattr(module, "materialised") else 0,
        )
        for name, module in deployed_part(network, dict(network.named_modules())).items()
        if list(module.parameters(recurse=False))
    )
    state = deployed_part(network, network.state_dict())
    return Counts(
        parameters=deployed_parameters(network),
        macs=by_module.get("Global", 0),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in state.values()),
        per_layer=layers,
    )


def _flops(network: nn.Module, image: Tensor) -> dict[str, dict[Any, int]]:
    """Floating-point operations, two for each MAC, by module and operation."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(image)
    return counter.get_flop_counts()
