"""Which plain layers does a network run, where some of its layers make their weights out of fewer numbers?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from adjcompress.errors import AdjCompressError, first_line
from adjcompress.running import CANNOT_RUN
from adjcompress.tensors import copied_with, tensors_of

Found = TypeVar("Found")


def looked_at(network: nn.Module, example: Tensor, look: Callable[[nn.Module, Tensor], Found]) -> Found:
    """What `look` finds in a plain copy of `network`, in evaluation mode, and one image of zeros as those of `example`.

    Copy and image are on the meta device, where nothing is computed; on the CPU where the network does not allow that: its
    forward makes tensors of its own, or reads a value. An image that it does not take is an AdjCompressError.
    """
    abstract = copied_with(network, {name: tensor.to("meta") for name, tensor in tensors_of(network).items()}).to("meta")
    image = torch.zeros((1, *example.shape[1:]), dtype=example.dtype)
    try:
        return look(materialised(abstract).eval(), image.to("meta"))
    except CANNOT_RUN:
        pass
    try:
        return look(materialised(network).cpu().eval(), image)
    except (NotImplementedError, RecursionError, torch.OutOfMemoryError):
        raise  # which are RuntimeErrors too, and not of the image
    except CANNOT_RUN as error:
        raise AdjCompressError(
            f"{type(network).__name__} does not take an image batch of shape {tuple(example.shape)}, {example.dtype}: "
            f"{first_line(error)}."
        ) from error


def materialised(network: nn.Module) -> nn.Module:
    """A copy in which every layer that offers its plain form, by a method `materialised()`, is replaced by it."""
    result = copied_with(network, {})
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
