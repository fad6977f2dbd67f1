"""How are a full network and small ones inside it trained together? arXiv:2006.05624."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adjcompress.adjoined import SCHEDULES, AdjoinedNetwork, RandomMask, adjoint_loss
from adjcompress.errors import AdjCompressError, pick
from adjcompress.methods.protocol import MethodOptions, Search, Terms, alpha_name, check_plan_alone, decay_groups
from adjcompress.methods.substitute import scaled_groups, substituted
from adjcompress.methods.supervised import cross_entropy, refuse_auxiliary, tell_progress_
from adjcompress.substitutes import Substitution, apply_substitution
from adjcompress.widths import WidthPlan, plan_like, plan_widths


class AdjoinedMethod:
    """The adjoint loss on an AdjoinedNetwork: CE(full) + weight * schedule(progress) * mean KL(full || small).

    Beyond the papers: with `small_labels` s the small networks' part is weight * schedule * ((1 - s) KL + s CE(small)), and in
    the part `small_first` of the training it is CE(small) alone: the small networks learn cheaply, on their views of the
    weights, before the full one joins them.
    """

    name = "adjoined"
    prepared_by: type[Search] | None = None
    alone: str | None = None
    unaveraged: str | None = None
    reestimates = False
    compared_with: str | None = None
    halves = False
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
        small_first: float = 0.0,
        small_labels: float = 0.0,
    ) -> None:
        for option, value in (("--small-first", small_first), ("--small-labels", small_labels)):
            if not 0 <= value <= 1 or (value == 1 and option == "--small-first"):
                raise AdjCompressError(f"{option} {value:g} is a part of the whole: at least 0 and below 1.")
        self.small_first, self.small_labels = small_first, small_labels
        self.network = network
        self.substitution, self.scaling, self.dense_parameters = substitution, scaling, dense_parameters
        self.schedule, self.weight, self.detach = schedule, weight, detach
        self._weight_at = pick(SCHEDULES, schedule, "Schedule")

    @classmethod
    def build(cls, model: nn.Module, example: Tensor, options: MethodOptions) -> AdjoinedMethod:
        refuse_auxiliary(model)
        dense = sum(parameter.numel() for parameter in model.parameters())
        model, substitution = substituted(model, options)
        if options.plan is not None:
            check_plan_alone(options)
            plans = {cls.planned: plan_like(model, example, options.plan)}
        else:
            plans = {
                alpha_name(alpha): plan_widths(model, example, alpha, options.slim, options.keep, options.align)
                for alpha in _alphas(options)
            }
        mask = RandomMask(options.beta, options.seed) if options.beta else None
        network, scaling = AdjoinedNetwork(model, plans, mask), options.weight_decay_scaling
        own = (options.small_first, options.small_labels)
        return cls(network, options.schedule, options.weight, options.detach, substitution, scaling, dense, *own)

    @classmethod
    def restore(cls, model: nn.Module, settings: Mapping[str, Any]) -> AdjoinedMethod:
        plans = {name: WidthPlan.from_json(plan) for name, plan in settings["plans"].items()}
        kept = settings.get("substitution")
        substitution = Substitution.from_json(kept) if kept else None
        if substitution is not None:
            model = apply_substitution(model, substitution)
        mask = RandomMask(**settings["mask"]) if settings["mask"] else None
        network = AdjoinedNetwork(model, plans, mask)
        of_substitutes = (settings.get("scaling", "matrix"), settings.get("dense_parameters", 0))
        own = (settings.get("small_first", 0.0), settings.get("small_labels", 0.0))
        return cls(network, settings["schedule"], settings["weight"], settings["detach"], substitution, *of_substitutes, *own)

    def settings(self) -> dict[str, Any]:
        mask = self.network.mask
        return {
            "plans": {name: plan.to_json() for name, plan in self.network.plans.items()},
            "mask": {"beta": mask.beta, "seed": mask.seed} if mask else None,
            "schedule": self.schedule,
            "weight": self.weight,
            "detach": self.detach,
            "small_first": self.small_first,
            "small_labels": self.small_labels,
            **(self._of_substitutes() if self.substitution else {}),
        }

    def _of_substitutes(self) -> dict[str, Any]:
        assert self.substitution is not None
        kept = {"scaling": self.scaling, "dense_parameters": self.dense_parameters}
        return {"substitution": self.substitution.to_json(), **kept}

    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Terms:
        for network in (self.network.full, *self.network.smalls.values()):
            tell_progress_(network, progress)
        if progress < self.small_first:
            smalls = self.network.small_logits(images)
            own = torch.stack([cross_entropy(small, labels) for small in smalls.values()]).mean()
            total = own
            if torch.distributed.is_available() and torch.distributed.is_initialized():  # they wait for every gradient
                total = own + 0 * torch.stack([parameter.sum() for parameter in self.network.full.parameters()]).sum()
            return Terms(total, {"small_cross_entropy": own})
        full, smalls = self.network(images)
        weight = self.weight * self._weight_at(progress)
        loss = adjoint_loss(full, smalls, labels, weight, self.detach, self.small_labels)
        parts = {"cross_entropy": loss.cross_entropy, "divergence": loss.divergence}
        if loss.small_cross_entropy is not None:
            parts["small_cross_entropy"] = loss.small_cross_entropy
        return Terms(loss.total, {**parts, "weight": loss.total.new_tensor(weight)})

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        if self.substitution is None:
            return decay_groups(self.network, weight_decay)
        full = self.network.full  # the small networks' layers are views of its
        return scaled_groups(self.network, weight_decay, self.scaling, self.dense_parameters, of=full)

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        outputs = self.network(images)
        return {"full": outputs.full, **outputs.smalls}

    def plan_of(self, deployable: str) -> WidthPlan | None:
        return self.network.plans.get(deployable)

    def options_of(self, deployable: str) -> dict[str, Any]:
        return {}

    def record(self) -> dict[str, Any]:
        return {}

    def shortcoming(self) -> str | None:
        return None

    def deployables(self) -> dict[str, nn.Module]:
        smalls = {name: self.network.extract(name) for name in self.network.smalls}
        return {"full": self.network.full, **smalls}


def _alphas(options: MethodOptions) -> Sequence[float]:
    alphas = options.alphas or (8.0,)
    for alpha in alphas:
        if alpha == 1:
            raise AdjCompressError("--alpha 1 is the full network itself: an adjoined run needs an alpha above 1.")
    return alphas
