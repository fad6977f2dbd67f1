"""ACDC: a product of layers that scale, transform by the cosine transform, scale and transform back. arXiv:1906.00859.

Each layer is X -> P(P(X diag(A) C^T) diag(D) C) on rows X, with C the orthonormal DCT-II of size N = max(inputs, outputs) and P
the riffle that takes even columns first. Inputs are repeated up to N, outputs folded by sums.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from adjcompress.errors import AdjCompressError
from adjcompress.substitutes.layer import Pair, Reconstructed

FFT_FROM = 320
"""From this size on the transform is faster by FFT than by a matrix product (benchmarks/substitute_step.py)."""
_SWEEPS, _ENOUGH = 6, 1e-3


class Acdc(Reconstructed):
    """`setting` L, the number of layers; 2 N L parameters. N = max(inputs, outputs) must be even.

    The published "ACDC_L" has L - 1 layers.
    """

    name = "acdc"
    setting_is = "layers"

    def __init__(self, inputs: int, outputs: int, setting: float, stride: Pair = (1, 1), bias: bool = False) -> None:
        super().__init__(inputs, outputs, setting, stride, bias)
        self.size = size = max(inputs, outputs)
        layers = int(setting)
        self.scale = nn.Parameter(torch.empty(layers, size).normal_(1, 0.01))  # A
        self.scale_transformed = nn.Parameter(torch.empty(layers, size).normal_(1, 0.01))  # D

    @classmethod
    def check(cls, inputs: int, outputs: int, setting: float) -> None:
        if not float(setting).is_integer() or setting < 1:
            raise AdjCompressError(f"acdc takes a whole number of layers from 1 on as its setting, not {setting:g}.")
        if max(inputs, outputs) % 2:
            raise AdjCompressError(
                f"acdc cannot replace a layer of {inputs} -> {outputs} channels: its size, the larger of the two, must be "
                "even. Leave the layer dense (--dense-layers) or choose another substitute."
            )

    @classmethod
    def parameter_count(cls, inputs: int, outputs: int, setting: float) -> int:
        return 2 * max(inputs, outputs) * int(setting)

    def matrix(self) -> Tensor:
        rows = self._repeated()
        for scale, transformed in zip(self.scale, self.scale_transformed, strict=True):
            rows = riffled(dct(rows * scale))
            rows = riffled(inverse_dct(rows * transformed))
        return self._folded(rows).T

    def _repeated(self) -> Tensor:
        """How inputs enter: (inputs, size), a 1 wherever column n is a copy of input n mod inputs."""
        columns = torch.arange(self.size, device=self.scale.device)
        rows = torch.arange(self.inputs, device=self.scale.device)
        return (columns[None] % self.inputs == rows[:, None]).to(self.scale.dtype)

    def _folded(self, rows: Tensor) -> Tensor:
        """(n, size) -> (n, outputs): column c is added to output c mod outputs."""
        padded = torch.nn.functional.pad(rows, (0, -self.size % self.outputs))
        return padded.view(len(rows), -1, self.outputs).sum(1)

    @torch.no_grad()
    def approximate_(self, matrix: Tensor) -> None:
        """Alternating least squares: the matrix is linear in each diagonal, which is solved for with the others held.

        A local optimum: there is no closed form. It ends when a sweep over all diagonals gains less than a thousandth.
        """
        target = matrix.detach().double().T  # (inputs, outputs)
        diagonals = [
            diagonal.detach().double().clone()
            for pair in zip(self.scale, self.scale_transformed, strict=True)
            for diagonal in pair
        ]
        moves = [riffled(transform(torch.eye(self.size, dtype=torch.double))) for transform in (dct, inverse_dct)]
        last = math.inf
        for _ in range(_SWEEPS):
            error = self._sweep_(diagonals, moves, target)
            if last - error <= _ENOUGH * float(target.square().sum()):
                break
            last = error
        for number in range(len(self.scale)):
            self.scale[number] = diagonals[2 * number]
            self.scale_transformed[number] = diagonals[2 * number + 1]

    def _sweep_(self, diagonals: list[Tensor], moves: list[Tensor], target: Tensor) -> float:
        """Solve for every diagonal once, first to last; return the squared error that is left."""
        after = [self._folded(torch.eye(self.size, dtype=torch.double))]  # behind each diagonal: (size, outputs)
        for number in reversed(range(len(diagonals))):
            is_last = number + 1 == len(diagonals)
            after.append(moves[number % 2] @ (after[-1] if is_last else diagonals[number + 1][:, None] * after[-1]))
        behind = after[:0:-1]
        before = self._repeated().double()  # (inputs, size)
        for number, diagonal in enumerate(diagonals):
            right = behind[number]
            normal = (before.T @ before) * (right @ right.T)
            wanted = (before.T @ target * right).sum(1)
            ridge = 1e-9 * normal.diagonal().mean() + 1e-30  # of a matrix of zeros too
            diagonal.copy_(torch.linalg.solve(normal + ridge * torch.eye(self.size, dtype=torch.double), wanted))
            before = (before * diagonal) @ moves[number % 2]
        return float((self._folded(before) - target).square().sum())


def riffled(rows: Tensor) -> Tensor:
    """Even columns, then odd ones: (n, N) -> (n, N)."""
    count, size = rows.shape
    return rows.view(count, size // 2, 2).transpose(1, 2).reshape(count, size)


def dct(rows: Tensor) -> Tensor:
    """The orthonormal DCT-II of every row (n, N)."""
    return _dct_by_fft(rows) if rows.shape[1] >= FFT_FROM else rows @ dct_matrix(rows.shape[1], rows).T


def inverse_dct(rows: Tensor) -> Tensor:
    """The inverse of `dct`."""
    return _inverse_by_fft(rows) if rows.shape[1] >= FFT_FROM else rows @ dct_matrix(rows.shape[1], rows)


def dct_matrix(size: int, like: Tensor) -> Tensor:
    """C (size, size): row k is cos(pi (2 n + 1) k / (2 size)), scaled to length 1.

    The angle is reduced as a whole number first, so that single precision is exact to its last bits.
    """
    k, n = torch.arange(size, device=like.device)[:, None], torch.arange(size, device=like.device)[None]
    turns = ((2 * n + 1) * k % (4 * size)).double()
    waves = torch.cos(turns * (math.pi / (2 * size))) * math.sqrt(2 / size)
    waves[0] = math.sqrt(1 / size)
    return waves.to(like.dtype)


def _dct_by_fft(rows: Tensor) -> Tensor:
    """Makhoul 1980: one real FFT of the row with its even entries first, its odd ones behind in reverse."""
    size = rows.shape[1]
    ordered = torch.cat([rows[:, ::2], rows[:, 1::2].flip(1)], 1)
    spectrum = torch.fft.fft(ordered)
    return (spectrum * _twiddle(rows)).real * _weights(rows) * math.sqrt(2 / size)


def _inverse_by_fft(rows: Tensor) -> Tensor:
    """The transpose of `_dct_by_fft`, which is its inverse."""
    size = rows.shape[1]
    weighted = rows * _weights(rows) * math.sqrt(2 / size)
    ordered = torch.fft.fft(weighted * _twiddle(rows)).real
    half = (size + 1) // 2
    result = torch.empty_like(rows)
    result[:, ::2], result[:, 1::2] = ordered[:, :half], ordered[:, half:].flip(1)
    return result


def _twiddle(rows: Tensor) -> Tensor:
    size = rows.shape[1]
    angle = torch.arange(size, device=rows.device, dtype=rows.dtype) * (-math.pi / (2 * size))
    return torch.complex(torch.cos(angle), torch.sin(angle))


def _weights(rows: Tensor) -> Tensor:
    weights = torch.ones(rows.shape[1], device=rows.device, dtype=rows.dtype)
    weights[0] = math.sqrt(1 / 2)
    return weights
