"""Between which widths may a search choose for each channel group?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from adjcompress.errors import AdjCompressError
from adjcompress.widths.channels import ChannelGroup
from adjcompress.widths.planning import aligned, check_align, nothing_is_slim, slim_groups


@dataclass(frozen=True)
class Candidates:
    """A channel group and the widths it may take, rising; one width where there is nothing to choose."""

    group: ChannelGroup
    widths: tuple[int, ...]

    @property
    def free(self) -> bool:
        return len(self.widths) > 1


def candidate_widths(
    network: nn.Module,
    example: Tensor,
    alphas: Sequence[float] = (1, 2, 4, 8),
    slim: Sequence[str] | None = None,
    keep: Sequence[str] | None = None,
    align: int = 1,
    step: int | None = None,
) -> tuple[Candidates, ...]:
    """The candidates of every channel group of a network, those that are not slim with their full width alone.

    A slim group may keep channels / alpha for each of `alphas` that it has channels for, rounded up as in `plan_widths` and
    each width once; or, with `step`, every multiple of `step` channels and all of them. `example` is a batch (N, C, H, W). An
    alpha below 1, and a step that breaks an alignment or a grouped convolution, raise an AdjCompressError.
    """
    check_align(align)
    if step is None:
        _check_alphas(alphas)
    elif step < 1 or step % align:
        raise AdjCompressError(f"--width-step {step} must be 1 or more and a multiple of --align {align}.")
    found = slim_groups(network, example, slim, keep)
    candidates = tuple(
        Candidates(group, _widths(group, alphas, align, step) if is_slim else (group.channels,)) for group, is_slim in found
    )
    if not any(found.slim):
        raise nothing_is_slim(network, found)
    if not any(each.free for each in candidates):
        raise AdjCompressError(
            "Every slim group has a single candidate width, so there is nothing to search: "
            f"give other --alpha candidates, a smaller --align than {align}, or slimmer layers with --slim."
        )
    return candidates


def _check_alphas(alphas: Sequence[float]) -> None:
    if len(set(alphas)) < 2:
        raise AdjCompressError("A search needs two candidates at least: repeat --alpha, as in --alpha 1 --alpha 2 --alpha 4.")
    for alpha in alphas:
        if not alpha >= 1:
            raise AdjCompressError(f"--alpha {alpha:g} is below 1: alpha is the full width divided by the small width.")


def _widths(group: ChannelGroup, alphas: Sequence[float], align: int, step: int | None) -> tuple[int, ...]:
    if step is not None:
        if step % group.quantum:
            raise AdjCompressError(
                f"--width-step {step} breaks layer {group.name}, whose {group.channels} channels are cut in pieces of "
                f"{group.quantum}: choose a multiple of {group.quantum}, or keep that layer whole with --keep '{group.name}'."
            )
        return tuple(sorted({*range(step, group.channels, step), group.channels}))
    fitting = [alpha for alpha in alphas if alpha <= group.channels] or [1.0]
    return tuple(sorted({aligned(group, group.channels / alpha, align) for alpha in fitting}))
