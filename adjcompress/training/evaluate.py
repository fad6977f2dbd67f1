"""How good is a network on a split?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy


@dataclass(frozen=True)
class Evaluation:
    """`accuracy`: the part of the images whose top-1 class is right, in [0, 1]. `loss`: mean cross-entropy in nats."""

    accuracy: float
    loss: float
    images: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(
    networks: dict[str, nn.Module],
    batches: Iterable[tuple[Tensor, Tensor]],
    preprocess: Callable[[Tensor], Tensor],
    classes: int,
    autocast: Callable[[], Any] = nullcontext,
) -> dict[str, Evaluation]:
    """Evaluate networks side by side on batches of pixels uint8 (N, 3, H, W) and labels (N,), each image read once.

    Over all processes together where there are several. Every network is left in the mode it was in.
    """
    modes = {name: network.training for name, network in networks.items()}
    device = next(next(iter(networks.values())).parameters()).device
    meters = {name: _Meters(classes, device) for name in networks}
    count = torch.zeros((), device=device)
    for network in networks.values():
        network.eval()
    with torch.no_grad():
        for images, labels in batches:
            ready = preprocess(images)
            count += len(labels)
            for name, network in networks.items():
                with autocast():
                    logits = network(ready.to(_dtype(network))).float()
                meters[name].accuracy.update(logits, labels)
                meters[name].loss.update(F.cross_entropy(logits, labels), weight=len(labels))
    for name, network in networks.items():
        network.train(modes[name])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
    return {
        name: Evaluation(meter.accuracy.compute().item(), meter.loss.compute().item(), int(count))
        for name, meter in meters.items()
    }


class _Meters:
    """Accuracy and mean loss of one network, over all processes together."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self.accuracy = MulticlassAccuracy(num_classes=classes, average="micro", validate_args=False).to(device)
        self.loss = MeanMetric().to(device)


def _dtype(network: nn.Module) -> torch.dtype:
    """The type of a network's weights: float32, or float64 where it is trained so."""
    return next((parameter.dtype for parameter in network.parameters()), torch.float32)
