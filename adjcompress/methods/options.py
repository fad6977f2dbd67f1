"""What may a user choose about a method, and which method takes which choice?"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from adjcompress.errors import AdjCompressError
from adjcompress.widths import WidthPlan


@dataclass(frozen=True)
class MethodOptions:
    """What a user may choose about a method; each takes what it needs.

    `alphas`, `slim`, `keep`, `align` are those of `plan_widths`. `beta` and `seed`: the random mask r_beta. `schedule`,
    `weight`, `detach`: the adjoint loss; `small_first`, `small_labels`, `growing`, `widen`: its curriculum; `trunk`: the layers
    before the first slim one are each network's "own" or "shared". "auto" as `widen` is "copies" and as `trunk` "shared", where
    they fit the model. `plan`: widths that are known already, in place of alphas.

    A width search takes `alphas` or `width_step` as its candidates, `budgets` as `Budget.parse` reads them, and the latency
    table in file `table`. `halves`: it learns weights and widths on different halves of the images.

    `substitute`: the structured layer that replaces convolutions, at `setting` or at the largest within the one of `budgets`,
    in `substitute_layers` but `dense_layers`, as in `plan_substitution`; `approximate`: it starts from the model's weights.
    `weight_decay_scaling`: how its weight decay follows its compression.

    A super network is trained under one of `budgets`: macs, params, cycles on so many `machines`, latency from the `table` or,
    without one, measured here, or the `cost` "package.module:function"; with `samples_per_batch` architectures in a step,
    after the part `warm_up` of the training.

    Distillation has `weight` and `temperature`; `dropout` is the rate before the classifier, `dropout_blocks` after blocks.
    """

    alphas: Sequence[float] = ()
    slim: Sequence[str] | None = None
    keep: Sequence[str] | None = None
    align: int = 1
    beta: float = 0.0
    seed: int = 0
    schedule: str = "quadratic"
    weight: float = 1.0
    detach: bool = False
    plan: WidthPlan | None = None
    budgets: Sequence[str] = ()
    table: str | None = None
    width_step: int | None = None
    halves: bool = False
    substitute: str | None = None
    setting: float | None = None
    substitute_layers: Sequence[str] | None = None
    dense_layers: Sequence[str] | None = None
    approximate: bool = False
    weight_decay_scaling: str = "matrix"
    machines: int = 1
    cost: str | None = None
    samples_per_batch: int = 4
    warm_up: float = 0.2
    small_first: float = 0.0
    small_labels: float = 0.0
    growing: bool = False
    widen: str = "fresh"
    trunk: str = "own"
    temperature: float = 1.0
    dropout: float = 0.5
    dropout_blocks: float = 0.0

    @property
    def cuts(self) -> bool:
        """Whether a network below the full width is asked for."""
        return self.plan is not None or any(alpha != 1 for alpha in self.alphas)

    def at_plan(self, plan: WidthPlan) -> MethodOptions:
        """The same at these widths, without what would choose others."""
        nothing: dict[str, Any] = {field.name: field.default for field in fields(self) if field.name in _CHOOSES_WIDTHS}
        return replace(self, plan=plan, **nothing)


_WIDTHS = ("alphas", "slim", "keep", "align", "plan")
_ADJOINT = ("beta", "schedule", "weight", "detach", "small_first", "small_labels", "widen", "trunk")
_SUBSTITUTES = ("substitute", "setting", "substitute_layers", "dense_layers", "weight_decay_scaling", "budgets")
_CHOOSES_WIDTHS = ("alphas", "slim", "keep", "align", "budgets", "table", "width_step", "halves")  # where no plan does
_SEARCH = ("budgets", "table", "width_step", "halves", "search_epochs", "keep_weights")
# The choices of every method, by their names in MethodOptions and TrainOptions; `seed` and `approximate` follow from others.
TAKES: dict[str, frozenset[str]] = {
    "adjoined": frozenset({*_WIDTHS, *_ADJOINT, "growing", *_SUBSTITUTES}),
    "budgeted": frozenset({"budgets", "table", "machines", "cost", "samples_per_batch", "warm_up"}),
    "dan": frozenset({*_WIDTHS, *_ADJOINT, *_SEARCH}),
    "distill": frozenset({*_WIDTHS, "weight", "temperature", "teacher"}),
    "dropout": frozenset({*_WIDTHS, "dropout", "dropout_blocks"}),
    "standard": frozenset(_WIDTHS),
    "substitute": frozenset({*_SUBSTITUTES, "teacher", "attention"}),
}
_ALL = frozenset().union(*TAKES.values())
_PLURALS = {"alphas": "alpha", "budgets": "budget"}


def _differ(value: Any, default: Any) -> bool:
    nothing = isinstance(value, list | tuple) and not value and not default  # whichever empty sequence it is
    return bool(value != default) and not nothing


def _option_name(name: str) -> str:
    """The option of the command line that sets a field: "alphas" -> "--alpha"."""
    return f"--{_PLURALS.get(name, name).replace('_', '-')}"


def check_taken(method: str, options: MethodOptions, others: Collection[str] = ()) -> None:
    """Refuse a choice that `method` does not take, for it would do nothing, and one that nothing can take.

    `others`: what was chosen beside MethodOptions.
    """
    if not (math.isfinite(options.weight) and options.weight >= 0):
        raise AdjCompressError(f"--weight {options.weight:g} must be 0 or more.")
    if not 0 <= options.beta < 1:
        raise AdjCompressError(f"--beta {options.beta:g} must be at least 0 and below 1.")
    chosen = [field.name for field in fields(options) if _differ(getattr(options, field.name), field.default)]
    for name in (*chosen, *others):
        if name in _ALL and name not in TAKES[method]:
            takers = sorted(taker for taker, taken in TAKES.items() if name in taken)
            listed = " or ".join(part for part in (", ".join(takers[:-1]), takers[-1]) if part)
            raise AdjCompressError(f"{_option_name(name)} goes with --method {listed}, not with {method}: leave it out.")


def check_plan_alone(options: MethodOptions) -> None:
    """Refuse options that would choose widths where a plan gives them."""
    chosen = [
        each.name
        for each in fields(options)
        if each.name in _CHOOSES_WIDTHS and _differ(getattr(options, each.name), each.default)
    ]
    for name in chosen:
        if name != "budgets" or options.substitute is None:  # a substitution has a budget of its own
            option = _option_name(name)
            raise AdjCompressError(f"--plan gives the widths, so {option} would do nothing: leave one of them out.")
