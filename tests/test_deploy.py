"""What leaves training is exactly what was trained, and files that are not right are refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import TinyNet, randomise_, train_tiny
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import adjcompress as ac
from adjcompress.data import first_pixels
from adjcompress.deploy import ExportOptions, export_full, export_package
from adjcompress.files import checksum, written_together
from adjcompress.training import Run


def small_package(path: Path) -> nn.Module:
    spec = ac.ModelSpec("wrn_10_1", 10, 32)
    full = randomise_(spec.build())
    plan = ac.plan_widths(full, torch.zeros(1, 3, 32, 32), 4)
    small = ac.slice_model(full, plan).eval()
    ac.save_package(small, path, model=spec, plan=plan, name="alpha4", accuracy={"test": 0.5})
    return small


def test_a_package_gives_the_network_back_from_the_file_alone(tmp_path: Path, images: Tensor) -> None:
    small = small_package(tmp_path / "small.safetensors")
    network = ac.load_package(tmp_path / "small.safetensors")
    assert torch.equal(network(images), small(images))
    assert not network.training
    info = ac.package_info(tmp_path / "small.safetensors")
    counts = ac.count(small, images)
    assert (info.parameters, info.macs, info.bytes) == (counts.parameters, counts.macs, counts.bytes)
    assert info.name == "alpha4" and info.accuracy == {"test": 0.5} and info.model.name == "wrn_10_1"
    assert info.versions["torch"] == torch.__version__.partition("+")[0]


def test_a_package_is_not_written_for_a_network_it_could_not_rebuild(tmp_path: Path) -> None:
    with pytest.raises(ac.AdjCompressError, match="wrn_10_1 does not rebuild this network"):
        ac.save_package(TinyNet(), tmp_path / "a.safetensors", model=ac.ModelSpec("wrn_10_1", 10, 32))
    with pytest.raises(ac.AdjCompressError, match=r"a package must end in \.safetensors"):
        ac.save_package(TinyNet(), tmp_path / "a.pt", model=ac.ModelSpec("wrn_10_1", 10, 32))
    assert not list(tmp_path.iterdir())


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-7] ^= 4
    path.write_bytes(content)


def newer(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        content = json.loads(file.metadata()["adjcompress"])
    save_file(load_file(path), path, {"adjcompress": json.dumps({**content, "format": 2})})


def foreign(path: Path) -> None:
    save_file({"a": torch.zeros(3)}, path)


def no_metadata(path: Path) -> None:
    save_file({"a": torch.zeros(3)}, path, {"adjcompress": "{}"})


class Evil:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (os.mkdir, ("pwned",))


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Evil()))


def torch_saved(path: Path) -> None:
    torch.save(TinyNet(), path)


@pytest.mark.parametrize("name", ["os:mkdir", "shutil:rmtree", "torch.hub:load", "subprocess:run"])
def test_a_package_cannot_name_what_builds_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from safetensors import safe_open

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.safetensors"
    small_package(path)
    with safe_open(path, "pt") as file:
        content = json.loads(file.metadata()["adjcompress"])
    content["model"] = {"name": name, "num_classes": 10, "image_size": 32, "options": {"path": "pwned"}}
    save_file(load_file(path), path, {"adjcompress": json.dumps(content)})
    with pytest.raises(ac.AdjCompressError, match=f"Model {name}"):
        ac.load_package(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["small.safetensors"]


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (truncated, "is damaged or no package"),
        (flipped, "is damaged: the checksum of its weights differs"),
        (newer, "has package format 2; this version reads format 1"),
        (foreign, "is a safetensors file, but no package: use it with adjcompress train --weights"),
        (no_metadata, "is damaged: its metadata cannot be read"),
        (pickled, "is a pickle, which can run code when opened: it is refused"),
        (torch_saved, "is a pickle, which can run code when opened: it is refused"),
        (lambda path: path.write_bytes(b"abc"), "is damaged or no package: its header is cut off"),
        (lambda path: path.unlink(), "does not exist: packages are made by adjcompress extract"),
    ],
)
def test_files_that_are_no_whole_package_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.safetensors"
    small_package(path)
    damage(path)
    with pytest.raises(ac.AdjCompressError, match=text) as error:
        ac.load_package(path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("length", [0x4B50, 0x0280, 0x0480, 0x0580])  # begin as a zip's or a pickle's first bytes do
def test_a_package_whose_header_is_as_long_as_a_pickle_begins_is_read(tmp_path: Path, length: int) -> None:
    path = tmp_path / "small.safetensors"
    small_package(path)
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    while length < header:
        length += 0x10000
    path.write_bytes(length.to_bytes(8, "little") + content[8:header].ljust(length) + content[header:])
    assert path.read_bytes()[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05")
    assert ac.load_package(path)(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_a_users_own_model_needs_its_module_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "my_net.py").write_text(
        "from torch import nn\ndef net(num_classes) -> nn.Module:\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    spec = ac.ModelSpec("my_net:net", 5, 16)
    ac.save_package(spec.build(), tmp_path / "own.safetensors", model=spec)
    assert ac.load_package(tmp_path / "own.safetensors")(torch.zeros(1, 3, 16, 16)).shape == (1, 5)
    monkeypatch.undo()
    del sys.modules["my_net"]
    with pytest.raises(
        ac.AdjCompressError,
        match="the Python module my_net, which cannot be imported here: run in the folder that holds it",
    ):
        ac.load_package(tmp_path / "own.safetensors")


def test_what_is_extracted_equals_the_network_in_training(tiny_run: Run, images: Tensor) -> None:
    report = ac.extract_package(tiny_run)
    assert report.path == Path("small-alpha2.safetensors")
    assert report.certificate.max_difference == 0 and report.certificate.images == 64
    method = tiny_run.method()
    assert torch.equal(ac.load_package(report.path)(images), method.network(images).smalls["alpha2"])
    results = tiny_run.results()
    assert results is not None
    assert report.package.accuracy["test"] == pytest.approx(results["test"]["alpha2"]["accuracy"])
    assert report.full_parameters == 269_722 > report.package.parameters
    full = ac.extract_package(tiny_run, "full")
    assert full.path == Path("full.safetensors") and full.package.plan is None


def test_what_python_makes_of_a_run_is_kept_with_it_as_what_the_commands_do(tiny_run: Run) -> None:
    from adjcompress.deploy import deployed

    package = ac.extract_package(tiny_run).path
    exported = ac.export_package(package, "small.onnx", tiny_run.data())
    timed = ac.benchmark([exported.path], duration=0.01)
    ac.keep_timings(tiny_run, timed)
    kept = deployed(tiny_run.folder)
    assert list(kept["extract"]) == [str(package)] and kept["bench"]["1 thread"]["timings"][0]["path"] == "small.onnx"
    assert kept["export"]["small.onnx"]["package"] == str(package) and kept["export"]["small.onnx"]["name"] == "alpha2"
    assert "No network was extracted yet" not in ac.write_report(tiny_run).read_text()


def test_batch_norms_are_measured_anew_where_that_is_asked_for(tiny_run: Run) -> None:
    plain = ac.load_package(ac.extract_package(tiny_run, output=Path("plain.safetensors")).path).state_dict()
    report = ac.extract_package(tiny_run, output=Path("anew.safetensors"), reestimate=True)
    anew = ac.load_package(report.path).state_dict()
    differing = {name for name in plain if not torch.equal(plain[name], anew[name])}
    assert differing and {name.rpartition(".")[2] for name in differing} <= {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    assert report.certificate.max_difference == 0 and report.reestimated is not None
    assert [certificate["step"] for certificate in report.package.to_json()["certificates"]] == ["slice", "re-estimate"]


def test_an_extraction_that_cannot_be_is_refused(tiny_run: Run, digits: ac.ImageData) -> None:
    with pytest.raises(ac.AdjCompressError, match=r"no network alpha8; it has full, alpha2\. Without --alpha, alpha2 is taken"):
        ac.extract_package(tiny_run, "alpha8")
    config = json.loads((tiny_run.folder / "config.json").read_text())
    (tiny_run.folder / "config.json").write_text(json.dumps({**config, "model": None}))
    with pytest.raises(ac.AdjCompressError, match="was trained on a network made by hand"):
        ac.extract_package(ac.open_run(tiny_run.folder))


@pytest.mark.parametrize(
    ("name", "simplify"),
    [
        ("conftest:short_mobilenet", False),
        ("mobilenet_v2", True),
        ("conftest:short_densenet", True),
        ("convnext_tiny", True),
        ("inception_v3", True),
    ],
)
def test_onnx_computes_what_torch_does_at_any_batch(tmp_path: Path, name: str, simplify: bool) -> None:
    size = 96 if name == "inception_v3" else 32
    images = torch.randn(7, 3, size, size)
    full = randomise_(ac.create_model(name, 10, size))
    small = ac.slice_model(full, ac.plan_widths(full, images[:1], 4)).eval()
    report = ac.export_onnx(small, tmp_path / "a.onnx", images, ExportOptions(simplify=simplify))
    assert report.certificate.relative <= 1e-4 and report.certificate.agreement == 1 and report.certificate.images == 10
    model = onnx.load(tmp_path / "a.onnx")
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == report.batch_norms_left
    assert (report.batch_norms_left == 0) == (name != "conftest:short_densenet")  # there norms follow concatenations
    assert list(tmp_path.iterdir()) == [tmp_path / "a.onnx"]
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images[:3].numpy()})
    assert np.allclose(logits, small(images[:3]).detach().numpy(), atol=1e-3 * report.certificate.scale)


@pytest.mark.parametrize("opset", [18, 20, 21])
def test_the_opset_is_the_one_asked_for(tmp_path: Path, images: Tensor, opset: int) -> None:
    network = TinyNet().train()
    ac.export_onnx(network, tmp_path / "a.onnx", images, ExportOptions(opset=opset))
    assert [entry.version for entry in onnx.load(tmp_path / "a.onnx").opset_import if not entry.domain] == [opset]
    assert network.training  # a copy was exported


def test_an_export_that_differs_from_torch_leaves_nothing_behind(tmp_path: Path, images: Tensor) -> None:
    small = small_package(tmp_path / "small.safetensors")
    (tmp_path / "a.onnx").write_bytes(b"what was there before")
    with pytest.raises(ac.AdjCompressError, match=r"a\.onnx was not written: its logits differ .* above the tolerance of 0"):
        ac.export_onnx(small, tmp_path / "a.onnx", images, ExportOptions(tolerance=0))
    assert (tmp_path / "a.onnx").read_bytes() == b"what was there before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "small.safetensors"]


def test_tiny_weights_become_zero_and_are_counted(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with torch.no_grad():
        network[0].weight[0] = 1e-35
    report = ac.export_onnx(network, tmp_path / "a.onnx", torch.randn(7, 3, 8, 8))
    assert report.zeroed_weights == 3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"opset": 9}, "--opset 9 must lie between 18 and"),
        ({"tolerance": -1.0}, "--tolerance -1.0 must be 0 or more"),
        ({"path": "a.txt"}, r"a\.txt: the output must end in \.onnx"),
    ],
)
def test_exports_that_cannot_be_are_refused(tmp_path: Path, images: Tensor, options: dict[str, object], text: str) -> None:
    path = tmp_path / str(options.pop("path", "a.onnx"))
    with pytest.raises(ac.AdjCompressError, match=text):
        ac.export_onnx(TinyNet().eval(), path, images, ExportOptions(**options))
    assert not list(tmp_path.iterdir())


def test_the_file_tells_names_classes_preprocessing_and_counts_and_no_folder(tiny_run: Run, digits: ac.ImageData) -> None:
    package = ac.extract_package(tiny_run).path
    export_package(package, "model.onnx", digits)
    told = {entry.key: entry.value for entry in onnx.load("model.onnx").metadata_props}
    assert json.loads(told["adjcompress.classes"]) == [str(digit) for digit in range(10)]
    assert json.loads(told["adjcompress.preprocessing"])["image_size"] == 32
    assert json.loads(told["adjcompress.macs"]) == ac.package_info(package).macs
    content = Path("model.onnx").read_bytes()
    assert b"site-packages" not in content and str(Path(__file__).parents[1]).encode() not in content


def test_data_with_other_classes_are_refused(tiny_run: Run, digits: ac.ImageData) -> None:
    from dataclasses import replace

    package = ac.extract_package(tiny_run).path
    with pytest.raises(ac.AdjCompressError, match=r"knows 10 classes \(0, 1, 2 and 7 more\) and digits has 9"):
        export_package(package, "model.onnx", replace(digits, classes=digits.classes[:9]))
    with pytest.raises(ac.AdjCompressError, match=r"and digits has 10 \(a, b, c and 7 more\)"):
        export_package(package, "model.onnx", replace(digits, classes=tuple("abcdefghij")))


def test_the_full_network_of_a_run_is_exported_once(tiny_run: Run) -> None:
    exported = export_full(tiny_run)
    assert exported is not None
    package, path = exported
    first = path.stat().st_mtime_ns
    assert export_full(tiny_run) == (package, path)
    assert path.stat().st_mtime_ns == first


def test_a_full_disk_leaves_no_half_package_or_export(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
sys.path.insert(0, sys.argv[1])
from test_deploy import *
torch.manual_seed(0)
full = TinyNet()
small = small_package(Path("before.safetensors"))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for make in (lambda: small_package(Path("a.safetensors")), lambda: ac.export_onnx(small, "a.onnx", torch.randn(7, 3, 32, 32))):
    try:
        make()
    except ac.AdjCompressError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, text=True, cwd=tmp_path
    )
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "a.safetensors could not be written",
        "a.onnx could not be written",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["before.safetensors"]


def test_a_run_of_the_standard_method_ships_its_one_network(
    tmp_path: Path, digits: ac.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = ac.ModelSpec("wrn_10_1", 10, 32)
    method = ac.StandardMethod.build(spec.build(), torch.zeros(2, 3, 32, 32), ac.MethodOptions(alphas=(4,)))
    run = ac.fit(method, digits, ac.recipe("quick").changed(epochs=1, batch_size=60), "runs/alone", model=spec)
    report = ac.extract_package(run)
    assert report.package.name == "alpha4" and report.certificate.max_difference == 0
    assert export_full(run) is None
    assert train_tiny("runs/other", digits).folder.name == "other"


def test_a_graph_of_raw_pixels_gives_what_the_python_preprocessing_gives(tiny_run: Run, digits: ac.ImageData) -> None:
    package = ac.extract_package(tiny_run).path
    report = export_package(package, "raw.onnx", digits, ExportOptions(preprocess=True))
    assert report.certificate.relative <= 1e-4 and report.certificate.images == 10
    pixels = first_pixels(digits, digits.validation, 5)
    session = onnxruntime.InferenceSession("raw.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": pixels.permute(0, 2, 3, 1).contiguous().numpy()})
    expected = ac.load_package(package)(digits.preprocessing.normalise(pixels)).detach().numpy()
    assert np.allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    told = {entry.key: json.loads(entry.value) for entry in onnx.load("raw.onnx").metadata_props}
    assert told["adjcompress.input"] == {"type": "uint8", "layout": "NHWC", "values": "RGB, 0 to 255"}
    with pytest.raises(ac.AdjCompressError, match="needs the preprocessing that goes into the graph"):
        ac.export_onnx(TinyNet(), "a.onnx", pixels, ExportOptions(preprocess=True))


def test_half_precision_halves_the_file_and_keeps_its_inputs(tiny_run: Run, digits: ac.ImageData) -> None:
    package = ac.extract_package(tiny_run, "full").path
    whole, half = (export_package(package, f"{flag}.onnx", digits, ExportOptions(float16=flag)) for flag in (False, True))
    assert half.kind == "float16" and half.bytes < 0.6 * whole.bytes
    assert 1e-4 < half.certificate.relative <= 1e-2
    (value,) = onnx.load("True.onnx").graph.input
    assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    with pytest.raises(ac.AdjCompressError, match=r"without --simplify and --fp16"):
        export_package(package, "b.onnx", digits, ExportOptions(float16=True, tolerance=1e-6))


def test_external_data_lie_beside_the_file_and_both_are_written_or_none(tiny_run: Run, digits: ac.ImageData) -> None:
    package = ac.extract_package(tiny_run, "full").path
    report = export_package(package, "out/a.onnx", digits, ExportOptions(external_data=True))
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.onnx", "a.onnx.data"]
    assert report.bytes == sum(path.stat().st_size for path in Path("out").iterdir())
    assert Path("out/a.onnx.data").stat().st_size > 10 * Path("out/a.onnx").stat().st_size
    session = onnxruntime.InferenceSession("out/a.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {"images": np.zeros((1, 3, 32, 32), np.float32)})[0].shape == (1, 10)
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    with pytest.raises(ac.AdjCompressError, match=r"a\.onnx was not written"):
        export_package(package, "out/a.onnx", digits, ExportOptions(external_data=True, tolerance=0))
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before


def test_external_data_are_written_again_and_wherever_a_file_of_that_name_stands(
    tmp_path: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, options = TinyNet().eval(), TinyNet().eval(), ExportOptions(external_data=True)
    path = tmp_path / "a.onnx"
    monkeypatch.chdir(tmp_path)
    ac.export_onnx(first, path, images, options)
    report = ac.export_onnx(second, path, images, options)
    assert report.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    (logits,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), second(images), rtol=1e-4, atol=1e-5)


def test_files_that_belong_together_are_never_of_two_makings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(text: str) -> None:
        with written_together(tmp_path) as folder:
            for name in ("a.onnx", "a.onnx.data"):
                (folder / name).write_text(text)

    write("old")
    ordinary, moved = Path.replace, list[str]()

    def killed(self: Path, target: Path) -> Path:
        if moved:
            raise KeyboardInterrupt
        moved.append(self.name)
        return ordinary(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write("new")
    assert moved == ["a.onnx.data"] and {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.onnx.data": "new"}


def test_networks_that_cannot_be_exported_are_refused_by_what_they_are(tmp_path: Path, images: Tensor) -> None:
    class Answering(nn.Module):
        def __init__(self, answer: Callable[[Tensor], Any]) -> None:
            super().__init__()
            self.layer, self.answer = nn.Conv2d(3, 4, 1), answer

        def forward(self, images: Tensor) -> Any:
            return self.answer(self.layer(images).mean((2, 3)))

    for network, example, message in (
        (TinyNet().double(), images.double(), r"TinyNet has parameters of torch\.float64: export it as network\.float\(\)"),
        (TinyNet().bfloat16(), images, r"parameters of torch\.bfloat16"),
        (TinyNet(), images[:, :1], r"TinyNet does not take an image batch of shape \(\d+, 1, 32, 32\): Given groups=1"),
        (TinyNet(), images[:0], r"The example of an export is torch\.float32 \(0, 3, 32, 32\); .* at least one"),
        (Answering(lambda logits: (logits, logits)), images, r"Answering gives a tuple; logits \(N, classes\) are expected"),
        (Answering(lambda logits: logits[:, 0]), images, r"Answering gives a tensor \(1,\); logits"),
    ):
        with pytest.raises(ac.AdjCompressError, match=message):
            ac.export_onnx(network.eval(), tmp_path / "a.onnx", example)
    pixels = ExportOptions(preprocess=True)
    with pytest.raises(ac.AdjCompressError, match=r"is torch\.float32 .*; images \(N, 3, H, W\) of torch\.uint8 are expected"):
        ac.export_onnx(
            TinyNet().eval(), tmp_path / "a.onnx", images, pixels, preprocessing=ac.load_data("digits").preprocessing
        )
    assert not list(tmp_path.iterdir())


def test_nodes_with_weights_are_named_after_their_modules(tmp_path: Path, images: Tensor) -> None:
    network = randomise_(ac.create_model("conftest:short_mobilenet", 10, 32))
    ac.export_onnx(network, tmp_path / "a.onnx", images)
    names = {node.name for node in onnx.load(tmp_path / "a.onnx").graph.node if node.op_type in ("Conv", "Gemm")}
    assert names == {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}


def test_what_was_made_of_a_run_is_kept_with_it(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from adjcompress.deploy import deployed, keep, run_of

    assert deployed(tiny_run.folder) == {} and run_of(Path("a.safetensors")) is None
    for name in ("a.safetensors", "a.onnx"):
        Path(name).write_text(f"what {name} holds")
    keep(tiny_run.folder, "extract", "a.safetensors", {"bytes": 1})
    keep(tiny_run.folder, "export", "a.onnx", {"bytes": 2})
    keep(tiny_run.folder, "export", "a.onnx", {"bytes": 3})
    kept = {"extract": ("a.safetensors", 1), "export": ("a.onnx", 3)}
    assert deployed(tiny_run.folder) == {
        step: {name: {"bytes": size, "sha256": checksum(Path(name))}} for step, (name, size) in kept.items()
    }
    assert run_of(Path("a.onnx").resolve()) == tiny_run.folder
    Path("sub").mkdir()
    shutil.copy("a.onnx", "sub/moved.onnx")
    assert run_of(Path("sub/moved.onnx")) == tiny_run.folder
    Path("sub/a.onnx").write_text("another's")
    with monkeypatch.context() as patch:  # a file of the same name, elsewhere
        patch.chdir("sub")
        assert run_of(Path("a.onnx")) is None and run_of(Path("b.onnx")) is None
    shutil.copytree(tiny_run.folder, "runs/second")
    Path("a.onnx").write_text("what the second run made of it")
    keep(Path("runs/second"), "export", "a.onnx", {"bytes": 4})
    keep(tiny_run.folder, "extract", "a.safetensors", {"bytes": 5})  # the first was written last, but not this file
    assert run_of(Path("a.onnx")) == Path("runs/second") and run_of(Path("sub/moved.onnx")) == tiny_run.folder
    content = json.loads((tiny_run.folder / "deployed.json").read_text())
    content["export"]["old.onnx"] = {"bytes": 6}  # a version before kept its name alone
    (tiny_run.folder / "deployed.json").write_text(json.dumps(content))
    Path("old.onnx").write_text("what that version made")
    assert run_of(Path("old.onnx")) == tiny_run.folder
    keep(Path("runs/second"), "export", "old.onnx", {})
    assert run_of(Path("old.onnx")) == Path("runs/second")
    shutil.copytree(tiny_run.folder, "runs/other")
    Path("runs/other/deployed.json").write_text("{")  # newer, damaged, and none of this file's business
    assert run_of(Path("a.onnx")) == Path("runs/second")
    (tiny_run.folder / "deployed.json").write_text("{")
    with pytest.raises(ac.AdjCompressError, match=r"deployed\.json is damaged .* remove it"):
        keep(tiny_run.folder, "export", "a.onnx", {})
