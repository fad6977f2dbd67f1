"""Which pictures does a run keep of its segmentations?"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adjcompress.report.words import printable
from adjcompress.training import Run
from adjcompress.training.pictures import PICTURES, class_color

_LARGEST = 4_000_000  # bytes of one picture in a page


@dataclass(frozen=True)
class Picture:
    """One picture as a data: address, and what it shows: the image, its labels, or a network's answer."""

    title: str
    source: str


@dataclass(frozen=True)
class Pictures:
    """For each image a row of pictures, and the colours of the classes, "#rrggbb" by name."""

    rows: tuple[tuple[Picture, ...], ...]
    colors: tuple[tuple[str, str], ...]


def read_pictures(run: Run, networks: Sequence[str], problems: list[str]) -> Pictures | None:
    """pictures/ of a run; None where there are none."""
    folder = run.folder / PICTURES
    rows = []
    try:
        for number in range(len(list(folder.glob("*-labels.png")))):
            kinds = {"image": f"{number}.png", "labels": f"{number}-labels.png"}
            kinds |= {
                printable(name): f"{number}-{name}.png" for name in networks if (folder / f"{number}-{name}.png").is_file()
            }
            rows.append(tuple(Picture(title, _address(folder / file)) for title, file in kinds.items()))
    except OSError as error:
        problems.append(f"The pictures of segmentations cannot be read ({printable(error)}).")
    if not rows:
        return None
    colors = ("#{:02x}{:02x}{:02x}".format(*class_color(number)) for number in range(len(run.classes)))
    named = zip(map(printable, run.classes), colors, strict=True)
    return Pictures(tuple(rows), tuple(named))


def _address(path: Path) -> str:
    content = path.read_bytes()
    if len(content) > _LARGEST or not content.startswith(b"\x89PNG"):
        raise OSError(f"{path.name} is no PNG picture of at most {_LARGEST // 10**6} MB")
    return "data:image/png;base64," + base64.b64encode(content).decode()
