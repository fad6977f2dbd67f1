"""How does Torch-Pruning cut a network, and at which ratio does it equal another one? For vs_torch_pruning.py."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from training import timed
from vs_torch_pruning_ways import Pruning

import adjcompress as ac
from adjcompress.widths import channel_groups
from adjcompress.widths.channels import is_selection, selection_pruners

_REGULARISATION = 1e-4  # GroupNormPruner's own default
_HALVINGS = 12
_PARTS = 32  # ratios that are timed are multiples of a part
_AS_FAST = 1.02  # of the wanted milliseconds, within which a network is as fast


def cut_at(network: nn.Module, example: torch.Tensor, how: Pruning, ratio: float) -> nn.Module:
    """A copy of a network without `ratio` of its channels."""
    candidate = copy.deepcopy(network)
    pruner(candidate, example, how, ratio).step()
    return candidate


def ratio_within_macs(network: nn.Module, example: torch.Tensor, how: Pruning, wanted: int) -> float | None:
    """The least ratio that leaves at most `wanted` multiply-adds: they fall with it."""
    low, high, best = 0.0, 1.0, None
    for _ in range(_HALVINGS):
        ratio = (low + high) / 2
        if ac.count(cut_at(network, example, how, ratio), example).macs <= wanted:
            best = high = ratio
        else:
            low = ratio
    return best


def ratio_within_time(network: nn.Module, example: torch.Tensor, how: Pruning, wanted: nn.Module, folder: Path) -> float | None:
    """That which leaves most multiply-adds of those as fast as `wanted`: some widths fit the CPU better than fewer channels.

    All are timed side by side. One of the wanted network's very shapes is as fast as that, whatever a clock says.
    """
    found: dict[tuple[tuple[str, torch.Size], ...], tuple[float, nn.Module]] = {}
    for part in range(1, _PARTS):
        candidate = cut_at(network, example, how, part / _PARTS)
        found.setdefault(shapes(candidate), (part / _PARTS, candidate))
    same = found.get(shapes(wanted))
    by_name = {f"ratio{ratio:g}": (ratio, candidate) for ratio, candidate in found.values()}
    networks = {name: candidate for name, (_, candidate) in by_name.items()} | {"wanted": wanted}
    times = timed(networks, folder, example, len(networks))
    limit = _AS_FAST * times.pop("wanted")["p50_ms"]
    fast = [by_name[name] for name, time in times.items() if time["p50_ms"] <= limit]
    fast += [same] if same else []
    return max(fast, key=lambda each: ac.count(each[1], example).macs)[0] if fast else None


def shapes(network: nn.Module) -> tuple[tuple[str, torch.Size], ...]:
    """By which two networks of one architecture are the same."""
    return tuple((name, tensor.shape) for name, tensor in network.state_dict().items())


def pruner(network: nn.Module, example: torch.Tensor, how: Pruning, ratio: float = 0.5) -> Any:
    """Torch-Pruning's GroupNormPruner; with sparse learning left out it cuts by group magnitude."""
    groups = channel_groups(network, example)
    picked = {axis.layer for axis in (axis for group in groups for axis in group.axes)} & {
        name for name, module in network.named_modules() if is_selection(module)
    }
    kept = [layer for group in groups if picked & {axis.layer for axis in group.axes} for layer in group.producers]
    last = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch_pruning.pruner.GroupNormPruner(
            network,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            reg=_REGULARISATION,
            global_pruning=how.everywhere,
            round_to=how.round_to,
            pruning_ratio=ratio,
            max_pruning_ratio=0.95,
            ignored_layers=[network.get_submodule(name) for name in (*kept, last)],
            customized_pruners=selection_pruners(network),
        )


@contextmanager
def sparse_learning(network: nn.Module, example: torch.Tensor, how: Pruning) -> Iterator[None]:
    """Within the block every optimiser's step is preceded by the pruner's push of unimportant groups towards zero."""
    pushing = pruner(network, example, how)
    hook = register_optimizer_step_pre_hook(lambda *_: pushing.regularize(network))
    try:
        yield
    finally:
        hook.remove()
