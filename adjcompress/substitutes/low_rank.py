"""Low rank: two 1x1 convolutions with nothing between, W = B A of rank floor(s max(inputs, outputs)). arXiv:1906.00859."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from adjcompress.substitutes.layer import Pair, Substitute


class LowRank(Substitute):
    """`reduce` (inputs -> r, with the stride) and `expand` (r -> outputs); `setting` s in (0, 1]."""

    name = "low_rank"

    def __init__(self, inputs: int, outputs: int, setting: float, stride: Pair = (1, 1), bias: bool = False) -> None:
        super().__init__(inputs, outputs, setting, stride)
        rank = self.rank(inputs, outputs, setting)
        self.reduce = nn.Conv2d(inputs, rank, 1, stride, bias=False)
        self.expand = nn.Conv2d(rank, outputs, 1, bias=bias)
        for layer in (self.reduce, self.expand):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")

    @staticmethod
    def rank(inputs: int, outputs: int, setting: float) -> int:
        return max(1, int(setting * max(inputs, outputs) + 1e-9))

    @classmethod
    def parameter_count(cls, inputs: int, outputs: int, setting: float) -> int:
        return cls.rank(inputs, outputs, setting) * (inputs + outputs)

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.expand(self.reduce(images))
        return result

    @property
    def bias(self) -> nn.Parameter | None:  # type: ignore[override]
        return cast(nn.Parameter | None, self.expand.bias)

    def compressed(self) -> list[nn.Parameter]:
        return [cast(nn.Parameter, layer.weight) for layer in (self.reduce, self.expand)]

    def dense_weight(self) -> Tensor:
        return (self.expand.weight.flatten(1) @ self.reduce.weight.flatten(1))[:, :, None, None]

    @torch.no_grad()
    def approximate_(self, matrix: Tensor) -> None:
        """The truncated singular value decomposition, each factor with the roots of the singular values."""
        rank = min(self.reduce.out_channels, *matrix.shape)  # a rank above the matrix's own adds nothing
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        roots = values[:rank].sqrt()
        self.expand.weight.zero_()[:, :rank, 0, 0] = left[:, :rank] * roots
        self.reduce.weight.zero_()[:rank, :, 0, 0] = roots[:, None] * right[:rank]
