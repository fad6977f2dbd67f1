"""In which order do a network's images and weights lie in memory while it is trained?"""

from __future__ import annotations

from lightning_fabric import Fabric
from torch import nn

from adjcompress.training.hardware import precision_name

_VECTOR = 16  # places in a vector of AVX-512, twice those of AVX2


def channels_last(network: nn.Module, fabric: Fabric) -> bool:
    """Whether channels lie together: on a GPU, and on a CPU in float32.

    Tried on CPUs: in float32 most networks gain with AVX2 and none lose much; in bf16 they lose.
    """
    if fabric.device.type == "cuda":
        return True
    return precision_name(fabric) == "32" and not _thin_strided_pointwise(network)


def _thin_strided_pointwise(network: nn.Module) -> bool:
    """Whether a network has a 1x1 convolution with a stride and fewer inputs than a vector has places.

    Its backward pass in channels-last order writes beyond its memory on CPUs with AVX2 (oneDNN in torch 2.14, fewer than 8
    inputs; 16 are what a vector of AVX-512 has).
    """
    convolutions = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    return any(
        layer.kernel_size == (1, 1) and max(layer.stride) > 1 and layer.in_channels < _VECTOR and layer.groups == 1
        for layer in convolutions
    )
