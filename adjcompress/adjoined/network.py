"""How do a full and a small network live in one set of weights?

The small network is a dense network from the first step on: its convolutions and linear layers read views of the full
network's tensors, its normalisation layers are its own. Gradients reach the full weights through the slicing, so every
entry that both use is trained by both, and extraction copies the very tensors that were trained.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adjcompress.adjoined.apart import Apart, Succession, widest_cuts
from adjcompress.adjoined.masks import r_beta_mask
from adjcompress.adjoined.trunk import FirstConvolution, SharedTrunk, has_hooks
from adjcompress.errors import AdjCompressError, check_choice
from adjcompress.tensors import aliases, can_name_a_part, owners
from adjcompress.widths.channels import NORMS
from adjcompress.widths.plan import Range, WidthPlan
from adjcompress.widths.surgery import blocks, cut, slice_model


@dataclass(frozen=True)
class RandomMask:
    """r_beta: the part `beta` of every slim layer's weights that is zero, drawn from `seed`."""

    beta: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.beta < 1:
            raise AdjCompressError(f"A mask's beta, {self.beta:g}, must be at least 0 and below 1.")


class Outputs(NamedTuple):
    """Logits (N, classes) of the full network, and of every small one by name."""

    full: Tensor
    smalls: dict[str, Tensor]


# A small network's name and its views of the full network's tensors -> the tensors that it computes with.
Dressed = Callable[[str, dict[str, Tensor]], dict[str, Tensor]]


