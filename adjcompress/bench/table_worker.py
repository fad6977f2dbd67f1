"""One process that times layers and networks for `bench/table.py`: how long does a layer take inside a network?

Reads tasks on standard input, one JSON object a line, and answers each with a line. A process of its own, as worker.py: the
number of threads is fixed when ONNX Runtime starts them, and each process finds the memory laid out anew.

All layers of a task run within one graph, each behind a convolution that makes its input: so the input is warm and in the
runtime's own layout. Between two runs another network runs: so the weights are cold, as in a network that is not the only
one to run (a 1000 x 2048 linear layer takes 0.10 ms with warm weights and 0.43 with cold ones). What is read are the times
of the layers' own nodes in the runtime's profile; their neighbours' do not count.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

_OTHER_CHANNELS = 4096  # 64 MiB of weights
_WARMUP, _FEWEST_RUNS, _MOST_EVENTS = 2, 12, 30_000  # the profile is read as a whole


def graph(shape: dict[str, Any], widths: list[tuple[int, int]], batch: int) -> onnx.ModelProto:
    """One model with a branch for each (channels in, channels out): producer -> layer and ReLU -> pool.

    A stem reads its images itself; a linear layer is followed by nothing.
    """
    rows = shape["size"][0] * batch
    linear, stem = shape["kind"] == "linear", shape["kind"] == "stem"
    noise = _noise(max(_weights(shape, *pair) for pair in widths) + 3 * len(widths))
    nodes: list[onnx.NodeProto] = []
    inputs: dict[str, list[int]] = {}
    outputs: list[onnx.ValueInfoProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(name: str, *dims: int) -> str:
        start = len(weights)  # other values for each: the runtime keeps equal ones once, and they would stay in the cache
        values = noise[start : start + int(np.prod(dims))]
        weights.append(helper.make_tensor(name, TensorProto.FLOAT, dims, values.tobytes(), raw=True))
        return name

    for index, (channels_in, channels_out) in enumerate(widths):
        name = f"layer{index}"
        if linear:
            source = f"rows{channels_in}"
            inputs[source] = [rows, channels_in]
            operands = [source, constant(f"{name}.weight", channels_out, channels_in), constant(f"{name}.bias", channels_out)]
            nodes.append(helper.make_node("Gemm", operands, [name], name=name, transB=1))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, channels_out]))
            continue
        image = [batch, channels_in if stem else 1, *shape["size"]]
        source = f"images{image[1]}"
        inputs[source] = image
        if not stem:
            made = [source, constant(f"made{index}.weight", channels_in, 1, 1, 1)]
            source = f"made{index}"
            nodes.append(helper.make_node("Conv", made, [source], name=source))
        groups = channels_in // (shape["group"][0] or channels_in)
        kernel = constant(f"{name}.weight", channels_out, channels_in // groups, *shape["kernel"])
        nodes += [
            helper.make_node(
                "Conv",
                [source, kernel, constant(f"{name}.bias", channels_out)],
                [f"{name}.sum"],
                name=name,
                group=groups,
                strides=shape["stride"],
                pads=shape["padding"] * 2,
                dilations=shape["dilation"],
            ),
            helper.make_node("Relu", [f"{name}.sum"], [f"{name}.result"], name=f"{name}.relu"),
            helper.make_node("GlobalAveragePool", [f"{name}.result"], [f"pooled{index}"], name=f"pooled{index}"),
        ]
        outputs.append(helper.make_tensor_value_info(f"pooled{index}", TensorProto.FLOAT, [batch, channels_out, 1, 1]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()]
    made_graph = helper.make_graph(nodes, "layers", values, outputs, weights)
    return helper.make_model(made_graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _weights(shape: dict[str, Any], channels_in: int, channels_out: int) -> int:
    """Numbers in the largest tensor of a branch."""
    per_group = shape["group"][0] or channels_in
    return max(channels_in, channels_out * per_group * shape["kernel"][0] * shape["kernel"][1])


def _noise(size: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(size, np.float32)


def layer_times_ms(task: dict[str, Any]) -> list[float]:
    """Milliseconds of each of a task's layers: the mean of the middle half of its runs, which tells parts of a microsecond."""
    shape, batch = task["shape"], task["batch"]
    widths = [(pair[0], pair[1]) for pair in task["widths"]]
    model = graph(shape, widths, batch)
    feed = {
        value.name: _noise(int(np.prod(dims))).reshape(dims)
        for value in model.graph.input
        for dims in [[dim.dim_value for dim in value.type.tensor_type.shape.dim]]
    }
    with tempfile.TemporaryDirectory() as folder:
        options = _options(task)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        other = _other_work(task)
        for _ in range(_WARMUP):
            start = time.perf_counter()
            other()
            session.run(None, feed)
            seconds = time.perf_counter() - start
        most = _MOST_EVENTS / (4 * len(widths))
        for _ in range(int(max(_FEWEST_RUNS, min(most, task["duration"] / seconds)))):
            other()
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_bytes())
    return _read(events, shape, widths, batch)


