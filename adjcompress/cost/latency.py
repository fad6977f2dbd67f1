"""How long does a network take on a machine whose layers were measured?

The time of a network is the sum of its convolutions and linear layers, read from a table, and a rest: pools, activations
that were not fused, the executor's own work.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from adjcompress.cost.budget import Budget
from adjcompress.cost.grid import Grid, Point
from adjcompress.cost.layers import Layer, LayerShape, fingerprint, layer_shapes
from adjcompress.errors import AdjCompressError
from adjcompress.files import checksum, write_text
from adjcompress.machine import TARGET_CORES

_FORMAT = 1
STEADY = 0.02  # a sweep is steady when its last pass moved its medians by at most so much
_MOVED = 0.05  # by how much a sweep moves that is not to be trusted,
_SHAKY = 0.1  # what part of a network's time such layers may take, and
_RIGHT = 0.1  # how far off a slice may be predicted, before a table is in doubt


@dataclass(frozen=True)
class Conditions:
    """Under which conditions times hold: another processor, runtime or number of threads has others.

    `spinning`: whether threads that wait burn their cores meanwhile; False where there is only one.
    """

    cpu: str
    instructions: tuple[str, ...]
    cores: int
    onnxruntime: str
    threads: int
    batch: int
    spinning: bool


@dataclass(frozen=True)
class Sweep:
    """Some widths of one layer shape, measured side by side: in each pass the milliseconds of every point."""

    shape: LayerShape
    points: tuple[Point, ...]
    passes_ms: tuple[tuple[float, ...], ...] = ()

    def settled(self, tolerance: float, most: int) -> bool:
        """Whether it needs no further pass: it is steady, or was measured `most` times."""
        return len(self.passes_ms) >= most or self.steady(tolerance)

    def steady(self, tolerance: float = STEADY) -> bool:
        """Whether the last of at least three passes changed the medians by less than `tolerance` of their sum."""
        if len(self.passes_ms) < 3:
            return False
        now, before = self.medians_ms(), replace(self, passes_ms=self.passes_ms[:-1]).medians_ms()
        change = sum(abs(new - old) for new, old in zip(now, before, strict=True))
        return change <= tolerance * sum(now)

    def medians_ms(self) -> tuple[float, ...]:
        return tuple(statistics.median(times) for times in zip(*self.passes_ms, strict=True))


@dataclass(frozen=True)
class Anchor:
    """A network that was measured whole: its layers and its median milliseconds."""

    layers: tuple[Layer, ...]
    measured_ms: float


@dataclass(frozen=True)
class Check:
    """A network that the table was not made from: what it predicts for it, and what it took."""

    predicted_ms: float
    measured_ms: float

    @property
    def off(self) -> float:
        """Predicted too slow by this part, too fast where negative."""
        return self.predicted_ms / self.measured_ms - 1

    @property
    def wrong(self) -> bool:
        """Whether it is too far off to trust the table."""
        return abs(self.off) > _RIGHT


@dataclass(frozen=True)
class LayerLatency:
    """What one layer of a network takes."""

    name: str
    channels_in: int
    channels_out: int
    ms: float


@dataclass(frozen=True)
class Rest:
    """What a network takes beside its layers: `base_ms`, and `element_ms` for each number that its layers write."""

    base_ms: float
    element_ms: float


@dataclass(frozen=True)
class LatencyEstimate:
    """What a network is predicted to take: the sum of its layers and `rest_ms`, which no layer is charged with."""

    total_ms: float
    rest_ms: float
    per_layer: tuple[LayerLatency, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class LatencyTable:
    """Measured times of layers over a grid of widths, and what predicts a network from them.

    `anchors`: by fingerprint the networks measured whole, smallest and full one, from which alone the rest of that network and
    its slices is known; `checks`: one between them that nothing is made from. `source` names the file in errors. Made by
    bench/table.py.
    """

    grid: Grid
    conditions: Conditions
    sweeps: tuple[Sweep, ...] = ()
    anchors: Mapping[str, tuple[Anchor, ...]] = field(default_factory=dict)
    source: str = "table.json"
    checks: Mapping[str, Anchor] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> LatencyTable:
        """Read the file that `write` wrote; one that is missing or damaged raises an AdjCompressError."""
        source = Path(path)
        if source.is_dir():
            raise AdjCompressError(f"{source} is a folder: name a latency table in it.")
        if not source.is_file():
            raise AdjCompressError(f"{source} does not exist: make it with adjcompress bench --table {source} --model NAME.")
        try:
            content = json.loads(source.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError(f"format {content['format']} where {_FORMAT} is known")
            shapes = [LayerShape.from_json(shape) for shape in content["shapes"]]
            return cls(
                Grid(**{**content["grid"], "blocks": tuple(content["grid"]["blocks"])}),
                Conditions(**{**content["conditions"], "instructions": tuple(content["conditions"]["instructions"])}),
                tuple(_sweep_from_json(sweep, shapes) for sweep in content["sweeps"]),
                {
                    name: tuple(_anchor_from_json(anchor, shapes, name) for anchor in anchors)
                    for name, anchors in content["anchors"].items()
                },
                str(source),
                {name: _anchor_from_json(anchor, shapes, name) for name, anchor in content.get("checks", {}).items()},
            )
        except (OSError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise AdjCompressError(
                f"{source} is damaged or no latency table ({type(error).__name__}: {error}): name another --table, or remove "
                "it and measure again."
            ) from error

    def write(self) -> None:
        """Replace the file `source` as a whole."""
        used = (*(sweep.shape for sweep in self.sweeps), *(layer.shape for layer in self._anchored_layers()))
        number = {shape: index for index, shape in enumerate(dict.fromkeys(used))}
        content = {
            "format": _FORMAT,
            "conditions": asdict(self.conditions),
            "grid": asdict(self.grid),
            "shapes": [asdict(shape) for shape in number],
            "sweeps": [
                {"shape": number[sweep.shape], "points": sweep.points, "passes_ms": sweep.passes_ms} for sweep in self.sweeps
            ],
            "anchors": {name: [_anchor_to_json(each, number) for each in anchors] for name, anchors in self.anchors.items()},
            "checks": {name: _anchor_to_json(check, number) for name, check in self.checks.items()},
        }
        write_text(Path(self.source), json.dumps(content) + "\n")

    def predict(self, network: nn.Module, example: Tensor) -> LatencyEstimate:
        """The latency of a network, such as a slice, on a batch like that of the table; `example` as for layer_shapes."""
        return self.predict_layers(layer_shapes(network, example))

    def predict_layers(self, layers: Sequence[Layer]) -> LatencyEstimate:
        """The latency of a network given by its layers. What the table does not hold raises an AdjCompressError."""
        if fingerprint(layers) not in self.anchors:
            raise self._unknown()
        per_layer = tuple(
            LayerLatency(layer.name, layer.channels_in, layer.channels_out, self._layer_ms(layer)) for layer in layers
        )
        rest = self.rest_ms(layers)
        return LatencyEstimate(sum(layer.ms for layer in per_layer) + rest, rest, per_layer)

    def layer_ms(self, shape: LayerShape, channels_in: int, channels_out: int) -> float:
        """Milliseconds of one layer: bilinear between the measured widths around it, in whole blocks. Takes microseconds."""
        times = self._times_ms.get(shape)
        if times is None:
            raise AdjCompressError(f"{self.source} has no times of this layer ({shape}). {self._remedy}")
        try:
            return sum(weight * times[point] for point, weight in self.grid.corners(shape, channels_in, channels_out))
        except KeyError:
            raise AdjCompressError(
                f"{self.source} has no times of this layer ({shape}) at {channels_in} -> {channels_out} channels, "
                f"which lie outside the widths measured. {self._remedy}"
            ) from None

    def rest_ms(self, layers: Sequence[Layer]) -> float:
        """What a network takes beside its layers: a + b * (numbers its layers write), through the network's anchors."""
        rest = self.rest_of(layers)
        return rest.base_ms + rest.element_ms * sum(layer.elements for layer in layers)

    def knows(self, layers: Sequence[Layer]) -> bool:
        """Whether a network was measured whole of which one with these layers may be a slice: it is nowhere wider."""

        def within(whole: Anchor) -> bool:
            return all(
                layer.channels_in <= wide.channels_in and layer.channels_out <= wide.channels_out
                for layer, wide in zip(layers, whole.layers, strict=True)
            )

        return any(within(anchor) for anchor in self.anchors.get(fingerprint(layers), ()))

    def rest_of(self, layers: Sequence[Layer]) -> Rest:
        """The line through the anchors of the network that runs these layers, or slices of them."""
        if not self.knows(layers):
            raise self._unknown()
        anchors = self.anchors[fingerprint(layers)]
        written = [sum(layer.elements for layer in anchor.layers) for anchor in anchors]
        rests = [anchor.measured_ms - sum(self._layer_ms(layer) for layer in anchor.layers) for anchor in anchors]
        between = written[-1] - written[0]
        slope = (rests[-1] - rests[0]) / between if between else 0.0  # of a network that has one width only
        return Rest(rests[0] - slope * written[0], slope)

    def check(self, layers: Sequence[Layer]) -> Check | None:
        """What is predicted for a slice of the network of these layers that was measured to check it; None where none was."""
        measured = self.checks.get(fingerprint(layers))
        return None if measured is None else Check(self.predict_layers(measured.layers).total_ms, measured.measured_ms)

    def unsteady(self, layers: Sequence[Layer]) -> frozenset[LayerShape]:
        """Shapes of these layers whose times still moved when they were last measured."""
        shapes = {layer.shape for layer in layers}
        return frozenset(sweep.shape for sweep in self.sweeps if sweep.shape in shapes and not sweep.steady(_MOVED))

    def doubtful(self, layers: Sequence[Layer]) -> frozenset[LayerShape]:
        """Shapes of these layers whose times are not to be trusted: all where predictions are off, else what was not steady."""
        check = self.check(layers)
        if check is not None and check.wrong:
            return frozenset(layer.shape for layer in layers)
        return self.unsteady(layers) if self._unsteady_part(layers) > _SHAKY else frozenset()

    def doubt(self, layers: Sequence[Layer]) -> str | None:
        """Why predictions for a network of these layers, or its slices, are not to be trusted; None where they are."""
        if not self.doubtful(layers):
            return None
        check, part, found = self.check(layers), self._unsteady_part(layers), []
        if part > _SHAKY:
            found.append(f"the times of layers that take {part:.0%} of this network still moved when they were last measured")
        if check is not None and check.wrong:
            found.append(
                f"it predicts {check.predicted_ms:.3g} ms for a slice of this network that took {check.measured_ms:.3g} ms"
            )
        again = "Done again on an idle machine, that measures anew what is in doubt."
        return f"{self.source} is in doubt: {', and '.join(found)}. {self._remedy} {again}"

    def _unsteady_part(self, layers: Sequence[Layer]) -> float:
        """What part of the time of these layers was not steady."""
        unsteady, times = self.unsteady(layers), [(layer.shape, self._layer_ms(layer)) for layer in layers]
        return sum(ms for shape, ms in times if shape in unsteady) / sum(ms for _, ms in times)

    def _unknown(self) -> AdjCompressError:
        return AdjCompressError(f"{self.source} does not know this network. {self._remedy}")

    def differences(self, conditions: Conditions) -> tuple[str, ...]:
        """In what the table's conditions differ from others, such as "threads: 1 in table.json, 2 here"."""
        mine, theirs = asdict(self.conditions), asdict(conditions)
        return tuple(
            f"{name}: {mine[name]} in {self.source}, {theirs[name]} here" for name in mine if mine[name] != theirs[name]
        )

    def _anchored_layers(self) -> tuple[Layer, ...]:
        whole = (*(anchor for anchors in self.anchors.values() for anchor in anchors), *self.checks.values())
        return tuple(layer for anchor in whole for layer in anchor.layers)

    @property
    def _remedy(self) -> str:
        here = self.conditions
        named = {cores: name for name, cores in TARGET_CORES.items()}
        on = f"--target {named[here.threads]}" if here.threads in named and not here.spinning else f"--threads {here.threads}"
        batch = f" --batch {here.batch}" if here.batch > 1 else ""
        return (
            f"Measure it with adjcompress bench --table {self.source} --model NAME {on}{batch}, "
            "and --image-size, --classes and --slim as they are there."
        )

    @cached_property
    def _times_ms(self) -> dict[LayerShape, dict[Point, float]]:
        times: dict[LayerShape, dict[Point, float]] = {}
        for sweep in self.sweeps:
            if sweep.passes_ms:
                times.setdefault(sweep.shape, {}).update(zip(sweep.points, sweep.medians_ms(), strict=True))
        return times

    def _layer_ms(self, layer: Layer) -> float:
        try:
            return self.layer_ms(layer.shape, layer.channels_in, layer.channels_out)
        except AdjCompressError as error:
            raise AdjCompressError(f"Layer {layer.name}: {error}") from None


