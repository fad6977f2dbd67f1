"""How does a file stay small where a layer's weight is made of fewer numbers?

The graph holds the few numbers and how the weight comes of them, feeding a plain convolution. ONNX Runtime folds all of that
once, when a session is created, so the running graph is that of dense weights. Whatever folds constants before (a
simplifier, a saved optimised graph) would bake the dense weights into the file; so this is the last thing done to a graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from adjcompress.substitutes import Reconstructed
from adjcompress.substitutes.acdc import Acdc
from adjcompress.substitutes.hashed import PRIME, ROUNDS, Hashed
from adjcompress.substitutes.tensor_train import TensorTrain
from adjcompress.substitutes.tucker import Tucker

Array = NDArray[Any]


@dataclass(frozen=True)
class ReconstructedLayer:
    """A layer whose weight the graph makes: the bytes that it takes so, and those of the dense weight in its place."""

    name: str
    bytes: int
    dense_bytes: int


def reconstruct_(model: onnx.ModelProto, network: nn.Module) -> tuple[ReconstructedLayer, ...]:
    """Replace the dense weights of the reconstructed layers of `network` in its graph by what makes them.

    The graph is that of the materialised network, batch norms folded: the rows' factors are read from it. A weight in 8 bits
    is quantised in the graph, from the same numbers. Where the dense weight takes fewer bytes it stays.
    """
    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    maker, done = _Maker(), []
    for name, layer in network.named_modules():
        if not isinstance(layer, Reconstructed):
            continue
        found = next((key for key in _weight_names(name) if key in initializers), None)
        if found is None:
            continue
        before = maker.bytes
        maker.weight(found, layer, initializers)
        dense = initializers[found].ByteSize()
        if maker.bytes - before >= dense:
            maker.forget(before)
            continue
        graph.initializer.remove(initializers[found])
        done.append(ReconstructedLayer(name, maker.bytes - before, dense))
        maker.keep()
    nodes = [*maker.nodes, *graph.node]
    graph.ClearField("node")
    graph.node.extend(nodes)
    graph.initializer.extend(maker.initializers)
    return tuple(done)


def _weight_names(layer: str) -> list[str]:
    """What a layer's weight may be called in a graph: inside a network that takes raw pixels, and in 8 bits."""
    return [f"{prefix}{layer}.weight{suffix}" for prefix in ("", "network.") for suffix in ("", "_quantized")]


