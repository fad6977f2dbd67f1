"""How does a segmentation look? A few validation images with their labels and every network's answer, kept in the run.

pictures/<number>.png is the image, <number>-labels.png the truth and <number>-<network>.png an answer: class numbers with a
palette, so that a viewer shows colours.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from adjcompress.data import IGNORED, ImageData, TensorSplit
from adjcompress.files import written_aside
from adjcompress.running import evaluating

PICTURES = "pictures"
IMAGES = 4
_IGNORED_PLACE, _IGNORED_COLOR = 255, (255, 255, 255)


def class_color(number: int) -> tuple[int, int, int]:
    """The colour of a class: bits of its number, the lowest first, go to the highest bits of red, green and blue in turn.

    This is how PASCAL VOC colours its classes; counted from 1, so that no class is black.
    """
    color, left = [0, 0, 0], number + 1
    for shift in range(7, -1, -1):
        for channel in range(3):
            color[channel] |= (left >> channel & 1) << shift
        left >>= 3
    return color[0], color[1], color[2]


def write_pictures(folder: Path, networks: Mapping[str, nn.Module], data: ImageData) -> None:
    """Write pictures/ in a run's folder: evenly spread validation images, as `networks` answer them."""
    assert isinstance(data.validation, TensorSplit)
    count = min(IMAGES, len(data.validation))
    chosen = (torch.arange(count) * len(data.validation)) // count
    pixels, labels = data.validation.batch(chosen.to(data.validation.images.device))
    found = {"labels": labels}
    for name, network in networks.items():
        weights = next(network.parameters())
        with evaluating(network):
            shown = data.preprocessing.normalise(pixels.to(weights.device)).to(weights.dtype)
            found[name] = network(shown).argmax(1)
    (folder / PICTURES).mkdir(exist_ok=True)
    for number in range(count):
        _write(folder / PICTURES / f"{number}.png", Image.fromarray(pixels[number].permute(1, 2, 0).cpu().numpy()))
        for name, classes in found.items():
            _write(folder / PICTURES / f"{number}-{name}.png", _painted(classes[number]))


def _painted(classes: Tensor) -> Image.Image:
    """Class numbers (H, W) as a picture with a palette; more than 255 classes share colours."""
    numbers = torch.where(classes == IGNORED, _IGNORED_PLACE, classes % _IGNORED_PLACE).cpu().numpy().astype(np.uint8)
    picture = Image.fromarray(numbers)
    colors = [class_color(number) for number in range(_IGNORED_PLACE)] + [_IGNORED_COLOR]
    picture.putpalette([part for color in colors for part in color])
    return picture


def _write(path: Path, picture: Image.Image) -> None:
    written = io.BytesIO()
    picture.save(written, "PNG")
    with written_aside(path) as aside:
        aside.write_bytes(written.getvalue())
