"""How is a network built again from plain data, and from which files can a teacher come?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor, nn

from adjcompress.data import ImageData, Preprocessing
from adjcompress.errors import AdjCompressError, first_line
from adjcompress.methods import TeacherFile
from adjcompress.models import ModelSpec, load_weights_, read_state, state_checksum
from adjcompress.substitutes import Substitution, apply_substitution
from adjcompress.training.run import open_run
from adjcompress.widths import WidthPlan, slice_model

PACKAGE_KEY, PACKAGE_FORMAT = "adjcompress", 1


def rebuild(
    model: ModelSpec, plan: WidthPlan | None, state: Mapping[str, Tensor], substitution: Substitution | None = None
) -> nn.Module:
    """Build a network from its spec, substitution and plan, and fill it with `state`; an error where they do not fit."""
    network = model.build()
    if substitution is not None:
        network = apply_substitution(network, substitution)
    if plan is not None:
        network = slice_model(network, plan)
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise AdjCompressError(f"{model.name} does not rebuild this network: {' '.join(lines[1:2])}") from error
    return network


def read_teacher(path: Path, model: ModelSpec, data: ImageData) -> tuple[nn.Module, TeacherFile]:
    """A trained network to learn from: of a run (its full network), of a package, or `model` with a weights file.

    A run or package of other classes, or that sees its images otherwise than `data` shows them, is an AdjCompressError.
    """
    if path.is_dir():
        run = open_run(path)
        _check_alike(path, run.classes, run.preprocessing, data)
        networks = run.method().deployables()
        teacher = networks.get("full") or next(iter(networks.values()))
    elif (content := _package(path, "--teacher")) is not None:
        _check_alike(path, content["classes"], Preprocessing.from_json(content["preprocessing"]), data)
        plan, substitution = content["plan"], content.get("substitution")
        teacher = rebuild(
            ModelSpec.from_json(content["model"]),
            WidthPlan.from_json(plan) if plan else None,
            read_state(path),
            Substitution.from_json(substitution) if substitution else None,
        )
    elif path.is_file():
        teacher = model.build()
        try:
            load_weights_(teacher, path)
        except AdjCompressError as error:
            raise AdjCompressError(f"--teacher {error} A teacher of another kind comes from a run or a package.") from error
    else:
        raise AdjCompressError(f"--teacher {path} does not exist: it takes a run's folder, a package or a weights file.")
    return teacher.eval(), TeacherFile(str(path.resolve()), state_checksum(teacher.state_dict()))


def _check_alike(path: Path, classes: Sequence[str], preprocessing: Preprocessing, data: ImageData) -> None:
    if tuple(classes) != tuple(data.classes):
        theirs, ours = (", ".join(names[:3]) + ", ..." * (len(names) > 3) for names in (classes, data.classes))
        raise AdjCompressError(
            f"--teacher {path} knows {len(classes)} classes ({theirs}) and the data has {len(data.classes)} ({ours}): give one "
            "that was trained on the same."
        )
    own = data.preprocessing
    if (preprocessing.mean, preprocessing.std) != (own.mean, own.std):
        raise AdjCompressError(
            f"--teacher {path} normalises images by {preprocessing.mean} and {preprocessing.std}, the data by {own.mean} and "
            f"{own.std}: give one that was trained on images normalised alike."
        )


def packaged_model(path: Path) -> ModelSpec:
    """How the network in a package is built, with fresh weights; an error where it was cut or its layers were replaced."""
    content = _package(path, "--model package of")
    if content is None:
        raise AdjCompressError(f"--model package:{path} is no package: packages are made by adjcompress extract.")
    if content["plan"] or content.get("substitution"):
        what = "was cut out of a wider one" if content["plan"] else "has substitutes for layers"
        raise AdjCompressError(
            f"--model package:{path}: its network {what}, which no constructor builds; take the package of a network that is "
            "trained whole, such as a searched architecture's or --alpha 1."
        )
    return ModelSpec.from_json(content["model"])


def _package(path: Path, option: str) -> dict[str, Any] | None:
    """What a package says of its network; None for any other file. `option` is what errors begin with."""
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(PACKAGE_KEY)
        if not text:
            return None
        content: dict[str, Any] = json.loads(text)
        if content.get("format") != PACKAGE_FORMAT or not content.keys() >= {"model", "plan", "classes", "preprocessing"}:
            raise ValueError(f"a package of format {PACKAGE_FORMAT} is expected")
        return content
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise AdjCompressError(f"{option} {path} cannot be read: {first_line(error)}.") from error
