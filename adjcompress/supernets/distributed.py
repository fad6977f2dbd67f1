"""How many cycles does a network take on n machines? arXiv:1706.00046: the distributed computation cost.

In every cycle up to n layers run whose inputs are done, taken in a topological order: a greedy list schedule. Its value
depends on how ties in that order are broken; here as in the published ones, by a depth-first walk that goes to the last
successor first.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Collection
from dataclasses import dataclass

from torch import nn

from adjcompress.errors import AdjCompressError
from adjcompress.models.graph import Graph, GraphNetwork, Node


@dataclass(frozen=True)
class Bounds:
    """What no schedule can go below, and what none can need: max(ceil(total / machines), critical path), total."""

    low: int
    high: int


def distributed_cost(network: GraphNetwork | Graph | nn.Module, machines: int, nodes: Collection[str] | None = None) -> int:
    """Cycles of the network, or of an architecture in it, the nodes named `nodes`, on `machines` machines.

    A layer costs 1, an identity 0. Of a graph of several hundred nodes it takes about a millisecond, and is kept.
    """
    graph = _graph(network)
    if machines < 1:
        raise AdjCompressError(f"A distributed computation needs at least 1 machine, not {machines}.")
    return _cycles(graph, machines, None if nodes is None else frozenset(nodes))


def distributed_bounds(
    network: GraphNetwork | Graph | nn.Module, machines: int, nodes: Collection[str] | None = None
) -> Bounds:
    """Between which values every schedule's cost lies; the lower one holds the critical path."""
    kept = _kept(_graph(network), nodes)
    path: dict[str, int] = {}
    for node in kept:
        path[node.name] = node.cycles + max((path[name] for name in node.inputs if name in path), default=0)
    total = sum(node.cycles for node in kept)
    return Bounds(max(-(-total // machines), path[kept[-1].name]), total)


@functools.lru_cache(maxsize=1024)
def _cycles(graph: Graph, machines: int, names: frozenset[str] | None) -> int:
    nodes = {node.name: node for node in _kept(graph, names)}
    successors: dict[str, list[str]] = {name: [] for name in nodes}
    waiting: dict[str, int] = {}
    for node in nodes.values():
        inputs = [name for name in node.inputs if name in nodes]
        waiting[node.name] = len(inputs)
        for name in inputs:
            successors[name].append(node.name)
    place = {name: position for position, name in enumerate(_order(successors))}
    ready: list[tuple[int, str]] = []

    def finish(done: list[str]) -> None:
        """Take what is done, and the identities that are done with it, off what waits."""
        while done:
            for name in successors[done.pop()]:
                waiting[name] -= 1
                if waiting[name] == 0 and nodes[name].cycles == 0:
                    done.append(name)
                elif waiting[name] == 0:
                    heapq.heappush(ready, (place[name], name))

    first = [name for name, count in waiting.items() if count == 0]
    for name in (name for name in first if nodes[name].cycles):
        heapq.heappush(ready, (place[name], name))
    finish([name for name in first if not nodes[name].cycles])
    cycles = 0
    while ready:
        run = [heapq.heappop(ready)[1] for _ in range(min(machines, len(ready)))]
        cycles += 1
        finish(run)
    return cycles


def _order(successors: dict[str, list[str]]) -> list[str]:
    """The reverse of the order in which an iterative depth-first walk finishes the nodes."""
    finished: dict[str, None] = {}
    for start in successors:
        stack = [start]
        while stack:
            name = stack[-1]
            new = [] if name in finished else [other for other in successors[name] if other not in finished]
            if new:
                stack.extend(new)
            else:
                finished.setdefault(name)
                stack.pop()
    return list(reversed(finished))


def _graph(network: GraphNetwork | Graph | nn.Module) -> Graph:
    if isinstance(network, Graph):
        return network
    graph = getattr(network, "graph", None)
    if not isinstance(graph, Graph):
        raise AdjCompressError(
            f"{type(network).__name__} is no graph of layers: a distributed cost is that of a resnet_fabric, a neural_fabric, "
            "or a GraphNetwork of your own."
        )
    return graph


def _kept(graph: Graph, names: Collection[str] | None) -> list[Node]:
    kept = [node for node in graph.nodes if names is None or node.name in names]
    if not kept or kept[-1].name != graph.output:
        raise AdjCompressError("The architecture does not reach the output, so it has no cost: open more gates.")
    return kept
