"""What will a network cost whose widths are not decided yet?

A choice gives every free channel group a probability for each of its candidate widths: p, (groups, candidates), its rows
padded with zeros. Groups choose independently, so every cost has an expected value in closed form, which is differentiable
and, where p is one-hot, the cost of the sliced network itself: MACs and parameters to the integer, latency as the table
predicts it. Each layer counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adjcompress.cost import LatencyTable, layer_shapes
from adjcompress.errors import AdjCompressError
from adjcompress.widths import Candidates
from adjcompress.widths.channels import Convolution
from adjcompress.widths.planning import carriers

Choices = NDArray[np.int64]
_KNOTS = 9  # widths between which the time of a layer is interpolated that several groups feed


class ExpectedCost(Protocol):
    """One cost of a network as a function of the widths that its groups choose."""

    name: str
    full: float
    """The cost of the full network, in MACs, parameters or milliseconds."""

    def expected(self, choice: Tensor) -> Tensor:
        """The expected cost, a scalar in double precision, of independent choices (groups, candidates)."""

    def exact(self, choices: Choices) -> NDArray[np.float64]:
        """The costs (n,) of n decided networks: `choices` (n, groups) holds the numbers of the candidates."""


class Sizes:
    """How many entries the parameters of a network have, given its groups' choices.

    A parameter has as many entries as the product of its lengths; a length is what no free group decides, and for each group
    the entries that it keeps. One dimension beyond the first two may be cut, in place of the first.
    """

    def __init__(self, network: nn.Module, candidates: Sequence[Candidates]) -> None:
        free = [each for each in candidates if each.free]
        parameters = dict(network.named_parameters())
        self.rows = {name: row for row, name in enumerate(parameters)}
        of_parameter = {id(parameter): row for row, parameter in enumerate(parameters.values())}
        layers = ((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear))
        weights = ((name, of_parameter.get(id(module.weight))) for name, module in layers)
        self._weight_rows = {name: row for name, row in weights if row is not None}
        self.counts_of = [len(each.widths) for each in free]
        shape = (2, len(parameters), len(free), max(self.counts_of))
        kept = np.zeros(shape)  # (dimension, parameter, group, candidate): entries that the group keeps there
        fixed = np.ones(shape[:2])
        inner = np.ones(len(parameters))
        for name, row in self.rows.items():
            sizes = parameters[name].shape
            fixed[: len(sizes[:2]), row] = sizes[:2]
            inner[row] = sizes[2:].numel()
        for number, each in enumerate(free):
            for name, dim, axis in carriers(network, each.group):
                if name not in self.rows:
                    continue  # statistics and selections are no parameters
                row, size = self.rows[name], parameters[name].shape[dim]
                if dim > 1:  # a layer scale (1, 1, C)
                    fixed[:, row], inner[row], dim = (size, 1), parameters[name].numel() // size, 0
                fixed[dim, row] -= len(axis.channel)
                kept[dim, row, number, : len(each.widths)] += np.searchsorted(np.sort(axis.channel), each.widths)
        self.arrays = (kept, fixed, inner)
        self.kept, self.fixed, self.inner = torch.from_numpy(kept), torch.from_numpy(fixed), torch.from_numpy(inner)
        on_both_sides = (self.kept.amax(3) > 0).all(0)  # (parameter, group)
        self.tied = on_both_sides.any(1).nonzero()[:, 0]

    def to_(self, device: torch.device) -> None:
        """Move what `expected` reads to the device of the choices, once."""
        if self.kept.device != device:
            self.kept, self.fixed = self.kept.to(device), self.fixed.to(device)
            self.inner, self.tied = self.inner.to(device), self.tied.to(device)

    def weight_row(self, layer: str) -> int:
        """The row of a layer's weight, which layers may share."""
        if layer not in self._weight_rows:
            raise AdjCompressError(
                f"Layer {layer} makes its weight from other parameters, so a width search cannot count it. Make it a plain one "
                "first, as with torch.nn.utils.parametrize.remove_parametrizations."
            )
        return self._weight_rows[layer]

    def lengths(self, choice: Tensor) -> Tensor:
        """Expected lengths (2, parameters) of the first two dimensions."""
        self.to_(choice.device)
        return self.fixed + torch.einsum("stgk,gk->st", self.kept, choice)

    def expected(self, choice: Tensor) -> Tensor:
        """Expected entries (parameters,): E[a b] = E[a] E[b] + Cov(a, b), and only a group on both sides has a covariance."""
        first, second = self.lengths(choice)
        product = first * second
        if len(self.tied):
            a, b = self.kept[:, self.tied]
            together = torch.einsum("tgk,gk->tg", a * b, choice)
            apart = torch.einsum("tgk,gk->tg", a, choice) * torch.einsum("tgk,gk->tg", b, choice)
            product = product.index_add(0, self.tied, (together - apart).sum(1))
        return product * self.inner

    def exact_lengths(self, choices: Choices) -> NDArray[np.float64]:
        """Lengths (n, 2, parameters) in n decided networks."""
        whole, fixed, _ = self.arrays
        kept = whole.reshape(-1, *whole.shape[2:])  # (2 * parameters, groups, candidates)
        one_hot = np.zeros((len(choices), *kept.shape[1:]))
        np.put_along_axis(one_hot, choices[:, :, None], 1.0, axis=2)
        lengths = one_hot.reshape(len(choices), -1) @ kept.reshape(len(kept), -1).T
        result: NDArray[np.float64] = lengths.reshape(len(choices), 2, -1) + fixed
        return result


