"""How is a network built again from plain data?"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from adjcompress.errors import AdjCompressError
from adjcompress.models import ModelSpec
from adjcompress.substitutes import Substitution, apply_substitution
from adjcompress.widths import WidthPlan, slice_model


def rebuild(
    model: ModelSpec, plan: WidthPlan | None, state: Mapping[str, Tensor], substitution: Substitution | None = None
) -> nn.Module:
    """Build a network from its spec, substitution and plan, and fill it with `state`; an error where they do not fit."""
    network = model.build()
    if substitution is not None:
        network = apply_substitution(network, substitution, approximate=False)
    if plan is not None:
        network = slice_model(network, plan)
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise AdjCompressError(f"{model.name} does not rebuild this network: {' '.join(lines[1:2])}") from error
    return network