def table_for(path: Path, budgets: Sequence[Budget]) -> LatencyTable:
    """The latency table at `path`; one that was not measured as the budgets of latency mean it is an AdjCompressError."""
    table = LatencyTable.read(path)
    threads, batch = table.conditions.threads, table.conditions.batch
    for budget in (budget for budget in budgets if budget.cost == "latency"):
        cores = TARGET_CORES[budget.target] if budget.target else threads
        spins = budget.target is not None and table.conditions.spinning and cores > 1  # a target's threads do not
        if threads != cores or batch != 1 or spins:
            target = f" --target {budget.target}" if budget.target else ""
            raise AdjCompressError(
                f"--budget {budget} is for one image at a time{f' and {cores} threads' if budget.target else ''}; {path} holds "
                f"batch {batch} and {threads} threads{', which spin' if spins else ''}: measure another, adjcompress bench "
                f"--table FILE --model NAME{target}."
            )
    return table


def table_checksum(path: str | Path | None) -> str | None:
    """Which table it was, for a search that goes on; None without one."""
    if path is None or not Path(path).is_file():
        return None
    return checksum(Path(path))


def check_same_table(path: str | Path | None, kept: str | None) -> None:
    """Refuse to go on with a search whose latency table is another file than it was, or gone."""
    if path is not None and table_checksum(path) != kept:
        there = Path(path).is_file()
        wrong = "is not the latency table that the search began with" if there else "is gone, by which the search began"
        raise AdjCompressError(f"{path} {wrong}: put that back, or train a new --run.")


def _sweep_from_json(data: Mapping[str, Any], shapes: Sequence[LayerShape]) -> Sweep:
    points = tuple((layout, channels_in, channels_out) for layout, channels_in, channels_out in data["points"])
    passes = tuple(tuple(float(time) for time in times) for times in data["passes_ms"])
    if any(len(times) != len(points) for times in passes):
        raise ValueError("a pass does not have a time for each point")
    return Sweep(shapes[data["shape"]], points, passes)


def _anchor_to_json(anchor: Anchor, number: Mapping[LayerShape, int]) -> dict[str, Any]:
    layers = [(layer.name, number[layer.shape], layer.channels_in, layer.channels_out) for layer in anchor.layers]
    return {"measured_ms": anchor.measured_ms, "layers": layers}


def _anchor_from_json(data: Mapping[str, Any], shapes: Sequence[LayerShape], network: str) -> Anchor:
    layers = tuple(Layer(name, shapes[index], ins, outs) for name, index, ins, outs in data["layers"])
    if fingerprint(layers) != network:
        raise ValueError(f"the layers under {network} are another network's")
    return Anchor(layers, float(data["measured_ms"]))
