"""How is a network trained with dropout? The papers' other way to regularise the full network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from adjcompress.errors import AdjCompressError
from adjcompress.methods.options import MethodOptions
from adjcompress.methods.standard import StandardMethod
from adjcompress.models.weights import classifier_names
from adjcompress.running import last_layer
from adjcompress.widths import WidthPlan

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class DropoutMethod(StandardMethod):
    """Cross-entropy with dropout before `classifier`, of `rate`, and after every block of `blocks`, of `block_rate`.

    The classifier is the last layer that runs; without a name, as in older runs, the one that is declared last. Dropout has no
    parameters and does nothing in evaluation: the network that comes out is the ordinary one.
    """

    name = "dropout"

    def __init__(
        self,
        network: nn.Module,
        deployable: str = "full",
        plan: WidthPlan | None = None,
        rate: float = 0.5,
        block_rate: float = 0.0,
        blocks: tuple[str, ...] = (),
        classifier: str | None = None,
    ) -> None:
        super().__init__(network, deployable, plan)
        for option, value in (("--dropout", rate), ("--dropout-blocks", block_rate)):
            if not 0 <= value < 1:
                raise AdjCompressError(f"{option} {value:g} must be at least 0 and below 1.")
        self.rate, self.block_rate, self.blocks = rate, block_rate, blocks
        self.classifier = classifier or classifier_names(self.network)[0].rpartition(".")[0]
        self.network.get_submodule(self.classifier).register_forward_pre_hook(self._before)
        for name in blocks:
            self.network.get_submodule(name).register_forward_hook(self._after)

    @classmethod
    def build(cls, model: nn.Module, example: Tensor, options: MethodOptions) -> DropoutMethod:
        if not options.dropout and not options.dropout_blocks:
            raise AdjCompressError("--method dropout with --dropout 0 and no --dropout-blocks is --method standard: take that.")
        blocks = blocks_of(model) if options.dropout_blocks else ()
        chosen, classifier = cls.chosen(model, example, options), last_layer(model, example)
        return cls(model, *chosen, options.dropout, options.dropout_blocks, blocks, classifier)

    @classmethod
    def restore(cls, model: nn.Module, settings: Mapping[str, Any]) -> DropoutMethod:
        plan = settings["plan"]
        where = (settings["rate"], settings["block_rate"], tuple(settings["blocks"]), settings.get("classifier"))
        return cls(model, settings["deployable"], WidthPlan.from_json(plan) if plan else None, *where)

    def settings(self) -> dict[str, Any]:
        own = {"rate": self.rate, "block_rate": self.block_rate, "blocks": list(self.blocks), "classifier": self.classifier}
        return {**super().settings(), **own}

    def _before(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (F.dropout(inputs[0], self.rate, module.training), *inputs[1:])

    def _after(self, module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return F.dropout(output, self.block_rate, module.training)


def blocks_of(network: nn.Module) -> tuple[str, ...]:
    """The blocks of a network, by name, in the network's order: what chains of layers are made of.

    A block is a module with two layers that have weights or more, outside of all other blocks, and no mere container of
    modules; what holds a chain of blocks of one kind is a stage. A network without any is an AdjCompressError.
    """
    found = tuple(_blocks(network, ""))
    if not found:
        raise AdjCompressError(
            f"--dropout-blocks: {type(network).__name__} has no blocks after which there could be dropout: leave it out."
        )
    return found


def _blocks(module: nn.Module, name: str) -> Iterator[str]:
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        if _weighted(child) < 2:
            continue
        if isinstance(child, _CONTAINERS) or any(_is_chain(each) for each in child.children()):
            yield from _blocks(child, path)
        else:
            yield path


def _is_chain(module: nn.Module) -> bool:
    """Whether a module is a chain of blocks of one kind."""
    inside = list(module.children())
    alike = isinstance(module, _CONTAINERS) and len({type(each) for each in inside}) == 1
    return alike and all(_weighted(each) >= 2 and not isinstance(each, _CONTAINERS) for each in inside)


def _weighted(module: nn.Module) -> int:
    return sum(isinstance(each, nn.Conv2d | nn.Linear) for each in module.modules())
