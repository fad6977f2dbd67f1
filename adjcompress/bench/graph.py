"""What does an ONNX file cost, whoever wrote it?"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError

from adjcompress.errors import AdjCompressError


@dataclass(frozen=True)
class OnnxFacts:
    """`parameters`: those of the network before export where the file tells, else numbers of its initialisers.

    `macs` for one image, `bytes` of the file, `input_name` and `input_shape` (channels, height, width).
    """

    path: Path
    parameters: int
    macs: int
    bytes: int
    input_name: str
    input_shape: tuple[int, ...]


def onnx_facts(path: Path) -> OnnxFacts:
    """Read an ONNX file's costs and input; files that are missing, damaged or no image classifier are refused."""
    if not path.is_file():
        raise AdjCompressError(f"{path} does not exist: ONNX files are made by adjcompress export.")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
        model = onnx.shape_inference.infer_shapes(model)
    except (OSError, ValueError, DecodeError, ValidationError, InferenceError) as error:
        text = (str(error).splitlines() or [""])[0]
        raise AdjCompressError(f"{path} is damaged or no ONNX file ({type(error).__name__}: {text}).") from error
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    shape = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
    if len(shape) != 4 or not all(shape[1:]):
        raise AdjCompressError(f"{path} does not take one batch of images (N, C, H, W) of fixed size.")
    told = {entry.key: entry.value for entry in model.metadata_props}
    own = sum(math.prod(dims) for dims in weights.values() if len(dims) > 0)
    parameters = int(json.loads(told["adjcompress.parameters"])) if "adjcompress.parameters" in told else own
    macs = int(json.loads(told["adjcompress.macs"])) if "adjcompress.macs" in told else graph_macs(model)
    return OnnxFacts(path, parameters, macs, path.stat().st_size, inputs[0].name, tuple(shape[1:]))


def graph_macs(model: onnx.ModelProto) -> int:
    """MACs of the convolutions and matrix products with weights, for one image, from the inferred shapes."""
    shapes: dict[str, list[int]] = {}
    for value in (*model.graph.value_info, *model.graph.output):
        shapes[value.name] = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]  # 1 for the batch
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        weight = next((weights[name] for name in node.input[1:2] if name in weights), None)
        output = shapes.get(node.output[0])
        if weight is None or not output:
            continue
        if node.op_type == "Conv":
            total += math.prod(output) * math.prod(weight[1:])
        else:
            total += math.prod(weight) * math.prod(output[:-1])
    return total
