"""How are a full network and small ones inside it trained together? arXiv:2006.05624."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from adjcompress.adjoined import (
    SCHEDULES,
    WIDENINGS,
    AdjoinedNetwork,
    Curriculum,
    RandomMask,
    Succession,
    adjoint_loss,
    check_trunk,
    check_widening,
    outermost_before,
    restore_unread_,
    unread_scales,
    widen_,
)
from adjcompress.errors import AdjCompressError, check_choice, pick
from adjcompress.methods.options import MethodOptions, check_plan_alone, check_taken
from adjcompress.methods.protocol import Method, Terms, alpha_name, decay_groups
from adjcompress.methods.substitute import scaled_groups, substituted
from adjcompress.methods.supervised import cross_entropy, refuse_auxiliary, tell_progress_
from adjcompress.substitutes import Substitution, apply_substitution
from adjcompress.tensors import deployed_parameters
from adjcompress.widths import WidthPlan, plan_like, plan_widths

_PAPERS = Curriculum()
_AUTO = "auto"  # of --widen and --trunk: copies and shared, where they fit the model
_TRUNKS = ("own", "shared", _AUTO)  # whether the layers before the first slim one are computed once for all


class AdjoinedMethod(Method):
    """The adjoint loss on an AdjoinedNetwork: CE(full) + weight * schedule(progress) * mean KL(full || small).

    Beyond the papers, by `curriculum`: with `small_labels` s the small networks' part is weight * schedule * ((1 - s) KL +
    s CE(small)), and in the part `small_first` of the training it is CE(small) alone: the small networks learn at their own
    cost before the full one joins them.
    """

    name = "adjoined"
    cuts_always = True
    afresh: str | None = None
    """The model in which copies do not fit, where they were to be taken."""
    planned = "plan"
    """What the small network is called whose widths a plan gives."""

    def __init__(
        self,
        network: AdjoinedNetwork,
        schedule: str = "quadratic",
        weight: float = 1.0,
        detach: bool = False,
        substitution: Substitution | None = None,
        scaling: str = "matrix",
        dense_parameters: int = 0,
        curriculum: Curriculum = _PAPERS,
    ) -> None:
        self.curriculum, self.by_size = curriculum, network.by_size()
        if curriculum.growing and len(self.by_size) < 2:
            raise AdjCompressError("--growing lets several small networks join in turn: give several --alpha, or leave it out.")
        if curriculum.small_first:
            self.rests = True
            network.let_full_wait_()
            network.register_buffer("unread_scales", unread_scales(network))
        self._seen_joined, self._successions = False, list[Succession]()
        self.network = network
        self.substitution, self.scaling, self.dense_parameters = substitution, scaling, dense_parameters
        self.schedule, self.weight, self.detach = schedule, weight, detach
        self._weight_at = pick(SCHEDULES, schedule, "Schedule")

    @classmethod
    def build(cls, model: nn.Module, example: Tensor, options: MethodOptions) -> AdjoinedMethod:
        check_taken(cls.name, options)
        if options.plan is not None:
            check_plan_alone(options)
        refuse_auxiliary(model)
        dense = deployed_parameters(model)
        model, substitution = substituted(model, example, options)
        if options.plan is not None:
            plans = {cls.planned: plan_like(model, example, options.plan)}
        else:
            plans = {
                alpha_name(alpha): plan_widths(model, example, alpha, options.slim, options.keep, options.align)
                for alpha in _alphas(options)
            }
        mask = RandomMask(options.beta, options.seed) if options.beta else None
        trunk, curriculum = checked_beyond(model, plans, example, options, mask)
        network, scaling = AdjoinedNetwork(model, plans, mask, trunk), options.weight_decay_scaling
        own = (options.schedule, options.weight, options.detach)
        method = cls(network, *own, substitution, scaling, dense, curriculum)
        if options.widen == _AUTO and options.small_first and curriculum.widen == "fresh":
            method.afresh = type(model).__name__
        return method

    @classmethod
    def restore(cls, model: nn.Module, settings: Mapping[str, Any]) -> AdjoinedMethod:
        plans = {name: WidthPlan.from_json(plan) for name, plan in settings["plans"].items()}
        kept = settings.get("substitution")
        substitution = Substitution.from_json(kept) if kept else None
        if substitution is not None:
            model = apply_substitution(model, substitution, approximate=False)
        mask = RandomMask(**settings["mask"]) if settings["mask"] else None
        network = AdjoinedNetwork(model, plans, mask, settings.get("trunk", ()))
        of_substitutes = (settings.get("scaling", "matrix"), settings.get("dense_parameters", 0))
        curriculum = Curriculum(**{name: settings[name] for name in asdict(_PAPERS) if name in settings})
        own = (settings["schedule"], settings["weight"], settings["detach"])
        method = cls(network, *own, substitution, *of_substitutes, curriculum)
        method.afresh = settings.get("afresh")
        return method

    def settings(self) -> dict[str, Any]:
        mask = self.network.mask
        return {
            "plans": {name: plan.to_json() for name, plan in self.network.plans.items()},
            "mask": {"beta": mask.beta, "seed": mask.seed} if mask else None,
            "schedule": self.schedule,
            "weight": self.weight,
            "detach": self.detach,
            "small_first": self.curriculum.small_first,
            "small_labels": self.curriculum.small_labels,
            **({"growing": True} if self.curriculum.growing else {}),
            **({"widen": self.curriculum.widen} if self.curriculum.widen != "fresh" else {}),
            **({"trunk": list(self.network.trunk)} if self.network.trunk else {}),
            **({"afresh": self.afresh} if self.afresh else {}),
            **(self._of_substitutes() if self.substitution else {}),
        }

    def _of_substitutes(self) -> dict[str, Any]:
        assert self.substitution is not None
        kept = {"scaling": self.scaling, "dense_parameters": self.dense_parameters}
        return {"substitution": self.substitution.to_json(), **kept}

    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Terms:
        for network in (self.network.full, *self.network.smalls.values()):
            tell_progress_(network, progress)
        if self.curriculum.alone(progress):
            smalls = self.network.small_logits(images, self.curriculum.joined(self.by_size, progress))
            own = torch.stack([cross_entropy(small, labels) for small in smalls.values()]).mean()
            return Terms(own, {"small_cross_entropy": own})
        self._join_full_(images)
        full, smalls = self.network(images)
        weight = self.weight * self._weight_at(progress)
        loss = adjoint_loss(full, smalls, labels, weight, self.detach, self.curriculum.small_labels)
        parts = {"cross_entropy": loss.cross_entropy, "divergence": loss.divergence}
        if loss.small_cross_entropy is not None:
            parts["small_cross_entropy"] = loss.small_cross_entropy
        return Terms(loss.total, {**parts, "weight": loss.total.new_tensor(weight)})

    def _join_full_(self, images: Tensor) -> None:
        """Let the full network begin, once: with its initial weights, or with what the widest small one has learnt."""
        network, curriculum = self.network, self.curriculum
        if not curriculum.small_first or self._seen_joined or not network.training:
            return
        if not bool(network.get_buffer("joined")):
            network.learn_together_()
            restore_unread_(network, network.get_buffer("unread_scales"))
            if curriculum.widen != "fresh":
                with torch.autocast(images.device.type, enabled=False):
                    widen_(network, self.by_size[-1], images[:2], copies=curriculum.widen == "copies")
        self._seen_joined = True  # the buffer is asked once: on a GPU every question waits

    def waiting(self, progress: float) -> Collection[str]:
        if not self.curriculum.alone(progress):
            return frozenset()
        return frozenset({"full", *self.by_size}).difference(self.curriculum.joined(self.by_size, progress))

    def doubt(self) -> str | None:
        if self.afresh is None:
            return None
        return (
            f"The full {self.afresh} begins afresh when the small networks have learnt: copies of their channels do not fit "
            "it. --way papers trains it from the first step on."
        )

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Where the small networks learn alone first, in copies that are made here, each decays as what it is a copy of.

        A method that was trained before begins anew, with what it has learnt: the full network waits again.
        """
        self.network.learn_in_full_()
        self._seen_joined, self._successions = False, []
        if self.substitution is None:
            groups = decay_groups(self.network, weight_decay)
        else:
            full = self.network.full  # the small networks' layers are views of its
            groups = scaled_groups(self.network, weight_decay, self.scaling, self.dense_parameters, of=full)
        if self.curriculum.small_first:
            self.network.get_buffer("unread_scales").copy_(unread_scales(self.network))
            self._successions = self.network.learn_apart_()
        copies = {id(new): old for new, old, _ in self._successions}
        own = [[copies[id(parameter)] for parameter in group["params"] if id(parameter) in copies] for group in groups]
        return [*groups, *({**group, "params": params} for group, params in zip(groups, own, strict=True) if params)]

    def successions(self, progress: float) -> Iterable[Succession]:
        return () if self.curriculum.alone(progress) else self._successions

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        outputs = self.network(images)
        return {"full": outputs.full, **outputs.smalls}

    def plan_of(self, deployable: str) -> WidthPlan | None:
        return self.network.plans.get(deployable)

    def deployables(self) -> dict[str, nn.Module]:
        smalls = {name: self.network.extract(name) for name in self.network.smalls}
        return {"full": self.network.whole(), **smalls}


