"""How does a network become one ONNX file that computes the same?"""

from __future__ import annotations

import copy
import json
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from adjcompress.cost.materialise import materialised
from adjcompress.data import ImageData, Preprocessing, first_pixels
from adjcompress.deploy.extract import extract_package
from adjcompress.deploy.graph import halved, traced
from adjcompress.deploy.int8 import Int8Options, Int8Report, check_int8, quantise
from adjcompress.deploy.layout import Unblocked, unblocked
from adjcompress.deploy.reconstruct import ReconstructedLayer, reconstruct_
from adjcompress.deploy.runtime import as_input, runner
from adjcompress.deploy.trail import keep, run_of
from adjcompress.errors import AdjCompressError, first_line, shortened
from adjcompress.files import check_output, written_aside, written_together
from adjcompress.packages import PackageInfo, load_package, package_info, save_package
from adjcompress.running import CANNOT_RUN, evaluating
from adjcompress.substitutes import Reconstructed, Substitution, apply_substitution
from adjcompress.tensors import copied_with, kinds
from adjcompress.training import Run
from adjcompress.training.checkpoint import newest_checkpoint
from adjcompress.widths import Certificate, compare

LOWEST_OPSET = 18
_BATCHES = (1, 2, 7)


@dataclass(frozen=True)
class ExportOptions:
    """How a graph is made.

    `tolerance`: the largest difference to torch over the largest logit; None: 1e-4, and 1e-2 in half precision.
    `preprocess`: the graph takes raw pixels, uint8 (N, H, W, 3). `external_data`: weights in a second file, <path>.data.
    `materialise`: dense weights in the file, also of layers that are made of fewer numbers.
    """

    opset: int = LOWEST_OPSET
    simplify: bool = False
    tolerance: float | None = None
    preprocess: bool = False
    float16: bool = False
    external_data: bool = False
    materialise: bool = False

    @property
    def largest_difference(self) -> float:
        """`tolerance`, or its default for this precision."""
        if self.tolerance is not None:
            return self.tolerance
        return 1e-2 if self.float16 else 1e-4


@dataclass(frozen=True)
class ExportReport:
    """An ONNX file that was written: its certificate, and what was done to the graph.

    `kind` is float32, float16 or int8; "materialised" behind it where substitutes were written as dense weights. `bytes`
    with external data. `zeroed_weights`: how many weights below 1e-30 became 0. `batch_norms_left`: batch norms that no
    convolution precedes, which therefore stay in the graph. `unblocked`: convolutions that ONNX Runtime does not run in its
    blocked layout here. `certificate` compares the float graph with torch; `int8` tells what quantisation cost.
    `reconstructed`: the layers whose weights the graph makes of fewer numbers.
    """

    path: Path
    kind: str
    bytes: int
    options: ExportOptions
    zeroed_weights: int
    batch_norms_left: int
    unblocked: tuple[Unblocked, ...]
    certificate: Certificate
    int8: Int8Report | None = None
    reconstructed: tuple[ReconstructedLayer, ...] = ()

    def to_json(self) -> dict[str, Any]:
        options = ("opset", "simplify", "preprocess", "external_data", "materialise")
        return {
            "path": str(self.path),
            **{field: getattr(self, field) for field in ("kind", "bytes", "zeroed_weights", "batch_norms_left")},
            **{option: getattr(self.options, option) for option in options},
            "tolerance": self.options.largest_difference,
            "reconstructed": [asdict(layer) for layer in self.reconstructed],
            "unblocked": [layer.to_json() for layer in self.unblocked],
            "certificate": {**self.certificate.to_json(), "relative": self.certificate.relative},
            "int8": self.int8.to_json() if self.int8 else None,
        }


