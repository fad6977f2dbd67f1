"""In which order do the networks of an adjoined training learn, where nobody says it in detail?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adjcompress.methods import MethodOptions
from adjcompress.training.recipes import Recipe

_PAPERS_ALONE = ("beta", "substitute", "schedule", "weight")
_OWN_RECIPES = ("quick", "cifar")  # the others are those of papers, and last as long as theirs


@dataclass(frozen=True)
class Way:
    """Choices of an adjoined training that belong together: fields of MethodOptions, and times the recipe's epochs."""

    method: Mapping[str, Any]
    longer: float = 1.0

    def recipe(self, recipe: Recipe) -> Recipe:
        """The recipe for as long as this way takes."""
        return recipe.changed(epochs=round(self.longer * recipe.epochs))


# Four fifths of the epochs are the small network's alone, so two and a half times as many cost about the multiply-adds of the
# papers' way, at every alpha from 2 on. benchmarks/results/accuracy.md has both networks of it beside those of the papers' way.
WAYS = {
    "papers": Way({}),
    "small-first": Way(
        {"small_first": 0.8, "small_labels": 0.5, "detach": True, "widen": "auto", "trunk": "auto"},
        longer=2.5,
    ),
}


def default_way(recipe: str, chosen: Mapping[str, Any]) -> str:
    """The way for a training by `recipe` in which the fields `chosen` of MethodOptions and TrainOptions are given.

    The small network first, unless the recipe is the papers', the weights are trained already, or something is asked for that
    was only looked at in the papers' way: a mask, a substitution, another schedule or weight.
    """
    ordinary = MethodOptions()
    other = any(chosen.get(name) not in (None, getattr(ordinary, name)) for name in _PAPERS_ALONE)
    trained, never = chosen.get("weights") is not None, chosen.get("small_first") == 0
    return "papers" if recipe not in _OWN_RECIPES or other or trained or never else "small-first"
