"""Tensor train: the matrix, folded into three dimensions, as a product of three small cores. arXiv:1906.00859.

Two rules for the dimensions. "balanced" is the authors': three nearly equal dimensions across the border between outputs
and inputs, so the dense weight must be reconstructed. "aligned" keeps outputs and inputs apart: the cores run as three
small convolutions, and the network gets faster as well as smaller.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adjcompress.substitutes.dimensions import aligned, balanced, rank
from adjcompress.substitutes.layer import Pair, Reconstructed, Substitute, fresh_matrix


class TensorTrain(Reconstructed):
    """W flattened out-major and folded to (d1, d2, d3) = G1 (d1, r1) G2 (r1, d2, r2) G3 (r2, d3); `setting` s in (0, 1].

    r_k = max(1, round(s min(d_k, d_k+1))).
    """

    name = "tensor_train"

    def __init__(self, inputs: int, outputs: int, setting: float, stride: Pair = (1, 1), bias: bool = False) -> None:
        super().__init__(inputs, outputs, setting, stride, bias)
        self.dims = d1, d2, d3 = balanced(outputs, inputs)
        r1, r2 = self.ranks(inputs, outputs, setting)
        self.first = nn.Parameter(torch.empty(d1, r1))
        self.middle = nn.Parameter(torch.empty(r1, d2, r2))
        self.last = nn.Parameter(torch.empty(r2, d3))
        if not self.first.is_meta:
            self.approximate_(fresh_matrix(inputs, outputs, self.first))

    @staticmethod
    def ranks(inputs: int, outputs: int, setting: float) -> tuple[int, int]:
        d1, d2, d3 = balanced(outputs, inputs)
        return rank(setting, d1, d2), rank(setting, d2, d3)

    @classmethod
    def parameter_count(cls, inputs: int, outputs: int, setting: float) -> int:
        (d1, d2, d3), (r1, r2) = balanced(outputs, inputs), cls.ranks(inputs, outputs, setting)
        return d1 * r1 + r1 * d2 * r2 + r2 * d3

    def matrix(self) -> Tensor:
        r1, d2, r2 = self.middle.shape
        left = (self.first @ self.middle.reshape(r1, d2 * r2)).reshape(-1, r2)  # (d1 d2, r2)
        return (left @ self.last).reshape(self.outputs, self.inputs)

    @torch.no_grad()
    def approximate_(self, matrix: Tensor) -> None:
        """The truncated TT-SVD, within sqrt(2) of the best approximation (Oseledets 2011)."""
        cores = tt_svd(matrix.reshape(self.dims), (self.first.shape[1], self.last.shape[0]))
        for parameter, core in zip((self.first, self.middle, self.last), cores, strict=True):
            parameter.copy_(core)


class AlignedTensorTrain(Substitute):
    """Outputs folded to (o1, o2), as a chain: inputs -> r2, r2 -> o2 r1, then in each of o2 groups r1 -> o1.

    r1 = max(1, round(s o1)), r2 = max(1, round(s min(outputs, inputs))). Output o is row (o mod o1, o div o1) of the folded
    matrix, so that the chain's last outputs are in order and nothing is permuted. The o2 groups share one core, `last`.
    """

    name = "aligned_tensor_train"
    cannot_be_cut = "its cores are shared by groups of channels (low_rank and shuffle can be cut)"

    def __init__(self, inputs: int, outputs: int, setting: float, stride: Pair = (1, 1), bias: bool = False) -> None:
        super().__init__(inputs, outputs, setting, stride)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        (self.o1, self.o2, _), (r1, r2) = aligned(outputs, inputs), self.ranks(inputs, outputs, setting)
        self.reduce = nn.Conv2d(inputs, r2, 1, stride, bias=False)
        self.spread = nn.Conv2d(r2, self.o2 * r1, 1, bias=False)
        self.last = nn.Parameter(torch.empty(self.o1, r1))
        if not self.last.is_meta:
            self.approximate_(fresh_matrix(inputs, outputs, self.last))

    @staticmethod
    def ranks(inputs: int, outputs: int, setting: float) -> tuple[int, int]:
        o1, _, _ = aligned(outputs, inputs)
        return rank(setting, o1), rank(setting, outputs, inputs)

    @classmethod
    def parameter_count(cls, inputs: int, outputs: int, setting: float) -> int:
        (o1, o2, _), (r1, r2) = aligned(outputs, inputs), cls.ranks(inputs, outputs, setting)
        return r2 * inputs + r1 * o2 * r2 + r1 * o1

    def forward(self, images: Tensor) -> Tensor:
        y = self.spread(self.reduce(images))  # (N, o2 r1, H, W)
        weight = self.last.repeat(self.o2, 1)[:, :, None, None]
        return F.conv2d(y, weight, self.bias, groups=self.o2)

    def dense_weight(self) -> Tensor:
        spread = self.spread.weight.view(self.o2, -1, self.reduce.out_channels)  # (o2, r1, r2)
        rows = (self.last @ spread).flatten(0, 1)  # (o2 o1, r2)
        return (rows @ self.reduce.weight.flatten(1))[:, :, None, None]

    @torch.no_grad()
    def approximate_(self, matrix: Tensor) -> None:
        """The truncated TT-SVD of the folded matrix."""
        folded = matrix.view(self.o2, self.o1, self.inputs).transpose(0, 1)  # (o1, o2, inputs)
        first, middle, last = tt_svd(folded, (self.last.shape[1], self.reduce.out_channels))
        self.last.copy_(first)
        self.spread.weight.copy_(middle.transpose(0, 1).reshape(self.spread.weight.shape))  # (o2, r1, r2)
        self.reduce.weight.copy_(last[:, :, None, None])

    def materialised(self) -> nn.Sequential:
        """The chain as three plain convolutions, for deployment: the shared core is repeated for every group."""
        gather = nn.Conv2d(self.spread.out_channels, self.outputs, 1, groups=self.o2, bias=self.bias is not None, device="meta")
        gather.weight = nn.Parameter(self.last.detach().repeat(self.o2, 1)[:, :, None, None])
        if self.bias is not None:
            gather.bias = nn.Parameter(self.bias.detach())
        return nn.Sequential(self.reduce, self.spread, gather).train(self.training)


def tt_svd(tensor: Tensor, ranks: tuple[int, int]) -> tuple[Tensor, ...]:
    """Cores (d1, r1), (r1, d2, r2), (r2, d3) of a tensor (d1, d2, d3); ranks above its own are filled with zeros."""
    (d1, d2, d3), (r1, r2) = tensor.shape, ranks
    first, rest = _split(tensor.reshape(d1, d2 * d3), r1)
    middle, last = _split(rest.reshape(r1 * d2, d3), r2)
    return _evened(first, middle.reshape(r1, d2, r2), last)


def _split(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Orthogonal columns and what multiplies them: the best two factors of inner size `rank`."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    columns, rows = left[:, :rank], values[:rank, None] * right[:rank]
    missing = rank - columns.shape[1]
    return F.pad(columns, (0, missing)), F.pad(rows, (0, 0, 0, missing))


def _evened(*cores: Tensor) -> tuple[Tensor, ...]:
    """The same product with cores of equal norm, so that one learning rate suits all."""
    norms = [float(core.norm()) for core in cores]
    mean = float(torch.tensor(norms, dtype=torch.double).clamp(min=1e-30).log().mean().exp())
    return tuple(core * (mean / norm) if norm > 0 else core for core, norm in zip(cores, norms, strict=True))
