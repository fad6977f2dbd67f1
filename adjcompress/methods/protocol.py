"""What must a way to train provide? The loop knows this, and no method."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from adjcompress.adjoined import Succession
from adjcompress.methods.options import MethodOptions
from adjcompress.substitutes import Substitution
from adjcompress.widths import WidthPlan
from adjcompress.widths.channels import NORMS, Convolution


@dataclass(frozen=True)
class Terms:
    """A batch's loss: the scalar that is minimised, and what it is made of, by name, for the log."""

    total: Tensor
    parts: Mapping[str, Tensor]


class Method(Protocol):
    """A way to train a network. Methods inherit from it what they do not say otherwise."""

    name: ClassVar[str]
    prepared_by: ClassVar[type[Search] | None] = None
    """The search that finds its widths first, where no plan is given."""
    unaveraged: ClassVar[str | None] = None
    """Why averages of its weights would say nothing; None: they may be deployed."""
    cuts_always: ClassVar[bool] = False
    """Whether a small network is cut even where no alpha and no plan is given."""
    needs_teacher: ClassVar[bool] = False
    """Whether it can do nothing without one."""
    reestimates: ClassVar[bool] = False
    """Whether batch norms are measured anew when a network leaves it."""
    compared_with: ClassVar[str | None] = None
    """What to call the model itself, with fresh weights, that costs are compared with where no "full" network is trained."""

    network: nn.Module
    """What is trained and checkpointed."""
    alone: str | None = None
    """Why it trains in one process only; None: several may share the images."""
    rests: bool = False
    """Whether a part of the network has no gradient in some steps."""
    halves_after: float | None = None
    """From which part of the training on steps see the two halves of the images in turn, the first half at even steps; before
    that all see the first half. None: no halves."""
    substitution: Substitution | None = None
    """Which of the model's convolutions are replaced, before any width is cut."""

    @classmethod
    def build(cls, model: nn.Module, example: Tensor, options: MethodOptions) -> Method:
        """Make the method for a fresh `model`; `example` is a batch (N, C, H, W)."""

    @classmethod
    def restore(cls, model: nn.Module, settings: Mapping[str, Any]) -> Method:
        """Make the method again from what `settings()` gave; weights are loaded afterwards."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """JSON from which `restore` rebuilds the method around the same kind of model."""

    @abstractmethod
    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Terms:
        """The loss of a batch (N, C, H, W) at `progress` in [0, 1].

        Labels are (N,), probabilities (N, classes), or for segmentation (N, H, W), where -100 counts for nothing.
        """

    @abstractmethod
    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser, each with its name and weight decay.

        A group with an "own" entry, {"travel": ...}, has an Adam of its own, whatever the recipe says: at a rate by which a
        parameter can go that far in the whole training.
        """

    def successions(self, progress: float) -> Iterable[Succession]:
        """The parameters that go on where others were, in the optimiser's state too, if a network begins at `progress`."""
        return ()

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (N, classes) of every deployable as the training computes them: what extraction is compared with."""

    def plan_of(self, deployable: str) -> WidthPlan | None:
        """The width plan by which a deployable is cut from the model; None for the whole model."""
        return None

    def options_of(self, deployable: str) -> dict[str, Any]:
        """Options of the model's constructor that build a deployable in place of the model itself; JSON."""
        return {}

    def waiting(self, progress: float) -> Collection[str]:
        """The deployables that have not begun to learn at `progress` in [0, 1]: nothing is measured of them yet."""
        return frozenset()

    def record(self) -> dict[str, Any]:
        """What the epoch's line of the log holds beside losses and accuracy, by name; JSON."""
        return {}

    def doubt(self) -> str | None:
        """What its user must hear before the training begins; None where nothing speaks against it."""
        return None

    def shortcoming(self) -> str | None:
        """What its user must hear at the end of the training; None where all is as asked."""
        return None

    @abstractmethod
    def deployables(self) -> dict[str, nn.Module]:
        """The networks that come out of it, by name ("full", "alpha8"): what is evaluated and can be extracted."""


class Decision(Protocol):
    """What a search found: the widths, and everything that is known of them as JSON."""

    @property
    def plan(self) -> WidthPlan:
        """The widths."""

    def shortcoming(self) -> str | None:
        """What its user must hear of it; None where all is as asked."""

    def to_json(self) -> dict[str, Any]:
        """A width plan's JSON, and beside it what is known of the search."""


class Search(Method, Protocol):
    """A method whose networks are trained only to find widths, for a method that names it as `prepared_by`."""

    @abstractmethod
    def decide(self) -> Decision:
        """The widths, after the training."""

    def waiting_then(self, progress: float) -> Collection[str]:
        """What `waiting` will give in the training that follows."""
        return frozenset()


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


def alpha_name(alpha: float) -> str:
    """The name of the small network at `alpha`: 8 -> "alpha8", 1.5 -> "alpha1_5"; 1 is the full network."""
    return "full" if alpha == 1 else f"alpha{alpha:g}".replace(".", "_")
