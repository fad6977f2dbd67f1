"""In which tensors do the small networks learn while the full one waits?

In dense copies of what the widest of them reads. Views of the full tensors would give the same numbers; but their gradients
are full tensors of zeros around what a small network has, and the optimiser goes over all of it: with ResNet-18 at alpha 8, of
whose weights the small network has a thirtieth, that doubles a step's time where memory is busy (benchmarks/alone_step.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adjcompress.widths.plan import Range, WidthPlan
from adjcompress.widths.surgery import blocks, cut

Kept = Mapping[int, tuple[Range, ...]]


class Succession(NamedTuple):
    """A parameter that goes on where another was: `new` holds the values of `old` at the ranges `kept`, by dimension."""

    new: nn.Parameter
    old: nn.Parameter
    kept: Kept


class Apart(nn.Module):
    """Copies of the parts `kept` of a network's tensors, which learn in the place of these. They are in no state dict.

    Of a frozen tensor the copy is frozen too.
    """

    def __init__(self, tensors: Mapping[str, Tensor], kept: Mapping[str, Kept]) -> None:
        super().__init__()
        self.kept = dict(kept)
        for number, (name, own) in enumerate(kept.items()):  # of a tensor's name, dots would be modules
            copied = nn.Parameter(cut(tensors[name].detach(), own).clone(), tensors[name].requires_grad)
            self.register_parameter(f"copy{number}", copied)

    def copies(self) -> dict[str, nn.Parameter]:
        """By the names of what they are copies of."""
        return dict(zip(self.kept, self.parameters(), strict=True))

    def cut(self, cuts: Mapping[str, Kept]) -> dict[str, Tensor]:
        """What a small network with these cuts reads of the copies, by the names of what they are copies of."""
        return {
            name: copy if cuts[name] == self.kept[name] else cut(copy, _within(cuts[name], self.kept[name]))
            for name, copy in self.copies().items()
        }

    def take_(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy from the full tensors anew."""
        with torch.no_grad():
            for name, copy in self.copies().items():
                copy.copy_(cut(tensors[name].detach(), self.kept[name]))

    def give_back_(self, tensors: Mapping[str, Tensor]) -> None:
        """Put what was learnt into the full tensors."""
        with torch.no_grad():
            for name, copy in self.copies().items():
                for there, here in blocks(tensors[name], copy, self.kept[name]):
                    there.copy_(here)

    def successions(self, tensors: Mapping[str, nn.Parameter]) -> Iterator[Succession]:
        """Which of the full tensors go on where copies were."""
        for name, copy in self.copies().items():
            yield Succession(tensors[name], copy, self.kept[name])

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Nothing: what was learnt is given back before a network is saved."""

    def _load_from_state_dict(self, *_: Any) -> None:
        """Nothing: the copies are taken from what was loaded."""


def widest_cuts(plans: Sequence[WidthPlan]) -> Mapping[str, Kept] | None:
    """The cuts of the plan within which all others lie; None where none is such a plan."""
    return next((plan.cuts for plan in plans if all(_holds(plan.cuts, other.cuts) for other in plans)), None)


def _holds(wide: Mapping[str, Kept], narrow: Mapping[str, Kept]) -> bool:
    """Whether everything that `narrow` keeps is kept by `wide`."""
    return all(
        _inside(ranges, narrow.get(name, {}).get(dim, ())) for name, kept in wide.items() for dim, ranges in kept.items()
    )


def _inside(wide: tuple[Range, ...], narrow: tuple[Range, ...]) -> bool:
    """Whether each of the narrow ranges lies in one of the wide ones; no narrow range means that all is kept."""
    return bool(narrow) and all(any(low <= start and stop <= high for low, high in wide) for start, stop in narrow)


def _within(narrow: Kept, wide: Kept) -> dict[int, tuple[Range, ...]]:
    """The narrow ranges, in the numbering of what the wide ones keep."""
    found = {}
    for dim, ranges in narrow.items():
        moved, begin = [], 0
        for low, high in wide.get(dim, ((0, ranges[-1][1]),)):
            moved += [(start - low + begin, stop - low + begin) for start, stop in ranges if low <= start and stop <= high]
            begin += high - low
        found[dim] = tuple(moved)
    return found
