"""What happens while a network runs, and how is it seen without changing the network?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

CANNOT_RUN = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)
"""What a network raises that is given images which it does not take."""


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Within the block the networks are in evaluation mode, without gradients; every module then is in the mode it was in."""
    modes = {module: module.training for network in networks for module in network.modules()}
    for network in networks:
        network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def watching(layers: Mapping[str, nn.Module], see: Callable[[str, Any, Any], None]) -> Iterator[None]:
    """Within the block `see` is told whenever one of the layers has run: its name, its first input, its output."""

    def telling(name: str) -> Callable[..., None]:
        return lambda _layer, inputs, output: see(name, inputs[0] if inputs else None, output)

    hooks = [layer.register_forward_hook(telling(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def layers_run(network: nn.Module, example: Tensor) -> list[str]:
    """The convolutions and linear layers that run on a batch (N, C, H, W), in the order in which they do."""
    ran: list[str] = []
    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    with evaluating(network), watching(layers, lambda name, *_: ran.append(name)):
        network(example[:1])
    return ran


def last_layer(network: nn.Module, example: Tensor) -> str:
    """The convolution or linear layer that runs last on a batch (N, C, H, W): the classifier, wherever it is declared."""
    return layers_run(network, example)[-1]
