"""From which trained weights does a network start?"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from adjcompress.errors import AdjCompressError, first_line, shortened
from adjcompress.running import last_layer

# What training scripts put around a state dict, and before each name.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")


def load_weights_(network: nn.Module, path: str | Path, new_classifier: bool = False, example: Tensor | None = None) -> None:
    """Load a trained state dict (.pth, .pt, .th, opened without running pickled code) or safetensors file into `network`.

    Every name and shape must match; otherwise an AdjCompressError names what is missing and what is left over, and the
    network is as it was. With `new_classifier` the last layer may differ in its number of classes and stays fresh: the one
    that runs last on `example` (N, C, H, W), without which it is the one declared last.
    """
    found = read_state(path)
    wanted = network.state_dict()
    classifier = classifier_names(network, example)
    if new_classifier:
        for name in classifier:
            found[name] = wanted[name]
    for name in wanted.keys() - found.keys():
        if name.endswith(".num_batches_tracked"):
            found[name] = wanted[name]  # files from before PyTorch 0.4.1 have no such counters
    missing, unexpected = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or unexpected:
        raise AdjCompressError(
            f"{path} does not fit the network. Missing: {shortened(missing)}. Not in the network: {shortened(unexpected)}."
        )
    differing = [name for name in wanted if wanted[name].shape != found[name].shape]
    if differing and set(differing) <= set(classifier):
        have, want = found[differing[0]].shape[0], wanted[differing[0]].shape[0]
        raise AdjCompressError(
            f"{path} was trained on {have} classes, the data has {want}. "
            "Use --new-classifier to start the last layer afresh, or data with the same classes."
        )
    if differing:
        name = differing[0]
        raise AdjCompressError(
            f"{path} does not fit the network: {name} is {tuple(found[name].shape)} there and "
            f"{tuple(wanted[name].shape)} here ({len(differing)} such tensors)."
        )
    ruined = [name for name in wanted if found[name].is_floating_point() and not bool(torch.isfinite(found[name]).all())]
    if ruined:
        raise AdjCompressError(f"{path} holds values that are not finite, in {shortened(ruined)}: its training went wrong.")
    network.load_state_dict(found)


def classifier_names(network: nn.Module, example: Tensor | None = None) -> list[str]:
    """Names of the tensors of the last linear layer (or, in fully convolutional networks, convolution).

    It is the one that runs last on `example`, a batch (N, C, H, W); without one, the one that is declared last.
    """
    if example is None:
        last = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    else:
        last = last_layer(network, example)
    return [name for name in network.state_dict() if name.rpartition(".")[0] == last]


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, without the wrappers and prefixes that training scripts add."""
    path = Path(path)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise AdjCompressError(f"{path} {problem}: --weights takes a .pth, .pt, .th or .safetensors file.")
    try:
        if path.suffix == ".safetensors":
            content: Any = _safetensors(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except AdjCompressError:
        raise
    except pickle.UnpicklingError as error:
        raise AdjCompressError(
            f"{path} holds more than tensors, or is no weights file: it is not opened, for it could run code. Save a "
            "state_dict with torch.save, or as .safetensors."
        ) from error
    except Exception as error:  # each reader raises types of its own: zip, pickle, header and system errors
        raise AdjCompressError(f"{path} cannot be read as weights ({type(error).__name__}: {first_line(error)}).") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise AdjCompressError(f"{path} holds no state dict: a mapping from names to tensors is expected.")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in content):
            content = {name.removeprefix(prefix): tensor for name, tensor in content.items()}
    return content


def state_checksum(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and bytes of a state dict, which packages keep."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {tuple(state[name].shape)} {state[name].dtype}".encode())
        digest.update(state[name].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; where it is a package, checked against its checksum."""
    with safetensors.safe_open(path, "pt") as file:
        kept = json.loads((file.metadata() or {}).get("adjcompress", "{}")).get("sha256")
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if kept is not None and kept != state_checksum(state):
        raise AdjCompressError(f"{path} is damaged: the checksum of its weights differs. Extract it again.")
    return state
