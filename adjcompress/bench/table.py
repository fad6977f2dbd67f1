"""How long does every layer take that a model's slices may have, on this machine?"""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adjcompress.bench.process import worker
from adjcompress.bench.table_worker import graph
from adjcompress.bench.targets import target as find_target
from adjcompress.cost import (
    STEADY,
    Anchor,
    Check,
    Conditions,
    Grid,
    LatencyTable,
    Layer,
    LayerShape,
    Sweep,
    fingerprint,
    layer_shapes,
)
from adjcompress.cost.grid import Point
from adjcompress.deploy import export_onnx
from adjcompress.deploy.layout import block_channels, blocked_convolutions, optimised
from adjcompress.errors import AdjCompressError
from adjcompress.machine import machine_facts, usable_cores
from adjcompress.widths import plan_widths, slice_model
from adjcompress.widths.channels import channel_groups
from adjcompress.widths.planning import aligned, plan_at, slim_groups

_SWEEP_BYTES = 256 * 2**20  # weights of layers measured within one graph
_LAYER_SECONDS, _NETWORK_SECONDS = 1.0, 30.0  # for one pass over a sweep; for the networks measured whole, side by side
_ALIGN = 4  # the widths of networks that are measured whole are rounded up to this
Reach = tuple[tuple[int, int], tuple[int, int]]  # lowest and highest number of inputs, and of outputs
Cores = tuple[int, ...]  # that a process is bound to; () to none
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class TableReport:
    """A table that now knows a network: its shapes and times, what of it was measured just now, and how steady it was.

    `unsettled`: layers whose medians still moved by more than the tolerance when the passes were used up. `check`: a slice that
    the table was not made from, predicted and measured. `doubt`: why not to trust it, if so.
    """

    path: Path
    model: str
    shapes: int
    points: int
    measured: int
    seconds: float
    unsettled: tuple[str, ...]
    check: Check | None
    doubt: str | None
    conditions: Conditions

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


def measure_table(
    path: str | Path,
    network: nn.Module,
    example: Tensor,
    *,
    threads: int = 1,
    batch: int = 1,
    target: str | None = None,
    slim: Sequence[str] | None = None,
    keep: Sequence[str] | None = None,
    alpha: float = 16,
    tolerance: float = STEADY,
    max_passes: int = 5,
    progress: Progress = lambda done, total, text: None,
) -> TableReport:
    """Make or extend the latency table at `path`, so that it predicts every slice of `network` down to width / `alpha`.

    `target` (bench/targets.py) sets threads and batch, and binds the process to its cores. `slim` and `keep` as in
    plan_widths, `example` (N, C, H, W) as in layer_shapes. All widths of a layer shape are measured
    side by side; passes over all shapes go on until the last changed a shape's medians by less than `tolerance`, at least
    3 and at most `max_passes`. Then the network is measured whole at both ends, and halfway, to check the predictions. The file
    is replaced after every step, and what it holds is not measured again unless it is in doubt: a measurement that was
    stopped goes on where it was, and a second network adds what it has of its own. A table made under other conditions is an
    AdjCompressError. `progress` hears the steps done, how many there may be, and the next one.
    """
    if alpha < 1 or threads < 1 or batch < 1 or max_passes < 1:
        raise AdjCompressError(
            f"alpha {alpha:g}, --threads {threads}, --batch {batch} and {max_passes} passes must be at least 1."
        )
    start = time.perf_counter()
    path, model = Path(path), type(network).__name__
    here, cores = (conditions(threads, batch), ()) if target is None else _on_target(target)
    table = _opened(path, here)
    layers = layer_shapes(network, example)
    wanted = _wanted(table.grid, layers, _reaches(network, example, layers, slim, keep, alpha))
    table = _with_sweeps(_without_doubtful(table, layers), wanted)
    whole = _whole(network, example, max(table.grid.block_channels, _ALIGN), slim, keep, alpha)
    known = table.knows(layers) and (fingerprint(layers) in table.checks or len(whole) < 3)
    total = len(table.sweeps) * max_passes + (not known)
    before = sum(len(sweep.points) * len(sweep.passes_ms) for sweep in table.sweeps)
    for round_ in range(max_passes):
        table = _pass(table, cores, round_, tolerance, max_passes, lambda done, text: progress(done, total, text))
    if not known:
        progress(total - 1, total, f"{model} as a whole, at both ends and halfway")
        table = _with_anchors(table, whole, example, cores)
        table.write()
    progress(total, total, "done")
    own = [sweep for sweep in table.sweeps if sweep.shape in wanted]
    return TableReport(
        path=path,
        model=model,
        shapes=len(wanted),
        points=sum(len(sweep.points) for sweep in own),
        measured=sum(len(sweep.points) * len(sweep.passes_ms) for sweep in table.sweeps) - before,
        seconds=time.perf_counter() - start,
        unsettled=tuple(str(sweep.shape) for sweep in own if not sweep.settled(tolerance, max_passes + 1)),
        check=table.check(layers),
        doubt=table.doubt(layers),
        conditions=table.conditions,
    )


