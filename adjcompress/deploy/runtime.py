"""What does an ONNX file compute, run by ONNX Runtime on the CPU?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from adjcompress.data import IGNORED, ImageData, Preprocessing, Split, central, evaluation_batch, evaluation_batches
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


def logits_on(path: Path, data: ImageData, split: Split, from_pixels: bool) -> tuple[Tensor, Tensor]:
    """A file's logits (N, classes[, H, W]) on a whole split, and the labels (N[, H, W])."""
    run = runner(path)
    batches = evaluation_batches(split, central(data.preprocessing), evaluation_batch(data), torch.device("cpu"))
    pairs = [(run(as_input(pixels, data.preprocessing, from_pixels)), labels) for pixels, labels in batches]
    return torch.cat([logits for logits, _ in pairs]), torch.cat([labels for _, labels in pairs])


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """The part of the images, or of the pixels that count, whose largest logit is the right one."""
    return (logits.argmax(1) == labels)[labels != IGNORED].double().mean().item()