def network_times_ms(task: dict[str, Any]) -> list[float]:
    """Median milliseconds of whole networks, in turn, under the same terms: another network runs before each of them."""
    candidates = []
    for path in task["networks"]:
        session = onnxruntime.InferenceSession(path, _options(task), providers=["CPUExecutionProvider"])
        (value,) = session.get_inputs()
        dims = [task["batch"], *value.shape[1:]]
        candidates.append((session, {value.name: _noise(int(np.prod(dims))).reshape(dims)}))
    times: list[list[float]] = [[] for _ in candidates]
    other, end = _other_work(task), time.perf_counter() + task["duration"]
    while time.perf_counter() < end or len(times[0]) < _WARMUP + _FEWEST_RUNS:
        for own, (session, feed) in zip(times, candidates, strict=True):
            other()
            start = time.perf_counter_ns()
            session.run(None, feed)
            own.append((time.perf_counter_ns() - start) / 1e6)
    return [statistics.median(own[_WARMUP:]) for own in times]


def _options(task: dict[str, Any]) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # or it would take part in what comes between
    if not task["spinning"]:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _other_work(task: dict[str, Any]) -> Callable[[], Any]:
    """What runs between two runs that are timed: a network whose weights fill the caches, but not the runtime's own code."""
    shape = {"kind": "linear", "kernel": (1, 1), "group": (0, 0), "size": (1, 1)}
    model = graph(shape, [(_OTHER_CHANNELS, _OTHER_CHANNELS)], 1)
    session = onnxruntime.InferenceSession(model.SerializeToString(), _options(task), providers=["CPUExecutionProvider"])
    feed = {f"rows{_OTHER_CHANNELS}": _noise(_OTHER_CHANNELS).reshape(1, -1)}
    return lambda: session.run(None, feed)


def _read(events: list[dict[str, Any]], shape: dict[str, Any], widths: list[tuple[int, int]], batch: int) -> list[float]:
    """The layers' times from a profile. A layer that is given its few inputs in another order is charged with ordering them.

    The runtime names a node by its own name or by that of what it computes, and nodes of its own by numbers alone: of those
    that put channels in order, only what they write is known.
    """
    layers: dict[int, list[int]] = {}
    ordering: dict[int, list[int]] = {}
    for event in events:
        name = event["name"].removesuffix("_kernel_time")
        if event.get("cat") != "Node" or name == event["name"]:
            continue
        found = re.match(r"layer(\d+)", name)
        if found:
            layers.setdefault(int(found[1]), []).append(event["dur"])
        elif event["args"]["op_name"] == "ReorderOutput":
            written = next(iter(event["args"]["output_type_shape"][0].values()))
            if written[0] == batch and written[2:] == shape["size"]:
                ordering.setdefault(written[1], []).append(event["dur"])
    times = []
    for index, (channels_in, _) in enumerate(widths):
        extra = ordering.get(channels_in, []) if shape["kind"] == "conv" else []
        times.append((_middle(layers[index]) + (_middle(extra) if extra else 0.0)) / 1000)
    return times


def _middle(durations: list[int]) -> float:
    """The mean of the middle half."""
    ordered = sorted(durations[_WARMUP:] or durations)
    quarter = len(ordered) // 4
    return statistics.fmean(ordered[quarter : len(ordered) - quarter])


def main() -> None:
    """Answer one task after the other until there are no more."""
    for line in sys.stdin:
        task = json.loads(line)
        if task["cores"] and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, task["cores"])
        json.dump(network_times_ms(task) if "networks" in task else layer_times_ms(task), sys.stdout)
        sys.stdout.write("\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
