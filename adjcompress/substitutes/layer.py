"""What does every structured substitute of a 1x1 convolution have in common?

A substitute stands for the dense matrix W (outputs, inputs) of a 1x1 convolution with fewer parameters. Those that run as a
chain of small convolutions are modules like any other; those that make their dense weight from a few numbers are
`Reconstructed`: the weight is made once in each forward pass and fed to one convolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adjcompress.errors import AdjCompressError

Pair = tuple[int, int]


class Substitute(nn.Module):
    """A layer (N, inputs, H, W) -> (N, outputs, H / stride, W / stride) in place of a 1x1 convolution.

    `setting` says how large it is: a part in (0, 1], or a number of groups or layers (each class says which). A bias, where
    there is one, is `bias` (outputs,), or None.
    """

    name: ClassVar[str]
    setting_is: ClassVar[str] = "share"
    """What a setting means: "share" of a rank or number, "groups" or "layers"."""
    bias: nn.Parameter | None

    def __init__(self, inputs: int, outputs: int, setting: float, stride: Pair = (1, 1), bias: bool = False) -> None:
        super().__init__()
        self.check(inputs, outputs, setting)
        self.inputs, self.outputs, self.setting, self.stride = inputs, outputs, setting, stride
        del bias  # which each form keeps at its last layer

    @classmethod
    def check(cls, inputs: int, outputs: int, setting: float) -> None:
        """Refuse a setting, or a size, that this form cannot have."""
        if not 0 < setting <= 1:
            raise AdjCompressError(f"{cls.name} takes a setting above 0 and up to 1, not {setting:g}.")

    @classmethod
    def parameter_count(cls, inputs: int, outputs: int, setting: float) -> int:
        """Parameters, in closed form."""
        raise NotImplementedError

    def dense_weight(self) -> Tensor:
        """The weight (outputs, inputs, 1, 1) of the dense convolution that computes the same; gradients flow through it."""
        raise NotImplementedError

    def approximate_(self, matrix: Tensor) -> None:
        """Become the best approximation of `matrix` (outputs, inputs), in the sum of squares, that this form allows."""
        raise NotImplementedError

    def compressed(self) -> Sequence[nn.Parameter]:
        """The parameters that stand for the dense matrix."""
        return [parameter for parameter in self.parameters() if parameter is not self.bias]

    @property
    def dense_parameters(self) -> int:
        """Parameters of the matrix that it stands for."""
        return self.inputs * self.outputs

    @property
    def used(self) -> float:
        """The setting that came out, where not every one fits the layer."""
        return self.setting

    def extra_repr(self) -> str:
        used = f" (used={self.used:g})" * (self.used != self.setting)
        return f"{self.inputs}, {self.outputs}, setting={self.setting:g}{used}, stride={self.stride}"


class Reconstructed(Substitute):
    """A substitute whose dense weight is made of its parameters, once in each forward pass.

    The reconstruction keeps the parameters' precision under autocast: chains of products lose too much in 16 bits.
    """

    cannot_be_cut: ClassVar[str] = "its weight is reconstructed as a whole (low_rank and shuffle can be cut)"

    def __init__(self, inputs: int, outputs: int, setting: float, stride: Pair = (1, 1), bias: bool = False) -> None:
        super().__init__(inputs, outputs, setting, stride)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self._weight_now: Tensor | None = None
        self._once = False

    def matrix(self) -> Tensor:
        """The dense weight as a matrix (outputs, inputs)."""
        raise NotImplementedError

    def dense_weight(self) -> Tensor:
        device = next(self.parameters()).device
        if device.type == "meta":  # which has no autocast
            return self.matrix()[:, :, None, None]
        with torch.autocast(device.type, enabled=False):
            return self.matrix()[:, :, None, None]

    def forward(self, images: Tensor) -> Tensor:
        weight = self.dense_weight() if self._weight_now is None else self._weight_now
        if self._once:
            self._weight_now = weight
        return F.conv2d(images, weight, self.bias, self.stride)

    def materialised(self) -> nn.Conv2d:
        """The plain convolution with the weight as it is now."""
        weight = self.dense_weight().detach()
        layer = nn.Conv2d(self.inputs, self.outputs, 1, self.stride, bias=self.bias is not None, device="meta")
        layer.weight = nn.Parameter(weight)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.detach())
        return layer.train(self.training)


@contextmanager
def weights_made_once(network: nn.Module) -> Iterator[None]:
    """Within the block, one training step, every reconstructed layer makes its weight once, however often it is used."""
    layers = [module for module in network.modules() if isinstance(module, Reconstructed)]
    try:
        for layer in layers:
            layer._once = True
        yield
    finally:
        for layer in layers:
            layer._once, layer._weight_now = False, None


def fresh_matrix(inputs: int, outputs: int, like: nn.Parameter) -> Tensor:
    """An ordinarily initialised 1x1 convolution's weight (outputs, inputs): normal, standard deviation sqrt(2 / outputs)."""
    return torch.empty(outputs, inputs, dtype=like.dtype, device=like.device).normal_(0, (2 / outputs) ** 0.5)
