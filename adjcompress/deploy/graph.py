"""What does the graph of a network look like, before it is a file?"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnxscript import rewriter
from onnxscript.rewriter.rules.common import fuse_batchnorm_into_conv_rule, fuse_batchnorm_into_gemm_rule
from torch import Tensor, nn

from adjcompress.data import Preprocessing
from adjcompress.errors import AdjCompressError, first_line

_TINY = 1e-30
INPUT, OUTPUT = "images", "logits"
WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Graph:
    """A network as an ONNX graph, batch norms folded, and what was done to it."""

    model: onnx.ModelProto
    zeroed_weights: int
    batch_norms_left: int


class FromPixels(nn.Module):
    """A network that takes raw pixels: uint8 (N, H, W, 3) of 0..255 -> logits (N, classes). Nothing is resized."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.scale: Tensor
        self.shift: Tensor
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        self.register_buffer("scale", (1 / (255 * std)).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).contiguous().float()  # as bytes they are moved four times cheaper
        logits: Tensor = self.network(pixels * self.scale + self.shift)
        return logits


def traced(
    network: nn.Module, example: Tensor, opset: int, *, simplify: bool = False, from_pixels: Preprocessing | None = None
) -> Graph:
    """The graph of a network: input "images" (N, 3, H, W) with dynamic N, output "logits" (N, classes).

    `example` (N, 3, H, W) gives the size. With `from_pixels` the input is uint8 (N, H, W, 3), normalised inside. Nodes
    with weights are named after their modules, so that whatever reads the graph can speak of layers.
    """
    network = copy.deepcopy(network).cpu().eval()
    if from_pixels is not None:
        network = FromPixels(network, from_pixels).eval()
        height, width = example.shape[2:]
        batch = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    else:
        batch = torch.zeros(2, *example.shape[1:])
    model = _by_torch(network, batch, opset)
    model = rewriter.rewrite(model, pattern_rewrite_rules=[fuse_batchnorm_into_conv_rule, fuse_batchnorm_into_gemm_rule])
    if simplify:
        model = _simplified(model)
    zeroed = _zero_tiny_weights_(model)
    _strip_notes_(model)
    _name_after_layers_(model)
    left = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    return Graph(model, zeroed, left)


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in half precision inside, with the inputs and outputs it had."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = copy.deepcopy(model)
    _own_scales_(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weights below half precision's smallest number become that: parity decides
        converted = OnnxModel(convert_float_to_float16(model, keep_io_types=True))
    converted.topological_sort()  # the casts were put at the end
    return converted.model


def _own_scales_(model: onnx.ModelProto) -> None:
    """Give every Resize a constant of its own for its scales: the converter casts them one by one, by one name for all."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for number, node in enumerate(node for node in model.graph.node if node.op_type == "Resize"):
        for place, name in enumerate(node.input):
            if place > 0 and name in constants:
                own = copy.deepcopy(constants[name])
                own.name = f"{name}_of_resize_{number}"
                model.graph.initializer.append(own)
                node.input[place] = own.name


@contextmanager
def silenced(*names: str) -> Iterator[None]:
    """Within the block these loggers pass on errors only: exporters remark on their own progress."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _by_torch(network: nn.Module, batch: Tensor, opset: int) -> onnx.ModelProto:
    """The graph as torch's exporter gives it, weights inside."""
    try:
        with silenced("torch.onnx", "onnxscript", "onnx_ir", "torch.export"):
            program = torch.onnx.export(
                network,
                (batch,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=opset,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = first_line(error.__cause__ or error)
        raise AdjCompressError(f"torch.onnx cannot export this {type(network).__name__}: {reason}") from error
    assert program is not None
    return program.model_proto


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxsim

    simplified, same = onnxsim.simplify(model)
    if not same:
        raise AdjCompressError("onnx-simplifier changed what the network computes: export without --simplify.")
    return simplified


def _zero_tiny_weights_(model: onnx.ModelProto) -> int:
    """Set weights below 1e-30 to 0: products with them are denormal, on which CPUs are up to 100 times slower."""
    zeroed = 0
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(tensor).copy()
        tiny = (np.abs(values) < _TINY) & (values != 0)
        if tiny.any():
            values[tiny] = 0
            zeroed += int(tiny.sum())
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return zeroed


def _strip_notes_(model: onnx.ModelProto) -> None:
    """Take out where in the Python source each node came from: 5 % of a small file, and it names the user's folders."""
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.initializer, *model.graph.input):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for output in model.graph.output:
        output.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    model.graph.ClearField("doc_string")


def _name_after_layers_(model: onnx.ModelProto) -> None:
    """Call every node with weights by its module's name: "layer1.0.conv1"."""
    weights = {tensor.name for tensor in model.graph.initializer}
    names = {node.name for node in model.graph.node}
    for node in model.graph.node:
        if node.op_type not in WEIGHTED:
            continue
        weight = next((name for name in node.input[1:2] if name in weights), "")
        layer = weight.removesuffix(".weight").removeprefix("network.")
        if weight.endswith(".weight") and layer not in names:
            node.name = layer
            names.add(layer)
