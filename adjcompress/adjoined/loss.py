"""What is minimised when a full and a small network are trained together?

L = CE(p, y) + weight(t) * KL(p || q), p the probabilities of the full network, q those of the small one, t the progress
of the training in [0, 1] [P1 Definition 1]. The gradient flows through p as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# lambda(t) of P1 table 13, and a constant.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "quadratic": lambda progress: min(4 * progress**2, 1.0),
    "cosine": lambda progress: 1 - math.cos(progress),
    "linear": lambda progress: progress,
    "exponential": lambda progress: math.exp(progress) - 1,
    "constant": lambda progress: 1.0,
}


@dataclass(frozen=True)
class AdjointLoss:
    """The loss and its terms, scalars: total = cross_entropy + weight * divergence.

    With labels for the small networks total = cross_entropy + weight * ((1 - s) divergence + s small_cross_entropy).
    """

    total: Tensor
    cross_entropy: Tensor
    divergence: Tensor
    small_cross_entropy: Tensor | None = None


def divergence(full: Tensor, small: Tensor, labels: Tensor | None = None) -> Tensor:
    """KL(p || q) in nats, mean over images, or over pixels, from the logits (N, classes[, H, W]) of both networks.

    From log-probabilities, so no epsilon is needed and the divergence of equal logits is 0. The gradient reaches both. Pixels
    whose `labels` (N, H, W) are below 0 count for nothing, as in `cross_entropy`; labels of images tell nothing here.
    """
    log_p, log_q = F.log_softmax(_precise(full), 1), F.log_softmax(_precise(small), 1)
    if labels is None or labels.ndim < 3:
        decisions = log_p.numel() // log_p.shape[1]
        return F.kl_div(log_q, log_p, reduction="sum", log_target=True) / decisions
    counts = labels >= 0
    by_pixel = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
    return torch.where(counts, by_pixel, 0).sum() / counts.sum().clamp(min=1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats of logits (N, classes[, H, W]), over what counts: 0 where no pixel of a batch does.

    `labels` are classes (N,) or (N, H, W), of which those below 0 count for nothing, or probabilities (N, classes).
    """
    precise = _precise(logits)
    if labels.ndim < 3:
        return F.cross_entropy(precise, labels)
    return F.cross_entropy(precise, labels, reduction="sum") / (labels >= 0).sum().clamp(min=1)


def adjoint_loss(
    full: Tensor,
    smalls: Mapping[str, Tensor],
    labels: Tensor,
    weight: float,
    detach: bool = False,
    small_labels: float = 0.0,
) -> AdjointLoss:
    """The adjoint loss of one batch. arXiv:2006.05624; P1 definition 1.

    `full` and each of `smalls` are logits (N, classes[, H, W]); `labels` are classes (N[, H, W]), of which those below 0 of a
    segmentation count for nothing, or probabilities (N, classes). With several small networks their divergences are averaged.
    `detach` stops the gradient through p, which the papers do not; nor do they have `small_labels`, the part s of the small
    networks' loss that is cross-entropy with the labels.
    """
    target = full.detach() if detach else full
    mean_divergence = torch.stack([divergence(target, small, labels) for small in smalls.values()]).mean()
    supervised = cross_entropy(full, labels)
    if not small_labels:
        return AdjointLoss(supervised + weight * mean_divergence, supervised, mean_divergence)
    own = torch.stack([cross_entropy(small, labels) for small in smalls.values()]).mean()
    of_smalls = (1 - small_labels) * mean_divergence + small_labels * own
    return AdjointLoss(supervised + weight * of_smalls, supervised, mean_divergence, own)


def _precise(logits: Tensor) -> Tensor:
    """Logits in float32 at least: differences of logarithms need more digits than half precision has."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