def checked_beyond(
    model: nn.Module,
    plans: Mapping[str, WidthPlan],
    example: Tensor,
    options: MethodOptions,
    mask: RandomMask | None = None,
) -> tuple[tuple[str, ...], Curriculum]:
    """The modules that all networks share, where that was asked for, and the order of learning.

    What does not fit the model is an AdjCompressError; "auto" is what fits.
    """
    check_choice((*WIDENINGS, _AUTO), options.widen, "--widen")
    widen = {_AUTO: "copies" if options.small_first else "fresh"}.get(options.widen, options.widen)
    curriculum = Curriculum(options.small_first, options.small_labels, options.growing, widen)
    trunk = _shared(model, plans, example, mask, options.trunk)
    if widen != "fresh":
        try:
            check_widening(model, plans, trunk, example, widen, mask)
        except AdjCompressError:
            if options.widen != _AUTO:
                raise
            curriculum = replace(curriculum, widen="fresh")
    return trunk, curriculum


def _shared(
    model: nn.Module, plans: Mapping[str, WidthPlan], example: Tensor, mask: RandomMask | None, asked: str
) -> tuple[str, ...]:
    """The modules of the trunk, none where it is each network's own."""
    check_choice(_TRUNKS, asked, "--trunk")
    if asked == "own":
        return ()
    try:
        trunk = outermost_before(model, plans.values(), example)
        check_trunk(model, plans, trunk, example, mask)
    except AdjCompressError:
        if asked != _AUTO:
            raise
        return ()
    return trunk


def _alphas(options: MethodOptions) -> Sequence[float]:
    alphas = options.alphas or (8.0,)
    for alpha in alphas:
        if alpha == 1:
            raise AdjCompressError("--alpha 1 is the full network itself: an adjoined run needs an alpha above 1.")
        if [alpha_name(other) for other in alphas].count(alpha_name(alpha)) > 1:
            raise AdjCompressError(f"--alpha {alpha:g} is given twice: each is a network of its own.")
    return alphas
