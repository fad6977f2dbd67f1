"""How are the widths of a small network learnt while it is trained?

Every free channel group has a logit for each of its candidate widths. In a step each group draws a soft choice between them
(Gumbel-softmax), and its channels are weighted by the probability that the width includes them: a mixture of prefix masks.
The paper's code mixes before batch norm, which divides the mixture out again; here a channel is weighted where it is read,
after batch norm and activation, by every layer that reads it. As the reader is linear, its weights are multiplied instead of
the activations: the search costs one forward pass of the widest small network, and where the choice is one-hot the small
network is the sliced one, whatever activations and biases it has. Differentiable Adjoined Networks; arXiv:2006.05624.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adjcompress.adjoined.network import AdjoinedNetwork, Outputs
from adjcompress.errors import AdjCompressError
from adjcompress.widths import Candidates, plan_at
from adjcompress.widths.channels import Convolution, is_selection

WIDEST = "widest"


class SearchNetwork(AdjoinedNetwork):
    """A full network, and one small network of the widest candidates whose groups choose between narrower ones.

    `logits` (free groups, candidates) are the search's parameters; the rows of groups with fewer candidates are padded, and
    the padding is never chosen. `tilt` is added to the logits of every group alike, from nothing at its narrowest candidate
    to all of it at its widest. `price`, `progress` and `steps` are where the search stands: see SearchMethod. A network in
    which layer norms see a free group raises an AdjCompressError: their mean over channels would count those that a choice
    leaves out.
    """

    tilt: Tensor
    price: Tensor
    progress: Tensor
    steps: Tensor
    place: Tensor
    _offered: Tensor

    def __init__(self, full: nn.Module, candidates: Sequence[Candidates], example: Tensor) -> None:
        groups = [each.group for each in candidates]
        widest = plan_at(full, example, groups, [each.widths[-1] for each in candidates])
        super().__init__(full, {WIDEST: widest})
        self.candidates = tuple(candidates)
        self.free = tuple(each for each in candidates if each.free)
        _refuse_layer_norms(full, self.free)
        most = max(len(each.widths) for each in self.free)
        device = next(full.parameters()).device
        self.logits = nn.Parameter(torch.zeros(len(self.free), most, device=device))
        offered = torch.arange(most) < torch.tensor([[len(each.widths)] for each in self.free])
        self.register_buffer("_offered", offered.to(device), persistent=False)
        place = torch.arange(most, dtype=torch.double) / (offered.sum(1, keepdim=True) - 1)
        self.register_buffer("place", (place * offered).to(device), persistent=False)
        for name in ("tilt", "price", "progress", "steps"):
            self.register_buffer(name, torch.zeros((), dtype=torch.double, device=device))
        self._readers: dict[str, str] = {}  # a tensor, or a selection's inclusion, to the buffer with its positions
        for number, (name, positions) in enumerate(_readers(full, self.free).items()):
            kept = widest.cuts.get(name, {}).get(1)
            if kept is not None:
                positions = torch.cat([positions[start:stop] for start, stop in kept])
            owner, _, attribute = name.rpartition(".")
            if attribute == "selection":  # it has no weights to be multiplied: its input is
                name = f"{owner}.inclusion"
                selection = self.smalls[WIDEST].get_submodule(owner)
                selection.register_buffer("inclusion", torch.ones(len(positions), device=device), persistent=False)
                selection.register_forward_pre_hook(_weigh)
            self._readers[name] = f"reader_{number}"
            self.register_buffer(self._readers[name], positions.to(device), persistent=False)

    def forward(self, images: Tensor, choice: Tensor | None = None) -> Outputs:
        """Logits of the full and the small network, (N, C, H, W) -> (N, classes) each.

        `choice` (free groups, candidates) holds each group's probabilities; without it the likeliest candidates are taken.
        """
        included = self._including(self.likeliest() if choice is None else choice)
        return self._outputs(images, lambda name, views: self._weighed(views, included))

    def draw(self, temperature: float, slope: Tensor | None = None) -> Tensor:
        """A soft choice with fresh Gumbel noise, differentiable by the logits: (free groups, candidates).

        With `slope`, that of a cost by the logits, their gradient loses what lies along it, and `price` becomes its multiplier.
        """
        logits = self.logits if slope is None else _AtEqualCost.apply(self.logits, slope.to(self.logits.dtype), self.price)
        noise = -torch.empty_like(self.logits).exponential_().log()
        return self._softmax((self._tilted(logits) + noise) / temperature)

    def probabilities(self, logits: Tensor | None = None) -> Tensor:
        """How often each candidate is the likeliest of a draw, in double precision: (free groups, candidates)."""
        return self._softmax(self._tilted((self.logits if logits is None else logits).double()))

    def likeliest(self) -> Tensor:
        """The likeliest candidate of every group, one-hot."""
        scores = self._tilted(self.logits.detach()).masked_fill(~self._offered, -torch.inf)
        return F.one_hot(scores.argmax(1), scores.shape[1]).to(scores.dtype)

    def widths_at(self, choice: Sequence[int]) -> list[int]:
        """The kept channels of every group, where the free ones take the candidates of these numbers."""
        chosen = iter(choice)
        return [each.widths[next(chosen)] if each.free else each.widths[0] for each in self.candidates]

    def extract(self, name: str) -> nn.Module:
        """The full network; the small one has no widths yet, and leaves a search as a width plan."""
        if name != "full":
            raise AdjCompressError("A search decides on widths: train a network at its plan, and extract from that.")
        return super().extract(name)

    def _tilted(self, logits: Tensor) -> Tensor:
        return logits + (self.tilt * self.place).to(logits.dtype)

    def _softmax(self, scores: Tensor) -> Tensor:
        return scores.masked_fill(~self._offered, -torch.inf).softmax(1)

    def _including(self, choice: Tensor) -> Tensor:
        """Probabilities that a width includes the channels that only candidates k and up have, flat, and a last one: 1."""
        tails = choice.flip(1).cumsum(1).flip(1)
        return torch.cat([tails.flatten(), tails.new_ones(1)])

    def _weighed(self, views: dict[str, Tensor], included: Tensor) -> dict[str, Tensor]:
        """The views, every reader's inputs multiplied by the probability that they are included."""
        weighed = dict(views)
        for tensor, buffer in self._readers.items():
            own = included[self.get_buffer(buffer)]
            if tensor in views:
                weighed[tensor] = views[tensor] * own.view(1, -1, *[1] * (views[tensor].ndim - 2))
            else:
                weighed[tensor] = own
        return weighed


