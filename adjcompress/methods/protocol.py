"""What must a way to train provide? The loop knows this, and no method."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from adjcompress.errors import AdjCompressError
from adjcompress.substitutes import Substitution
from adjcompress.widths import WidthPlan
from adjcompress.widths.channels import NORMS, Convolution


@dataclass(frozen=True)
class Terms:
    """A batch's loss: the scalar that is minimised, and what it is made of, by name, for the log."""

    total: Tensor
    parts: Mapping[str, Tensor]


@dataclass(frozen=True)
class MethodOptions:
    """What a user may choose about a method; each takes what it needs.

    `alphas`, `slim`, `keep`, `align` are those of `plan_widths`. `beta` and `seed`: the random mask r_beta. `schedule`,
    `weight`, `detach`: the adjoint loss; `small_first`, `small_labels`, `growing`, `widen`: its curriculum; `trunk`: the layers
    before the first slim one are each network's "own" or "shared". `plan`: widths that are known already, in place of alphas.

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


class Method(Protocol):
    """A way to train a network."""

    name: str
    network: nn.Module
    """What is trained and checkpointed."""
    prepared_by: type[Search] | None
    """The search that finds its widths first, where no plan is given."""
    alone: str | None
    """Why it trains in one process only; None: several may share the images."""
    unaveraged: str | None
    """Why averages of its weights would say nothing; None: they may be deployed."""
    reestimates: bool
    """Whether batch norms are measured anew when a network leaves it."""
    compared_with: str | None
    """What to call the model itself, with fresh weights, that costs are compared with where no "full" network is trained."""
    halves: bool
    """Whether steps see the two halves of the training images in turn, the first half at even steps."""
    substitution: Substitution | None
    """Which of the model's convolutions are replaced, before any width is cut."""

    @classmethod
    def build(cls, model: nn.Module, example: Tensor, options: MethodOptions) -> Method:
        """Make the method for a fresh `model`; `example` is a batch (N, C, H, W)."""

    @classmethod
    def restore(cls, model: nn.Module, settings: Mapping[str, Any]) -> Method:
        """Make the method again from what `settings()` gave; weights are loaded afterwards."""

    def settings(self) -> dict[str, Any]:
        """JSON from which `restore` rebuilds the method around the same kind of model."""

    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Terms:
        """The loss of a batch (N, C, H, W) at `progress` in [0, 1].

        Labels are (N,), probabilities (N, classes), or for segmentation (N, H, W), where -100 counts for nothing.
        """

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser, each with its name and weight decay.

        A group with an "own" entry, {"travel": ...}, has an Adam of its own, whatever the recipe says: at a rate by which a
        parameter can go that far in the whole training.
        """

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (N, classes) of every deployable as the training computes them: what extraction is compared with."""

    def plan_of(self, deployable: str) -> WidthPlan | None:
        """The width plan by which a deployable is cut from the model; None for the whole model."""

    def options_of(self, deployable: str) -> dict[str, Any]:
        """Options of the model's constructor that build a deployable in place of the model itself; JSON."""

    def record(self) -> dict[str, Any]:
        """What the epoch's line of the log holds beside losses and accuracy, by name; JSON."""

    def shortcoming(self) -> str | None:
        """What its user must hear at the end of the training; None where all is as asked."""

    def deployables(self) -> dict[str, nn.Module]:
        """The networks that come out of it, by name ("full", "alpha8"): what is evaluated and can be extracted."""


class Decision(Protocol):
    """What a search found: the widths, and everything that is known of them as JSON."""

    plan: WidthPlan
    part_of_budget: float

    def to_json(self) -> dict[str, Any]:
        """A width plan's JSON, and beside it what is known of the search."""


class Search(Method, Protocol):
    """A method whose networks are trained only to find widths, for a method that names it as `prepared_by`."""

    def decide(self) -> Decision:
        """The widths, after the training."""


def decay_groups(network: nn.Module, weight_decay: float, apart: Collection[int] = ()) -> list[dict[str, Any]]:
    """Two parameter groups: convolution and linear weights decay; biases, normalisation and layer scales do not.

    Without the parameters whose `id` is in `apart`.
    """
    still = {id(parameter) for module in network.modules() if isinstance(module, NORMS) for parameter in module.parameters()}
    decaying: list[nn.Parameter] = []
    steady: list[nn.Parameter] = []
    kernels = {id(module.weight) for module in network.modules() if isinstance(module, Convolution)}
    for parameter in (parameter for parameter in network.parameters() if id(parameter) not in apart):
        one_dimensional = parameter.numel() == max(parameter.shape, default=1) and id(parameter) not in kernels
        (steady if id(parameter) in still or one_dimensional else decaying).append(parameter)
    groups = [
        {"name": "decay", "params": decaying, "weight_decay": weight_decay},
        {"name": "no decay", "params": steady, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def check_plan_alone(options: MethodOptions) -> None:
    """Refuse options that would choose widths where a plan gives them."""
    clashing = {
        "--alpha": bool(options.alphas),
        "--slim": options.slim is not None,
        "--keep": options.keep is not None,
        "--align": options.align != 1,
    }
    for option, given in clashing.items():
        if given:
            raise AdjCompressError(f"--plan gives the widths, so {option} would do nothing: leave one of them out.")


def check_no_widths(method: str, options: MethodOptions) -> None:
    """Refuse what belongs to networks that are cut."""
    nothing = MethodOptions()
    for name in ("alphas", "plan", "slim", "keep", "align", "beta", "schedule", "detach"):
        if getattr(options, name) != getattr(nothing, name):
            option = "--alpha" if name == "alphas" else f"--{name}"
            raise AdjCompressError(
                f"--method {method} cuts no widths, so {option} would do nothing: leave it out, or take --method adjoined."
            )


def alpha_name(alpha: float) -> str:
    """The name of the small network at `alpha`: 8 -> "alpha8", 1.5 -> "alpha1_5"; 1 is the full network."""
    return "full" if alpha == 1 else f"alpha{alpha:g}".replace(".", "_")
