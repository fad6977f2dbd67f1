"""Do a shared trunk and a widened network do what they should? Tried out on a copy with random values, in double precision."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from adjcompress.adjoined.network import AdjoinedNetwork, RandomMask
from adjcompress.adjoined.trunk import outermost_before
from adjcompress.adjoined.widen import widen_
from adjcompress.errors import AdjCompressError, shortened
from adjcompress.widths.check import randomised
from adjcompress.widths.plan import WidthPlan

_TOLERANCE = 1e-6  # of the largest logit; double precision leaves about 1e-13


def trunk_of(full: nn.Module, plans: Collection[WidthPlan], example: Tensor) -> tuple[str, ...]:
    """The outermost modules that `full` has done with before the first layer runs that any of `plans` cuts, in their order.

    All that they compute is the same in every network whose normalisation there is the same. `example` is a batch
    (N, C, H, W). A network that begins with a layer that is cut, a module with parameters that runs again later or with a
    forward hook, and one whose later layers change in place what the trunk computed, are AdjCompressErrors.
    """
    trunk = outermost_before(full, plans, example)
    check_trunk(full, {f"small{number}": plan for number, plan in enumerate(plans)}, trunk, example)
    return trunk


def check_trunk(
    full: nn.Module, plans: Mapping[str, WidthPlan], trunk: Sequence[str], example: Tensor, mask: RandomMask | None = None
) -> None:
    """Raise an AdjCompressError where small networks do not go on from `trunk` as they would by themselves, or cannot learn.

    `example` is a batch (N, C, H, W), of which the shape counts.
    """
    network, images = _copy(full, plans, trunk, example, mask)
    try:
        outputs = network.train()(images)
        torch.stack([logits.square().sum() for logits in (outputs.full, *outputs.smalls.values())]).sum().backward()
        fits = True
    except RuntimeError:  # a layer changed in place what the trunk computed, and another's gradient needs it
        fits = False
    with torch.no_grad():
        smalls = network.eval()(images).smalls
        fits = fits and all(_equal(logits, network.extract(name)(images)) for name, logits in smalls.items())
    if not fits:
        raise AdjCompressError(
            f"--trunk shared does not fit {type(full).__name__}: its layers change in place what the trunk computed. "
            "Leave --trunk out."
        )


def check_widening(
    full: nn.Module,
    plans: Mapping[str, WidthPlan],
    trunk: Sequence[str],
    example: Tensor,
    widen: str,
    mask: RandomMask | None = None,
) -> None:
    """Raise an AdjCompressError where a widened full network would compute something else than the widest small one.

    And where it would be widened in frozen weights.
    """
    network, images = _copy(full, plans, trunk, example, mask)
    frozen = {name: tensor.clone() for name, tensor in network.full.named_parameters() if not tensor.requires_grad}
    name = network.by_size()[-1]
    widen_(network, name, images, copies=widen == "copies")
    changed = [name for name, before in frozen.items() if not torch.equal(network.full.get_parameter(name), before)]
    if changed:
        raise AdjCompressError(f"--widen {widen} would change {shortened(changed)}, which is frozen. Leave --widen out.")
    with torch.no_grad():
        outputs = network.eval()(images)
    if not _equal(outputs.full, outputs.smalls[name]):
        raise AdjCompressError(
            f"--widen {widen} does not fit here: the full {type(full).__name__} would compute something else than its small "
            "network, as it does with layer norms, with --beta, and where layers pick channels. Leave --widen out."
        )


def _copy(
    full: nn.Module, plans: Mapping[str, WidthPlan], trunk: Sequence[str], example: Tensor, mask: RandomMask | None
) -> tuple[AdjoinedNetwork, Tensor]:
    """An adjoined network of random values, each network's own apart, and random images of the example's shape, two or more."""
    network, random = AdjoinedNetwork(randomised(full), plans, mask, trunk).double(), torch.Generator().manual_seed(0)
    for name, small in network.smalls.items():
        buffers = [(tensor, buffer) for tensor, buffer in small.named_buffers() if tensor not in plans[name].cuts]
        for _, tensor in (*small.named_parameters(), *buffers):
            if tensor.is_floating_point():  # a variance stays positive
                tensor.data += torch.rand(tensor.shape, generator=random, dtype=torch.double).to(tensor)
    batch = max(2, len(example))  # of one image and one place, batch norm has no statistics in training
    images = torch.randn((batch, *example.shape[1:]), generator=random, dtype=torch.double)
    return network, images.to(next(network.parameters()).device)


def _equal(first: Tensor, second: Tensor) -> bool:
    return bool((first - second).abs().max() <= _TOLERANCE * first.abs().max())
