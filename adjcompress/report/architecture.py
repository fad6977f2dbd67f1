"""What does a run say of the architecture that was learnt in it?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adjcompress.errors import AdjCompressError
from adjcompress.models.graph import Graph, GraphNetwork
from adjcompress.report.deployed import number
from adjcompress.report.graphs import Drawing, drawing_of
from adjcompress.report.words import printable
from adjcompress.supernets import Reach, open_gates
from adjcompress.training import Run


@dataclass(frozen=True)
class Learnt:
    """How an architecture was learnt: epoch by epoch the chance of every gate, and costs as parts of the whole network's.

    `cost`: of which kind, "macs", "cycles on 2 machines".

    `drawn`: the mean cost of drawn architectures; `decided`: that of the one decided on, by epoch, where it was connected.
    `drawing` and `running`, the gates of the nodes that run at the end: None where the network cannot be built again.
    """

    cost: str
    epochs: tuple[int, ...]
    chances: Mapping[str, tuple[float, ...]]
    drawn: tuple[float, ...]
    decided: tuple[tuple[int, float], ...]
    budget: float
    drawing: Drawing | None
    running: int | None


def read_learnt(run: Run, problems: list[str]) -> Learnt | None:
    """The architecture's history in log.jsonl; None of another method or, with a sentence in `problems`, where damaged."""
    try:
        records = [record for record in run.log() if isinstance(record, Mapping) and "architecture" in record]
        told = [record["architecture"] for record in records]
        if not told:
            return None
        epochs = tuple(int(record["epoch"]) for record in records)
        costs = [number(each["cost"]) for each in told]
        graph = _graph(run, problems)
        kept = frozenset() if graph is None else _kept(graph, told[-1]["gates"])
        return Learnt(
            cost=_kind(run.config["method"]["settings"]["options"]),
            epochs=epochs,
            chances={printable(gate): tuple(float(each["gates"][gate]) for each in told) for gate in told[-1]["gates"]},
            drawn=tuple(float(each["drawn"]) for each in told),
            decided=tuple((epoch, cost) for epoch, cost in zip(epochs, costs, strict=True) if cost is not None),
            budget=float(told[-1]["budget"]),
            drawing=None if graph is None else drawing_of(graph, kept),
            running=None if graph is None else len({node.gate for node in graph.nodes if node.name in kept and node.gate}),
        )
    except (AdjCompressError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        problems.append(f"The architecture's history cannot be read ({type(error).__name__}: {printable(error)}).")
        return None


def _kind(options: Mapping[str, Any]) -> str:
    cost = str(options["budgets"][0]).partition("=")[0]
    return printable(f"cycles on {options['machines']} machines" if cost == "cycles" else cost)


def _graph(run: Run, problems: list[str]) -> Graph | None:
    """The super network's graph; None, with a sentence in `problems`, where it cannot be built again."""
    try:
        network = run.model.build()
    except AdjCompressError as error:
        problems.append(f"The super network was not rebuilt to be drawn: {printable(error)}")
        return None
    return network.graph if isinstance(network, GraphNetwork) else None


def _kept(graph: Graph, chances: Mapping[str, Any]) -> frozenset[str]:
    """The nodes that run where gates with a chance above a half are open."""
    reach = Reach(graph)
    return reach.names(reach.active(open_gates(graph, [gate for gate, chance in chances.items() if float(chance) > 0.5]))[0])