class ExpectedEntries:
    """A cost that is a weighted sum of the entries of the parameters: each counts once for every position it is used at."""

    def __init__(self, name: str, sizes: Sizes, uses: NDArray[np.float64], full: int) -> None:
        self.name, self.sizes, self.full = name, sizes, float(full)
        self._uses, self._uses_there = uses, torch.from_numpy(uses)

    def expected(self, choice: Tensor) -> Tensor:
        self._uses_there = self._uses_there.to(choice.device)
        return self.sizes.expected(choice) @ self._uses_there

    def exact(self, choices: Choices) -> NDArray[np.float64]:
        lengths = self.sizes.exact_lengths(choices)
        result: NDArray[np.float64] = (lengths[:, 0] * lengths[:, 1] * self.sizes.arrays[2]) @ self._uses
        return result


def parameters_cost(network: nn.Module, sizes: Sizes) -> ExpectedEntries:
    """The number of parameters, those of batch norms and biases included."""
    return ExpectedEntries("params", sizes, np.ones(len(sizes.rows)), sum(each.numel() for each in network.parameters()))


def macs_cost(network: nn.Module, sizes: Sizes, example: Tensor) -> ExpectedEntries:
    """MACs for one image of `example` (N, C, H, W): every weight of a layer works at every position of its output."""
    for name, module in network.named_modules():
        if isinstance(module, Convolution) and not isinstance(module, nn.Conv2d):
            raise AdjCompressError(
                f"Layer {name} is a {type(module).__name__}: a width search counts two-dimensional convolutions and linear "
                "layers. Give the widths, with --method adjoined."
            )
    uses = np.zeros(len(sizes.rows))
    full = 0
    for layer in layer_shapes(network, example):
        positions = layer.shape.size[0] if layer.shape.kind == "linear" else int(np.prod(layer.shape.output_size))
        uses[sizes.weight_row(layer.name)] += positions
        full += positions * network.get_submodule(layer.name).weight.numel()  # type: ignore[operator]
    return ExpectedEntries("macs", sizes, uses, full)


