"""Which tensors has a network, under which names, and which of them leave training?"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from adjcompress.errors import AdjCompressError, shortened

T = TypeVar("T")


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; of one that has several names, the first."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def kinds(network: nn.Module) -> set[torch.dtype]:
    """The floating-point types of a network's parameters."""
    return {parameter.dtype for parameter in network.parameters() if parameter.is_floating_point()}


def owners(network: nn.Module) -> list[list[str]]:
    """The names of each parameter, one for each of the modules that have it: several where layers share a weight."""
    found: dict[int, list[str]] = {}
    for module_name, module in network.named_modules():  # one module under two names comes once
        for name, parameter in module.named_parameters(module_name, recurse=False):
            found.setdefault(id(parameter), []).append(name)
    return list(found.values())


def aliases(network: nn.Module) -> dict[str, list[str]]:
    """All names of the parameters that have several, by each of them: of modules under two names, too."""
    named: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        named.setdefault(id(parameter), []).append(name)
    return {name: names for names in named.values() if len(names) > 1 for name in names}


def deployed_part(network: nn.Module, named: Mapping[str, T]) -> dict[str, T]:
    """Of what is known by the names of tensors or modules, that which leaves training with the network.

    A network says by `training_only` which of its modules do not: an auxiliary head.
    """
    only = tuple(f"{name}." for name in getattr(network, "training_only", ()))
    return {name: value for name, value in named.items() if not f"{name}.".startswith(only)}


def deployed_parameters(network: nn.Module) -> int:
    """How many parameters leave training with the network."""
    return sum(parameter.numel() for parameter in deployed_part(network, dict(network.named_parameters())).values())


def copied_with(network: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `network` that holds `tensors` in place of its own of these names, which are not copied.

    So a copy in another precision, or of a part of the channels, takes no more memory than it needs. A parameter's
    replacement becomes a parameter, and takes the place of every name that the parameter has. Torch copies no tensor that is
    computed from others, as torch.nn.utils.prune leaves a weight: an AdjCompressError names it.
    """
    memo: dict[int, Any] = {}
    for name, own in tensors_of(network).items():
        if name in tensors:
            new = tensors[name].detach()
            memo[id(own)] = nn.Parameter(new, own.requires_grad) if isinstance(own, nn.Parameter) else new
    try:
        return copy.deepcopy(network, memo)
    except RuntimeError as error:
        computed = _computed(network)
        if not computed:
            raise
        raise AdjCompressError(
            f"{shortened(computed)} cannot be copied, and so neither can the network: it is computed from other tensors. Make "
            "a pruned weight a plain one by torch.nn.utils.prune.remove, one under weight norm by remove_weight_norm; keep no "
            "other."
        ) from error


def _computed(network: nn.Module) -> list[str]:
    """The tensors that modules hold beside parameters and buffers, and that have a history."""
    return [
        f"{module_name}.{name}".lstrip(".")
        for module_name, module in network.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor) and not value.is_leaf
    ]


def can_name_a_part(name: str) -> bool:
    """Whether nn.ModuleDict can hold a part of a network by this name: it is not empty, has no dot, and is none of its own."""
    return bool(name) and "." not in name and not hasattr(nn.ModuleDict(), name)
