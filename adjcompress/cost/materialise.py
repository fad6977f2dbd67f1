"""Which plain layers does a network run, where some of its layers make their weights out of fewer numbers?"""

from __future__ import annotations

import copy

from torch import nn


def materialised(network: nn.Module) -> nn.Module:
    """A copy in which every layer that offers its plain form, by a method `materialised()`, is replaced by it."""
    result = copy.deepcopy(network)
    return _plain(result) or _with_plain_layers_(result)


def _with_plain_layers_(network: nn.Module) -> nn.Module:
    for name, module in list(network.named_modules()):
        plain = _plain(module)
        if plain is not None and name:
            parent, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(parent), attribute, plain)
    return network


def _plain(module: nn.Module) -> nn.Module | None:
    form = getattr(module, "materialised", None)
    return form() if callable(form) else None
