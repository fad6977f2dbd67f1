"""Which images and labels of pixels does a folder hold?

train/, and val/ or test/, each with images/ and labels/: a label is an image of one channel, the class of each pixel, and has
the name of its image but for the ending. classes.txt names the classes, one in a line, by choice with its number before it.
Everything is read into memory, at the size that is trained on.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from adjcompress.data.pictures import UNREADABLE, rgb
from adjcompress.data.splits import IGNORED, DataSpec, ImageData, Preprocessing, TensorSplit, check_labels, with_validation
from adjcompress.errors import AdjCompressError, shortened

_IMAGES, _LABELS = "images", "labels"
_LABEL_MODES = ("L", "P", "I", "I;16")  # one channel of whole numbers
_MOST_CLASSES = 1000


def is_segmentation(folder: Path) -> bool:
    """Whether its splits hold images/ and labels/, or one of them and nothing else, and not folders of classes."""
    train = folder / "train"
    if not train.is_dir():
        return False
    found = {entry.name for entry in train.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    others = {name for split in ("val", "test") for name in (_IMAGES, _LABELS) if (folder / split / name).is_dir()}
    return bool(found) and found <= {_IMAGES, _LABELS} and (len(found) > 1 or bool(others) or found == {_LABELS})


def read_segmentation(spec: DataSpec) -> ImageData:
    """Read such a folder. With one of val/ and test/ only, that is the test split, and validation is held out."""
    root = Path(spec.source)
    present = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    if len(present) < 2:
        raise AdjCompressError(f"{root} has only train/; a test/ or val/ with {_IMAGES}/ and {_LABELS}/ is expected beside it.")
    pairs = {name: _pairs(root / name) for name in present}
    size = _size(spec, pairs["train"][0][0])
    splits = {name: _read(pairs[name], size, spec) for name in present}
    for name, split in splits.items():
        if bool((split.labels == IGNORED).all()):
            raise AdjCompressError(f"{root / name}: every pixel has --ignore-label {spec.ignore_label}, so none counts.")
    classes = _classes(root, spec, [split.labels for split in splits.values()])
    if len(classes) < 2:
        raise AdjCompressError(f"{root} has labels of one class only ({classes[0]}): there is nothing to tell apart.")
    told = f"{root} (--ignore-label {spec.ignore_label})"
    check_labels([split.labels for split in splits.values()], len(classes), told, ignored=True)
    train, test = splits["train"], splits.get("test") or splits["val"]
    taken = not ("val" in splits and "test" in splits)
    train, held = with_validation(train, spec) if taken else (train, splits["val"])
    height, width = size
    preprocessing = Preprocessing(height, width=None if width == height else width)
    return ImageData(spec, classes, train, held, test, preprocessing, held_out=taken)


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Images and their labels, by name."""
    found = {}
    for kind in (_IMAGES, _LABELS):
        if not (folder / kind).is_dir():
            raise AdjCompressError(f"{folder} has no {kind}/: each split for segmentation has {_IMAGES}/ and {_LABELS}/.")
        paths = sorted(path for path in (folder / kind).iterdir() if path.suffix.lower() in IMG_EXTENSIONS)
        found[kind] = {path.stem: path for path in paths}
        if len(found[kind]) < len(paths):
            twice = next(path for path in paths if found[kind][path.stem] != path)
            raise AdjCompressError(f"{folder / kind} has two images of the name {twice.stem}: keep one of them.")
    images, labels = found[_IMAGES], found[_LABELS]
    if not images:
        raise AdjCompressError(f"{folder / _IMAGES} holds no image ({', '.join(IMG_EXTENSIONS)}).")
    alone = sorted(images.keys() ^ labels.keys())
    if alone:
        raise AdjCompressError(
            f"{folder}: {len(alone)} of its images and labels do not pair: {shortened(alone, 4)}. Each image in {_IMAGES}/ "
            f"needs a label of the same name in {_LABELS}/, and each label an image."
        )
    return [(images[name], labels[name]) for name in sorted(images)]


