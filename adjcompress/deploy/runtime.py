"""What does an ONNX file compute, run by ONNX Runtime on the CPU?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from adjcompress.data import IGNORED, Central, ImageData, Preprocessing, Split, evaluation_batch, evaluation_batches
from adjcompress.deploy.graph import INPUT, OUTPUT
from adjcompress.errors import AdjCompressError, first_line


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """The file loaded; an AdjCompressError where ONNX Runtime cannot run it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong comes as an error
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no type but this
        raise AdjCompressError(f"ONNX Runtime cannot run this graph ({first_line(error)}): try --opset 18.") from error


def as_input(pixels: Tensor, preprocessing: Preprocessing, from_pixels: bool) -> np.ndarray:
    """Pixels uint8 (N, 3, H, W) as an exported graph takes them: raw (N, H, W, 3), or normalised (N, 3, H, W)."""
    if from_pixels:
        return pixels.permute(0, 2, 3, 1).contiguous().numpy()
    return preprocessing.normalise(pixels).numpy()


def runner(path: Path) -> Callable[[np.ndarray], Tensor]:
    """A function from a batch of input to logits (N, classes)."""
    session = open_session(path)

    def run(images: np.ndarray) -> Tensor:
        (logits,) = session.run([OUTPUT], {INPUT: images})
        return torch.from_numpy(np.asarray(logits))

    return run


def inputs(data: ImageData, split: Split, from_pixels: bool) -> Iterator[tuple[np.ndarray, Tensor]]:
    """A split as exported graphs take it, batch by batch, and its labels (N[, H, W])."""
    batches = evaluation_batches(split, Central(data.preprocessing), evaluation_batch(data), torch.device("cpu"))
    for pixels, labels in batches:
        yield as_input(pixels, data.preprocessing, from_pixels), labels


def accuracy(path: Path, data: ImageData, split: Split, from_pixels: bool) -> float:
    """The part of a split's images, or of its pixels that count, whose largest logit in a file's answer is the right one."""
    run = runner(path)
    right, counted = 0, 0
    for images, labels in inputs(data, split, from_pixels):
        counts = labels != IGNORED
        right += int((run(images).argmax(1) == labels)[counts].sum())
        counted += int(counts.sum())
    return right / counted if counted else math.nan
