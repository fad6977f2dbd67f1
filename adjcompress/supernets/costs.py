"""What does an architecture in a super network cost?

MACs, parameters, milliseconds from a latency table or measured whole, cycles on n machines, or what a function says.
"""

from __future__ import annotations

import copy
import importlib
import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from adjcompress.cost import LatencyTable, count
from adjcompress.cost.layers import layer_shapes
from adjcompress.errors import AdjCompressError, first_line
from adjcompress.models.graph import IMAGES, Graph, GraphNetwork
from adjcompress.running import evaluating, watching
from adjcompress.supernets.architecture import Reach
from adjcompress.supernets.distributed import distributed_cost

_TRIED = 32
_RUNS = 4  # the first of them warms up
_REMEMBERED = 1000


class Cost(Protocol):
    """The cost of architectures in one network, and of all of it (`full`).

    `tried`: how many architectures' costs a step of a search may look at.
    """

    name: str
    full: float
    tried: int

    @property
    def per_node(self) -> Tensor | None:
        """What each node costs by itself, double (nodes,), where that can be told."""

    def of(self, active: Tensor) -> Tensor:
        """Which nodes run, bool (k, nodes) -> costs, double (k,)."""


class MacsCost:
    """MACs of the layers that run, and the additions of sums."""

    name = "macs"
    tried = _TRIED

    def __init__(self, network: GraphNetwork, example: Tensor) -> None:
        graph = network.graph
        self.per_node = _by_node(graph, [(layer.name, float(layer.macs)) for layer in count(network, example).per_layer])
        sizes = _input_sizes(network, example)
        self._sizes = torch.tensor([float(sizes[node.name]) for node in graph.nodes], dtype=torch.double)
        place = {node.name: number for number, node in enumerate(graph.nodes)}
        self._inputs = torch.zeros(len(graph.nodes), len(graph.nodes), dtype=torch.double)  # node, its input
        self._images = torch.tensor([float(IMAGES in node.inputs) for node in graph.nodes], dtype=torch.double)
        for node in graph.nodes:
            for name in node.inputs:
                if name != IMAGES:
                    self._inputs[place[node.name], place[name]] = 1
        self.full = float(self.of(torch.ones(1, len(graph.nodes), dtype=torch.bool))[0])

    def of(self, active: Tensor) -> Tensor:
        runs = active.double()
        taken = runs @ self._inputs.T + self._images  # how many inputs each node sums
        return runs @ self.per_node + (runs * self._sizes * (taken - 1).clamp(min=0)).sum(1)


class ParametersCost:
    """Parameters of the layers that run."""

    name = "params"
    tried = _TRIED

    def __init__(self, network: GraphNetwork) -> None:
        sizes = [sum(parameter.numel() for parameter in network.layers[node.name].parameters()) for node in network.graph.nodes]
        self.per_node = torch.tensor(sizes, dtype=torch.double)
        self.full = float(self.per_node.sum())

    def of(self, active: Tensor) -> Tensor:
        return active.double() @ self.per_node


class LatencyCost:
    """Milliseconds that a latency table predicts: its times of the layers that run, and the rest, as of the whole network.

    `doubt`: why not to trust the table, if so.
    """

    name = "latency"
    tried = _TRIED

    def __init__(self, network: GraphNetwork, table: LatencyTable, example: Tensor) -> None:
        layers = layer_shapes(network, example)
        rest = table.rest_of(layers)
        found = zip(layers, table.predict_layers(layers).per_layer, strict=True)
        times = [(layer.name, told.ms + rest.element_ms * layer.elements) for layer, told in found]
        self.per_node = _by_node(network.graph, times)
        self.doubt = table.doubt(layers)
        self._base = rest.base_ms
        self.full = float(self.per_node.sum()) + self._base

    def of(self, active: Tensor) -> Tensor:
        return active.double() @ self.per_node + self._base


