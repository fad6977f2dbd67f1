"""Tucker: the matrix, folded into three dimensions, as a small core multiplied by a factor on each side. arXiv:1906.00859."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from adjcompress.substitutes.dimensions import Dims, balanced, rank
from adjcompress.substitutes.layer import Pair, Reconstructed, fresh_matrix

_SWEEPS = 5


class Tucker(Reconstructed):
    """W flattened out-major and folded to (d1, d2, d3) = core (s1, s2, s3) times U_k (d_k, s_k); `setting` s in (0, 1].

    s_k = max(1, round(s d_k)). The published counts are of a core that is itself a tensor train: `published_parameters`.
    """

    name = "tucker"

    def __init__(self, inputs: int, outputs: int, setting: float, stride: Pair = (1, 1), bias: bool = False) -> None:
        super().__init__(inputs, outputs, setting, stride, bias)
        self.dims = balanced(outputs, inputs)
        sizes = self.sizes(inputs, outputs, setting)
        self.core = nn.Parameter(torch.empty(sizes))
        self.factors = nn.ParameterList(torch.empty(d, s) for d, s in zip(self.dims, sizes, strict=True))
        if not self.core.is_meta:
            self.approximate_(fresh_matrix(inputs, outputs, self.core))

    @staticmethod
    def sizes(inputs: int, outputs: int, setting: float) -> Dims:
        d1, d2, d3 = (rank(setting, d) for d in balanced(outputs, inputs))
        return d1, d2, d3

    @classmethod
    def parameter_count(cls, inputs: int, outputs: int, setting: float) -> int:
        dims, sizes = balanced(outputs, inputs), cls.sizes(inputs, outputs, setting)
        return sum(d * s for d, s in zip(dims, sizes, strict=True)) + math.prod(sizes)

    @classmethod
    def published_parameters(cls, inputs: int, outputs: int, setting: float) -> int:
        """The published count: the core as an untruncated tensor train, q2 = s3 and q1 = min(d1, s2 s3)."""
        dims, (s1, s2, s3) = balanced(outputs, inputs), cls.sizes(inputs, outputs, setting)
        q1, q2 = min(dims[0], s2 * s3), s3
        return sum(d * s for d, s in zip(dims, (s1, s2, s3), strict=True)) + s1 * q1 + q1 * s2 * q2 + q2 * s3

    def matrix(self) -> Tensor:
        first, second, third = self.factors
        s1, s2, s3 = self.core.shape
        folded = (first @ self.core.reshape(s1, s2 * s3)).reshape(-1, s2, s3)  # (d1, s2, s3)
        return (second @ folded @ third.T).reshape(self.outputs, self.inputs)

    @torch.no_grad()
    def approximate_(self, matrix: Tensor) -> None:
        """Higher-order orthogonal iteration from the truncated higher-order singular value decomposition."""
        tensor, sizes = matrix.reshape(self.dims), self.core.shape
        factors = [_leading(_unfolded(tensor, mode), size) for mode, size in enumerate(sizes)]
        for _ in range(_SWEEPS):
            for mode, size in enumerate(sizes):
                projected = tensor
                for other in range(3):
                    if other != mode:
                        projected = _times(projected, factors[other].T, other)
                factors[mode] = _leading(_unfolded(projected, mode), size)
        core = tensor
        for mode in range(3):
            core = _times(core, factors[mode].T, mode)
        self.core.copy_(core)
        for parameter, factor in zip(self.factors, factors, strict=True):
            parameter.copy_(factor)


def _unfolded(tensor: Tensor, mode: int) -> Tensor:
    """(d_mode, product of the others)"""
    return tensor.movedim(mode, 0).flatten(1)


def _times(tensor: Tensor, matrix: Tensor, mode: int) -> Tensor:
    """The product of a tensor with a matrix (rows, d_mode) along one mode."""
    return torch.tensordot(matrix, tensor, dims=([1], [mode])).movedim(0, mode)


def _leading(matrix: Tensor, count: int) -> Tensor:
    """The leading left singular vectors (d, count), from the small Gram matrix."""
    _, vectors = torch.linalg.eigh(matrix.double() @ matrix.double().T)  # ascending
    return vectors[:, -count:].flip(1).to(matrix.dtype)
