"""Which images does a name, a folder or a file stand for?"""

from __future__ import annotations

import contextlib
import os
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.folder import IMG_EXTENSIONS

from adjcompress.data.segmentation import is_segmentation, read_segmentation
from adjcompress.data.splits import (
    DataSpec,
    FileSplit,
    ImageData,
    Preprocessing,
    TensorSplit,
    check_labels,
    held_out,
    with_validation,
)
from adjcompress.errors import AdjCompressError, nearest_first, shortened

# The side of the central square is 0.92 of the shorter side: 85 % of a square image's area, as the papers validate.
_CENTRE = 0.85**0.5
_RESIZED = 256  # images at a time: all at once, as floats, are four times what they are kept as, three times over


def data_names() -> list[str]:
    """The data sets that are known by name."""
    return ["digits", *_BY_NAME]


def load_data(
    source: str,
    image_size: int | None = None,
    validation: float = 0.1,
    seed: int = 0,
    *,
    width: int | None = None,
    ignore_label: int = 255,
) -> ImageData:
    """Read a data set: a name of `data_names()`, an .npz file, or a folder of images.

    `image_size` in pixels: by default the images' own in memory, 224 for files. Where there is no validation split,
    `validation` of every training class is held out by `seed`. Downloads go to $ADJCOMPRESS_DATA, by default
    ~/.cache/adjcompress. A folder whose splits hold images/ and labels/ is one for segmentation: there `image_size` x `width`
    is the size of its images, by default their own, and pixels of `ignore_label` count for nothing. Anything wrong with the
    source is an AdjCompressError.
    """
    data = read_data(DataSpec(source, image_size, validation, seed, width=width, ignore_label=ignore_label))
    check_asked(data)
    return data


def check_sides(*sides: int | None) -> None:
    """Refuse sides of images, in pixels, that no network takes."""
    for side in sides:
        if side is not None and side < 8:
            raise AdjCompressError(f"--image-size {side} is too small: 8 pixels at least.")


def read_data(spec: DataSpec) -> ImageData:
    """Read the data set that `spec` describes."""
    check_sides(spec.image_size, spec.width)
    path = Path(spec.source)
    if spec.width is not None and not is_segmentation(path):
        raise AdjCompressError(
            f"--image-size {spec.image_size}x{spec.width}: images of classes are cut square; give one number. Only a "
            "folder for segmentation, with images/ and labels/ in each split, has a height and a width."
        )
    if spec.source == "digits":
        data = _digits(spec)
    elif spec.source in _BY_NAME:
        data = _downloaded(spec)
    elif is_segmentation(path):
        data = read_segmentation(spec)
    elif path.is_dir():
        data = _folder(spec)
    elif path.suffix == ".npz":
        data = _npz(spec)
    elif path.exists():
        raise AdjCompressError(f"Data {path} is a {path.suffix or 'plain'} file; an .npz file or a folder is expected.")
    elif "/" in spec.source or "\\" in spec.source:
        raise AdjCompressError(
            f"Data {spec.source} does not exist: a folder with train/ and test/, or an .npz file, is expected"
            f"{_here(spec.source)}."
        )
    else:
        names = ", ".join(nearest_first(spec.source, data_names()))
        raise AdjCompressError(
            f"Data {spec.source!r} is unknown. Choices: {names}; or a folder with train/ and test/, or an .npz file."
        )
    return data.limited(spec.limit) if spec.limit is not None else data


def check_asked(data: ImageData) -> None:
    """Refuse what was asked for beyond the defaults and means nothing to this data set."""
    spec, usual = data.spec, DataSpec(data.spec.source)
    if spec.validation != usual.validation and not data.held_out:
        raise AdjCompressError(
            f"--validation {spec.validation:g}: {spec.source} has a validation split of its own, of {len(data.validation):,} "
            "images. Leave it out."
        )
    if spec.ignore_label != usual.ignore_label and not data.segmentation:
        raise AdjCompressError(
            f"--ignore-label {spec.ignore_label} is for segmentation, where pixels have labels; in {spec.source} images have "
            "them. Leave it out."
        )


def _digits(spec: DataSpec) -> ImageData:
    """The embedded set: 1,797 scans of 8x8 grey levels, shown as RGB at 32x32. Split 1,259 / 179 / 359, by class."""
    with resources.files("adjcompress.data").joinpath("digits.npz").open("rb") as file:
        arrays = np.load(file)
        grey, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]).long()
    size = spec.image_size or 32
    levels = F.interpolate(grey[:, None].float() * (255 / 16), (size, size), mode="bilinear", align_corners=False)
    everything = TensorSplit(levels.round().byte().expand(-1, 3, -1, -1).contiguous(), labels)
    rest, test = held_out(labels, 0.2, seed=0)
    train, validation = held_out(labels[rest], 0.125, seed=0)
    return ImageData(
        spec=spec,
        classes=tuple(str(digit) for digit in range(10)),
        train=everything.subset(rest[train]),
        validation=everything.subset(rest[validation]),
        test=everything.subset(test),
        preprocessing=Preprocessing(size),
        mirrors=False,
    )


