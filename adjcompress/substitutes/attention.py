"""Where does a network look, and how does a smaller one learn to look there too? Attention transfer, arXiv:1906.00859.

The map of a stage is the mean of its squared channels, flattened and scaled to length 1; the loss is the mean squared
difference of the two networks' maps, summed over the stages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adjcompress.errors import AdjCompressError, nearest_first, shortened
from adjcompress.running import evaluating, watching

_WEIGHT = 3000.0
_STAGE = re.compile(r"(layer|stage|group|denseblock|transition|block)s?_?\d+$")


def attention_map(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H W), each of length 1."""
    return F.normalize(features.float().square().mean(1).flatten(1), dim=1)


def attention_loss(maps: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    """sum_j beta' mean((Q_j - wanted_j)^2) with beta' = 3000 / number of maps; j: the names, in whichever order they ran."""
    differences = [(map - wanted[name]).square().mean() for name, map in maps.items()]
    return torch.stack(differences).sum() * (_WEIGHT / len(differences))


@contextmanager
def attention_of(network: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Within the block a forward pass of `network` fills the yielded dict with the attention map of each of `layers`."""
    maps: dict[str, Tensor] = {}

    def see(name: str, _input: Any, output: Tensor) -> None:
        maps[name] = attention_map(output.clone())  # what follows may work on it in place

    with watching({name: network.get_submodule(name) for name in layers}, see):
        yield maps


def stages(network: nn.Module, example: Tensor) -> tuple[str, ...]:
    """The stages of a network, by name: its children called layer1, stage1, denseblock1 and so on.

    Where there are none, of the blocks of its longest outermost chain (MobileNetV2's features.0 to features.18) the last at
    each resolution, but the first. A network without either raises an AdjCompressError.
    """
    named = [name for name, _ in network.named_modules() if name.count(".") <= 1 and _STAGE.search(name)]
    tops = [name for name in named if not any(name.startswith(f"{other}.") for other in named)]
    if len(tops) > 1:
        return tuple(tops)
    chains = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Sequential | nn.ModuleList)]
    name, chain = max(chains, key=lambda item: (-item[0].count("."), len(item[1])), default=("", nn.Sequential()))
    blocks = [f"{name}.{number}" if name else str(number) for number in range(len(chain))]
    sides = _sides(network, blocks, example)
    # A pool alone is no stage: it looks where the block before it looked.
    images = [
        block for block in blocks
        if block in sides and min(sides[block]) > 1 and "Pool" not in type(network.get_submodule(block)).__name__
    ]  # fmt: skip
    ends = [one for one, other in zip(images, [*images[1:], ""], strict=True) if sides.get(other) != sides[one]]
    if len(ends) < 2:
        raise AdjCompressError(f"The stages of {type(network).__name__} cannot be guessed: name layers with --attention.")
    return tuple(ends[1:])


def check_attention(network: nn.Module, teacher: nn.Module, layers: Sequence[str], example: Tensor, classes: int) -> None:
    """Refuse layers that either network lacks, maps of different sizes, and a teacher of other classes."""
    for which, model in (("The network", network), ("The teacher", teacher)):
        known = dict(model.named_modules())
        for name in layers:
            if name not in known or not name:
                near = shortened(nearest_first(name, [other for other in known if other]), 5)
                raise AdjCompressError(f"--attention {name}: {which} has no layer of that name. Near it: {near}.")
    own, theirs = _sides(network, layers, example), _sides(teacher, layers, example)
    for name in layers:
        if name not in own or name not in theirs:
            raise AdjCompressError(f"--attention {name}: the layer gives no images (N, C, H, W), so it has no attention map.")
        if own[name] != theirs[name]:
            mine, others = ("x".join(map(str, sides[name])) for sides in (own, theirs))
            raise AdjCompressError(
                f"--attention {name}: the attention maps differ in size, {mine} and the teacher's {others}: name stages where "
                "both networks have the same resolution."
            )
    with torch.no_grad():
        found = teacher(example[:1]).shape[-1]
    if found != classes:
        raise AdjCompressError(f"The teacher knows {found} classes and the data has {classes}: give one trained on the same.")


def _sides(network: nn.Module, layers: Sequence[str], example: Tensor) -> dict[str, tuple[int, int]]:
    """Height and width of what each layer gives; without those that give no images."""
    sides: dict[str, tuple[int, int]] = {}

    def see(name: str, _input: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            sides[name] = (int(output.shape[2]), int(output.shape[3]))

    with evaluating(network), watching({name: network.get_submodule(name) for name in layers}, see):
        network(example[:1])
    return sides
