"""In which order and in which batches do images arrive?

Order and draws follow from (seed, epoch, step) alone, so training can go on from any step as if it had never stopped. In
every epoch each image is seen once: the batches of an epoch differ by at most one image, and none is dropped. Only where a
half of the images is to be judged by later, the other half is seen twice before that.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from adjcompress.data.augment import Central, View
from adjcompress.data.pictures import UNREADABLE, rgb
from adjcompress.data.splits import FileSplit, ImageData, Split, TensorSplit
from adjcompress.errors import AdjCompressError
from adjcompress.machine import usable_cores
from adjcompress.seeds import derived_seed

Batch = tuple[Tensor, Tensor]


def epoch_batches(
    images: int,
    batch_size: int,
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
    halves: bool = False,
    first_only: int = 0,
) -> list[Tensor]:
    """The image indices of every step of one epoch for process `rank` of `world`.

    `batch_size` is for one process. A step of all processes together takes the same images as one process with
    `world` times the batch. With `halves`, even steps take images of one half and odd steps of the other; which image
    belongs to which half is the same in every epoch. Odd ones of the `first_only` first steps take the first half's, again.
    """
    generator = torch.Generator().manual_seed(derived_seed("order", seed, epoch))
    order = torch.randperm(images, generator=generator)
    if not halves:
        batches = list(torch.tensor_split(order, steps_of(images, batch_size * world)))
    else:
        sides = torch.randperm(images, generator=torch.Generator().manual_seed(derived_seed("halves", seed))) < images // 2
        steps = steps_of(images - images // 2, batch_size * world)
        again = torch.randperm(images, generator=generator)
        one, other, twice = (
            torch.tensor_split(drawn[sides[drawn] == first], steps)
            for drawn, first in ((order, True), (order, False), (again, True))
        )
        odd = [twice[step] if 2 * step + 1 < first_only else other[step] for step in range(steps)]
        batches = [batch for pair in zip(one, odd, strict=True) for batch in pair]
    return [torch.tensor_split(batch, world)[rank] for batch in batches]


def steps_of(images: int, batch_size: int) -> int:
    """Steps of an epoch; the batches are spread evenly and hold at most `batch_size` images."""
    return max(1, -(-images // batch_size))


def smallest_batch(images: int, batch_size: int, halves: bool = False) -> int:
    """Images in the smallest step of an epoch in one process."""
    return min(len(batch) for batch in epoch_batches(images, batch_size, 0, 0, halves=halves))


def check_batches(split: Split, batch_size: int, world: int = 1, halves: bool = False) -> None:
    """Refuse batches that `world` processes cannot share among a split's images: in every step each has one at least."""
    if batch_size < 1 or world * 2 > len(split) or smallest_batch(len(split), batch_size * world, halves) < world:
        raise AdjCompressError(
            f"--batch-size {batch_size} with {world} processes does not fit {len(split)} training images: "
            "at least 1, 2 images for each process, and in every step one for each: take another --batch-size."
        )


