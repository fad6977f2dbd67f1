"""What does an architecture in a super network cost? MACs, parameters, cycles on n machines, or what a function says."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from adjcompress.cost import count
from adjcompress.errors import AdjCompressError
from adjcompress.models.graph import IMAGES, GraphNetwork
from adjcompress.supernets.architecture import Reach, open_gates
from adjcompress.supernets.distributed import distributed_cost


class Cost(Protocol):
    """The cost of architectures in one network, and of all of it (`full`)."""

    name: str
    full: float

    @property
    def per_node(self) -> Tensor | None:
        """What each node costs by itself, double (nodes,), where that can be told."""

    def of(self, active: Tensor) -> Tensor:
        """Which nodes run, bool (k, nodes) -> costs, double (k,)."""


class MacsCost:
    """MACs of the layers that run, and the additions of sums."""

    name = "macs"

    def __init__(self, network: GraphNetwork, example: Tensor) -> None:
        graph = network.graph
        by_layer = {layer.name: layer.macs for layer in count(network, example).per_layer}
        self.per_node = torch.tensor(
            [
                float(sum(macs for name, macs in by_layer.items() if name.startswith(f"layers.{node.name}.")
                          or name == f"layers.{node.name}"))
                for node in graph.nodes
            ],
            dtype=torch.double,
        )  # fmt: skip
        sizes = _input_sizes(network, example)
        self._sizes = torch.tensor([float(sizes[node.name]) for node in graph.nodes], dtype=torch.double)
        place = {node.name: number for number, node in enumerate(graph.nodes)}
        self._inputs = torch.zeros(len(graph.nodes), len(graph.nodes), dtype=torch.double)  # node, its input
        for node in graph.nodes:
            for name in node.inputs:
                if name != IMAGES:
                    self._inputs[place[node.name], place[name]] = 1
        self.full = float(self.of(torch.ones(1, len(graph.nodes), dtype=torch.bool))[0])

    def of(self, active: Tensor) -> Tensor:
        runs = active.double()
        taken = runs @ self._inputs.T  # how many inputs each node sums
        return runs @ self.per_node + (runs * self._sizes * (taken - 1).clamp(min=0)).sum(1)


class ParametersCost:
    """Parameters of the layers that run."""

    name = "params"

    def __init__(self, network: GraphNetwork) -> None:
        sizes = [sum(parameter.numel() for parameter in network.layers[node.name].parameters()) for node in network.graph.nodes]
        self.per_node = torch.tensor(sizes, dtype=torch.double)
        self.full = float(self.per_node.sum())

    def of(self, active: Tensor) -> Tensor:
        return active.double() @ self.per_node


class CyclesCost:
    """Cycles of a distributed computation on `machines` machines."""

    name = "cycles"

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
    per_node = None

    def __init__(self, network: GraphNetwork, function: str) -> None:
        self._function, self._called, self._reach = _imported(function), function, Reach(network.graph)
        self.full = self._checked([node.name for node in network.graph.nodes])
        if self.full == 0:
            raise AdjCompressError(f"The cost {function} of the whole network is 0, so no part of it can be a budget.")

    def of(self, active: Tensor) -> Tensor:
        return torch.tensor([self._checked(sorted(self._reach.names(each))) for each in active.cpu()], dtype=torch.double)

    def _checked(self, names: Sequence[str]) -> float:
        value = self._function(names)
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise AdjCompressError(
                f"The cost {self._called} gave {value!r} for {len(names)} nodes: a number from 0 on is expected."
            )
        return float(value)


def parts_of(cost: Cost, active: Tensor) -> Tensor:
    """Costs as parts of the whole network's, double (k,): nodes that run, bool (k, nodes). What does not reach the output: 1."""
    found = torch.ones(len(active), dtype=torch.double)
    reached = active[:, -1].cpu()
    if bool(reached.any()):
        found[reached] = cost.of(active[reached]).cpu() / cost.full
    return found


def cheapest(network: GraphNetwork, cost: Cost) -> float | None:
    """The least that an architecture costs which reaches the output: with the gates on the cheapest way open; None: unknown."""
    if cost.per_node is None:
        return None
    least: dict[str, tuple[float, frozenset[str]]] = {IMAGES: (0.0, frozenset())}
    for node, own in zip(network.graph.nodes, cost.per_node.tolist(), strict=True):
        before, gates = min((least[name] for name in node.inputs), key=lambda found: found[0])
        if node.gate is not None:  # the others are there in any case
            before, gates = before + own, gates | {node.gate}
        least[node.name] = (before, gates)
    reach = Reach(network.graph)
    _, gates = least[network.graph.output]
    return float(cost.of(reach.active(open_gates(network.graph, gates)))[0])


def _imported(name: str) -> Callable[[Sequence[str]], float]:
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise AdjCompressError(
            f"The cost {name!r} cannot be imported ({error}): package.module:function is expected."
        ) from error
    if not callable(found):
        raise AdjCompressError(f"The cost {name!r} is no function.")
    return found


def _input_sizes(network: GraphNetwork, example: Tensor) -> dict[str, int]:
    """Elements of what each node's layer takes, for one image."""
    sizes: dict[str, int] = {}
    hooks = []
    for name, layer in network.layers.items():

        def see(_module: object, inputs: tuple[Tensor, ...], name: str = name) -> None:
            sizes[name] = inputs[0][0].numel()

        hooks.append(layer.register_forward_pre_hook(see))
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *example.shape[1:]).to(next(network.parameters())))
    finally:
        for hook in hooks:
            hook.remove()
        network.train(training)
    return sizes
