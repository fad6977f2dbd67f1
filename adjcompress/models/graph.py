"""How does a network run that is a graph of layers, given as plain data?

Every node sums what it takes and applies its layer. Nodes stand in an order in which each comes after its inputs; the first
takes the images, the last gives the logits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from adjcompress.errors import AdjCompressError
from adjcompress.tensors import can_name_a_part

IMAGES = "images"


@dataclass(frozen=True)
class Node:
    """One layer of a graph.

    `inputs`: the nodes that it sums, or "images". `gate`: the name of the gate by which a search can close it, shared by the
    nodes that open and close together; None: always there. `cycles`: what it costs in a distributed computation, 1 or 0.
    `place`: its column and row in a drawing, where those are known.
    """

    name: str
    inputs: tuple[str, ...]
    gate: str | None = None
    cycles: int = 1
    place: tuple[int, int] | None = None


@dataclass(frozen=True)
class Graph:
    """Nodes in the order in which they run; the last is the output."""

    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        check_graph(self.nodes)

    @property
    def gates(self) -> tuple[str, ...]:
        """The names of the gates, in the order of their first nodes."""
        return tuple(dict.fromkeys(node.gate for node in self.nodes if node.gate is not None))

    @property
    def output(self) -> str:
        return self.nodes[-1].name


class GraphNetwork(nn.Module):
    """A network of a graph, with all of its gates open: (N, 3, H, W) -> (N, classes), or (N, classes, H, W)."""

    def __init__(self, graph: Graph, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        missing = [node.name for node in graph.nodes if node.name not in layers]
        if missing or len(layers) != len(graph.nodes):
            raise AdjCompressError(
                f"A graph network needs one layer for each node; nodes without: {', '.join(missing) or 'none'}."
            )
        self.graph = graph
        self.layers = nn.ModuleDict({node.name: layers[node.name] for node in graph.nodes})

    def forward(self, images: Tensor) -> Tensor:
        made = {IMAGES: images}
        for node in self.graph.nodes:
            made[node.name] = self.layers[node.name](summed([made[name] for name in node.inputs]))
        return made[self.graph.output]

    def restricted(self, names: Collection[str]) -> GraphNetwork:
        """A network of the nodes named, of the same layers; their gates stay open.

        Names that the graph does not have, and nodes that do not lead from the images to the output, are AdjCompressErrors.
        """
        unknown = sorted(set(names) - {node.name for node in self.graph.nodes})
        if unknown:
            raise AdjCompressError(f"{', '.join(unknown[:4])}: no such nodes in this graph of {len(self.graph.nodes)}.")
        kept = [
            replace(node, inputs=tuple(name for name in node.inputs if name in names or name == IMAGES), gate=None)
            for node in self.graph.nodes
            if node.name in names
        ]
        return GraphNetwork(Graph(tuple(kept)), {node.name: self.layers[node.name] for node in kept})


def summed(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one shape; a single one is itself."""
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


def check_graph(nodes: Sequence[Node]) -> None:
    """Refuse a graph with a name twice, an unknown input, a cycle, a dead end, or no way from the images to the output."""
    names = [node.name for node in nodes]
    if not nodes:
        raise AdjCompressError("A graph needs at least one node.")
    for name in names:
        if names.count(name) > 1 or name == IMAGES or not can_name_a_part(name):
            raise AdjCompressError(
                f"Node {name!r}: names are given once, are not empty, have no dot, and are neither {IMAGES!r} nor a word of "
                "torch.nn's own, such as 'train'."
            )
    known = {IMAGES}
    for node in nodes:
        if node.cycles not in (0, 1):
            raise AdjCompressError(f"Node {node.name} takes {node.cycles} cycles: a layer takes 1, an identity 0.")
        if not node.inputs:
            raise AdjCompressError(f"Node {node.name} takes nothing: it needs at least one input.")
        for name in node.inputs:
            if name not in (IMAGES, *names):
                raise AdjCompressError(f"Node {node.name} takes {name}, which is no node.")
            if name not in known:
                raise AdjCompressError(f"Node {node.name} takes {name}, which comes after it: a cycle, or nodes out of order.")
        known.add(node.name)
    needed = {names[-1]}
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.inputs)
    for name in names:
        if name not in needed:
            raise AdjCompressError(f"Node {name} is a dead end: nothing that reaches the output {names[-1]} takes it.")
    if IMAGES not in needed:
        raise AdjCompressError(f"The output {names[-1]} is not reached from the images.")
