"""Which convolutions does ONNX Runtime run in blocks of channels, on this machine?

Its fast float convolutions on a CPU work on blocks of 16 channels (AVX-512) or 8 (AVX2); latency is then a step function
of ceil(channels / block). Some widths do not fit the blocks, and such a layer is several times slower. The rules differ by
version and machine, so nothing is assumed here: ONNX Runtime is asked, by reading the graph that it made of a model.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from adjcompress.errors import AdjCompressError, first_line
from adjcompress.widths import WidthPlan

_BLOCKED = "com.microsoft.nchwc"
_PLAIN = ("", "ai.onnx", "com.microsoft")
# Kept channels where ONNX Runtime has no blocks: the widths that its matrix kernels on such processors are made for.
_WITHOUT_BLOCKS = 8


@dataclass(frozen=True)
class Unblocked:
    """A convolution outside the blocked layout, and the next larger widths with which it would be inside.

    `wanted_in` and `wanted_out` are None where no larger width helps.
    """

    layer: str
    channels_in: int
    channels_out: int
    groups: int
    wanted_in: int | None
    wanted_out: int | None

    def __str__(self) -> str:
        """ "layer2.0.conv2, 30 -> 30 channels, is not in the blocked layout; 32 -> 30 would be" """
        text = f"{self.layer}, {self.channels_in} -> {self.channels_out} channels, is not in the blocked layout"
        return text if self.wanted_in is None else f"{text}; {self.wanted_in} -> {self.wanted_out} would be"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@functools.cache
def block_channels() -> int:
    """How many channels ONNX Runtime's blocked float convolutions take at a time here; 1 where it has none."""
    graph = optimised(_one_convolution(in_channels=32, out_channels=4, groups=1, kernel=1))
    for node in graph.graph.node:
        if node.op_type == "Conv" and node.domain == _BLOCKED:
            return next(tensor.dims[0] for tensor in graph.graph.initializer if tensor.name == node.input[1])
    return 1


def align_auto() -> int:
    """The multiple that kept channels should be of on this machine: the block of ONNX Runtime's convolutions."""
    block = block_channels()
    return block if block > 1 else _WITHOUT_BLOCKS


def optimised(model: onnx.ModelProto | Path) -> onnx.ModelProto:
    """The graph that ONNX Runtime really runs on the CPU: what its optimiser made of `model`, a file or a graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(path)
        source = str(model) if isinstance(model, Path) else model.SerializeToString()
        try:
            onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors share no type but this
            where = f"{model}: " if isinstance(model, Path) else ""
            raise AdjCompressError(f"{where}ONNX Runtime cannot run this graph ({first_line(error)}).") from error
        return onnx.load(str(path), load_external_data=False)


def float_convolutions(graph: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The convolutions of an optimised graph that compute in floating point outside the blocked layout."""
    for node in graph.graph.node:
        if node.op_type in ("Conv", "FusedConv") and node.domain in _PLAIN:
            yield node


def blocked_convolutions(graph: onnx.ModelProto) -> int:
    """How many convolutions of an optimised graph are in the blocked layout."""
    return sum(node.op_type == "Conv" and node.domain == _BLOCKED for node in graph.graph.node)


def unblocked(model: onnx.ModelProto | Path) -> tuple[Unblocked, ...]:
    """The float convolutions of a model that did not get the blocked layout; empty where this machine has none.

    Layers go by their weight's name, which is the module's in training.
    """
    if block_channels() == 1:
        return ()
    graph = optimised(model)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    found = []
    for node in float_convolutions(graph):
        if node.input[1] not in shapes:
            continue  # weights that the graph computes
        out_channels, per_group, *kernel = shapes[node.input[1]]
        groups = next((item.i for item in node.attribute if item.name == "group"), 1)
        in_channels, layer = per_group * groups, node.input[1].removesuffix(".weight")
        wanted = _blocked_widths(in_channels, out_channels, groups, kernel[-1]) or (None, None)
        found.append(Unblocked(layer, in_channels, out_channels, groups, *wanted))
    return tuple(found)


def unblocked_by(plan: WidthPlan, cut: nn.Module) -> tuple[Unblocked, ...]:
    """The convolutions of a network cut by `plan` that had the blocked layout before, and have it no longer.

    Known from the widths alone, before anything is trained or exported; empty where this machine has no blocks.
    """
    found = []
    for name, module in cut.named_modules() if block_channels() > 1 else ():
        before = plan.shapes.get(f"{name}.weight")
        if before is None or not isinstance(module, nn.Conv2d):
            continue
        groups = before[0] // (module.out_channels // module.groups) if module.groups > 1 else 1  # whole ones are cut
        kernel, now = module.kernel_size[-1], (module.in_channels, module.out_channels, module.groups)
        if _is_blocked(before[1] * groups, before[0], groups, kernel) and not _is_blocked(*now, kernel):
            found.append(Unblocked(name, *now, *(_blocked_widths(*now, kernel) or (None, None))))
    return tuple(found)


@functools.cache
def _is_blocked(in_channels: int, out_channels: int, groups: int, kernel: int) -> bool:
    """Whether ONNX Runtime blocks such a convolution here."""
    return not any(float_convolutions(optimised(_one_convolution(in_channels, out_channels, groups, kernel))))


@functools.cache
def _blocked_widths(in_channels: int, out_channels: int, groups: int, kernel: int) -> tuple[int, int] | None:
    """The smallest larger (in, out) widths, in multiples of 4, with which ONNX Runtime blocks such a convolution."""
    block = block_channels()

    def up(channels: int, step: int) -> int:
        return -(-channels // step) * step

    for step in (4, block):
        wider_in, wider_out = up(in_channels, step), up(out_channels, step)
        if groups == 1:
            candidates = [(wider_in, out_channels), (in_channels, wider_out), (wider_in, wider_out)]
        elif groups == in_channels == out_channels:
            candidates = [(wider_in, wider_in)]
        else:  # channels in each of the groups
            candidates = [(up(in_channels // groups, step) * groups, up(out_channels // groups, step) * groups)]
        for wanted in candidates:
            depthwise = groups == in_channels == out_channels and groups > 1
            if _is_blocked(*wanted, wanted[0] if depthwise else groups, kernel):
                return wanted
    return None


def _one_convolution(in_channels: int, out_channels: int, groups: int, kernel: int) -> onnx.ModelProto:
    """A graph of a single convolution on images of 8 x 8."""
    size = max(8, kernel)
    weight = np.ones((out_channels, in_channels // groups, kernel, kernel), np.float32)
    node = helper.make_node("Conv", ["images", "weight"], ["result"], group=groups, pads=[kernel // 2] * 4)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, in_channels, size, size])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
