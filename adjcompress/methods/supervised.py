"""What does a network lose on labelled images, and what does it hear of the training's progress?"""

from __future__ import annotations

from torch import Tensor, nn

from adjcompress.adjoined.loss import cross_entropy as mean_cross_entropy
from adjcompress.errors import AdjCompressError
from adjcompress.models.darts import Darts, WithAuxiliary

_AUXILIARY = 0.4  # arXiv:1806.09055, appendix A


def cross_entropy(outputs: Tensor | WithAuxiliary, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits (N, classes), in nats; that of an auxiliary head is added with weight 0.4."""
    if isinstance(outputs, WithAuxiliary):
        return cross_entropy(outputs.logits, labels) + _AUXILIARY * cross_entropy(outputs.auxiliary, labels)
    return mean_cross_entropy(outputs, labels)


def refuse_auxiliary(network: nn.Module) -> None:
    """Refuse an auxiliary head where widths are cut: it is not seen in evaluation mode, by which they are found."""
    if getattr(network, "auxiliary", None) is not None:
        raise AdjCompressError(
            "A network with an auxiliary head cannot be cut: leave --model-option auxiliary=true out, or train it with "
            "--method standard or substitute."
        )


def tell_progress_(network: nn.Module, progress: float) -> None:
    """Tell a network whose regularisation grows with training how far that is, in [0, 1]."""
    if isinstance(network, Darts):
        network.progress.fill_(progress)