class ExpectedLatency:
    """Milliseconds that a latency table predicts.

    A layer between two groups takes the mean of its measured times over both choices. Where several groups feed a layer, as
    after a concatenation, its time is interpolated at the expected width, and set right by the table's own value at the
    likeliest choice, the more the surer that is: not at all where a candidate is not likelier than all others together, so that
    it never jumps. What the table lacks raises an AdjCompressError that says how to measure it. `doubt`: why not to trust the
    table, if so.
    """

    name = "latency"

    def __init__(self, network: nn.Module, sizes: Sizes, table: LatencyTable, example: Tensor) -> None:
        self.sizes, self.table = sizes, table
        self.layers = layer_shapes(network, example)
        self.weights = [sizes.weight_row(layer.name) for layer in self.layers]
        self.full, self.doubt = table.predict_layers(self.layers).total_ms, table.doubt(self.layers)
        self._known: dict[tuple[int, int, int], float] = {}
        self.rest = table.rest_of(self.layers)
        self._sides = [self._side(number) for number in range(len(self.layers))]
        self._times = [self._grid(number) for number in range(len(self.layers))]

    def expected(self, choice: Tensor) -> Tensor:
        lengths = self.sizes.lengths(choice)
        total = lengths.new_tensor(self.rest.base_ms)
        for number, layer in enumerate(self.layers):
            outputs = lengths[0, self.weights[number]]
            total = total + self.rest.element_ms * outputs * int(np.prod(layer.shape.output_size))
            total = total + self._layer_ms(number, choice, lengths)
        return total + self._left_by_interpolation(choice)

    @torch.no_grad()
    def _left_by_interpolation(self, choice: Tensor) -> Tensor:
        """What the table says of the likeliest choice beyond what was interpolated for it."""
        layers = [number for number, sides in enumerate(self._sides) if any(side.interpolated for side in sides)]
        left = choice.new_zeros(())
        if layers:
            decided = torch.zeros_like(choice).scatter_(1, choice.argmax(1, keepdim=True), 1.0)
            lengths, widths = self.sizes.lengths(decided), self._widths(choice.argmax(1).cpu().numpy()[None])[0]
            sure = (2 * choice.amax(1) - 1).clamp(min=0)
            for number in layers:
                groups = sorted({group for side in self._sides[number] for group in side.groups})
                apart = self._ms(number, *widths[number]) - self._layer_ms(number, decided, lengths)
                left = left + sure[groups].prod() * apart
        return left

    def exact(self, choices: Choices) -> NDArray[np.float64]:
        widths = self._widths(choices)  # (n, layers, 2)
        positions = np.array([np.prod(layer.shape.output_size) for layer in self.layers])
        total = self.rest.base_ms + self.rest.element_ms * (widths[:, :, 1] @ positions)
        for number in range(len(self.layers)):
            pairs, which = np.unique(widths[:, number], axis=0, return_inverse=True)
            total += np.array([self._ms(number, *pair) for pair in pairs])[which.reshape(-1)]
        return total

    def _layer_ms(self, number: int, choice: Tensor, lengths: Tensor) -> Tensor:
        inputs, outputs = self._sides[number]
        if self._times[number].device != choice.device:
            self._times[number] = self._times[number].to(choice.device)
        times, row = self._times[number], self.weights[number]
        if self._is_tied(number):
            return outputs.weights(choice, lengths[0, row]) @ times.diagonal()
        return inputs.weights(choice, lengths[1, row]) @ times @ outputs.weights(choice, lengths[0, row])

    def _is_tied(self, number: int) -> bool:
        """Whether one choice decides both sides of a layer, as of a depthwise convolution."""
        inputs, outputs = self._sides[number]
        return self.layers[number].shape.tied or (inputs.group is not None and inputs.group == outputs.group)

    def _ms(self, number: int, channels_in: float, channels_out: float) -> float:
        key = (number, int(channels_in), int(channels_out))
        if key not in self._known:
            self._known[key] = self.table.layer_ms(self.layers[number].shape, key[1], key[2])
        return self._known[key]

    def _widths(self, choices: Choices) -> NDArray[np.float64]:
        """Inputs and outputs (n, layers, 2) of every layer in n decided networks."""
        lengths = self.sizes.exact_lengths(choices)[:, :, self.weights]
        outputs, inputs = lengths[:, 0], lengths[:, 1]
        for number, layer in enumerate(self.layers):
            if layer.shape.tied:
                inputs[:, number] = outputs[:, number] / layer.shape.group[1] * layer.shape.group[0]
        return np.stack([inputs, outputs], 2)

    def _side(self, number: int) -> tuple[_Side, _Side]:
        row = self.weights[number]
        outputs = _Side.of(self.sizes, 0, row, self.table.grid.block_channels)
        if not self.layers[number].shape.tied:
            return _Side.of(self.sizes, 1, row, self.table.grid.block_channels), outputs
        ins, outs = self.layers[number].shape.group
        return replace(outputs, widths=tuple(width // outs * ins for width in outputs.widths)), outputs

    def _grid(self, number: int) -> Tensor:
        """Times (inputs, outputs) of a layer at the widths of both sides; of one group on both, those that can be."""
        inputs, outputs = self._sides[number]
        tied = self._is_tied(number)
        rows = [
            [self._ms(number, a, b) if not tied or i == o else 0.0 for o, b in enumerate(outputs.widths)]
            for i, a in enumerate(inputs.widths)
        ]
        return torch.tensor(rows, dtype=torch.double)


@dataclass(frozen=True)
class _Side:
    """The widths that the inputs or outputs of a layer may have: one, those of one `group`, or knots to interpolate between."""

    widths: tuple[int, ...]
    groups: tuple[int, ...] = ()

    @property
    def group(self) -> int | None:
        """The group that alone decides."""
        return self.groups[0] if len(self.groups) == 1 else None

    @property
    def interpolated(self) -> bool:
        return len(self.groups) > 1

    @classmethod
    def of(cls, sizes: Sizes, dim: int, row: int, block: int) -> _Side:
        kept, fixed = sizes.arrays[0][dim, row], int(sizes.arrays[1][dim, row])
        groups = np.flatnonzero(kept.max(1) > 0).tolist()
        if not groups:
            return cls((fixed,))
        if len(groups) == 1:
            own = kept[groups[0], : sizes.counts_of[groups[0]]].tolist()
            return cls(tuple(fixed + int(count) for count in own), tuple(groups))
        least, most = fixed + int(kept[:, 0].sum()), fixed + int(kept.max(1).sum())
        between = {round(width / block) * block for width in np.linspace(least, most, _KNOTS).tolist()}
        return cls(tuple(sorted({least, most, *(width for width in between if least < width < most)})), tuple(groups))

    def weights(self, choice: Tensor, length: Tensor) -> Tensor:
        """How much each of the widths counts, (widths,); differentiable."""
        if self.group is not None:
            return choice[self.group, : len(self.widths)]
        if not self.interpolated:
            return length.new_ones(1)
        knots = length.new_tensor(self.widths)
        after = int(torch.searchsorted(knots, length.detach()).clamp(1, len(knots) - 1))
        share = (length - knots[after - 1]) / (knots[after] - knots[after - 1])
        weights = length.new_zeros(len(knots))
        return weights.index_put((torch.tensor([after - 1, after], device=length.device),), torch.stack([1 - share, share]))
