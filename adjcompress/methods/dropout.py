"""How is a network trained with dropout? The papers' other way to regularise the full network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from adjcompress.errors import AdjCompressError
from adjcompress.methods.options import MethodOptions
from adjcompress.methods.standard import StandardMethod
from adjcompress.models.weights import classifier_names
from adjcompress.substitutes.attention import stages
from adjcompress.widths import WidthPlan


class DropoutMethod(StandardMethod):
    """Cross-entropy with dropout before the classifier, of `rate`, and after every block of `blocks`, of `block_rate`.

    Dropout has no parameters and does nothing in evaluation: the network that comes out is the ordinary one.
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
    ) -> None:
        super().__init__(network, deployable, plan)
        for option, value in (("--dropout", rate), ("--dropout-blocks", block_rate)):
            if not 0 <= value < 1:
                raise AdjCompressError(f"{option} {value:g} must be at least 0 and below 1.")
        self.rate, self.block_rate, self.blocks = rate, block_rate, blocks
        classifier = self.network.get_submodule(classifier_names(self.network)[0].rpartition(".")[0])
        classifier.register_forward_pre_hook(self._before)
        for name in blocks:
            self.network.get_submodule(name).register_forward_hook(self._after)

    @classmethod
    def build(cls, model: nn.Module, example: Tensor, options: MethodOptions) -> DropoutMethod:
        if not options.dropout and not options.dropout_blocks:
            raise AdjCompressError("--method dropout with --dropout 0 and no --dropout-blocks is --method standard: take that.")
        blocks = blocks_of(model, example) if options.dropout_blocks else ()
        return cls(model, *cls.chosen(model, example, options), options.dropout, options.dropout_blocks, blocks)

    @classmethod
    def restore(cls, model: nn.Module, settings: Mapping[str, Any]) -> DropoutMethod:
        plan = settings["plan"]
        rates = (settings["rate"], settings["block_rate"], tuple(settings["blocks"]))
        return cls(model, settings["deployable"], WidthPlan.from_json(plan) if plan else None, *rates)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "rate": self.rate, "block_rate": self.block_rate, "blocks": list(self.blocks)}

    def _before(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (F.dropout(inputs[0], self.rate, module.training), *inputs[1:])

    def _after(self, module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return F.dropout(output, self.block_rate, module.training)


def blocks_of(network: nn.Module, example: Tensor) -> tuple[str, ...]:
    """The blocks of a network, by name: the children of those of its stages that are chains, else the stages themselves."""
    found = []
    for name in stages(network, example):
        stage = network.get_submodule(name)
        inside = [f"{name}.{child}" for child, _ in stage.named_children()] if isinstance(stage, nn.Sequential) else [name]
        found += inside
    return tuple(found)
