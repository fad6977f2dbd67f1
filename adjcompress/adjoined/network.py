"""How do a full and a small network live in one set of weights?

The small network is a dense network from the first step on: its convolutions and linear layers read views of the full
network's tensors, its normalisation layers are its own. Gradients reach the full weights through the slicing, so every
entry that both use is trained by both, and extraction copies the very tensors that were trained.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adjcompress.adjoined.masks import r_beta_mask
from adjcompress.errors import AdjCompressError, pick
from adjcompress.widths.channels import NORMS
from adjcompress.widths.plan import WidthPlan
from adjcompress.widths.surgery import cut, slice_model


@dataclass(frozen=True)
class RandomMask:
    """r_beta: the part `beta` of every slim layer's weights that is zero, drawn from `seed`."""

    beta: float
    seed: int = 0


class Outputs(NamedTuple):
    """Logits (N, classes) of the full network, and of every small one by name."""

    full: Tensor
    smalls: dict[str, Tensor]


class AdjoinedNetwork(nn.Module):
    """A full network and small ones inside its weights. arXiv:2006.05624.

    `plans` says which channels each small network keeps; `full` is taken over, not copied. In the state dict are the full
    network and the small networks' own normalisation layers: weights, biases and statistics.
    """

    def __init__(self, full: nn.Module, plans: Mapping[str, WidthPlan], mask: RandomMask | None = None) -> None:
        super().__init__()
        if not plans:
            raise AdjCompressError("An adjoined network needs at least one small network: give it a width plan.")
        for name in plans:
            if "." in name or not name:
                raise AdjCompressError(f"{name!r} cannot name a small network: names have no dot and are not empty.")
        self.full = full
        self.plans = dict(plans)
        self.mask = mask
        self.smalls = nn.ModuleDict()
        for name, plan in plans.items():
            small = slice_model(full, plan)
            if mask is not None and mask.beta > 0:
                self._register_masks_(name, small)
            self.smalls[name] = _without_shared_tensors_(small)

    def forward(self, images: Tensor) -> Outputs:
        """Logits of the full network and of every small one: (N, C, H, W) -> (N, classes) each."""
        smalls = {name: functional_call(small, self.views(name), (images,)) for name, small in self.smalls.items()}
        return Outputs(self.full(images), smalls)

    def views(self, name: str) -> dict[str, Tensor]:
        """The tensors that small network `name` shares with the full one, cut to its widths, by their names there."""
        plan, views = self.plans[name], {}
        for tensor, parameter in self._shared(name):
            view = cut(parameter, plan.cuts[tensor]) if tensor in plan.cuts else parameter
            mask = self._mask_of(name, tensor)
            views[tensor] = view if mask is None else view * mask
        return views

    def extract(self, name: str) -> nn.Module:
        """Small network `name` (or "full") as a dense network of its own, in evaluation mode.

        Its tensors are copies of those that are trained: its logits equal those of the small network in training to the
        last bit.
        """
        if name == "full":
            return copy.deepcopy(self.full).eval()
        pick({known: known for known in [*self.smalls, "full"]}, name, "Small network")
        small = copy.deepcopy(self.smalls[name])
        for tensor, view in self.views(name).items():
            owner, _, attribute = tensor.rpartition(".")
            module = small.get_submodule(owner)
            delattr(module, attribute)
            module.register_parameter(attribute, nn.Parameter(view.detach().clone()))
        return small.eval()

    def _shared(self, name: str) -> list[tuple[str, Tensor]]:
        """The full network's parameters that small network `name` reads: all but those of normalisation layers."""
        own = {parameter for parameter, _ in self.smalls[name].named_parameters()}
        return [(tensor, parameter) for tensor, parameter in self.full.named_parameters() if tensor not in own]

    def _register_masks_(self, name: str, small: nn.Module) -> None:
        """Masks are redrawn from their seed, not stored: buffers outside the state dict."""
        assert self.mask is not None
        for tensor, parameter in small.named_parameters():
            if tensor in self.plans[name].cuts and parameter.ndim > 2:
                mask = r_beta_mask(parameter.shape, self.mask.beta, self.mask.seed, f"{name}/{tensor}")
                self.register_buffer(_mask_name(name, tensor), mask, persistent=False)

    def _mask_of(self, name: str, tensor: str) -> Tensor | None:
        return self._buffers.get(_mask_name(name, tensor))


def _mask_name(name: str, tensor: str) -> str:
    return f"mask_{name}_{tensor}".replace(".", "_")


def adjoin(full: nn.Module, plans: Mapping[str, WidthPlan], mask: RandomMask | None = None) -> AdjoinedNetwork:
    """An AdjoinedNetwork of `full` and a small network for each of `plans`, by name ("alpha8")."""
    return AdjoinedNetwork(full, plans, mask)


def _without_shared_tensors_(small: nn.Module) -> nn.Module:
    """Take the shared parameters out of a sliced network; what stays are its normalisation layers.

    An empty buffer keeps each one's place for functional_call. It is not part of the state dict, holds no memory, and a
    forward without the views fails at once instead of computing with stale weights.
    """
    for module in small.modules():
        if isinstance(module, NORMS):
            continue
        for attribute, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, attribute)
            module.register_buffer(attribute, torch.empty(0, dtype=parameter.dtype, device=parameter.device), persistent=False)
    return small
