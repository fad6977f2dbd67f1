"""Which nodes of a graph does an architecture run: those whose gates are open, that see the images and reach the output?"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from adjcompress.models.graph import IMAGES, Graph


class Reach:
    """Reachability in one graph, for many architectures at once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.gates = graph.gates
        place = {node.name: number for number, node in enumerate(graph.nodes)}
        number = {gate: position for position, gate in enumerate(self.gates)}
        self._gate = [None if node.gate is None else number[node.gate] for node in graph.nodes]
        self._inputs = [[place[name] for name in node.inputs if name != IMAGES] for node in graph.nodes]
        self._sees = [IMAGES in node.inputs for node in graph.nodes]

    def active(self, gates: Tensor) -> Tensor:
        """Which nodes run: gates, bool (k, gates), to nodes, bool (k, nodes). None where the output is not reached.

        A node runs where its gate is open, it sees the images through nodes that run, and the output sees it.
        """
        count, every = len(self._inputs), (1 << len(gates)) - 1
        is_open = _as_numbers(gates.cpu().numpy())
        alive = [0] * count
        for node in range(count):
            seen = every if self._sees[node] else 0
            for source in self._inputs[node]:
                seen |= alive[source]
            gate = self._gate[node]
            alive[node] = seen if gate is None else seen & is_open[gate]
        needed = [0] * count
        needed[-1] = alive[-1]
        for node in reversed(range(count)):
            for source in self._inputs[node]:
                needed[source] |= needed[node] & alive[source]
        return torch.from_numpy(_as_columns(needed, len(gates)))

    def names(self, active: Tensor) -> frozenset[str]:
        """The nodes of one architecture, bool (nodes,), by name."""
        return frozenset(node.name for node, runs in zip(self.graph.nodes, active.tolist(), strict=True) if runs)


def _as_numbers(columns: np.ndarray) -> list[int]:
    """Each column of a bool array (k, n) as a number of k bits: all architectures of a node in one operation.

    A step of a search asks for dozens of architectures three times; tensors of so few values took most of its own time.
    """
    packed = np.packbits(columns, axis=0, bitorder="little")
    return [int.from_bytes(column.tobytes(), "little") for column in packed.T]


def _as_columns(numbers: list[int], count: int) -> np.ndarray:
    """What `_as_numbers` was given, bool (count, n)."""
    packed = np.frombuffer(b"".join(number.to_bytes(-(-count // 8), "little") for number in numbers), np.uint8)
    return np.unpackbits(packed.reshape(len(numbers), -1), axis=1, count=count, bitorder="little").T.astype(bool)


def open_gates(graph: Graph, names: Collection[str]) -> Tensor:
    """Gates as bool (1, gates): open where named."""
    return torch.tensor([[gate in names for gate in graph.gates]])
