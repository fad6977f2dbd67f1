"""When do the small networks learn, when the full one, and from what? Beyond the papers, whose networks learn all at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adjcompress.errors import AdjCompressError, check_choice

WIDENINGS = ("fresh", "zeros", "copies")


@dataclass(frozen=True)
class Curriculum:
    """The order of learning; as it is by default, that of the papers.

    `small_first`: the part of the training in which the small networks learn alone, from labels, before the full one joins
    them; `growing`: the smallest of them begins, and the others join it one after the other in that part (what only they read
    decays until then). `small_labels`: the
    part of the small networks' loss that is cross-entropy once the full one has joined; the rest is the divergence. `widen`:
    what the full network then begins with (`widen_`): the channels that the small ones lack as they are ("fresh"), or so that
    it computes what the widest small one does, those channels read by nobody ("zeros"), or copies besides ("copies").
    """

    small_first: float = 0.0
    small_labels: float = 0.0
    growing: bool = False
    widen: str = "fresh"

    def __post_init__(self) -> None:
        if not 0 <= self.small_first < 1:
            raise AdjCompressError(f"--small-first {self.small_first:g} is a part of the training: at least 0 and below 1.")
        if not 0 <= self.small_labels <= 1:
            raise AdjCompressError(f"--small-labels {self.small_labels:g} is a part of the loss: from 0 to 1.")
        check_choice(WIDENINGS, self.widen, "--widen")
        for option, given in (("--growing", self.growing), (f"--widen {self.widen}", self.widen != "fresh")):
            if given and not self.small_first:
                raise AdjCompressError(
                    f"{option} needs a part of the training before the full network: give --small-first 0.8."
                )

    def alone(self, progress: float) -> bool:
        """Whether the small networks learn without the full one at `progress` in [0, 1]."""
        return progress < self.small_first

    def joined(self, names: Sequence[str], progress: float) -> Sequence[str]:
        """Which of the small networks, given from the smallest on, learn at `progress`."""
        if not self.growing or not self.alone(progress):
            return names
        return names[: 1 + math.floor(progress / self.small_first * len(names))]
