"""How is the state of a training kept so that it survives anything?

A checkpoint is a folder, written aside and renamed: `weights.safetensors` (the network), `training.safetensors` (the
optimiser, the averaged weights), `state.json` (where the training stood, and the checksums of both). Nothing is pickled.
Order of images and random draws follow from seed and step, so no random state is kept.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from adjcompress.errors import AdjCompressError, first_line
from adjcompress.files import written_aside

_WEIGHTS, _TRAINING, _STATE = "weights.safetensors", "training.safetensors", "state.json"
_KEPT = 2
AVERAGE = "average"


@dataclass(frozen=True)
class Position:
    """Where a training stands: `epoch` epochs done, and `step` steps of the next one.

    `sums` are the log's running sums of that epoch, `seconds` the time trained so far.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    sums: Mapping[str, float] = field(default_factory=dict)

    @property
    def folder_name(self) -> str:
        return f"checkpoint-{self.epoch}" + (f".{self.step}" if self.step else "")


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: the position, the network's state dict, and tensors of the optimiser and the averaged weights."""

    position: Position
    weights: dict[str, Tensor]
    training: dict[str, Tensor]

    @property
    def deployable(self) -> dict[str, Tensor]:
        """The weights to use: the averaged ones where they were kept, else the trained ones."""
        averaged = under(f"{AVERAGE}/module.", self.training, separator="")
        return averaged or self.weights


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint into a run and keep the last two; return its folder."""
    folder = run / checkpoint.position.folder_name
    if folder.exists():  # an earlier try at the same place, damaged or from before a resume: the new one takes over
        shutil.rmtree(folder)
    with written_aside(folder) as aside:
        aside.mkdir()
        files: dict[str, bytes] = {
            _WEIGHTS: safetensors.torch.save(_plain(checkpoint.weights)),
            _TRAINING: safetensors.torch.save(_plain(checkpoint.training)),
        }
        for name, content in files.items():
            (aside / name).write_bytes(content)
        position = json.dumps(asdict(checkpoint.position))
        files["position"] = position.encode()
        checksums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        (aside / _STATE).write_text(json.dumps({"position": position, "checksums": checksums}, indent=1))
    for old in checkpoints(run)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first."""
    found = []
    for folder in run.glob("checkpoint-*"):
        match = re.fullmatch(r"checkpoint-(\d+)(?:\.(\d+))?", folder.name)
        if match and folder.is_dir():
            found.append((int(match[1]), int(match[2] or 0), folder))
    return [folder for *_, folder in sorted(found)]


@dataclass(frozen=True)
class Found:
    """The newest whole checkpoint of a run, its folder, and what is wrong with newer ones."""

    checkpoint: Checkpoint
    folder: Path
    damaged: tuple[str, ...]


def newest_checkpoint(run: Path) -> Found | None:
    """Read the newest checkpoint that is whole; None where a run has none at all.

    Damaged ones are passed over and named. Where all are damaged, that is an AdjCompressError.
    """
    damaged: list[str] = []
    for folder in reversed(checkpoints(run)):
        try:
            return Found(_read(folder), folder, tuple(damaged))
        except AdjCompressError as error:
            damaged.append(str(error))
    if damaged:
        raise AdjCompressError(f"No checkpoint of {run} is whole: {' '.join(damaged)} Train it again into another --run.")
    return None


def remove_after(run: Path, folder: Path) -> None:
    """Remove the damaged checkpoints after the one that training goes on from, and what a killed process left half-written."""
    found = checkpoints(run)
    for late in found[found.index(folder) + 1 :] if folder in found else []:
        shutil.rmtree(late, ignore_errors=True)
    for half_written in run.glob(".checkpoint-*"):
        shutil.rmtree(half_written, ignore_errors=True)


def _read(folder: Path) -> Checkpoint:
    try:
        state = json.loads((folder / _STATE).read_text())
        contents = {name: (folder / name).read_bytes() for name in (_WEIGHTS, _TRAINING)}
        contents["position"] = state["position"].encode()
        for name, content in contents.items():
            if hashlib.sha256(content).hexdigest() != state["checksums"][name]:
                raise AdjCompressError(f"{folder} is damaged ({name}: its checksum differs).")
        position = Position(**json.loads(state["position"]))
        if position.folder_name != folder.name:
            raise AdjCompressError(f"{folder} is damaged: it holds {position.folder_name}.")
        return Checkpoint(position, safetensors.torch.load(contents[_WEIGHTS]), safetensors.torch.load(contents[_TRAINING]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise AdjCompressError(f"{folder} is damaged ({type(error).__name__}: {first_line(error)}).") from error


def under(prefix: str, tensors: Mapping[str, Tensor], separator: str = "/") -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix` and the separator, without these."""
    start = prefix + separator
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The optimisers' states as named tensors: "optimizer/<parameter's number>/<key>", of a second one "optimizer2/..."."""
    tensors = {}
    for prefix, optimizer in _numbered(optimizers):
        for number, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if value is not None:
                    tensors[f"{prefix}/{number}/{key}"] = torch.as_tensor(value)
    return tensors


def load_optimizers_(optimizers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Put named tensors of `optimizer_tensors` back; the parameter groups, and what they do not name, stay as they are.

    A state of a parameter's shape takes its strides too: fused optimisers walk through both as they lie in memory, and of a
    channels-last weight would give each entry the state of another.
    """
    for prefix, optimizer in _numbered(optimizers):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state: dict[int, dict[str, Any]] = dict(optimizer.state_dict()["state"])
        for name, tensor in under(prefix, tensors).items():
            number, _, key = name.partition("/")
            parameter = parameters[int(number)]
            if tensor.shape == parameter.shape:
                tensor = torch.empty_like(parameter, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
            state.setdefault(int(number), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _numbered(optimizers: Sequence[torch.optim.Optimizer]) -> list[tuple[str, torch.optim.Optimizer]]:
    return [(f"optimizer{number if number > 1 else ''}", optimizer) for number, optimizer in enumerate(optimizers, 1)]


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU: safetensors takes neither shared memory nor strides."""
    return {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
