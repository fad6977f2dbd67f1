"""What is a data set, once it is read?

A split is either tensors in memory (`TensorSplit`) or paths to image files (`FileSplit`); training treats both alike. Its
labels are a class for each image or, for segmentation, one for each pixel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from adjcompress.data.pictures import not_pictures
from adjcompress.errors import AdjCompressError, shortened

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_SEEN = 64  # images of a split that a fingerprint reads
_OPENED = 50_000  # files of a split that are looked at before a training
_LEVEL = 0.5  # of 255, by which an image's mean may differ
IGNORED = -100  # the label of a pixel that counts for nothing: the one that torch's cross-entropy passes over


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before the network sees it, outside training: enough to do it again anywhere.

    Resize the shorter side to `resize` pixels (None: the image has its size), cut the central square of `image_size`
    pixels, divide by 255, subtract `mean`, divide by `std`, per RGB channel. Images for segmentation are resized as a whole,
    to `image_size` x `width` pixels (None: square).
    """

    image_size: int
    resize: int | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    width: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels, of what the network sees."""
        return self.image_size, self.image_size if self.width is None else self.width

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preprocessing:
        """What `dataclasses.asdict` and JSON made of it, as a Preprocessing again."""
        return cls(data["image_size"], data["resize"], tuple(data["mean"]), tuple(data["std"]), data.get("width"))

    def example(self, images: int = 1) -> Tensor:
        """A batch of zeros of the shape that the network sees: (images, 3, height, width)."""
        return torch.zeros(images, 3, *self.size)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) of 0..255 -> float32 of the same shape."""
        mean = torch.tensor(self.mean, device=images.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(3, 1, 1)
        return (images.float() / 255 - mean) / std


@dataclass(frozen=True)
class DataSpec:
    """All that is needed to read a data set again: plain data, kept in runs and packages.

    `source` as the user gave it, `image_size` in pixels (None: as it comes), the part and seed of the validation split
    where it is held out, and at most `limit` images in each split (None: all). For segmentation `image_size` is the height,
    `width` the width (None: as high as it is wide), and pixels of `ignore_label` count for nothing.
    """

    source: str
    image_size: int | None = None
    validation: float = 0.1
    seed: int = 0
    limit: int | None = None
    width: int | None = None
    ignore_label: int = 255


@dataclass(frozen=True)
class TensorSplit:
    """Images in memory: uint8 (N, 3, H, W), and their labels: int64 (N,), or for segmentation int16 (N, H, W)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels, int64, of these indices."""
        return self.images[indices], self.labels[indices].long()

    def subset(self, indices: Tensor) -> TensorSplit:
        return TensorSplit(self.images[indices], self.labels[indices])

    def to(self, device: torch.device) -> TensorSplit:
        return TensorSplit(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class FileSplit:
    """Images on disk, decoded when they are needed, and their labels: int64 (N,)."""

    paths: tuple[Path, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> FileSplit:
        return FileSplit(tuple(self.paths[index] for index in indices.tolist()), self.labels[indices])


Split = TensorSplit | FileSplit
AnySplit = TypeVar("AnySplit", TensorSplit, FileSplit)


def same_images(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two fingerprints can be of the same images."""
    if any(one[key] != other[key] for key in ("images", "sha256")) or len(one["levels"]) != len(other["levels"]):
        return False
    return all(abs(first - second) <= _LEVEL for first, second in zip(one["levels"], other["levels"], strict=True))


@dataclass(frozen=True)
class ImageData:
    """A data set: its classes, three splits, and how its images are shown to a network.

    Validation steers; the test split is looked at once, at the end. `mirrors`: whether a mirrored image is still one of
    its class (a digit is not). `held_out`: whether validation was held out of training, where the set has no such split.
    """

    spec: DataSpec
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    preprocessing: Preprocessing
    mirrors: bool = True
    held_out: bool = False

    def fingerprint(self) -> dict[str, Any]:
        """By what other images or labels are noticed (`same_images`); JSON.

        How many images each split has, a checksum of labels and files' names, and of images in memory the mean levels of
        some: resized pixels may differ by a level from one machine to another.
        """
        digest, sizes, levels = hashlib.sha256(), {}, []
        for name, split in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            sizes[name] = len(split)
            digest.update(np.ascontiguousarray(split.labels.cpu().numpy()).tobytes())
            if isinstance(split, FileSplit):
                digest.update("\n".join(f"{path.parent.name}/{path.name}" for path in split.paths).encode())
            elif len(split):
                some = split.images[:: -(-len(split) // _SEEN)]
                levels += [round(level, 2) for level in some.double().mean((1, 2, 3)).tolist()]
        return {"images": sizes, "sha256": digest.hexdigest(), "levels": levels}

    @property
    def segmentation(self) -> bool:
        """Whether every pixel has a label, not every image."""
        return self.train.labels.ndim > 1

    def check_files(self) -> None:
        """Refuse files that are no pictures, before a training meets them; of large splits some are opened."""
        splits = [split for split in (self.train, self.validation, self.test) if isinstance(split, FileSplit)]
        wrong = not_pictures([path for split in splits for path in split.paths[:: -(-len(split) // _OPENED) or 1]])
        if wrong:
            files = shortened([str(path) for path in wrong], 3)
            raise AdjCompressError(f"{files} of {self.spec.source} cannot be read as images: remove or replace them.")

    def limited(self, images: int) -> ImageData:
        """The same data with about `images` images in each split, the classes in proportion, at least one of each."""
        if images < 1:
            raise AdjCompressError(f"--limit {images} must be at least 1.")

        def cut(split: Split) -> Split:
            if len(split) <= images:
                return split
            return split.subset(held_out(split.labels, images / len(split), seed=0)[1])

        spec = replace(self.spec, limit=images)
        return replace(self, spec=spec, train=cut(self.train), validation=cut(self.validation), test=cut(self.test))


def held_out(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (rest, held): `fraction` of every class drawn at random, at least one image of each; both sorted.

    Where pixels have labels, images (N, H, W), it is `fraction` of the images.
    """
    random = np.random.default_rng(seed)
    held = []
    of_images = labels if labels.ndim == 1 else torch.zeros(len(labels))
    for label in of_images.unique().tolist():
        members = torch.nonzero(of_images == label).flatten().numpy()
        held.append(random.permutation(members)[: max(1, round(fraction * len(members)))])
    indices = torch.from_numpy(np.sort(np.concatenate(held)))
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[indices] = False
    return torch.nonzero(rest).flatten(), indices


def with_validation(split: AnySplit, spec: DataSpec) -> tuple[AnySplit, AnySplit]:
    """(train, validation): hold a part of every class out of a training split that has no validation split."""
    if not 0 < spec.validation < 1:
        raise AdjCompressError(f"--validation {spec.validation} must lie between 0 and 1: the part of training held out.")
    rest, held = held_out(split.labels, spec.validation, spec.seed)
    if not len(rest) or (split.labels.ndim == 1 and len(split.labels[rest].unique()) < len(split.labels.unique())):
        raise AdjCompressError(
            f"{spec.source}: a class has too few training images to hold {spec.validation:.0%} out for validation."
        )
    return split.subset(rest), split.subset(held)


def check_labels(labels: Sequence[Tensor], classes: int, source: str, *, ignored: bool = False) -> None:
    """Every label must be a class, 0 <= label < classes, or where that may be, one that counts for nothing."""
    for tensor in labels:
        counted = tensor[tensor != IGNORED] if ignored else tensor
        if len(counted) and not 0 <= int(counted.min()) <= int(counted.max()) < classes:
            raise AdjCompressError(
                f"{source}: labels run from {int(counted.min())} to {int(counted.max())}, but there are {classes} classes."
            )
