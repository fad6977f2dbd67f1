"""How is a graph of layers trained while an architecture in it is drawn for every image? arXiv:1706.00046.

Every gate is open with a probability of its own. A layer runs for the images whose architecture needs it, and its batch norms
see these images alone; a layer that no image needs is not run. In evaluation a gate is open if its probability is above 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adjcompress.errors import AdjCompressError
from adjcompress.models.graph import IMAGES, GraphNetwork
from adjcompress.running import watching
from adjcompress.supernets.architecture import Reach

DISCONNECTED = "The gates that are open do not reach the output: train longer, or with a larger --budget."
_START = 3.0  # a probability of 0.9526
_SETTLED = 16.0


@dataclass(frozen=True)
class _Made:
    """What a node gave: values of the images `rows` (in order), or of all where that is None."""

    values: Tensor
    rows: Tensor | None


class StochasticSuperNetwork(nn.Module):
    """A graph network whose gates are drawn: (N, 3, H, W) -> (N, classes).

    A gate is open with probability sigmoid(sharpness (logit + tilt)): `logits` (gates,) learn, `tilt` moves all of them
    towards open or closed, and the larger `sharpness`, the less is left to chance. What their training remembers is kept here
    too: the `price` of cost, and running means: of the slopes of cost (`slope`) and of minus the loss (`worth`) along the
    tilt, and of what drawn architectures lost and cost.
    """

    tilt: Tensor
    sharpness: Tensor
    price: Tensor
    worth: Tensor
    slope: Tensor
    mean_loss: Tensor
    mean_cost: Tensor

    def __init__(self, network: GraphNetwork) -> None:
        super().__init__()
        if not network.graph.gates:
            raise AdjCompressError("This graph has no gates: there is nothing to learn about its architecture.")
        self.network = network
        self.reach = Reach(network.graph)
        self.logits = nn.Parameter(torch.full((len(network.graph.gates),), _START))
        self.register_buffer("tilt", torch.tensor(0.0))
        self.register_buffer("sharpness", torch.tensor(1.0))
        self.register_buffer("price", torch.tensor(1.0))
        self.register_buffer("worth", torch.tensor(0.0))
        self.register_buffer("slope", torch.tensor(0.0))
        self.register_buffer("mean_loss", torch.tensor(-1.0))  # below 0: nothing yet
        self.register_buffer("mean_cost", torch.tensor(1.0))

    def _chances(self) -> Tensor:
        """The logits of the gates' probabilities, (gates,)."""
        return (self.logits + self.tilt) * self.sharpness

    def probabilities(self) -> Tensor:
        """Of every gate to be open, (gates,)."""
        return self._chances().sigmoid()

    def draw(self, count: int) -> Tensor:
        """Gates of `count` architectures, bool (count, gates)."""
        with torch.no_grad():
            return torch.rand(count, len(self.logits), device=self.logits.device) < self.probabilities()

    def log_likelihood(self, gates: Tensor) -> Tensor:
        """log P of architectures, bool (k, gates) -> (k,); gradients flow to the logits."""
        chosen = gates.to(self.logits.dtype)
        chances = self._chances().expand_as(chosen)
        return -nn.functional.binary_cross_entropy_with_logits(chances, chosen, reduction="none").sum(1)

    def decided(self) -> Tensor:
        """The gates that are open in evaluation, bool (1, gates)."""
        return (self._chances().detach() > 0)[None]

    def settle_(self, gates: Tensor) -> None:
        """Open and close gates for good, bool (gates,): from now on nothing is left to chance."""
        with torch.no_grad():
            self.logits.copy_(torch.where(gates.to(self.logits.device), _SETTLED, -_SETTLED))
        self.tilt.zero_()

    @property
    def settled(self) -> bool:
        """Whether that was done. An optimiser's momentum moves the logits a little on; their signs are what was decided."""
        return bool((self.logits.abs() > _SETTLED / 2).all()) and float(self.tilt) == 0

    def forward(self, images: Tensor, gates: Tensor | None = None) -> Tensor:
        """Logits (N, classes). `gates`, bool (k, gates), are k architectures, each for a run of ceil(N / k) images; by default
        all gates are open in training, and in evaluation those that are decided.

        An image whose architecture does not reach the output gets zeros.
        """
        if gates is None:
            gates = torch.ones(1, len(self.logits), dtype=torch.bool) if self.training else self.decided()
        active = self.reach.active(gates)
        per_image = active.repeat_interleave(-(-len(images) // len(active)), 0)[: len(images)].to(images.device)
        made: dict[str, _Made] = {IMAGES: _Made(images, None)}
        for number, node in enumerate(self.network.graph.nodes):
            runs = per_image[:, number]
            if not bool(runs.any()):
                continue
            rows = None if bool(runs.all()) else runs.nonzero()[:, 0]
            taken = [made[name] for name in node.inputs if name in made]
            made[node.name] = _Made(self._run(node.name, _sum_of(taken, rows)), rows)
        output = made.get(self.network.graph.output)
        if output is None:
            raise AdjCompressError("No architecture reaches the output: its gates are closed on every way to it.")
        if output.rows is None:
            return output.values
        whole = output.values.new_zeros(len(images), *output.values.shape[1:])
        return whole.index_copy(0, output.rows, output.values)

    def _run(self, name: str, values: Tensor) -> Tensor:
        """A layer's output; where batch norm would see one value a channel, it takes its running statistics."""
        layer = self.network.layers[name]
        if not self.training or len(values) > 1 or not any(isinstance(module, nn.BatchNorm2d) for module in layer.modules()):
            result: Tensor = layer(values)
            return result
        with torch.no_grad():
            sizes = _seen_by_norms(layer.eval(), values)
        layer.train(all(size > 1 for size in sizes))
        try:
            return layer(values)
        finally:
            layer.train()

    def extracted(self) -> GraphNetwork:
        """The decided architecture as a graph network of its own, of the same layers; without gates.

        One that does not reach the output is an AdjCompressError.
        """
        active = self.reach.active(self.decided())[0]
        if not bool(active[-1]):
            raise AdjCompressError(DISCONNECTED)
        return self.network.restricted(self.reach.names(active))


def _seen_by_norms(layer: nn.Module, values: Tensor) -> list[int]:
    """How many values a channel has where each batch norm of a layer stands."""
    sizes: list[int] = []
    norms = {name: module for name, module in layer.named_modules() if isinstance(module, nn.BatchNorm2d)}
    with watching(norms, lambda _name, seen, _output: sizes.append(seen.numel() // seen.shape[1])):
        layer(values)
    return sizes


def _sum_of(taken: list[_Made], rows: Tensor | None) -> Tensor:
    """The sum of what nodes gave, for the images `rows` alone; an image that one of them lacks takes nothing from it."""
    if all(made.rows is None for made in taken):
        total = taken[0].values
        for made in taken[1:]:
            total = total + made.values
        return total if rows is None else total.index_select(0, rows)
    some = taken[0].values
    images = _count(taken, rows)
    total = some.new_zeros(images, *some.shape[1:])
    for made in taken:
        own = made.rows if made.rows is not None else torch.arange(images, device=some.device)
        total = total.index_add(0, own, made.values)
    return total if rows is None else total.index_select(0, rows)


def _count(taken: list[_Made], rows: Tensor | None) -> int:
    """At least as many rows as any of them names."""
    sizes = [len(made.values) if made.rows is None else int(made.rows[-1]) + 1 for made in taken]
    return max([*sizes, *([] if rows is None else [int(rows[-1]) + 1])])
