"""Who learns from a trained network?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@dataclass(frozen=True)
class TeacherFile:
    """Where a teacher was read, and the checksum of its weights: what a resumed run must find again."""

    path: str
    sha256: str


@runtime_checkable
class Taught(Protocol):
    """A method with a teacher, which is not part of what is trained: a resumed run is given it again."""

    teacher_file: TeacherFile | None

    def taught_by_(
        self, teacher: nn.Module, example: Tensor, attention: Sequence[str] = (), file: TeacherFile | None = None
    ) -> None:
        """Learn from `teacher`, which is frozen; `example` is a batch (N, C, H, W), `attention` layers to be compared."""