def conditions(threads: int = 1, batch: int = 1, spinning: bool = True) -> Conditions:
    """The conditions of this machine now, as tables hold them: for LatencyTable.differences."""
    machine = machine_facts()
    return Conditions(
        cpu=machine.cpu,
        instructions=machine.instructions,
        cores=machine.cores,
        onnxruntime=machine.versions["onnxruntime"],
        threads=threads,
        batch=batch,
        spinning=spinning and threads > 1,
    )


def _on_target(name: str) -> tuple[Conditions, Cores]:
    """What a target allows: the conditions, and the cores to be bound to."""
    wanted = find_target(name)
    if wanted.provider != "cpu":
        raise AdjCompressError(
            f"Target {name} has no latency table: tables are of CPUs. Choose one-core, two-core or four-core."
        )
    return conditions(wanted.cores, wanted.batch, wanted.spinning), tuple(usable_cores()[: wanted.cores])


def _opened(path: Path, here: Conditions) -> LatencyTable:
    """The table at `path`, or an empty one for this machine."""
    if path.exists():
        table = LatencyTable.read(path)
        differences = table.differences(here)
        if differences:
            raise AdjCompressError(
                f"{path} cannot be added to, its times were measured under other conditions ({'; '.join(differences)}): "
                "name another file with --table."
            )
        return table
    return LatencyTable(Grid(block_channels(), _pads_outputs()), here, source=str(path))


def _pads_outputs() -> bool:
    """Whether ONNX Runtime runs a convolution with an odd number of outputs in blocks."""
    one = (1, 1)
    shape = LayerShape("conv", one, one, (0, 0), one, (0, 0), (8, 8))
    blocked = [blocked_convolutions(optimised(graph(asdict(shape), [(32, outputs)], 1))) for outputs in (31, 32)]
    return blocked[0] == blocked[1]


# --- what is to be measured -----------------------------------------------------------------------------------------


def _reaches(
    network: nn.Module,
    example: Tensor,
    layers: Sequence[Layer],
    slim: Sequence[str] | None,
    keep: Sequence[str] | None,
    alpha: float,
) -> list[Reach]:
    """Between which widths each layer can lie: where several groups meet, as in a concatenation, all at their smallest."""
    plan = plan_widths(network, example, 1, slim, keep)
    slim_groups = {group.name for group in plan.groups if group.slim}
    lost: dict[tuple[str, str], int] = {}
    for group in channel_groups(network, example):
        if group.name in slim_groups:
            kept = min(group.channels, math.ceil(group.channels / alpha / group.quantum) * group.quantum)
            for axis in group.axes:
                gone = sum(channel >= kept for channel in axis.channel)
                lost[axis.layer, axis.side] = lost.get((axis.layer, axis.side), 0) + gone
    reaches = []
    for layer in layers:
        lost_in, lost_out = lost.get((layer.name, "in"), 0), lost.get((layer.name, "out"), 0)
        if layer.shape.kind == "depthwise":
            lost_in = lost_out = max(lost_in, lost_out)
        ins, outs = layer.channels_in, layer.channels_out
        reaches.append(((ins - lost_in, ins), (outs - lost_out, outs)))
    return reaches


def _wanted(grid: Grid, layers: Sequence[Layer], reaches: Sequence[Reach]) -> dict[LayerShape, set[Point]]:
    """Every point that predicts one of the layers within its reach, by shape."""
    wanted: dict[LayerShape, set[Point]] = {}
    for layer, (inputs, outputs) in zip(layers, reaches, strict=True):
        shape, group = layer.shape, layer.shape.group
        wanted.setdefault(shape, set()).update(grid.points(shape, inputs, outputs))
        if shape.kind == "grouped" and inputs[0] == group[0]:  # what is left when one group is, no longer a grouped one
            alone = replace(shape, kind="conv", group=(0, 0))
            wanted.setdefault(alone, set()).update(grid.points(alone, (group[0], group[0]), (group[1], group[1])))
    return wanted


def _with_sweeps(table: LatencyTable, wanted: dict[LayerShape, set[Point]]) -> LatencyTable:
    """The table with a sweep, still without times, for all points that it lacks."""
    held = {(sweep.shape, point) for sweep in table.sweeps for point in sweep.points}
    sweeps = list(table.sweeps)
    for shape, points in wanted.items():
        missing = sorted(point for point in points if (shape, point) not in held)
        sweeps += [Sweep(shape, chunk) for chunk in _chunks(shape, missing)]
    return replace(table, sweeps=tuple(sweeps))


def _without_doubtful(table: LatencyTable, layers: Sequence[Layer]) -> LatencyTable:
    """The table without the times of these layers that are in doubt, and without what was measured of the network whole."""
    shapes, network = {layer.shape for layer in layers}, fingerprint(layers)
    if not table.knows(layers) or any(not sweep.passes_ms for sweep in table.sweeps if sweep.shape in shapes):
        return table  # still to be measured
    again = table.doubtful(layers)
    if not again:
        return table
    return replace(
        table,
        sweeps=tuple(replace(sweep, passes_ms=()) if sweep.shape in again else sweep for sweep in table.sweeps),
        anchors={name: anchors for name, anchors in table.anchors.items() if name != network},
        checks={name: check for name, check in table.checks.items() if name != network},
    )