def _in_memory(spec: DataSpec, classes: tuple[str, ...], splits: dict[str, tuple[Any, Any]]) -> ImageData:
    """Arrays (N, H, W[, C]) of uint8 and their labels, by split -> tensors of the size asked for."""
    read = {
        name: TensorSplit(_channels_first(images), torch.as_tensor(labels).long()) for name, (images, labels) in splits.items()
    }
    check_labels([split.labels for split in read.values()], len(classes), spec.source)
    train = read["train"]
    taken = "val" not in read
    train, held = with_validation(train, spec) if taken else (train, read["val"])
    size = spec.image_size or min(train.images.shape[-2:])

    def sized(split: TensorSplit) -> TensorSplit:
        """Its images' central squares, in the size asked for: what is cut out of a picture where the network is deployed."""
        if split.images.shape[-2:] == (size, size):
            return split
        side = min(split.images.shape[-2:])
        top, left = ((whole - side) // 2 for whole in split.images.shape[-2:])
        squares = split.images[..., top : top + side, left : left + side]
        images = squares.new_empty((len(squares), 3, size, size))
        for some, resized in zip(squares.split(_RESIZED), images.split(_RESIZED), strict=True):
            floats = F.interpolate(some.float(), (size, size), mode="bilinear", antialias=True)
            resized.copy_(floats.round().clamp(0, 255))
        return TensorSplit(images, split.labels)

    return ImageData(spec, classes, sized(train), sized(held), sized(read["test"]), Preprocessing(size), held_out=taken)


def _channels_first(images: Any) -> Tensor:
    tensor = torch.as_tensor(images)
    if tensor.ndim == 3:
        tensor = tensor[..., None]
    if tensor.shape[-1] == 1:
        tensor = tensor.expand(*tensor.shape[:-1], 3)
    return tensor.permute(0, 3, 1, 2).contiguous()


def _names(path: Path, given: Iterable[Any]) -> tuple[str, ...]:
    """The names of an .npz file's classes, which may be bytes, or numbers."""
    names = tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in given)
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise AdjCompressError(f"{path}: classes has {shortened(twice)} more than once.")
    if len(names) < 2:
        raise AdjCompressError(f"{path}: classes has {shortened(names)}; a classifier needs two at least.")
    return names


def _here(source: str) -> str:
    """Where a relative path was looked for: a run names its data as they were named where it was trained."""
    return "" if Path(source).is_absolute() else f", looked for in {Path.cwd()}"


def _npz(spec: DataSpec) -> ImageData:
    path = Path(spec.source)
    if not path.is_file():
        raise AdjCompressError(f"Data {path} does not exist{_here(spec.source)}.")
    needed = ("x_train", "y_train", "x_test", "y_test", "classes")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            missing = [name for name in needed if name not in file]
            if missing:
                raise AdjCompressError(
                    f"{path} lacks {', '.join(missing)}; it has {', '.join(file.files) or 'nothing'}. "
                    f"Expected: {', '.join(needed)}, and by choice x_val y_val."
                )
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        if "Object arrays" in str(error):
            raise AdjCompressError(
                f"{path} holds arrays of Python objects, which are not opened: save images as uint8, labels as whole numbers "
                "and classes as np.array([...], dtype=str)."
            ) from error
        reason = "it was not written by np.savez" if "pickled" in str(error) else str(error)
        raise AdjCompressError(f"{path} is not a readable .npz file ({reason}).") from error
    if arrays["classes"].ndim != 1:
        raise AdjCompressError(f"{path}: classes has the shape {arrays['classes'].shape}; a name for each class is expected.")
    classes = _names(path, arrays["classes"])
    splits = {}
    for name in ("train", "val", "test"):
        if f"x_{name}" not in arrays:
            continue
        if f"y_{name}" not in arrays:
            raise AdjCompressError(f"{path} has x_{name} but no y_{name}.")
        images, labels = arrays[f"x_{name}"], arrays[f"y_{name}"]
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3)):
            raise AdjCompressError(
                f"{path}: x_{name} is {images.dtype} {images.shape}; uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3) is expected."
            )
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise AdjCompressError(
                f"{path}: y_{name} is {labels.dtype} {labels.shape}; whole numbers of shape (N,) are expected."
            )
        if len(images) != len(labels) or not len(images):
            raise AdjCompressError(f"{path}: x_{name} has {len(images)} images and y_{name} {len(labels)} labels.")
        if not 0 <= labels.min() <= labels.max() < len(classes):  # before they lose what does not fit into int64
            raise AdjCompressError(
                f"{path}: labels of y_{name} run from {labels.min()} to {labels.max()}, but there are {len(classes)} classes."
            )
        splits[name] = (images, labels.astype(np.int64))
    return _in_memory(spec, classes, splits)


