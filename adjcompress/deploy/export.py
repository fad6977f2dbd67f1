"""How does a network become one ONNX file that computes the same?"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxscript import rewriter
from onnxscript.rewriter.rules.common import fuse_batchnorm_into_conv_rule, fuse_batchnorm_into_gemm_rule
from torch import Tensor, nn

from adjcompress.data import ImageData
from adjcompress.deploy.extract import extract_package, first_images
from adjcompress.deploy.package import PackageInfo, load_package, package_info
from adjcompress.errors import AdjCompressError
from adjcompress.files import written_aside
from adjcompress.models.weights import first_line
from adjcompress.training import Run
from adjcompress.training.checkpoint import newest_checkpoint
from adjcompress.widths import Certificate, compare

LOWEST_OPSET = 18
_TINY = 1e-30
_BATCHES = (1, 2, 7)


@dataclass(frozen=True)
class ExportReport:
    """An ONNX file that was written: its certificate, and what was done to the graph.

    `zeroed_weights`: how many weights below 1e-30 became 0. `batch_norms_left`: batch norms that no convolution precedes,
    which therefore stay in the graph.
    """

    path: Path
    bytes: int
    opset: int
    simplified: bool
    zeroed_weights: int
    batch_norms_left: int
    tolerance: float
    certificate: Certificate

    def to_json(self) -> dict[str, Any]:
        fields = ("bytes", "opset", "simplified", "zeroed_weights", "batch_norms_left", "tolerance")
        return {
            "path": str(self.path),
            **{field: getattr(self, field) for field in fields},
            "certificate": {**self.certificate.to_json(), "relative": self.certificate.relative},
        }


def export_onnx(
    network: nn.Module,
    path: str | Path,
    example: Tensor,
    *,
    opset: int = LOWEST_OPSET,
    simplify: bool = False,
    tolerance: float = 1e-4,
    metadata: Mapping[str, str] | None = None,
) -> ExportReport:
    """Write `network` as one ONNX file with a dynamic batch: input "images" (N, 3, H, W), output "logits" (N, classes).

    `example` are real images as the network sees them, (N, 3, H, W). The graph, batch norms folded, runs through ONNX
    Runtime on 1, 2 and 7 of them; if a logit differs from torch's by more than `tolerance` times the largest logit, that
    is an AdjCompressError and no file is left. `simplify`: run onnx-simplifier. `metadata` goes into the file.
    """
    path = Path(path)
    _check_options(path, opset, tolerance)
    network, example = copy.deepcopy(network).cpu().eval(), example.cpu()
    model = _traced(network, example, opset)
    model = rewriter.rewrite(model, pattern_rewrite_rules=[fuse_batchnorm_into_conv_rule, fuse_batchnorm_into_gemm_rule])
    if simplify:
        model = _simplified(model)
    zeroed = _zero_tiny_weights_(model)
    _strip_notes_(model)
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    with written_aside(path) as aside:
        aside.write_bytes(model.SerializeToString())
        certificate = _parity(network, aside, example)
        if not certificate.relative <= tolerance:
            raise AdjCompressError(
                f"{path} was not written: its logits differ from torch's by {certificate.relative:.2g} of their scale, "
                f"above the tolerance of {tolerance:g} (top-1 agrees on {certificate.agreement:.1%}). "
                "Try another --opset, or without --simplify; raise --tolerance only if that loss is meant."
            )
        size = aside.stat().st_size
    left = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    return ExportReport(path, size, opset, simplify, zeroed, left, tolerance, certificate)


def export_package(
    package: Path,
    path: str | Path,
    data: ImageData,
    *,
    opset: int = LOWEST_OPSET,
    simplify: bool = False,
    tolerance: float = 1e-4,
) -> ExportReport:
    """Export a package's network, compared with torch on validation images of `data`."""
    info = package_info(package)
    if data.classes != info.classes:
        theirs, ours = (", ".join(names[:3]) + ", ..." * (len(names) > 3) for names in (data.classes, info.classes))
        raise AdjCompressError(
            f"{package} knows {len(info.classes)} classes ({ours}) and {data.spec.source} has {len(data.classes)} "
            f"({theirs}): give the data it was trained on with --data."
        )
    images = first_images(data, data.validation, max(_BATCHES))
    return export_onnx(
        load_package(package),
        path,
        images,
        opset=opset,
        simplify=simplify,
        tolerance=tolerance,
        metadata=onnx_metadata(info),
    )


def export_full(run: Run) -> tuple[Path, Path] | None:
    """The full network of a run as (package, ONNX file) in the run's folder; made anew when the run went on.

    None for a run that trained no full network.
    """
    if "full" not in run.method().deployables():
        return None
    package, path = run.folder / "full.safetensors", run.folder / "full.onnx"
    found = newest_checkpoint(run.folder)
    newest = found.folder.stat().st_mtime if found else 0.0
    if not (package.is_file() and path.is_file() and path.stat().st_mtime > newest):
        extract_package(run, "full", package)
        export_package(package, path, run.data())
    return package, path


def onnx_metadata(info: PackageInfo) -> dict[str, str]:
    """What an ONNX file tells about its network: names, classes, preprocessing, counts, accuracy; JSON by key."""
    content = info.to_json()
    keys = ("name", "model", "classes", "preprocessing", "parameters", "macs", "accuracy", "versions")
    return {f"adjcompress.{key}": json.dumps(content[key]) for key in keys}


def _check_options(path: Path, opset: int, tolerance: float) -> None:
    highest = onnx.defs.onnx_opset_version()
    if not LOWEST_OPSET <= opset <= highest:
        raise AdjCompressError(f"--opset {opset} must lie between {LOWEST_OPSET} and {highest}.")
    if not tolerance >= 0:
        raise AdjCompressError(f"--tolerance {tolerance} must be 0 or more.")
    if path.suffix != ".onnx":
        raise AdjCompressError(f"{path}: the output is an .onnx file.")


def _traced(network: nn.Module, example: Tensor, opset: int) -> onnx.ModelProto:
    """The graph as torch's exporter gives it, weights inside. Its remarks on its own progress are not passed on."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    batch = torch.zeros(2, *example.shape[1:])
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (batch,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["images"],
                output_names=["logits"],
                opset_version=opset,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise AdjCompressError(f"torch.onnx cannot export this {type(network).__name__}: {first_line(error)}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
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


def _parity(network: nn.Module, path: Path, example: Tensor) -> Certificate:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no type but this
        raise AdjCompressError(
            f"ONNX Runtime cannot run this graph ({first_line(error)}): try --opset {LOWEST_OPSET}."
        ) from error

    def by_onnx(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(np.asarray(logits))

    repeated = example.repeat(-(-max(_BATCHES) // len(example)), 1, 1, 1)
    return compare("export", network, by_onnx, [repeated[:size] for size in _BATCHES])
