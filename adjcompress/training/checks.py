"""What stops a training, before it begins and in its midst?"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from adjcompress.data import ImageData, augmentation, check_batches, smallest_batch, steps_of
from adjcompress.errors import AdjCompressError
from adjcompress.methods import Method
from adjcompress.training.batch_norm import check_single_images, check_synchronisable
from adjcompress.training.checkpoint import Position, checkpoints
from adjcompress.training.recipes import Recipe


def check_training(method: Method, data: ImageData, recipe: Recipe, processes: int) -> None:
    """Refuse what a recipe cannot do with this data and method in so many processes."""
    augmentation(recipe.augmentation, data)  # an unknown one is an error
    if recipe.ema and method.unaveraged is not None:
        raise AdjCompressError(f"--ema does not go with --method {method.name}: {method.unaveraged}.")
    for option, given in (("--label-smoothing", recipe.label_smoothing), ("--mixup", recipe.mixup)):
        if data.segmentation and given:
            raise AdjCompressError(f"{option} spreads the labels of images; pixels' labels stay as they are: leave it out.")
    if method.alone is not None and processes > 1:
        raise AdjCompressError(f"--method {method.name} needs one process here, not {processes}: {method.alone}.")
    check_batches(data.train, recipe.batch_size, processes, method.halves_after is not None)
    check_joining(method.waiting, recipe, len(data.train), processes)
    check_synchronisable(method.network, processes)
    if processes == 1 and smallest_batch(len(data.train), recipe.batch_size, method.halves_after is not None) == 1:
        check_single_images(method.deployables(), data.preprocessing.example(1))


def check_joining(waiting: Callable[[float], Collection[str]], recipe: Recipe, images: int, processes: int) -> None:
    """Refuse a training in whose last step there still are networks that wait, of which `waiting` tells by progress."""
    steps = recipe.epochs * steps_of(images, recipe.batch_size * processes)
    if never := waiting((steps - 1) / steps):
        raise AdjCompressError(
            f"{' and '.join(sorted(never))} would wait through all of this training's steps, which are {steps}: give more "
            "--epochs or a smaller --batch-size, or let all learn from the first step on (--way papers, --small-first 0)."
        )


def check_loss(loss: Tensor | None, epoch: int, step: int, folder: Path) -> None:
    """A loss that is not finite ends the training; `epoch` and `step`, in which it was had, count from 0."""
    if loss is not None and not math.isfinite(loss.item()):
        raise AdjCompressError(f"The loss is {loss.item()} in epoch {epoch + 1}, step {step + 1}. {_way_out(folder)}")


def check_weights(network: nn.Module, position: Position, folder: Path) -> None:
    """An update can ruin the weights after a finite loss, as can another process: such weights do not replace good ones."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in network.state_dict().values() if tensor.is_floating_point()):
        raise AdjCompressError(f"A weight is not finite in epoch {position.epoch + bool(position.step)}. {_way_out(folder)}")


def _way_out(folder: Path) -> str:
    kept = checkpoints(folder)
    return (f"The last good checkpoint is {kept[-1].name} in {folder}. " if kept else "") + (
        "Train again with a smaller --lr, or with gradient clipping (--clip-norm 1)."
    )