def _folder(spec: DataSpec) -> ImageData:
    """train/, and val/ or test/, each with one folder a class. With one of the two only, it is the test split."""
    root = Path(spec.source)
    present = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    if "train" not in present or len(present) < 2:
        raise AdjCompressError(
            f"{root} has {', '.join(present) or 'neither train/ nor test/'}; expected: train/ and test/ (or val/), "
            "with a folder of images for each class, or images/ and labels/ for segmentation."
        )
    classes = {name: _class_names(root / name) for name in present}
    for name in present[1:]:
        if classes[name] != classes["train"]:
            only = sorted(set(classes["train"]) ^ set(classes[name]))
            raise AdjCompressError(
                f"{root}: train/ and {name}/ have different classes: {', '.join(only[:8])} "
                f"{'is' if len(only) == 1 else 'are'} in one of them only."
            )
    splits = {name: _files(root / name, classes[name]) for name in present}
    return _from_files(spec, classes["train"], splits)


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    if not names:
        raise AdjCompressError(f"{folder} has no class folders: expected {folder}/<class>/<image>.")
    if len(names) == 1:
        raise AdjCompressError(f"{folder} has one class, {names[0]}: there is nothing to tell apart.")
    return names


def _files(folder: Path, classes: tuple[str, ...]) -> FileSplit:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
        if not found:
            raise AdjCompressError(f"{folder / name} holds no image ({', '.join(IMG_EXTENSIONS)}).")
        paths += found
        labels += [label] * len(found)
    return FileSplit(tuple(paths), torch.tensor(labels))


def _from_files(spec: DataSpec, classes: tuple[str, ...], splits: dict[str, FileSplit]) -> ImageData:
    train = splits["train"]
    test = splits.get("test") or splits["val"]
    taken = not ("val" in splits and "test" in splits)
    train, held = with_validation(train, spec) if taken else (train, splits["val"])
    size = spec.image_size or 224
    return ImageData(spec, classes, train, held, test, Preprocessing(size, resize=round(size / _CENTRE)), held_out=taken)


def download_folder() -> Path:
    """Where downloaded sets lie."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "adjcompress"
    return Path(os.environ.get("ADJCOMPRESS_DATA", default))


def _downloaded(spec: DataSpec) -> ImageData:
    folder = download_folder()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what torchvision says on the way is no result
            return _BY_NAME[spec.source](spec, str(folder))
    except AdjCompressError:
        raise
    except (OSError, RuntimeError) as error:  # torchvision: URLError is an OSError, a bad checksum a RuntimeError
        raise AdjCompressError(
            f"Data {spec.source} is not in {folder} and could not be downloaded ({error}). "
            "Connect to the network, or set ADJCOMPRESS_DATA to a folder that holds it."
        ) from error


def _tensors(dataset_class: Callable[..., Any]) -> Callable[[DataSpec, str], ImageData]:
    """A torchvision set whose images come as one array: CIFAR and FashionMNIST."""

    def read(spec: DataSpec, folder: str) -> ImageData:
        train, test = (dataset_class(folder, train=part, download=True) for part in (True, False))
        splits = {"train": (train.data, train.targets), "test": (test.data, test.targets)}
        return _in_memory(spec, tuple(train.classes), splits)

    return read


def _pets(spec: DataSpec, folder: str) -> ImageData:
    splits = {}
    for name, part in (("train", "trainval"), ("test", "test")):
        dataset = datasets.OxfordIIITPet(folder, split=part, download=True)
        splits[name] = FileSplit(tuple(Path(path) for path in dataset._images), torch.tensor(dataset._labels))
    return _from_files(spec, tuple(dataset.classes), splits)


def _imagenette(spec: DataSpec, folder: str) -> ImageData:
    splits = {}
    missing = not Path(folder, "imagenette2-320").is_dir()  # torchvision refuses to download what is there
    for name, part in (("train", "train"), ("test", "val")):
        dataset = datasets.Imagenette(folder, split=part, size="320px", download=missing and name == "train")
        paths, labels = zip(*dataset._samples, strict=True)
        splits[name] = FileSplit(tuple(Path(path) for path in paths), torch.tensor(labels))
    return _from_files(spec, tuple(names[0] for names in dataset.classes), splits)


_BY_NAME: dict[str, Callable[[DataSpec, str], ImageData]] = {
    "cifar10": _tensors(datasets.CIFAR10),
    "cifar100": _tensors(datasets.CIFAR100),
    "fashion-mnist": _tensors(datasets.FashionMNIST),
    "pets": _pets,
    "imagenette": _imagenette,
}
