"""Which architecture is it to be? Gates that are open or closed, from what each is worth, within a budget."""

from __future__ import annotations

import torch
from torch import Tensor

from adjcompress.models.graph import GraphNetwork
from adjcompress.supernets.architecture import Reach
from adjcompress.supernets.costs import Cost, parts_of


def decided_gates(reach: Reach, cost: Cost, limit: float, worth: Tensor) -> Tensor:
    """Gates, bool (gates,), of an architecture that reaches the output and costs at most `limit` of the whole, if one is found.

    From the whole network the gates worth least are closed, but those without which the output is not reached, until the
    cost is within the limit. Where it never is, what they left is a dear way to the output, and the `least` architecture is
    begun with. Then the gates worth most are opened again where there is room. `worth`: of every gate, (gates,).
    """
    gates = torch.ones(len(worth), dtype=torch.bool)
    order = worth.argsort().tolist()
    for gate in order:
        if _part(reach, cost, gates) <= limit:
            break
        _close_(reach, gates, gate)
    part = _part(reach, cost, gates)
    if part > limit and (other := _part(reach, cost, cheapest := _cheapest(reach, cost))) < part:
        gates, part = cheapest, other
    opened = True
    while opened:  # a gate may be of use only once others are open
        opened = False
        for gate in (gate for gate in reversed(order) if not gates[gate]):
            gates[gate] = True
            larger = _part(reach, cost, gates)
            if part < larger <= limit:
                part, opened = larger, True
            else:
                gates[gate] = False
    return gates


def least(network: GraphNetwork, cost: Cost) -> float:
    """The least cost that was found of an architecture that reaches the output.

    One in which no gate can be closed any more, the most expensive gates closed first: on a graph of chains side by side it
    is the least there is; where gates share nodes there may be a cheaper one.
    """
    reach = Reach(network.graph)
    return _part(reach, cost, _cheapest(reach, cost)) * cost.full


def _cheapest(reach: Reach, cost: Cost) -> Tensor:
    """The gates of which none can be closed any more, the most expensive ones closed first."""
    graph = reach.graph
    own = torch.ones(len(graph.nodes), dtype=torch.double) if cost.per_node is None else cost.per_node
    prices = dict.fromkeys(reach.gates, 0.0)
    for node, price in zip(graph.nodes, own.tolist(), strict=True):
        if node.gate is not None:
            prices[node.gate] += price
    gates = torch.ones(len(prices), dtype=torch.bool)
    for gate in torch.tensor(list(prices.values())).argsort(descending=True).tolist():
        _close_(reach, gates, gate)
    return gates


def _close_(reach: Reach, gates: Tensor, gate: int) -> None:
    """Close a gate, unless the output is not reached then."""
    gates[gate] = False
    gates[gate] = not bool(reach.active(gates[None])[0, -1])


def _part(reach: Reach, cost: Cost, gates: Tensor) -> float:
    return float(parts_of(cost, reach.active(gates[None]))[0])