class MeasuredCost:
    """Milliseconds that a whole architecture takes on this machine's CPU, by torch, on one image of `example` and one thread.

    The shortest of a few runs: another process can only lengthen one. The architectures measured last are remembered, so a
    search that comes back to one need not wait.
    """

    name = "latency"
    per_node = None
    tried = 8

    def __init__(self, network: GraphNetwork, example: Tensor) -> None:
        self._network = copy.deepcopy(network).cpu().float().eval()  # values do not matter
        self._image = example[:1].cpu().float()
        self._reach = Reach(network.graph)
        self._known: dict[frozenset[str], float] = {}
        self.full = self._ms(frozenset(node.name for node in network.graph.nodes))

    def of(self, active: Tensor) -> Tensor:
        return torch.tensor([self._ms(self._reach.names(each)) for each in active.cpu()], dtype=torch.double)

    def _ms(self, names: frozenset[str]) -> float:
        if names not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.pop(next(iter(self._known)))  # the oldest
            architecture, threads = self._network.restricted(names).eval(), torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                with torch.no_grad():
                    self._known[names] = min(self._once(architecture) for _ in range(_RUNS))
            finally:
                torch.set_num_threads(threads)
        return self._known[names]

    def _once(self, architecture: GraphNetwork) -> float:
        start = time.perf_counter()
        architecture(self._image)
        return 1000 * (time.perf_counter() - start)


class CyclesCost:
    """Cycles of a distributed computation on `machines` machines."""

    name = "cycles"
    tried = _TRIED

    def __init__(self, network: GraphNetwork, machines: int) -> None:
        self._graph, self._reach, self._machines = network.graph, Reach(network.graph), machines
        self.per_node = torch.tensor([float(node.cycles) for node in network.graph.nodes], dtype=torch.double)
        self.full = float(distributed_cost(network.graph, machines))

    def of(self, active: Tensor) -> Tensor:
        names = [self._reach.names(each) for each in active.cpu()]
        return torch.tensor([float(distributed_cost(self._graph, self._machines, each)) for each in names], dtype=torch.double)


class OwnCost:
    """A function of the user's own, "package.module:function": it takes the names of the nodes that run and gives a number."""

    name = "cost"
    tried = _TRIED
    per_node = None

    def __init__(self, network: GraphNetwork, function: str) -> None:
        self._function, self._called, self._reach = _imported(function), function, Reach(network.graph)
        self.full = self._checked([node.name for node in network.graph.nodes])
        if self.full == 0:
            raise AdjCompressError(f"The cost {function} of the whole network is 0, so no part of it can be a budget.")

    def of(self, active: Tensor) -> Tensor:
        return torch.tensor([self._checked(sorted(self._reach.names(each))) for each in active.cpu()], dtype=torch.double)

    def _checked(self, names: Sequence[str]) -> float:
        try:
            value = self._function(names)
        except Exception as error:  # whatever the user's function raises
            raise AdjCompressError(f"The cost {self._called} failed on {len(names)} nodes ({_told(error)}).") from error
        value = value.item() if hasattr(value, "item") else value  # of torch or NumPy
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise AdjCompressError(
                f"The cost {self._called} gave {value!r} for {len(names)} nodes: a number from 0 on is expected."
            )
        return float(value)


def parts_of(cost: Cost, active: Tensor) -> Tensor:
    """Costs as parts of the whole network's, double (k,), of nodes that run, bool (k, nodes): 1 without way to the output."""
    found = torch.ones(len(active), dtype=torch.double)
    reached = active[:, -1].cpu()
    if bool(reached.any()):
        found[reached] = cost.of(active[reached]).cpu() / cost.full
    return found


def _by_node(graph: Graph, layers: Sequence[tuple[str, float]]) -> Tensor:
    """What the layers of each node add up to, double (nodes,), from amounts by the layers' names in a GraphNetwork."""
    place = {node.name: number for number, node in enumerate(graph.nodes)}
    found = torch.zeros(len(place), dtype=torch.double)
    for name, amount in layers:
        found[place[name.split(".")[1]]] += amount
    return found


def _imported(name: str) -> Callable[[Sequence[str]], float]:
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever importing the user's module raises
        raise AdjCompressError(
            f"The cost {name!r} cannot be imported ({_told(error)}): package.module:function is expected."
        ) from error
    if not callable(found):
        raise AdjCompressError(f"The cost {name!r} is no function.")
    return found


def _input_sizes(network: GraphNetwork, example: Tensor) -> dict[str, int]:
    """Elements of what each node's layer takes, for one image."""
    sizes: dict[str, int] = {}

    def see(name: str, values: Tensor, _output: Tensor) -> None:
        sizes[name] = values[0].numel()

    with evaluating(network), watching(dict(network.layers.items()), see):
        network(torch.zeros(1, *example.shape[1:]).to(next(network.parameters())))
    return sizes


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
