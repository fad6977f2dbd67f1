"""What are the 8-bit colours of a picture, of whatever kind its file is?"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises where a file is no picture, a damaged one, or one of more pixels than anybody means."""


def rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB; of 16 bits a channel, the upper 8. One of 32 bits, whose range nobody knows, is a ValueError."""
    if image.mode.startswith("I;16"):  # converted as it is, all above 255 would be white
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("its values have 32 bits, whose range is not known: save it with 8 or 16 bits a channel")
    return image.convert("RGB")


def not_pictures(paths: Sequence[Path]) -> list[Path]:
    """Those that do not begin as a picture does. Of the others only the beginning is read: they may still be cut off."""
    with ThreadPoolExecutor() as threads:
        return [path for path, picture in zip(paths, threads.map(_begins_as_one, paths), strict=True) if not picture]


def _begins_as_one(path: Path) -> bool:
    try:
        with Image.open(path):
            return True
    except UNREADABLE:
        return False
