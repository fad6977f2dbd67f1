"""What are the means of an epoch's losses?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning_fabric import Fabric
from torch import Tensor

_COUNT = "images of "


class Meter:
    """Means of scalars over those images of an epoch that had them, summed on their device.

    `sums` are those of the first process when the epoch was stopped; the others, not `first`, begin at 0 with the same names.
    """

    def __init__(self, sums: Mapping[str, float], first: bool = True) -> None:
        found = {name: value if first else 0.0 for name, value in sums.items()}
        if (images := found.pop("images", None)) is not None:  # as versions before kept it, of all names together
            found |= {f"{_COUNT}{name}": images for name in list(found)}
        self._sums: dict[str, Tensor | float] = dict(found)
        self._latest: Tensor | None = None

    def add(self, terms: Mapping[str, Tensor], images: int) -> None:
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach().double() * images
            self._sums[f"{_COUNT}{name}"] = self._sums.get(f"{_COUNT}{name}", 0.0) + images
        self._latest = terms["loss"].detach()

    @property
    def latest(self) -> Tensor:
        """The last batch's loss, still on its device: reading it waits for the step."""
        assert self._latest is not None
        return self._latest

    def sums(self) -> dict[str, float]:
        return {name: float(value) for name, value in self._sums.items()}

    def means(self, fabric: Fabric) -> dict[str, float]:
        """Means over the images of all processes."""
        sums = self.sums()
        names = sorted(sums)
        total = fabric.all_reduce(torch.tensor([sums[name] for name in names], device=fabric.device), reduce_op="sum")
        assert isinstance(total, Tensor)
        by_name = dict(zip(names, total.tolist(), strict=True))
        return {name: by_name[name] / by_name[f"{_COUNT}{name}"] for name in names if not name.startswith(_COUNT)}
