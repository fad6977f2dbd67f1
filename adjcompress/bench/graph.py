"""What does an ONNX file cost, whoever wrote it?"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError

from adjcompress.deploy.graph import WEIGHTED
from adjcompress.errors import AdjCompressError, first_line
from adjcompress.files import checksum
from adjcompress.packages import package_info


@dataclass(frozen=True)
class FileFacts:
    """`parameters`: those of the network before export where the file tells, else numbers of its initialisers.

    `macs` for one image, `bytes` of the file and its external data, `input_shape` (channels, height, width) or, of raw
    pixels, (height, width, channels), `input_type` "float32" or "uint8". `sha256`: of the file, without external data.
    """

    path: Path
    parameters: int
    macs: int
    bytes: int
    input_shape: tuple[int, ...]
    input_type: str
    sha256: str


def onnx_facts(path: Path) -> FileFacts:
    """Read an ONNX file's costs and input; files that are missing, damaged or no image classifier are refused."""
    if path.is_dir():
        raise AdjCompressError(f"{path} is a folder: name an ONNX file in it.")
    if not path.is_file():
        raise AdjCompressError(f"{path} does not exist: ONNX files are made by adjcompress export.")
    try:
        onnx.checker.check_model(str(path))
        model = onnx.load(str(path), load_external_data=False)
        model = onnx.shape_inference.infer_shapes(model)
    except (OSError, ValueError, DecodeError, ValidationError, InferenceError) as error:
        text = f"{type(error).__name__}: {first_line(error)}"
        raise AdjCompressError(f"{path} is damaged or no ONNX file ({text}): export it again.") from error
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    shape, kind = _image_input(path, [value for value in model.graph.input if value.name not in weights])
    told = {entry.key: entry.value for entry in model.metadata_props}
    own = sum(math.prod(dims) for dims in weights.values() if len(dims) > 0)
    parameters = int(json.loads(told["adjcompress.parameters"])) if "adjcompress.parameters" in told else own
    macs = int(json.loads(told["adjcompress.macs"])) if "adjcompress.macs" in told else graph_macs(model)
    return FileFacts(path, parameters, macs, path.stat().st_size + _external_bytes(path, model), shape, kind, checksum(path))


def package_facts(path: Path) -> FileFacts:
    """The same of a package."""
    info = package_info(path)
    shape = (3, *info.preprocessing.size)
    return FileFacts(path, info.parameters, info.macs, path.stat().st_size, shape, "float32", checksum(path))


def _image_input(path: Path, inputs: Sequence[onnx.ValueInfoProto]) -> tuple[tuple[int, ...], str]:
    """Shape without the batch and type of the one input, which must be a batch of images."""
    kinds: dict[int, str] = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.UINT8: "uint8"}
    found = "; ".join(f"{value.name} {_described(value)}" for value in inputs) or "none"
    if len(inputs) == 1:
        tensor = inputs[0].type.tensor_type
        shape = [dim.dim_value for dim in tensor.shape.dim]
        if len(shape) == 4 and all(shape[1:]) and tensor.elem_type in kinds:
            return tuple(shape[1:]), kinds[tensor.elem_type]
    raise AdjCompressError(
        f"{path} does not take one batch of images, float32 (N, C, H, W) or uint8 (N, H, W, C) of fixed size. "
        f"Its inputs: {found}."
    )


def _described(value: onnx.ValueInfoProto) -> str:
    """ "float32 (N, 3, ?, ?)" """
    tensor = value.type.tensor_type
    dims = ", ".join(str(dim.dim_value or dim.dim_param or "?") for dim in tensor.shape.dim)
    return f"{onnx.TensorProto.DataType.Name(tensor.elem_type).lower()} ({dims})"


def _external_bytes(path: Path, model: onnx.ModelProto) -> int:
    """Bytes of the files beside it that hold its weights."""
    places = {entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"}
    return sum((path.parent / place).stat().st_size for place in places)


def graph_macs(model: onnx.ModelProto) -> int:
    """MACs of the convolutions and matrix products with weights, for one image, from the inferred shapes."""
    shapes: dict[str, list[int]] = {}
    for value in (*model.graph.value_info, *model.graph.output):
        shapes[value.name] = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]  # 1 for a batch of any size
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:  # weights in 8 bits
        if node.op_type == "DequantizeLinear" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    images = next(value for value in model.graph.input if value.name not in weights)
    total = 0
    for node in model.graph.node:
        if node.op_type not in WEIGHTED:
            continue
        weight = next((weights[name] for name in node.input[1:2] if name in weights), None)
        output = shapes.get(node.output[0])
        if weight is None or not output:
            continue
        if node.op_type == "Conv":
            total += math.prod(output) * math.prod(weight[1:])
        else:
            total += math.prod(weight) * math.prod(output[:-1])
    return total // (images.type.tensor_type.shape.dim[0].dim_value or 1)