def _chunks(shape: LayerShape, points: Sequence[Point]) -> Iterator[tuple[Point, ...]]:
    """The points in portions whose weights fit into memory."""
    chunk: list[Point] = []
    size = 0
    for point in points:
        _, channels_in, channels_out = point
        own = 4 * (shape.group[0] or channels_in) * channels_out * math.prod(shape.kernel)
        if chunk and size + own > _SWEEP_BYTES:
            yield tuple(chunk)
            chunk, size = [], 0
        chunk.append(point)
        size += own
    if chunk:
        yield tuple(chunk)


# --- measuring ------------------------------------------------------------------------------------------------------


def _pass(
    table: LatencyTable, cores: Cores, round_: int, tolerance: float, max_passes: int, progress: Callable[[int, str], None]
) -> LatencyTable:
    """Measure every sweep once more that is not settled and was measured at most `round_` times; write after each."""
    with _worker() as ask:
        for index, sweep in enumerate(table.sweeps):
            if len(sweep.passes_ms) > round_ or sweep.settled(tolerance, max_passes):
                continue
            progress(round_ * len(table.sweeps) + index, f"{sweep.shape}: {len(sweep.points)} widths, pass {round_ + 1}")
            widths = [point[1:] for point in sweep.points]
            times = ask({"shape": asdict(sweep.shape), "widths": widths, **_terms(table, cores, _LAYER_SECONDS)})
            measured = replace(sweep, passes_ms=(*sweep.passes_ms, times))
            table = replace(table, sweeps=(*table.sweeps[:index], measured, *table.sweeps[index + 1 :]))
            table.write()
    return table


def _terms(table: LatencyTable, cores: Cores, seconds: float) -> dict[str, Any]:
    here = table.conditions
    return {"threads": here.threads, "batch": here.batch, "spinning": here.spinning, "cores": cores, "duration": seconds}


@contextmanager
def _worker() -> Iterator[Callable[[dict[str, Any]], tuple[float, ...]]]:
    """A process of its own that times what it is asked for, one task after the other; it is started when first asked."""
    command = worker("table_worker.py")
    with tempfile.TemporaryFile("w+") as errors:
        started: list[subprocess.Popen[str]] = []

        def ask(task: dict[str, Any]) -> tuple[float, ...]:
            if not started:
                started.append(
                    subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
                )
            return _answer(started[0], task, errors)

        try:
            yield ask
        finally:
            for process in started:
                process.terminate()
                process.communicate()


def _answer(process: subprocess.Popen[str], task: dict[str, Any], errors: Any) -> tuple[float, ...]:
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        return tuple(round(milliseconds, 6) for milliseconds in json.loads(process.stdout.readline()))
    except (OSError, ValueError) as error:
        process.wait()
        errors.seek(0)
        text = (errors.read().strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise AdjCompressError(f"ONNX Runtime could not run {task.get('networks') or task['shape']}: {text}") from error


def _whole(
    network: nn.Module, example: Tensor, align: int, slim: Sequence[str] | None, keep: Sequence[str] | None, alpha: float
) -> dict[tuple[Layer, ...], nn.Module]:
    """What is measured whole, by layers: the smallest network, the full one, and one halfway in the logarithm of its widths.

    Each once: a narrow network has none halfway.
    """
    found = slim_groups(network, example, slim, keep)
    least = [
        aligned(group, group.channels / min(alpha, group.channels), align) if is_slim else group.channels
        for group, is_slim in found
    ]
    half = [aligned(group, (kept * group.channels) ** 0.5, align) for group, kept in zip(found.groups, least, strict=True)]
    smallest, halfway = (slice_model(network, plan_at(network, example, found.groups, kept)) for kept in (least, half))
    return {layer_shapes(each, example): each for each in (smallest, network, halfway)}


def _with_anchors(
    table: LatencyTable, whole: Mapping[tuple[Layer, ...], nn.Module], example: Tensor, cores: Cores
) -> LatencyTable:
    """The table with networks measured whole, side by side: the first two as anchors, the third, if any, as a check."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.onnx" for number in range(len(whole))]
        images = torch.randn(7, *example.shape[1:], generator=torch.Generator().manual_seed(0))
        for candidate, file in zip(whole.values(), files, strict=True):
            export_onnx(candidate, file, images)
        with _worker() as ask:
            times = ask({"networks": [str(file) for file in files], **_terms(table, cores, _NETWORK_SECONDS)})
    measured = [Anchor(layers, ms) for layers, ms in zip(whole, times, strict=True)]
    name = fingerprint(measured[0].layers)
    checks = {**table.checks, name: measured[2]} if len(measured) > 2 else table.checks
    return replace(table, anchors={**table.anchors, name: tuple(measured[:2])}, checks=checks)
