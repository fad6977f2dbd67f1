"""Hashed: a few real weights, and for every entry of the matrix a fixed random choice among them. arXiv:1906.00859.

The choice is a formula, never stored: three rounds of an additive Feistel network send entry (o, i) to another place of the
matrix, one to one, and that place's number modulo K is the weight. So every one of the K weights is used, each as often as
any other up to one, and an ONNX graph can compute it from Range, Mul and Mod.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adjcompress.substitutes.layer import Pair, Reconstructed

PRIME = 2_147_483_647
# Each round shifts one coordinate by ((other + add)^2 mod PRIME) * times mod PRIME: (add, times).
ROUNDS = ((40_503, 1_640_531_527), (69_069, 1_013_904_223), (1_103_515, 1_597_334_677))


class Hashed(Reconstructed):
    """K = floor(inputs outputs s) weights, at least 1; `setting` s in (0, 1]. No bias: a batch norm follows."""

    name = "hashed"
    order: Tensor
    inverse: Tensor

    def __init__(self, inputs: int, outputs: int, setting: float, stride: Pair = (1, 1), bias: bool = False) -> None:
        super().__init__(inputs, outputs, setting, stride, bias)
        self.weight = nn.Parameter(torch.empty(self.parameter_count(inputs, outputs, setting)))
        nn.init.uniform_(self.weight, -(inputs**-0.5), inputs**-0.5)
        order = places(inputs, outputs).flatten()
        self.register_buffer("order", order, persistent=False)  # (outputs inputs,), a permutation
        self.register_buffer("inverse", order.argsort(), persistent=False)

    @classmethod
    def parameter_count(cls, inputs: int, outputs: int, setting: float) -> int:
        return max(1, int(inputs * outputs * setting + 1e-9))

    def matrix(self) -> Tensor:
        return _Spread.apply(self.weight, self.order, self.inverse).view(self.outputs, self.inputs)

    @torch.no_grad()
    def approximate_(self, matrix: Tensor) -> None:
        """Each weight becomes the mean of the entries that it stands for."""
        ones = torch.ones_like(matrix).flatten()
        self.weight.copy_(_gathered(matrix.flatten(), self) / _gathered(ones, self))


def _gathered(values: Tensor, layer: Hashed) -> Tensor:
    """For each weight the sum of `values` (outputs inputs,) over the entries that it stands for."""
    return _summed(values[layer.inverse], len(layer.weight))


class _Spread(torch.autograd.Function):
    """weight[order mod K] as a gather in both directions: the backward pass of indexing adds one by one, 20 times slower."""

    @staticmethod
    def forward(ctx: object, weight: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)  # type: ignore[attr-defined]
        ctx.count = len(weight)  # type: ignore[attr-defined]
        return weight[order % len(weight)]

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return _summed(gradient[inverse], ctx.count), None, None  # type: ignore[attr-defined]


def _summed(values: Tensor, count: int) -> Tensor:
    """Sums of every `count`-th of `values`, (count,)."""
    padded = torch.nn.functional.pad(values, (0, -len(values) % count))
    return padded.view(-1, count).sum(0)


def places(inputs: int, outputs: int) -> Tensor:
    """Where each entry (o, i) is sent: numbers 0 .. outputs inputs - 1, each once; int64 (outputs, inputs)."""
    row, column = torch.arange(outputs)[:, None], torch.arange(inputs)[None]
    (a, b), (c, d), (e, f) = ROUNDS
    column = (column + _mixed(row, a, b)) % inputs
    row = (row + _mixed(column, c, d)) % outputs
    column = (column + _mixed(row, e, f)) % inputs
    return row * inputs + column


def _mixed(values: Tensor, add: int, times: int) -> Tensor:
    """A pseudo-random number below PRIME for each value; every product stays below 2^63."""
    return ((values + add) ** 2 % PRIME) * times % PRIME