class _Maker:
    """Collects nodes and initializers; what several layers need alike (a transform, a hash) is made once."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.bytes = 0
        self._shared: dict[str, str] = {}
        self._marks = (0, 0, dict(self._shared))
        self._names = 0

    def keep(self) -> None:
        """What was made so far stays."""
        self._marks = (len(self.nodes), len(self.initializers), dict(self._shared))

    def forget(self, size: int) -> None:
        """Drop what was made since `keep`."""
        nodes, initializers, shared = self._marks
        del self.nodes[nodes:], self.initializers[initializers:]
        self._shared, self.bytes = dict(shared), size

    def weight(self, name: str, layer: Reconstructed, initializers: dict[str, onnx.TensorProto]) -> None:
        """Make the tensor `name`, now a dense initializer (O, I, 1, 1), of the layer's numbers."""
        stored = initializers[name]
        half = stored.data_type == TensorProto.FLOAT16
        quantised = name.endswith("_quantized")
        matrix = _MATRICES[type(layer)](self, layer, half)
        shaped = self.node("Reshape", [matrix, self.integers([layer.outputs, layer.inputs, 1, 1])])
        if not quantised:
            factors = row_factors(numpy_helper.to_array(stored), layer)
            if factors is not None:
                shaped = self.node("Mul", [shaped, self.numbers(factors.reshape(-1, 1, 1, 1), half)])
            self.node("Cast" if half else "Identity", [shaped], name, **({"to": TensorProto.FLOAT16} if half else {}))
            return
        scale_name, zero_name = (name.removesuffix("_quantized") + end for end in ("_scale", "_zero_point"))
        scale, zero = (numpy_helper.to_array(initializers[key]) for key in (scale_name, zero_name))
        rows = numpy_helper.to_array(stored).astype(np.float32) - zero.reshape(-1, 1, 1, 1).astype(np.float32)
        factors = row_factors(rows * scale.reshape(-1, 1, 1, 1), layer)
        if factors is not None:
            shaped = self.node("Mul", [shaped, self.numbers(factors.reshape(-1, 1, 1, 1), False)])
        self.node("QuantizeLinear", [shaped, scale_name, zero_name], name, axis=0)

    def node(self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        output = output or self._fresh()
        made = helper.make_node(kind, list(inputs), [output], **attributes)  # without a name of its own: bytes count here
        self.nodes.append(made)
        self.bytes += made.ByteSize()
        return output

    def numbers(self, values: Array, half: bool) -> str:
        """Stored floats, as float32; in `half` stored in 16 bits."""
        name = self._stored(np.ascontiguousarray(values, np.float16 if half else np.float32))
        return self.node("Cast", [name], to=TensorProto.FLOAT) if half else name

    def parameter(self, tensor: Any, half: bool, shape: Sequence[int] | None = None) -> str:
        values = tensor.detach().cpu().numpy()
        return self.numbers(values if shape is None else values.reshape(shape), half)

    def integers(self, values: Sequence[int] | int) -> str:
        return self.shared(f"integers {values}", lambda: self._stored(np.array(values, np.int64)))

    def shared(self, key: str, make: Callable[[], str]) -> str:
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def _stored(self, values: Array) -> str:
        name = self._fresh()
        self.initializers.append(numpy_helper.from_array(values, name))
        self.bytes += self.initializers[-1].ByteSize()
        return name

    def _fresh(self) -> str:
        self._names += 1
        return f"made.{self._names}"


def row_factors(stored: Array, layer: Reconstructed) -> Array | None:
    """What each row of the layer's weight was multiplied by where a batch norm was folded, (O,); None where by nothing."""
    rows, own = stored.reshape(layer.outputs, -1).astype(np.float64), layer.dense_weight().detach().flatten(1).double().numpy()
    factors: Array = (rows * own).sum(1) / np.maximum((own * own).sum(1), 1e-300)
    return None if np.array_equal(factors.astype(np.float32), np.ones(len(factors), np.float32)) else factors


# --- what each form is made of --------------------------------------------------------------------------------------


def _tensor_train(make: _Maker, layer: TensorTrain, half: bool) -> str:
    r1, d2, r2 = layer.middle.shape
    left = make.node("MatMul", [make.parameter(layer.first, half), make.parameter(layer.middle, half, (r1, d2 * r2))])
    left = make.node("Reshape", [left, make.integers([-1, r2])])
    return make.node("MatMul", [left, make.parameter(layer.last, half)])


def _tucker(make: _Maker, layer: Tucker, half: bool) -> str:
    s1, s2, s3 = layer.core.shape
    first, second, third = layer.factors
    folded = make.node("MatMul", [make.parameter(first, half), make.parameter(layer.core, half, (s1, s2 * s3))])
    folded = make.node("Reshape", [folded, make.integers([-1, s2, s3])])
    folded = make.node("MatMul", [make.parameter(second, half), folded])
    return make.node("MatMul", [folded, make.parameter(third.T, half)])


def _hashed(make: _Maker, layer: Hashed, half: bool) -> str:
    inputs, outputs, count = layer.inputs, layer.outputs, len(layer.weight)
    places = make.shared(f"places {inputs} {outputs}", lambda: _places(make, inputs, outputs))
    return make.node("Gather", [make.parameter(layer.weight, half), make.node("Mod", [places, make.integers(count)])])


def _places(make: _Maker, inputs: int, outputs: int) -> str:
    """`substitutes.hashed.places` as nodes: int64 (outputs, inputs)."""

    def counted(count: int, shape: list[int]) -> str:
        numbers = make.node("Range", [make.integers(0), make.integers(count), make.integers(1)])
        return make.node("Reshape", [numbers, make.integers(shape)])

    def mixed(values: str, add: int, times: int) -> str:
        moved = make.node("Add", [values, make.integers(add)])
        square = make.node("Mod", [make.node("Mul", [moved, moved]), make.integers(PRIME)])
        return make.node("Mod", [make.node("Mul", [square, make.integers(times)]), make.integers(PRIME)])

    def shifted(values: str, by: str, size: int) -> str:
        return make.node("Mod", [make.node("Add", [values, by]), make.integers(size)])

    row, column = counted(outputs, [-1, 1]), counted(inputs, [1, -1])
    first, second, third = ROUNDS
    column = shifted(column, mixed(row, *first), inputs)
    row = shifted(row, mixed(column, *second), outputs)
    column = shifted(column, mixed(row, *third), inputs)
    return make.node("Add", [make.node("Mul", [row, make.integers(inputs)]), column])


def _acdc(make: _Maker, layer: Acdc, half: bool) -> str:
    size, inputs, outputs = layer.size, layer.inputs, layer.outputs
    forward = make.shared(f"dct {size}", lambda: _dct(make, size))
    backward = make.shared(f"inverse dct {size}", lambda: make.node("Transpose", [forward], perm=[1, 0]))
    rows = make.shared(f"repeated {inputs} {size}", lambda: _repeated(make, inputs, size))
    for scale, transformed in zip(layer.scale, layer.scale_transformed, strict=True):
        for diagonal, matrix in ((scale, backward), (transformed, forward)):  # rows times C transposed, then C
            rows = make.node("MatMul", [make.node("Mul", [rows, make.parameter(diagonal, half)]), matrix])
            halves = make.node("Reshape", [rows, make.integers([inputs, size // 2, 2])])
            rows = make.node("Reshape", [make.node("Transpose", [halves], perm=[0, 2, 1]), make.integers([inputs, size])])
    if size != outputs:
        missing = -size % outputs
        rows = make.node("Pad", [rows, make.integers([0, 0, 0, missing])])
        parts = make.node("Reshape", [rows, make.integers([inputs, -1, outputs])])
        rows = make.node("ReduceSum", [parts, make.integers([1])], keepdims=0)
    return make.node("Transpose", [rows], perm=[1, 0])


def _dct(make: _Maker, size: int) -> str:
    """`substitutes.acdc.dct_matrix` as nodes: (size, size)."""
    numbers = make.node("Range", [make.integers(0), make.integers(size), make.integers(1)])
    k = make.node("Reshape", [numbers, make.integers([-1, 1])])
    odd = make.node("Add", [make.node("Mul", [numbers, make.integers(2)]), make.integers(1)])
    turns = make.node("Mod", [make.node("Mul", [k, odd]), make.integers(4 * size)])
    angles = make.node(
        "Mul", [make.node("Cast", [turns], to=TensorProto.FLOAT), make.numbers(np.array(math.pi / 2 / size), False)]
    )
    waves = make.node("Mul", [make.node("Cos", [angles]), make.numbers(np.array(math.sqrt(2 / size)), False)])
    first = make.node("Equal", [k, make.integers(0)])
    level = make.numbers(np.array(math.sqrt(1 / size)), False)
    return make.node("Where", [first, level, waves])


def _repeated(make: _Maker, inputs: int, size: int) -> str:
    """A 1 wherever column n is a copy of input n mod inputs: (inputs, size)."""
    columns = make.node("Range", [make.integers(0), make.integers(size), make.integers(1)])
    rows = make.node("Range", [make.integers(0), make.integers(inputs), make.integers(1)])
    rows = make.node("Reshape", [rows, make.integers([-1, 1])])
    same = make.node("Equal", [make.node("Mod", [columns, make.integers(inputs)]), rows])
    return make.node("Cast", [same], to=TensorProto.FLOAT)


_MATRICES: dict[type, Callable[..., str]] = {TensorTrain: _tensor_train, Tucker: _tucker, Hashed: _hashed, Acdc: _acdc}
