"""Which nodes of a graph does an architecture run: those whose gates are open, that see the images and reach the output?"""

from __future__ import annotations

from collections.abc import Collection

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
        self._latest: tuple[Tensor, Tensor] | None = None  # a step of a search asks for the same gates up to three times

    def active(self, gates: Tensor) -> Tensor:
        """Which nodes run: gates, bool (k, gates), to nodes, bool (k, nodes). None where the output is not reached.

        A node runs where its gate is open, it sees the images through nodes that run, and the output sees it.
        """
        gates = gates.cpu()
        if self._latest is None or not torch.equal(self._latest[0], gates):
            self._latest = gates.clone(), self._active(gates)
        return self._latest[1].clone()

    def _active(self, gates: Tensor) -> Tensor:
        count = len(self.graph.nodes)
        alive = torch.zeros(len(gates), count, dtype=torch.bool)
        for node in range(count):
            seen = alive[:, self._inputs[node]].any(1) if self._inputs[node] else torch.zeros(len(gates), dtype=torch.bool)
            if self._sees[node]:
                seen = torch.ones_like(seen)
            gate = self._gate[node]
            alive[:, node] = seen if gate is None else seen & gates[:, gate]
        needed = torch.zeros_like(alive)
        needed[:, -1] = alive[:, -1]
        for node in reversed(range(count)):
            for source in self._inputs[node]:
                needed[:, source] |= needed[:, node] & alive[:, source]
        return needed

    def names(self, active: Tensor) -> frozenset[str]:
        """The nodes of one architecture, bool (nodes,), by name."""
        return frozenset(node.name for node, runs in zip(self.graph.nodes, active.tolist(), strict=True) if runs)


def open_gates(graph: Graph, names: Collection[str]) -> Tensor:
    """Gates as bool (1, gates): open where named."""
    return torch.tensor([[gate in names for gate in graph.gates]])