def _weigh(selection: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Multiply the inputs of a layer without weights by its `inclusion`."""
    inclusion = selection.get_buffer("inclusion").to(inputs[0].dtype)
    return (inputs[0] * inclusion.view(1, -1, 1, 1), *inputs[1:])


class _AtEqualCost(torch.autograd.Function):
    """The logits as they are; of their gradient, only what leaves the cost as it is. Writes the multiplier into `price`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, slope: Tensor, price: Tensor) -> Tensor:
        ctx.slope, ctx.price = slope, price
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        square = ctx.slope.square().sum()
        multiplier = torch.where(square > 0, (gradient * ctx.slope).sum() / square, 0.0)
        ctx.price.copy_(-multiplier)
        return gradient - multiplier * ctx.slope, None, None


def _readers(full: nn.Module, free: Sequence[Candidates]) -> dict[str, Tensor]:
    """By tensor that reads free groups: for each of its inputs the number of the entry of `_including` that weighs it.

    Grouped and depthwise layers read channels apart: what they make of one that is left out, their own readers leave out.
    """
    modules = dict(full.named_modules())
    most = max(len(each.widths) for each in free)
    always = len(free) * most
    readers: dict[str, Tensor] = {}
    for number, each in enumerate(free):
        widths = torch.tensor(each.widths)
        for axis in each.group.axes:
            module = modules.get(axis.layer)
            if axis.side != "in" or module is None or (isinstance(module, Convolution) and module.groups > 1):
                continue
            if is_selection(module):
                name, inputs = f"{axis.layer}.selection", _tensor(module, "selection").shape[1]
            elif isinstance(module, (*Convolution, nn.Linear)):
                name, inputs = f"{axis.layer}.weight", module.weight.shape[1]
            else:
                continue
            positions = readers.setdefault(name, torch.full((inputs,), always))
            first = torch.searchsorted(widths, torch.tensor(axis.channel), right=True)  # the narrowest width with the channel
            positions[torch.tensor(axis.index)] = number * most + first.clamp(max=len(widths) - 1)
    return readers


def _tensor(module: nn.Module, name: str) -> Tensor:
    tensor = getattr(module, name)
    assert isinstance(tensor, Tensor)
    return tensor


def _refuse_layer_norms(full: nn.Module, free: Sequence[Candidates]) -> None:
    norms: Mapping[str, nn.Module] = {name: each for name, each in full.named_modules() if isinstance(each, nn.LayerNorm)}
    for each in free:
        for axis in each.group.axes:
            if axis.layer in norms:
                raise AdjCompressError(
                    f"Layer {axis.layer} normalises over the channels of {each.group.name}, which has no width before the "
                    f"search is over: keep that layer whole with --keep '{each.group.name}', or train with --method adjoined."
                )
