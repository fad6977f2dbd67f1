"""How is a network kept in one file that needs nothing else?

A package is a safetensors file: the state dict, and as metadata all that is needed to build the network again and to use
it. Reading one runs nothing that is in it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from adjcompress.cost import count
from adjcompress.data import DataSpec, Preprocessing
from adjcompress.errors import AdjCompressError, first_line
from adjcompress.files import check_output, written_aside
from adjcompress.models import ModelSpec, state_checksum
from adjcompress.packages.rebuilding import rebuild
from adjcompress.substitutes import Substitution
from adjcompress.version import versions
from adjcompress.widths import Certificate, WidthPlan

PACKAGE_KEY, PACKAGE_FORMAT = "adjcompress", 1


@dataclass(frozen=True)
class PackageInfo:
    """What a package says about its network.

    `name` is the deployable's ("alpha8"), `accuracy` the part of the test split that is right ("test"), and of a segmentation
    "test mean IoU"; `data` the data set it was trained on, `certificates` the steps that were measured on the way,
    `substitution` the convolutions that were replaced.
    """

    name: str
    model: ModelSpec
    plan: WidthPlan | None
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    parameters: int
    macs: int
    bytes: int
    accuracy: Mapping[str, float]
    data: DataSpec | None
    certificates: tuple[Certificate, ...]
    versions: Mapping[str, str]
    substitution: Substitution | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            **{field: getattr(self, field) for field in ("name", "parameters", "macs", "bytes")},
            "model": self.model.to_json(),
            "plan": self.plan.to_json() if self.plan else None,
            "classes": list(self.classes),
            "preprocessing": asdict(self.preprocessing),
            "accuracy": dict(self.accuracy),
            "data": asdict(self.data) if self.data else None,
            "certificates": [certificate.to_json() for certificate in self.certificates],
            "versions": dict(self.versions),
            "substitution": self.substitution.to_json() if self.substitution else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PackageInfo:
        return cls(
            name=data["name"],
            model=ModelSpec.from_json(data["model"]),
            plan=WidthPlan.from_json(data["plan"]) if data["plan"] else None,
            classes=tuple(data["classes"]),
            preprocessing=Preprocessing.from_json(data["preprocessing"]),
            parameters=data["parameters"],
            macs=data["macs"],
            bytes=data["bytes"],
            accuracy=data["accuracy"],
            data=DataSpec(**data["data"]) if data["data"] else None,
            certificates=tuple(Certificate(**certificate) for certificate in data["certificates"]),
            versions=data["versions"],
            substitution=Substitution.from_json(data["substitution"]) if data.get("substitution") else None,
        )


def save_package(
    network: nn.Module,
    path: str | Path,
    *,
    model: ModelSpec,
    plan: WidthPlan | None = None,
    name: str = "small",
    classes: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    accuracy: Mapping[str, float] | None = None,
    data: DataSpec | None = None,
    certificates: Sequence[Certificate] = (),
    substitution: Substitution | None = None,
) -> PackageInfo:
    """Write `network` as a package and return what it says.

    `model`, `substitution` and `plan` say how it is built again: `model.build()`, its convolutions replaced, sliced by
    `plan`. That is tried before anything is written. Class names default to the classes' numbers, preprocessing to the
    model's image size.
    """
    path = Path(path)
    check_output(path, ".safetensors", "a package")
    # Copies: of what layers share, too, each name gets values of its own.
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    rebuild(model, plan, state, substitution)
    preprocessing = preprocessing or Preprocessing(model.image_size)
    counts = count(network, preprocessing.example())
    info = PackageInfo(
        name=name,
        model=model,
        plan=plan,
        classes=tuple(classes) if classes is not None else tuple(str(number) for number in range(model.num_classes)),
        preprocessing=preprocessing,
        parameters=counts.parameters,
        macs=counts.macs,
        bytes=counts.bytes,
        accuracy=dict(accuracy or {}),
        data=data,
        certificates=tuple(certificates),
        versions=versions(),
        substitution=substitution,
    )
    content = {"format": PACKAGE_FORMAT, "sha256": state_checksum(state), **info.to_json()}
    with written_aside(path) as aside:
        aside.write_bytes(safetensors.torch.save(state, {PACKAGE_KEY: json.dumps(content)}))
    return info


def load_package(path: str | Path) -> nn.Module:
    """The network of a package, in evaluation mode, from the file alone.

    A network of the user's own needs its Python module importable. Missing, damaged, newer or foreign files: see
    `package_info`.
    """
    path = Path(path)
    info, state = _read(path, tensors=True)
    network = rebuild(info.model, info.plan, state, info.substitution)
    return network.eval()


def is_package(path: Path) -> bool:
    """Whether a file says that it is a package; whether it is whole, reading it tells."""
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        with safetensors.safe_open(path, "pt") as file:
            return PACKAGE_KEY in (file.metadata() or {})
    except (OSError, safetensors.SafetensorError):
        return False


def package_info(path: str | Path) -> PackageInfo:
    """What a package says of itself; nothing is loaded.

    A file that is missing, damaged, of a newer format, or no package raises an AdjCompressError; a pickle is not opened.
    """
    return _read(Path(path), tensors=False)[0]


def _read(path: Path, tensors: bool) -> tuple[PackageInfo, dict[str, Tensor]]:
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise AdjCompressError(f"{path} {problem}: packages are made by adjcompress extract.")
    with path.open("rb") as file:
        start = file.read(9)
    fits = len(start) == 9 and struct.unpack("<Q", start[:8])[0] < path.stat().st_size  # the header's length, before it
    if not (fits and start[8:] == b"{") and start[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        raise AdjCompressError(f"{path} is a pickle, which can run code when opened: it is refused. Packages are safetensors.")
    if not fits:
        raise AdjCompressError(f"{path} is damaged or no package: its header is cut off. Extract it again.")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()} if tensors else {}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise AdjCompressError(f"{path} is damaged or no package ({first_line(error)}). Extract it again.") from error
    if PACKAGE_KEY not in metadata:
        raise AdjCompressError(f"{path} is a safetensors file, but no package: use it with adjcompress train --weights.")
    try:
        content = json.loads(metadata[PACKAGE_KEY])
        written = content.pop("format")
        checksum = content.pop("sha256", None)
        if written != PACKAGE_FORMAT:
            raise AdjCompressError(
                f"{path} has package format {written}; this version reads format {PACKAGE_FORMAT}: "
                f"install adjcompress {content.get('versions', {}).get('adjcompress', 'of a newer version')}."
            )
        info = PackageInfo.from_json(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AdjCompressError(f"{path} is damaged: its metadata cannot be read ({error}). Extract it again.") from error
    if tensors and checksum != state_checksum(state):
        raise AdjCompressError(f"{path} is damaged: the checksum of its weights differs. Extract it again.")
    return info, state