class AdjoinedNetwork(nn.Module):
    """A full network and small ones inside its weights. arXiv:2006.05624.

    `plans` says which channels each small network keeps; `full` is taken over, not copied. In the state dict are the full
    network and the small networks' own normalisation layers: weights, biases and statistics. `trunk`, the modules that run
    before the first cut layer (`trunk_of`), are computed once for all networks: the normalisation there is the full one's too,
    which the papers' networks have apart.
    """

    def __init__(
        self,
        full: nn.Module,
        plans: Mapping[str, WidthPlan],
        mask: RandomMask | None = None,
        trunk: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if not plans:
            raise AdjCompressError("An adjoined network needs at least one small network: give it a width plan.")
        for name in plans:
            if name == "full" or not can_name_a_part(name):
                raise AdjCompressError(
                    f"{name!r} cannot name a small network: names have no dot, are not empty, and are neither 'full' nor a "
                    "word of torch.nn's own, such as 'train'."
                )
        _check_names(full, plans)
        _check_trunk(full, plans, trunk)
        self.full = full
        self.plans = dict(plans)
        self.mask = mask
        self.trunk = tuple(trunk)
        norms = {name for name, module in full.named_modules() if isinstance(module, NORMS)}
        self._shared_norms = {name for name in norms if any(f"{name}.".startswith(f"{part}.") for part in self.trunk)}
        self._mask_names: dict[tuple[str, str], str] = {}
        self.apart: Apart | None = None
        self._learns_apart = False  # what `apart` holds is newer than the full tensors
        self.register_state_dict_pre_hook(_give_back_)
        self.register_load_state_dict_post_hook(_take_)
        self.smalls = nn.ModuleDict()
        for name, plan in plans.items():
            small = slice_model(full, plan)
            if mask is not None and mask.beta > 0:
                self._register_masks_(name, small)
            self.smalls[name] = _without_shared_tensors_(small, self._shared_norms)

    def forward(self, images: Tensor) -> Outputs:
        """Logits of the full network and of every small one: (N, C, H, W) -> (N, classes) each."""
        _give_back_(self)
        return self._outputs(images, self._masked)

    def small_logits(self, images: Tensor, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """Logits (N, classes) of the small networks `names`, by default all, alone; the full one does not run."""
        shared, logits = SharedTrunk(self.trunk), {}
        apart = self.apart if self._learns_apart else None
        for name in self.smalls if names is None else names:
            small, views = self.smalls[name], self._masked(name, self._cut(name, apart))
            with shared.reused_by(small, views) if shared.outputs else shared.kept_from(small):
                logits[name] = functional_call(small, views, (images,))
        return logits

    def _outputs(self, images: Tensor, dressed: Dressed) -> Outputs:
        """Both networks' logits, every small one with its views as `dressed` makes them of the full network's tensors."""
        if torch.compiler.is_compiling():
            return self._compiled_outputs(images, dressed)
        whole, cuts = self._forked()
        views = {name: dressed(name, own) for name, own in cuts.items()}
        once = SharedTrunk(self.trunk) if self.trunk else FirstConvolution(whole, images)
        with once.kept_from(self.full):
            full = functional_call(self.full, whole, (images,))
        smalls = {}
        for name, small in self.smalls.items():
            with once.reused_by(small, views[name]):
                smalls[name] = functional_call(small, views[name], (images,))
        return Outputs(full, smalls)

    def _compiled_outputs(self, images: Tensor, dressed: Dressed) -> Outputs:
        """The same for the compiler, which joins slices and finds common work by itself.

        In a shared trunk that is what begins with equal statistics: every network has a copy, and the full one's is kept. So
        the forward pass of a trunk is computed once, its backward pass, which begins with other gradients, for every network.
        """
        smalls = {
            name: functional_call(small, {**dressed(name, self._cut(name)), **self._copied_statistics()}, (images,))
            for name, small in self.smalls.items()
        }
        statistics = self._copied_statistics()
        full = functional_call(self.full, statistics, (images,)) if statistics else self.full(images)
        for name, buffer in self._shared_buffers():
            buffer.copy_(statistics[name])
        return Outputs(full, smalls)

    def _copied_statistics(self) -> dict[str, Tensor]:
        return {name: buffer.clone() for name, buffer in self._shared_buffers()}

    def whole(self) -> nn.Module:
        """The full network itself, with what the small networks have learnt meanwhile."""
        _give_back_(self)
        return self.full

    def views(self, name: str) -> dict[str, Tensor]:
        """The tensors that small network `name` shares with the full one, cut to its widths, by their names there."""
        return self._masked(name, self._cut(name, self.apart if self._ahead() else None))

    def by_size(self) -> tuple[str, ...]:
        """The names of the small networks, that with the fewest shared parameters first."""
        sizes = {name: sum(view.numel() for view in self.views(name).values()) for name in self.smalls}
        return tuple(sorted(sizes, key=sizes.__getitem__))

    def let_full_wait_(self) -> None:
        """Let the small networks learn before the full one: "joined", in the state dict, says whether that has begun."""
        if "joined" in self._buffers:
            self.get_buffer("joined").fill_(False)
        else:
            self.register_buffer("joined", torch.tensor(False))

    def learn_in_full_(self) -> None:
        """Let the full tensors be what all networks learn in, and have what was learnt in copies."""
        _give_back_(self)
        self.apart, self._learns_apart = None, False

    def learn_apart_(self) -> list[Succession]:
        """Let the small networks learn in copies until `learn_together_`; which parameters take the place of which.

        No parameter where no small network holds all others, and under a random mask: they learn in views of the full tensors
        then.
        """
        self.learn_in_full_()
        self.let_full_wait_()
        cuts = widest_cuts(list(self.plans.values())) if self.mask is None else None
        if cuts is None:
            return []
        tensors = dict(self.full.named_parameters())
        shared = [name for name, _ in self.shared(next(iter(self.plans))) if name in cuts and name in tensors]
        self.apart = Apart(tensors, {name: cuts[name] for name in shared})
        self._learns_apart = True
        return list(self.apart.successions(tensors))

    def learn_together_(self) -> None:
        """From now on all networks learn in the full tensors, which get what the small ones have learnt; said once."""
        _give_back_(self)
        self.get_buffer("joined").fill_(True)
        self._learns_apart = False

    def _ahead(self) -> bool:
        """Whether copies hold what the small networks have learnt: the buffer is asked, for averages are told by it alone."""
        return self._learns_apart and not bool(self.get_buffer("joined"))

    def _cut(self, name: str, apart: Apart | None = None) -> dict[str, Tensor]:
        cuts = self.plans[name].cuts
        found = apart.cut(cuts) if apart is not None else {}
        for tensor, weight in self.shared(name):
            if tensor not in found:
                found[tensor] = cut(weight, cuts[tensor]) if tensor in cuts else weight
        return found

    def _forked(self) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
        """The full network's parameters and every small network's views, tied for the backward pass by `_Fork`."""
        whole: dict[str, Tensor] = dict(self.full.named_parameters())
        views: dict[str, dict[str, Tensor]] = {}
        cut_by: dict[str, list[str]] = {}
        for name, plan in self.plans.items():
            shared = dict(self.shared(name))
            views[name] = {tensor: weight for tensor, weight in shared.items() if tensor not in plan.cuts}
            for tensor in shared:
                if tensor in plan.cuts:
                    cut_by.setdefault(tensor, []).append(name)
        for tensor, names in cut_by.items():
            # The layer's own backward makes its weight's gradient for this one use; others may share theirs.
            owned = type(self.full.get_submodule(tensor.rpartition(".")[0])) in (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
            cuts = [self.plans[name].cuts[tensor] for name in names]
            whole[tensor], *parts = _Fork.apply(whole[tensor], cuts, owned)
            for name, part in zip(names, parts, strict=True):
                views[name][tensor] = part
        return whole, views

    def _masked(self, name: str, views: dict[str, Tensor]) -> dict[str, Tensor]:
        masked = {}
        for tensor, view in views.items():
            mask = self.mask_of(name, tensor)
            masked[tensor] = view if mask is None else view * mask
        return masked

    def extract(self, name: str) -> nn.Module:
        """Small network `name` (or "full") as a dense network of its own, in evaluation mode.

        Its tensors are copies of those that are trained: its logits equal those of the small network in training to the
        last bit.
        """
        if name == "full":
            return copy.deepcopy(self.whole()).eval()
        check_choice([*self.smalls, "full"], name, "Small network")
        small = copy.deepcopy(self.smalls[name])
        for tensor, view in self.views(name).items():
            owner, _, attribute = tensor.rpartition(".")
            module = small.get_submodule(owner)
            delattr(module, attribute)
            shared = getattr(self.full.get_submodule(owner), attribute)
            if isinstance(shared, nn.Parameter):
                module.register_parameter(attribute, nn.Parameter(view.detach().clone(), shared.requires_grad))
            else:
                module.register_buffer(attribute, view.detach().clone())
        return small.eval()

    def shared(self, name: str) -> list[tuple[str, Tensor]]:
        """The tensors of the full network that small network `name` reads.

        All parameters but those of its own normalisation layers; of normalisation in the trunk the statistics too.
        """
        own = {parameter for parameter, _ in self.smalls[name].named_parameters()}
        parameters = [(tensor, parameter) for tensor, parameter in self.full.named_parameters() if tensor not in own]
        return [*parameters, *self._shared_buffers()]

    def mask_of(self, name: str, tensor: str) -> Tensor | None:
        """Which entries of a tensor the small network `name` has, where a random mask takes some out: 0 and 1, in its shape."""
        return self._buffers.get(self._mask_names.get((name, tensor), ""))

    def _shared_buffers(self) -> list[tuple[str, Tensor]]:
        return [(name, buffer) for name, buffer in self.full.named_buffers() if name.rpartition(".")[0] in self._shared_norms]

    def _register_masks_(self, name: str, small: nn.Module) -> None:
        """Masks are redrawn from their seed, not stored: buffers outside the state dict."""
        assert self.mask is not None
        for tensor, parameter in small.named_parameters():
            if 0 in self.plans[name].cuts.get(tensor, {}) and parameter.ndim >= 2:  # a layer that is slim itself
                mask = r_beta_mask(parameter.shape, self.mask.beta, self.mask.seed, f"{name}/{tensor}")
                self._mask_names[name, tensor] = f"mask_{len(self._mask_names)}"
                self.register_buffer(self._mask_names[name, tensor], mask.to(parameter.device), persistent=False)


class _Fork(torch.autograd.Function):
    """A weight, and its cuts; in the backward pass the cuts' gradients are added into the weight's where they belong.

    Plain slicing would give the same numbers, but make, for every weight and small network, a zero tensor of the full size
    and add it: 5 % of a step's time, and up to a second set of gradients in memory (benchmarks/train_step.py). `owned`: the
    weight's gradient is nobody else's and may be added to in place.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, cuts: Sequence[Mapping[int, tuple[Range, ...]]], owned: bool) -> tuple[Tensor, ...]:
        ctx.cuts, ctx.shape, ctx.owned = cuts, weight.shape, owned
        ctx.set_materialize_grads(False)
        return (weight.view_as(weight), *(cut(weight, kept) for kept in cuts))

    @staticmethod
    def backward(ctx: Any, whole: Tensor | None, *parts: Tensor | None) -> tuple[Tensor | None, None, None]:
        present = [(part, kept) for part, kept in zip(parts, ctx.cuts, strict=True) if part is not None]
        if not present:
            return whole, None, None
        total = present[0][0].new_zeros(ctx.shape) if whole is None else whole
        if whole is not None and not ctx.owned:
            total = whole.clone()
        for part, kept in present:
            for there, here in blocks(total, part, kept):
                there += here
        return total, None, None


def _check_names(full: nn.Module, plans: Mapping[str, WidthPlan]) -> None:
    """Refuse a weight that two layers share, and a layer under two names that is cut: torch puts one tensor in by one name."""
    for names in owners(full):
        if len(names) > 1:
            raise AdjCompressError(
                f"{names[0]} and {names[1]} are one tensor, which no adjoined network can have in two layers: give each a "
                "weight of its own, or run one layer twice."
            )
    for name, names in aliases(full).items():
        if any(name in plan.cuts for plan in plans.values()):
            raise AdjCompressError(
                f"{names[0]} and {names[1]} are one layer under two names, and a plan cuts it: take one name away, or keep the "
                "layer whole with --keep."
            )


def _check_trunk(full: nn.Module, plans: Mapping[str, WidthPlan], trunk: Sequence[str]) -> None:
    """Refuse modules that are not there, those in which a plan cuts, and those with a hook, which would run in all networks."""
    modules = dict(full.named_modules())
    for part in trunk:
        if part not in modules:
            raise AdjCompressError(f"The trunk has a module {part!r}, and {type(full).__name__} has none of that name.")
        if any(f"{tensor}.".startswith(f"{part}.") for plan in plans.values() for tensor in plan.cuts):
            raise AdjCompressError(f"Module {part} is cut, so it cannot be in the trunk that all networks share.")
        if has_hooks(modules[part]):
            raise AdjCompressError(f"--trunk shared: layer {part} has a forward hook, which would run in every network.")


def _give_back_(network: AdjoinedNetwork, *_: Any) -> None:
    """Put what was learnt apart into the full tensors, so that they can be saved."""
    if network.apart is not None and network._ahead():
        network.apart.give_back_(dict(network.full.named_parameters()))


def _take_(network: AdjoinedNetwork, _keys: Any) -> None:
    """What was loaded is gone on with: apart, if the full network has not joined there."""
    if network.apart is not None:
        network.apart.take_(dict(network.full.named_parameters()))
        network._learns_apart = not bool(network.get_buffer("joined"))


def adjoin(
    full: nn.Module, plans: Mapping[str, WidthPlan], mask: RandomMask | None = None, trunk: Sequence[str] = ()
) -> AdjoinedNetwork:
    """An AdjoinedNetwork of `full` and a small network for each of `plans`, by name ("alpha8")."""
    return AdjoinedNetwork(full, plans, mask, trunk)


def _without_shared_tensors_(small: nn.Module, shared_norms: Collection[str]) -> nn.Module:
    """Take the shared tensors out of a sliced network; what stays are its own normalisation layers.

    An empty buffer keeps each one's place for functional_call. It holds no memory, is not part of the state dict but where it
    stands for a counter, and a forward without the views fails at once instead of computing with stale weights.
    """
    for name, module in small.named_modules():
        if isinstance(module, NORMS) and name not in shared_norms:
            continue
        tensors = dict(module.named_parameters(recurse=False))
        if name in shared_norms:
            tensors |= dict(module.named_buffers(recurse=False))
        for attribute, tensor in tensors.items():
            delattr(module, attribute)
            empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
            # Batch norm adds its counter to every state dict that lacks it, and would find it unexpected.
            module.register_buffer(attribute, empty, persistent=attribute == "num_batches_tracked")
    return small
