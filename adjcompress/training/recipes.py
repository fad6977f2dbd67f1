"""With which optimiser, for how long, on which images is a network trained?"""

from __future__ import annotations

import copy
import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from adjcompress.adjoined import Succession
from adjcompress.errors import AdjCompressError, check_choice, pick
from adjcompress.widths.surgery import blocks


@dataclass(frozen=True)
class Recipe:
    """One way to train, the method aside. `lr` is that of `batch_size` images on one process; no scaling is done.

    The learning rate goes from lr * `start` to lr over the first `warmup` part of the training, then to lr * `end`, both
    along a cosine. With `drops`, parts of the training at which it is multiplied by `drop`, it stays in between. With
    `momentum_low`, momentum (beta1) goes down to it and back up along the same curve. `decay_all`: biases and normalisation
    decay too. `mixup`: batches are mixed with themselves in another order, at parts drawn from Beta(mixup, mixup)
    (arXiv:1710.09412); 0: they are not.
    """

    name: str
    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    weight_decay: float
    augmentation: str
    momentum: float = 0.9
    momentum_low: float | None = None
    beta2: float = 0.999
    eps: float = 1e-8
    decay_all: bool = False
    warmup: float = 0.1
    start: float = 0.1
    end: float = 1e-5
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    ema: float | None = None
    mixup: float = 0.0
    nesterov: bool = True
    drops: tuple[float, ...] = ()
    drop: float = 0.1

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch_size", 1)):
            if getattr(self, name) < low:
                raise AdjCompressError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least {low}.")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise AdjCompressError(f"--lr {self.lr} must be above 0.")
        if not 0 <= self.label_smoothing < 1:
            raise AdjCompressError(f"--label-smoothing {self.label_smoothing} must be at least 0 and below 1.")
        if not (self.mixup >= 0 and math.isfinite(self.mixup)):
            raise AdjCompressError(f"--mixup {self.mixup} must be 0 or more: both parameters of a Beta distribution.")
        if self.ema is not None and not 0 < self.ema < 1:
            raise AdjCompressError(f"--ema {self.ema} must lie between 0 and 1.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise AdjCompressError(f"--clip-norm {self.clip_norm} must be above 0.")
        if not 0 <= self.warmup < 1:
            raise AdjCompressError(f"A recipe's warm-up, {self.warmup:g}, must be at least 0 and below 1.")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise AdjCompressError(f"A recipe's weight decay, {self.weight_decay:g}, must be 0 or more.")
        check_choice(_OPTIMIZERS, self.optimizer, "Optimiser")
        object.__setattr__(self, "drops", tuple(self.drops))  # JSON has lists
        if not all(before < after for before, after in pairwise((self.warmup, *self.drops, 1.0))):
            raise AdjCompressError(f"A recipe's drops, {self.drops}, must rise, between its warm-up, {self.warmup:g}, and 1.")
        if not 0 < self.drop < 1:
            raise AdjCompressError(f"A recipe's drop, {self.drop:g}, must lie between 0 and 1.")

    def lr_at(self, progress: float) -> float:
        """The learning rate at `progress` in [0, 1]."""
        if progress < self.warmup:
            return self.lr * _cosine(self.start, 1.0, progress / self.warmup)
        if self.drops:
            return self.lr * self.drop ** bisect_right(self.drops, progress)
        return self.lr * _cosine(1.0, self.end, (progress - self.warmup) / (1 - self.warmup))

    def momentum_at(self, progress: float) -> float:
        """Momentum, or beta1 of AdamW, at `progress` in [0, 1]."""
        if self.momentum_low is None:
            return self.momentum
        if progress < self.warmup:
            return _cosine(self.momentum, self.momentum_low, progress / self.warmup)
        return _cosine(self.momentum_low, self.momentum, (progress - self.warmup) / (1 - self.warmup))

    def changed(self, **changes: Any) -> Recipe:
        """The recipe with some fields replaced, those given as None left as they are."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "drops": list(self.drops)}  # what it is when it is read again


def _cosine(first: float, last: float, progress: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def recipe(name: str) -> Recipe:
    """The recipe called `name`: one of `RECIPES`."""
    return pick(RECIPES, name, "Recipe")


def make_optimizers(groups: list[dict[str, Any]], recipe: Recipe, steps: int) -> list[torch.optim.Optimizer]:
    """The recipe's optimiser over a method's parameter groups, fused, and an Adam for each group that has an own one.

    `steps` are those of the whole training.
    """
    shared, own = ([group for group in groups if ("own" in group) is apart] for apart in (False, True))
    if recipe.decay_all:
        shared = [{**group, "weight_decay": recipe.weight_decay} if group["name"] == "no decay" else group for group in shared]
    first = pick(_OPTIMIZERS, recipe.optimizer, "Optimiser")(shared, recipe)
    # These betas forget in a hundred steps, and a first gradient after many that were zero makes no larger step.
    return [first, *(torch.optim.Adam(group["params"], group["own"]["travel"] / steps, betas=(0.9, 0.99)) for group in own)]


def hand_over_(optimizer: torch.optim.Optimizer, successions: Iterable[Succession]) -> None:
    """Let parameters begin with the state of those where they go on, at the places that these had."""
    for new, old, kept in successions:
        for key, value in optimizer.state.get(old, {}).items():
            if value is not None and value.shape == old.shape:
                whole = torch.zeros_like(new, dtype=value.dtype)
                for there, here in blocks(whole, value, kept):
                    there.copy_(here)
                optimizer.state[new][key] = whole
            else:  # how many steps
                optimizer.state[new][key] = copy.deepcopy(value)


def fill_second_moments_(optimizer: torch.optim.Optimizer) -> None:
    """Give entries that never had a gradient the mean second moment of those of their tensor that had one.

    Adam's second moment of an entry that begins late is 0, and the correction for that goes by the tensor's steps, which are
    many: the first steps of such entries would be several times those of the others. SGD has none.
    """
    with torch.no_grad():
        for state in optimizer.state.values():
            moments = state.get("exp_avg_sq")
            if moments is not None:
                known = moments > 0
                moments.copy_(torch.where(known, moments, moments.sum() / known.sum().clamp(min=1)))


def set_rates_(optimizer: torch.optim.Optimizer, recipe: Recipe, progress: float) -> None:
    """Set learning rate and momentum of every group for the step at `progress`."""
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr_at(progress)
        if "betas" in group:
            group["betas"] = (recipe.momentum_at(progress), group["betas"][1])
        else:
            group["momentum"] = recipe.momentum_at(progress)


def _sgd(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(groups, recipe.lr, recipe.momentum, nesterov=recipe.nesterov, fused=True)
    # Zeros are what it would begin with; but it begins with all at once, and fails where a parameter's first gradient comes
    # later: a layer that no drawn architecture had, the full network's batch norms after --small-first.
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _adamw(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, recipe.lr, (recipe.momentum, recipe.beta2), recipe.eps, fused=True)


_OPTIMIZERS = {"sgd": _sgd, "adamw": _adamw}

# Decoupled decay on everything, momentum dipping while the rate is high: facts of the authors' code.
_PAPERS: dict[str, Any] = {
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 1e-2,
    "decay_all": True,
    "momentum": 0.95,
    "momentum_low": 0.85,
    "beta2": 0.99,
    "eps": 1e-6,
}
# SGD with plain momentum and decay on everything, as the papers of substitutes (arXiv:1906.00859) and of budgeted super
# networks (arXiv:1706.00046) train; the latter's gates have an optimiser of their own.
_PLAIN_SGD: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1, "warmup": 0.0, "start": 1.0, "nesterov": False, "decay_all": True}
_SUPERNETS: dict[str, Any] = {**_PLAIN_SGD, "weight_decay": 1e-4, "augmentation": "crop2-flip"}
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("quick", 20, 64, "adamw", 1e-3, 5e-2, "crop-flip", warmup=0.2, start=0.05),
        Recipe("cifar", 40, 128, "sgd", 0.1, 5e-4, "crop-flip", warmup=0.3, start=0.04),
        Recipe("papers-cifar", 150, 64, augmentation="papers-cifar", **_PAPERS),
        Recipe("imagenet", 60, 32, augmentation="papers-imagenet", **_PAPERS),
        Recipe(
            "substitutes-cifar",
            200,
            128,
            weight_decay=5e-4,
            augmentation="crop-flip-cutout",
            drops=(60 / 200, 120 / 200, 160 / 200),
            drop=0.2,
            **_PLAIN_SGD,
        ),
        Recipe(
            "substitutes-darts",
            600,
            96,
            weight_decay=3e-4,
            augmentation="crop-flip-cutout",
            end=0.0,
            **{**_PLAIN_SGD, "lr": 0.025},
        ),
        Recipe(
            "substitutes-imagenet",
            90,
            256,
            weight_decay=1e-4,
            augmentation="papers-imagenet",
            drops=(30 / 90, 60 / 90),
            **_PLAIN_SGD,
        ),
        Recipe("supernets-cifar", 300, 64, drops=(150 / 300, 225 / 300), **_SUPERNETS),
        Recipe("supernets-segmentation", 200, 64, drops=(130 / 200,), **_SUPERNETS),
    )
}
