"""Which ways to train are compared, and by which protocols?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from record import RESULTS

import adjcompress as ac
from adjcompress.methods import MethodOptions
from adjcompress.training import Recipe, recipe

TEACHER = "standard"
SANDWICH = (4.0, 8.0, 16.0)
FIRST = 0.8  # the part of the training in which the small network learns alone, where it learns first
OTHER_FIRSTS = (0.5, 0.9)  # whether that part is the right one


@dataclass(frozen=True)
class Protocol:
    """On what, and by which recipe, the ways are compared; `alphas` are those that the papers' way is run at."""

    model: str
    recipe: Recipe
    alphas: tuple[float, ...]
    classes: int = 100
    compile: bool = False
    weighted: bool = False

    @property
    def alpha(self) -> float:
        """That of the ways that go beyond the papers."""
        return self.alphas[len(self.alphas) // 2]


_GPU = Protocol("resnet50", recipe("papers-cifar"), (4.0, 8.0, 16.0), compile=True)
_FINETUNE = Protocol("cifar_resnet56", recipe("cifar").changed(epochs=10, lr=0.02), (2.0,), classes=10, weighted=True)
PROTOCOLS = {
    "cpu": Protocol("resnet18", recipe("cifar"), (8.0,)),
    "gpu": _GPU,
    **{f"gpu-{model}": replace(_GPU, model=model) for model in ("resnet18", "xresnet50", "xresnet18")},
    "finetune": _FINETUNE,
    "finetune-resnet20": replace(_FINETUNE, model="cifar_resnet20"),
}


def result_name(protocol: str, epochs: int) -> str:
    """What the result of a protocol is called that was run for so many epochs: another length is another result."""
    return f"accuracy_{protocol}" + (f"_{epochs}epochs" if epochs != PROTOCOLS[protocol].recipe.epochs else "")


def results_of(*protocols: str) -> list[Path]:
    """The results that there are of these protocols, of each the one of its own length first."""
    found: list[Path] = []
    for protocol in protocols:
        own, others = RESULTS / f"accuracy_{protocol}.json", RESULTS.glob(f"accuracy_{protocol}_*epochs.json")
        found += [path for path in (own, *sorted(others)) if path.is_file()]
    return found


@dataclass(frozen=True)
class Way:
    """One way to train: what differs from the protocol, and in words what it is. `longer`: times the protocol's epochs."""

    words: str
    method: str
    options: MethodOptions
    longer: float = 1.0
    recipe: Mapping[str, Any] = field(default_factory=dict)
    importance: str | None = None


@dataclass(frozen=True)
class Sizes:
    """Multiply-adds of the full network, of the small one, and of the layers before the first slim one, which both have."""

    full: int
    small: int
    trunk: int

    @classmethod
    def of(cls, protocol: Protocol, alpha: float) -> Sizes:
        network, example = ac.create_model(protocol.model, protocol.classes), torch.zeros(2, 3, 32, 32)
        plan = ac.plan_widths(network, example, alpha)
        whole = ac.count(network, example)
        trunk = whole.macs_of(ac.trunk_of(network, [plan], example))
        return cls(whole.macs, ac.count(ac.slice_model(network, plan), example).macs, trunk)

    def longer(self, each: float) -> float:
        """For how many times the epochs a way may train whose images cost `each`, for what the papers' way costs."""
        return (self.full + self.small) / each

    @property
    def taught(self) -> float:
        """What an image costs where a teacher runs beside the small network, forward only."""
        return self.small + self.full / 3

    def first(self, share: float) -> float:
        """What an image costs where the small network learns alone for `share` of the training, with a shared trunk."""
        return share * self.small + (1 - share) * (self.full + self.small - self.trunk)


def ways(protocol: Protocol) -> dict[str, Way]:
    """The ways by name, in the order of what each decides."""
    alpha = protocol.alpha
    sizes, one, papers = Sizes.of(protocol, alpha), MethodOptions(alphas=(alpha,)), {}
    for each in protocol.alphas if protocol.weighted else sorted({*protocol.alphas, *SANDWICH}):
        papers[f"adjoined{each:g}"] = Way(
            f"adjoined, alpha {each:g}: the papers' way", "adjoined", MethodOptions(alphas=(each,))
        )
    own = replace(one, small_labels=0.5, detach=True)
    found = {
        TEACHER: Way("full network alone", "standard", MethodOptions()),
        "standard-longer": Way(
            "full network alone, at the adjoined run's cost", "standard", MethodOptions(), sizes.longer(sizes.full)
        ),
        **papers,
        "small": Way("small network alone, equal epochs", "standard", one),
        "small-longer": Way("small network alone, at the adjoined run's cost", "standard", one, sizes.longer(sizes.small)),
        "distill": Way("small network taught by the full one that was trained alone", "distill", one),
        "distill-longer": Way("the same, at the adjoined run's cost", "distill", one, sizes.longer(sizes.taught)),
        "trunk": Way("adjoined, trunk shared", "adjoined", replace(one, trunk="shared")),
        **{f"first-{widen}": _first(own, widen, sizes) for widen in ("copies", "fresh", "zeros")},
        **{f"first-copies-{share:g}": _first(own, "copies", sizes, share) for share in OTHER_FIRSTS},
        "first-copies-labels": _first(replace(own, small_labels=1.0), "copies", sizes),
        "dropout": Way("full network alone, dropout before the classifier", "dropout", MethodOptions()),
        "labels": Way("adjoined, half of the small network's loss from labels", "adjoined", replace(one, small_labels=0.5)),
        "detached": Way("adjoined, targets detached", "adjoined", replace(one, detach=True)),
        "labels-detached": Way("adjoined, half from labels, targets detached", "adjoined", own),
        **{
            name: Way(f"adjoined, {name} schedule", "adjoined", replace(one, schedule=name))
            for name in ("linear", "cosine", "exponential")
        },
        "smoothing": Way("adjoined, labels smoothed by 0.1", "adjoined", one, recipe={"label_smoothing": 0.1}),
        "mixup": Way("adjoined, mixup 0.2", "adjoined", one, recipe={"mixup": 0.2}),
        "sandwich": Way("adjoined, alphas 4, 8 and 16 in one run", "adjoined", MethodOptions(alphas=SANDWICH)),
        "growing": Way(
            "small networks first, alphas 16, 8 and 4 joining in turn; then half from labels, targets detached; trunk shared; "
            "at the adjoined run's cost",
            "adjoined",
            replace(own, alphas=SANDWICH, small_first=FIRST, trunk="shared", growing=True),
            sizes.longer(_growing(protocol)),
        ),
    }
    if protocol.weighted:
        chosen = {
            kind: Way(f"adjoined, channels by {kind}", "adjoined", one, importance=kind) for kind in ("magnitude", "batch-norm")
        }
        cut = Way("cut by magnitude, then trained alone", "standard", one, importance="magnitude")
        taught = Way("cut by magnitude, then taught by the full one", "distill", one, importance="magnitude")
        cost = "; at the adjoined run's cost"
        longer = {
            "cut-longer": replace(cut, words=cut.words + cost, longer=sizes.longer(sizes.small)),
            "cut-distill-longer": replace(taught, words=taught.words + cost, longer=sizes.longer(sizes.taught)),
        }
        alone = {"small": found["small"], "cut": cut, "cut-distill": taught}
        labels = Way(
            "adjoined, channels by magnitude; half from labels, targets detached, constant weight; trunk shared",
            "adjoined",
            replace(own, schedule="constant", trunk="shared"),
            importance="magnitude",
        )
        first = _first(own, "fresh", sizes)
        first = replace(first, words=f"channels by magnitude; {first.words}", importance="magnitude")
        ours = {"labels-magnitude": labels, "first-magnitude": first}
        found = {**papers, **chosen, **ours, **alone, **longer, TEACHER: found[TEACHER]}
    return found


def _growing(protocol: Protocol) -> float:
    """What an image costs where small networks join in turn, from the narrowest on, and the full one at last."""
    each = [Sizes.of(protocol, alpha) for alpha in sorted(SANDWICH, reverse=True)]
    trunk = min(sizes.trunk for sizes in each)
    beyond = [sizes.small - trunk for sizes in each]
    alone = trunk + sum(sum(beyond[: joined + 1]) for joined in range(len(beyond))) / len(beyond)
    return FIRST * alone + (1 - FIRST) * (each[0].full + sum(beyond))


def _first(own: MethodOptions, widen: str, sizes: Sizes, share: float = FIRST) -> Way:
    """The small network first, at the adjoined run's cost."""
    begins = {"fresh": "as it is", "copies": "from copies of the small one", "zeros": "computing what the small one does"}
    loss = "half from labels, targets detached" if own.small_labels < 1 else "all of the small one's loss from labels"
    words = (
        f"small network first ({share:g} of the training), the full one then begins {begins[widen]}; {loss}; trunk shared; "
        "at the adjoined run's cost"
    )
    return Way(
        words, "adjoined", replace(own, small_first=share, trunk="shared", widen=widen), sizes.longer(sizes.first(share))
    )
