"""How is a network built again from plain data, and from which files can a teacher come?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor, nn

from adjcompress.errors import AdjCompressError
from adjcompress.methods.substitute import TeacherFile
from adjcompress.models import ModelSpec, load_weights_, read_state, state_checksum
from adjcompress.substitutes import Substitution, apply_substitution
from adjcompress.training.run import open_run
from adjcompress.widths import WidthPlan, slice_model

PACKAGE_KEY = "adjcompress"


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


def read_teacher(path: Path, model: ModelSpec) -> tuple[nn.Module, TeacherFile]:
    """A trained network to learn from: of a run (its full network), of a package, or `model` with a weights file."""
    if path.is_dir():
        networks = open_run(path).method().deployables()
        teacher = networks.get("full") or next(iter(networks.values()))
    elif (content := _package(path)) is not None:
        plan, substitution = content.get("plan"), content.get("substitution")
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


def _package(path: Path) -> dict[str, Any] | None:
    """What a package says of its network; None for any other file."""
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(PACKAGE_KEY)
        return json.loads(text) if text else None
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise AdjCompressError(f"--teacher {path} cannot be read: {str(error).splitlines()[0]}.") from error