def export_onnx(
    network: nn.Module,
    path: str | Path,
    example: Tensor,
    options: ExportOptions = ExportOptions(),
    *,
    preprocessing: Preprocessing | None = None,
    metadata: Mapping[str, str] | None = None,
) -> ExportReport:
    """Write `network` as one ONNX file with a dynamic batch: input "images" (N, 3, H, W), output "logits" (N, classes).

    `example` are real images as the network sees them, (N, 3, H, W); with `options.preprocess` raw pixels, uint8 of the
    same shape, which `preprocessing` tells how to normalise, and the file takes uint8 (N, H, W, 3). The graph, batch norms
    folded, runs through ONNX Runtime on 1, 2 and 7 of them; if a logit differs from torch's by more than the tolerance
    times the largest logit, that is an AdjCompressError and no file is left. `metadata` goes into the file.
    """
    path, example = Path(path), example.cpu()
    _check_options(path, options)
    if options.preprocess and preprocessing is None:
        raise AdjCompressError("An export with preprocess=True needs the preprocessing that goes into the graph.")
    _check_network(network, example, options)
    inside = preprocessing if options.preprocess else None
    graph = traced(materialised(network), example, options.opset, simplify=options.simplify, from_pixels=inside)
    model = halved(graph.model) if options.float16 else graph.model
    reconstructed = () if options.materialise else reconstruct_(model, copy.deepcopy(network).cpu())
    _tell_(model, {**(metadata or {}), "adjcompress.input": json.dumps(_input(options))})
    onnx.checker.check_model(model)
    with _in_place(path, options.external_data) as aside:
        data = f"{aside.name}.data" if options.external_data else None
        if data is not None:
            _put_weights_apart_(model, data)
        onnx.save_model(model, str(aside))
        certificate = _parity(network, aside, example, inside)
        if not certificate.relative <= options.largest_difference:
            raise AdjCompressError(
                f"{path} was not written: its logits differ from torch's by {certificate.relative:.2g} of their scale, "
                f"above the tolerance of {options.largest_difference:g} (top-1 agrees on {certificate.agreement:.1%}). "
                "Try another --opset, or without --simplify and --fp16; raise --tolerance only if that loss is meant."
            )
        layout = unblocked(aside)
        size = sum(file.stat().st_size for file in {aside, aside.with_name(data or aside.name)})
    kind = "float16" if options.float16 else "float32"
    if options.materialise and any(isinstance(module, Reconstructed) for module in network.modules()):
        kind += " materialised"
    left = graph.batch_norms_left
    return ExportReport(path, kind, size, options, graph.zeroed_weights, left, layout, certificate, reconstructed=reconstructed)


