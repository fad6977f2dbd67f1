"""How do gates learn from what drawn architectures lost? REINFORCE, arXiv:1706.00046, Eq. 18.

Both the networks' loss and this one are means, so the rates do not depend on the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def advantages(losses: Tensor, before: Tensor) -> Tensor:
    """How much worse each of k architectures was than the others, (k,) -> (k,).

    The baseline of each is the mean of the others, which leaves the gradient unbiased; of a single one it is `before`, the
    mean of the steps before.
    """
    count = len(losses)
    if count == 1:
        return losses - before
    return (losses - losses.mean()) * (count / (count - 1))


def policy_loss(log_likelihood: Tensor, advantage: Tensor) -> Tensor:
    """A scalar whose gradient is the estimate of that of the expected loss by the gates' logits; both are (k,)."""
    return (log_likelihood * advantage.detach()).mean()


def gradient(log_likelihood: Tensor, worth: Tensor, logits: Tensor) -> Tensor:
    """The estimate of the gradient of the expected `worth` of k >= 2 architectures, (k,), by the gates' logits, (gates,)."""
    loss = policy_loss(log_likelihood, advantages(worth, worth.new_zeros(())))
    (found,) = torch.autograd.grad(loss, logits)
    return found