def _size(spec: DataSpec, first: Path) -> tuple[int, int]:
    """Height and width: what was asked for, or the first image's."""
    if spec.image_size is not None:
        return spec.image_size, spec.image_size if spec.width is None else spec.width
    with _opened(first) as image:
        return image.height, image.width


def _read(pairs: list[tuple[Path, Path]], size: tuple[int, int], spec: DataSpec) -> TensorSplit:
    height, width = size
    images = torch.empty(len(pairs), 3, height, width, dtype=torch.uint8)
    labels = torch.empty(len(pairs), height, width, dtype=torch.int16)
    for number, (image_path, label_path) in enumerate(pairs):
        with _opened(image_path) as image, _opened(label_path) as label:
            if image.size != label.size:
                raise AdjCompressError(
                    f"{image_path} has {image.width} x {image.height} pixels and its label {label.width} x {label.height}."
                )
            if image.size != (width, height) and spec.image_size is None:
                raise AdjCompressError(
                    f"{image_path} has {image.width} x {image.height} pixels, the first image {width} x {height}: give one "
                    f"size for all with --image-size, such as {height}x{width}."
                )
            if label.mode not in _LABEL_MODES:
                raise AdjCompressError(
                    f"{label_path} is a picture of mode {label.mode}; a label has one channel of whole numbers (mode "
                    f"{', '.join(_LABEL_MODES)}): the class of each pixel."
                )
            seen = np.array(_colours(image_path, image).resize((width, height), Image.Resampling.BILINEAR))
            images[number] = torch.from_numpy(seen).permute(2, 0, 1)
            classes = np.array(label.resize((width, height), Image.Resampling.NEAREST)).astype(np.int64)
            counted = classes[classes != spec.ignore_label]
            if counted.size and not 0 <= counted.min() <= counted.max() < _MOST_CLASSES:
                raise AdjCompressError(
                    f"{label_path}: labels run from {counted.min()} to {counted.max()}; classes count from 0, up to "
                    f"{_MOST_CLASSES} of them. Pixels that belong to none have one label, --ignore-label."
                )
            labels[number] = torch.from_numpy(np.where(classes == spec.ignore_label, IGNORED, classes))
    return TensorSplit(images, labels)


def _colours(path: Path, image: Image.Image) -> Image.Image:
    try:
        return rgb(image)
    except ValueError as error:
        raise AdjCompressError(f"{path}: {error}.") from error


def _opened(path: Path) -> Image.Image:
    """The image, decoded; one that cannot be read is an AdjCompressError."""
    try:
        image = Image.open(path)
        image.load()
    except UNREADABLE as error:
        raise AdjCompressError(f"{path} is not a readable image ({error}): replace it, or remove image and label.") from error
    return image


def _classes(root: Path, spec: DataSpec, labels: list[Tensor]) -> tuple[str, ...]:
    """The names in classes.txt, without the ignored label's; without the file, numbers up to the largest label."""
    path = root / "classes.txt"
    if not path.exists():
        return tuple(str(number) for number in range(max(int(tensor.max()) for tensor in labels) + 1))
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise AdjCompressError(f"{path} cannot be read ({error}).") from error
    numbered = [re.fullmatch(r"(\d+)[\s:,]+(.+)", line) for line in lines]
    if all(numbered):
        names = {int(match[1]): match[2] for match in numbered if match}
        if sorted(names) != list(range(len(lines))):
            raise AdjCompressError(f"{path}: its numbers are not 0 to {len(lines) - 1}, each once.")
    elif any(numbered):
        raise AdjCompressError(f"{path}: some lines have a number before the name and some have none.")
    else:
        names = dict(enumerate(lines))
    names.pop(spec.ignore_label, None)
    if sorted(names) != list(range(len(names))):
        raise AdjCompressError(f"--ignore-label {spec.ignore_label} is not the last class of {path}: classes count from 0 on.")
    if not names:
        raise AdjCompressError(f"{path} names no class.")
    return tuple(names[number] for number in range(len(names)))
