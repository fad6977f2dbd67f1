"""How good is a network on a split?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from adjcompress.data import IGNORED, Central, ImageData, Split, evaluation_batch, evaluation_batches
from adjcompress.running import evaluating


@dataclass(frozen=True)
class Evaluation:
    """`accuracy`: the part of the images whose top-1 class is right, in [0, 1]. `loss`: mean cross-entropy in nats.

    Of segmentation both are over all pixels that count, and `mean_iou` is the mean over the classes of intersection over
    union, both counted over the whole split; None of classification.
    """

    accuracy: float
    loss: float
    images: int
    mean_iou: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


def evaluate(
    networks: Mapping[str, nn.Module],
    batches: Iterable[tuple[Tensor, Tensor]],
    preprocess: Callable[[Tensor], Tensor],
    classes: int,
    autocast: Callable[[], Any] = nullcontext,
    per_pixel: bool = False,
) -> dict[str, Evaluation]:
    """Evaluate networks side by side on batches of pixels uint8 (N, 3, H, W) and labels (N,), each image read once.

    `per_pixel`: labels are (N, H, W), every pixel's class is asked for, and what is IGNORED counts for nothing. Over all
    processes together where there are several. Every network is left in the mode it was in.
    """
    device = next(next(iter(networks.values())).parameters()).device
    meters = {name: _Meters(classes, device, per_pixel) for name in networks}
    count = torch.zeros((), device=device)
    with evaluating(*networks.values()):
        for images, labels in batches:
            ready = preprocess(images)
            count += len(labels)
            for name, network in networks.items():
                with autocast():
                    logits = network(ready.to(_dtype(network))).float()
                meters[name].update(logits, labels)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
    return {
        name: Evaluation(meter.accuracy.compute().item(), meter.loss.compute().item(), int(count), meter.mean_iou())
        for name, meter in meters.items()
    }


def evaluate_split(
    networks: Mapping[str, nn.Module],
    data: ImageData,
    split: Split,
    autocast: Callable[[], Any] = nullcontext,
    rank: int = 0,
    world: int = 1,
) -> dict[str, Evaluation]:
    """Evaluate networks on a split of `data`, as it is seen outside training, on the device that they are on.

    Of several processes each looks at its share, and all get the scores of the whole.
    """
    device = next(next(iter(networks.values())).parameters()).device
    batches = evaluation_batches(split, Central(data.preprocessing), evaluation_batch(data), device, rank, world)
    return evaluate(networks, batches, data.preprocessing.normalise, len(data.classes), autocast, data.segmentation)


class _Meters:
    """Accuracy, mean loss and, of segmentation, intersection over union of one network, over all processes together."""

    def __init__(self, classes: int, device: torch.device, per_pixel: bool) -> None:
        counted: dict[str, Any] = {"num_classes": classes, "ignore_index": IGNORED, "validate_args": False}
        self.accuracy = MulticlassAccuracy(average="micro", **counted).to(device)
        self.loss = MeanMetric().to(device)
        self._overlap = MulticlassJaccardIndex(**counted).to(device) if per_pixel else None

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Logits (N, classes) or (N, classes, H, W) in float32, and their labels."""
        self.accuracy.update(logits, labels)
        counted = (labels != IGNORED).sum()
        if counted:
            self.loss.update(F.cross_entropy(logits, labels), weight=counted)
        if self._overlap is not None:
            self._overlap.update(logits.argmax(1), labels)

    def mean_iou(self) -> float | None:
        """Over the classes that occur; None where images have labels, not pixels."""
        return None if self._overlap is None else self._overlap.compute().item()


def _dtype(network: nn.Module) -> torch.dtype:
    """The type of a network's weights: float32, or float64 where it is trained so."""
    return next((parameter.dtype for parameter in network.parameters()), torch.float32)