def export_package(
    package: str | Path,
    path: str | Path,
    data: ImageData,
    options: ExportOptions = ExportOptions(),
    int8: Int8Options | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> ExportReport:
    """Export a package's network, compared with torch on validation images of `data`; with `int8` quantised after that.

    Calibration takes training images, the accuracy check the validation split. `progress` hears what is being done. The report
    is kept with the run that the package came from, for `write_report`, where that is known here.
    """
    package = Path(package)
    report = _exported(package, Path(path), data, options, int8, progress)
    run = run_of(package)
    if run is not None:
        _keep_export(run, report, package)
    return report


def _keep_export(run: Path, report: ExportReport, package: Path, **more: Any) -> None:
    """As `adjcompress report` reads it."""
    name = package_info(package).name
    keep(run, "export", str(report.path), {**report.to_json(), "package": str(package), "name": name, **more})


def _exported(
    package: Path,
    path: Path,
    data: ImageData,
    options: ExportOptions,
    int8: Int8Options | None,
    progress: Callable[[str], None],
) -> ExportReport:
    info = package_info(package)
    _check_data(package, info, data)
    pixels = first_pixels(data, data.validation, max(_BATCHES))
    example = pixels if options.preprocess else data.preprocessing.normalise(pixels)
    network, metadata = load_package(package), onnx_metadata(info)
    if options.materialise and not any(isinstance(module, Reconstructed) for module in network.modules()):
        raise AdjCompressError(
            f"--materialise: no layer of {package} makes its weight of fewer numbers (tensor_train, tucker, hashed and acdc "
            "do): leave it out."
        )
    if int8 is None:
        return export_onnx(network, path, example, options, preprocessing=data.preprocessing, metadata=metadata)
    _check_options(path, options)
    check_int8(int8, data)
    if options.float16 or options.external_data:
        raise AdjCompressError("--int8 goes with neither --fp16 nor --external-data: export them to files of their own.")
    return _exported_in_int8(network, path, example, data, options, int8, metadata, progress)


def _exported_in_int8(
    network: nn.Module,
    path: Path,
    example: Tensor,
    data: ImageData,
    options: ExportOptions,
    int8: Int8Options,
    metadata: Mapping[str, str],
    progress: Callable[[str], None],
) -> ExportReport:
    """By way of a float file, all of its weights dense, which is compared with torch first."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "float.onnx"
        dense = replace(options, materialise=True)
        report = export_onnx(network, whole, example, dense, preprocessing=data.preprocessing, metadata=metadata)
        small = None if options.materialise else network
        with written_aside(path) as aside:
            quantised = quantise(
                whole, aside, path, data, int8, from_pixels=options.preprocess, reconstructed=small, progress=progress
            )
            model = onnx.load(str(aside))
            _tell_(model, {**metadata, **_of_int8(quantised), "adjcompress.input": json.dumps(_input(options))})
            aside.write_bytes(model.SerializeToString())
            size = aside.stat().st_size
    return replace(
        report,
        path=path,
        kind=report.kind.replace("float32", "int8") if options.materialise else "int8",
        bytes=size,
        options=options,
        unblocked=(),
        int8=quantised,
        reconstructed=quantised.reconstructed,
    )


def _check_data(package: Path, info: PackageInfo, data: ImageData) -> None:
    """Refuse data of other classes than the package knows, and data that is shown in another way."""
    if data.classes != info.classes:
        theirs, ours = (shortened(names, 3) for names in (data.classes, info.classes))
        raise AdjCompressError(
            f"{package} knows {len(info.classes)} classes ({ours}) and {data.spec.source} has {len(data.classes)} "
            f"({theirs}): give the data it was trained on with --data."
        )
    seen, given = ((each.size, each.mean, each.std) for each in (info.preprocessing, data.preprocessing))
    if seen != given:
        raise AdjCompressError(
            f"{package} sees images of {seen[0][0]}x{seen[0][1]} pixels (mean {seen[1]}, std {seen[2]}), and "
            f"{data.spec.source} is read as {given[0][0]}x{given[0][1]} (mean {given[1]}, std {given[2]}): read the data as it "
            "was read for training."
        )


def export_full(run: Run) -> tuple[Path, Path] | None:
    """The full network of a run as (package, ONNX file) in the run's folder; made anew when the run went on.

    None for a run that trained no full network; where that is because substitutes took its convolutions' place, or because an
    architecture was learnt in it, the dense or whole network with fresh weights, as where the full network has not begun to
    learn: its costs are to be compared with, and it has no accuracy.
    """
    method = run.method()
    if "full" not in method.deployables():
        return None if method.compared_with is None else _export_untrained(run, method.compared_with)
    if "full" in run.waiting(method):
        return _export_untrained(run, "full", method.substitution)
    package, path = run.folder / "full.safetensors", run.folder / "full.onnx"
    found = newest_checkpoint(run.folder)
    newest = found.folder.stat().st_mtime if found else 0.0
    if not (package.is_file() and path.is_file() and path.stat().st_mtime > newest):
        extract_package(run, "full", package)
        _keep_export(run.folder, export_package(package, path, run.data()), package)
    return package, path


def _export_untrained(run: Run, name: str, substitution: Substitution | None = None) -> tuple[Path, Path]:
    """The network that a run began with, under the name of what it is compared with, with fresh weights."""
    package, path = run.folder / f"{name}.safetensors", run.folder / f"{name}.onnx"
    if not (package.is_file() and path.is_file()):
        network = run.model.build()
        if substitution is not None:
            network = apply_substitution(network, substitution, approximate=False)
        network.eval()
        info = save_package(
            network,
            package,
            model=run.model,
            name=name,
            classes=run.classes,
            preprocessing=run.preprocessing,
            substitution=substitution,
        )
        size = info.preprocessing.example(max(_BATCHES)).shape
        images = torch.randn(size, generator=torch.Generator().manual_seed(0))  # it has learnt none
        exported = export_onnx(network, path, images, metadata=onnx_metadata(info))
        _keep_export(run.folder, exported, package, untrained=True)
    return package, path


def onnx_metadata(info: PackageInfo) -> dict[str, str]:
    """What an ONNX file tells about its network: names, classes, preprocessing, counts, accuracy; JSON by key."""
    content = info.to_json()
    keys = ("name", "model", "classes", "preprocessing", "parameters", "macs", "accuracy", "versions")
    return {f"adjcompress.{key}": json.dumps(content[key]) for key in keys}


def _input(options: ExportOptions) -> dict[str, str]:
    """What the file's input is, for whoever must fill it."""
    if options.preprocess:
        return {"type": "uint8", "layout": "NHWC", "values": "RGB, 0 to 255"}
    return {"type": "float32", "layout": "NCHW", "values": "RGB, normalised"}


def _of_int8(report: Int8Report) -> dict[str, str]:
    """The float network's accuracy on the test split is not the quantised one's: what was measured takes its place."""
    scores = {"validation": report.accuracy}
    return {"adjcompress.accuracy": json.dumps(scores), "adjcompress.int8": json.dumps(report.to_json())}


def _tell_(model: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Make `metadata` what the file says of itself."""
    model.ClearField("metadata_props")
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


@contextmanager
def _in_place(path: Path, external_data: bool) -> Iterator[Path]:
    """Where to write a model so that it gets in place whole: beside its place, with weights of its own in a folder."""
    if external_data:
        with written_together(path.parent) as folder:
            yield folder / path.name
    else:
        with written_aside(path) as aside:
            yield aside


def _put_weights_apart_(model: onnx.ModelProto, file: str) -> None:
    """Let the model's weights go into a second file of this name beside it, once it is saved."""
    # onnx refuses a name that stands in the working folder, wherever the model goes: it is told another first.
    onnx.external_data_helper.convert_model_to_external_data(model, location=uuid.uuid4().hex)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = file


def _check_network(network: nn.Module, example: Tensor, options: ExportOptions) -> None:
    """Refuse what torch's exporter, or the comparison with the file, would stumble over without saying why."""
    kind = type(network).__name__
    if others := kinds(network) - {torch.float32}:
        raise AdjCompressError(
            f"This {kind} has parameters of {others.pop()}: export it as network.float(); float16=True halves the file."
        )
    wanted = torch.uint8 if options.preprocess else torch.float32
    if example.ndim != 4 or not len(example) or example.dtype != wanted:
        raise AdjCompressError(
            f"The example of an export is {example.dtype} {tuple(example.shape)}; images (N, 3, H, W) of {wanted} are "
            "expected, at least one."
        )
    with evaluating(moved := copied_with(network, {}).cpu()):
        try:
            logits = moved(example[:1].float())
        except CANNOT_RUN as error:
            raise AdjCompressError(
                f"This {kind} does not take an image batch of shape {tuple(example.shape)}: {first_line(error)}."
            ) from error
    if not isinstance(logits, Tensor) or logits.ndim < 2:
        given = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise AdjCompressError(f"This {kind} gives {given}; logits (N, classes) are expected of what is exported.")


def _check_options(path: Path, options: ExportOptions) -> None:
    highest = onnx.defs.onnx_opset_version()
    if not LOWEST_OPSET <= options.opset <= highest:
        raise AdjCompressError(f"--opset {options.opset} must lie between {LOWEST_OPSET} and {highest}.")
    if not options.largest_difference >= 0:
        raise AdjCompressError(f"--tolerance {options.tolerance} must be 0 or more.")
    check_output(path, ".onnx", "the output")


def _parity(network: nn.Module, path: Path, example: Tensor, from_pixels: Preprocessing | None) -> Certificate:
    """Compare the file with torch on batches of several sizes."""
    network, run = copy.deepcopy(network).cpu().eval(), runner(path)

    def by_torch(images: Tensor) -> Tensor:
        logits: Tensor = network(from_pixels.normalise(images) if from_pixels else images)
        return logits

    def by_onnx(images: Tensor) -> Tensor:
        return run(as_input(images, from_pixels, True) if from_pixels else images.numpy())

    repeated = example.repeat(-(-max(_BATCHES) // len(example)), 1, 1, 1)
    return compare("export", by_torch, by_onnx, [repeated[:size] for size in _BATCHES])