def evaluation_batch(data: ImageData) -> int:
    """How many images are looked at together: 250; for segmentation, where layers stay as large as images, a million pixels."""
    height, width = data.preprocessing.size
    return max(1, 2**20 // (height * width)) if data.segmentation else 250


class TrainingBatches:
    """Batches of pixels, uint8 (N, 3, H, W), and labels, int64 (N,) or (N, H, W), on `device`, in a new order every epoch.

    `halves_after`: from that part of a training of `epochs` on, steps take the two halves of the images in turn, as in
    epoch_batches; before that all take the first half. None: no halves.
    """

    def __init__(
        self,
        split: Split,
        fit_file: View,
        batch_size: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        workers: int | None = None,
        halves_after: float | None = None,
        epochs: int = 1,
    ) -> None:
        check_batches(split, batch_size, world, halves_after is not None)
        self.split = split.to(device) if isinstance(split, TensorSplit) else split
        self._order = (len(split), batch_size, seed)
        self._halves = halves_after is not None
        self._place = (rank, world)
        self.steps = len(epoch_batches(*self._order, 0, *self._place, self._halves))
        total = epochs * self.steps
        self._first_only = bisect_left(range(total), halves_after or 0.0, key=lambda step: step / total)
        self.device = device
        self._sampler = _EpochSampler()
        self._files: DataLoader[Any] | None = None
        if isinstance(split, FileSplit):
            self._files = _file_loader(split, fit_file, self._sampler, seed, device, workers)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from step `start` on."""
        first_only = self._first_only - epoch * self.steps
        batches = epoch_batches(*self._order, epoch, *self._place, self._halves, first_only)[start:]
        if isinstance(self.split, TensorSplit):
            for indices in batches:
                indices = indices.to(self.device)
                yield self.split.batch(indices)
            return
        assert self._files is not None
        self._sampler.batches = [[(epoch, index) for index in indices.tolist()] for indices in batches]
        yield from _on_device(self._files, self.device)


def evaluation_batches(
    split: Split,
    fit_file: View,
    batch_size: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
    workers: int | None = None,
) -> Iterator[Batch]:
    """Every image of a split once, in order, over all processes together; batches differ by one image at most."""
    share = torch.tensor_split(torch.arange(len(split)), world)[rank]
    batches = share.tensor_split(steps_of(len(share), batch_size)) if len(share) else ()
    if isinstance(split, TensorSplit):
        for indices in batches:
            images, labels = split.batch(indices)
            yield images.to(device), labels.to(device)
        return
    sampler = _EpochSampler()
    sampler.batches = [[(0, index) for index in batch.tolist()] for batch in batches]
    yield from _on_device(_file_loader(split, fit_file, sampler, 0, device, workers), device)


def first_pixels(data: ImageData, split: Split, images: int) -> Tensor:
    """The first images of a split, of the size that a network takes: uint8 (images, 3, H, W)."""
    first = split.subset(torch.arange(min(images, len(split))))
    pixels, _ = next(evaluation_batches(first, Central(data.preprocessing), images, torch.device("cpu"), workers=0))
    return pixels


class _EpochSampler(Sampler[list[tuple[int, int]]]):
    """Hands the loader the batches it was given last: workers stay alive from one epoch to the next."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Files(Dataset[Any]):
    """Decodes image files. An unreadable one is returned as its error: raised in a worker it would lose its one line."""

    def __init__(self, split: FileSplit, fit_file: View, seed: int) -> None:
        self.split, self.fit_file, self.seed = split, fit_file, seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int] | str:
        epoch, index = key
        path = self.split.paths[index]
        try:
            with Image.open(path) as image:
                decoded = rgb(image)
        except UNREADABLE as error:
            return f"{path} is not a readable image ({error}). Put one of the same name there, then go on with --resume."
        # In a worker the generator serves nothing else; in the main process the training's draws must not notice.
        with nullcontext() if get_worker_info() else torch.random.fork_rng(devices=[]):
            # The same draw in whichever worker and after any resume. Not torch.manual_seed: for the sake of GPUs that a worker
            # does not use it records a stack trace, which took half the time of an image.
            torch.default_generator.manual_seed(derived_seed("file", self.seed, epoch, index))
            return self.fit_file(decoded), int(self.split.labels[index])


def _collate(items: list[tuple[Tensor, int] | str]) -> Batch | str:
    for item in items:
        if isinstance(item, str):
            return item
    images, labels = zip(*items, strict=True)
    return torch.stack(images), torch.tensor(labels)


def _file_loader(
    split: FileSplit,
    fit_file: View,
    sampler: _EpochSampler,
    seed: int,
    device: torch.device,
    workers: int | None,
) -> DataLoader[Any]:
    if workers is None:  # this process's share of the cores, as many as decoding has been seen to use
        cores = len(usable_cores())
        workers = min(16, max(min(2, cores), cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    return DataLoader(
        _Files(split, fit_file, seed),
        batch_sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
    )


def _on_device(loader: DataLoader[Any], device: torch.device) -> Iterator[Batch]:
    for batch in loader:
        if isinstance(batch, str):
            raise AdjCompressError(batch)
        images, labels = batch
        yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
