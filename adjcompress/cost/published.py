"""How many "mult-adds" would arXiv:1906.00859 count?

Its figures hold more than MACs: the elements that enter every ReLU module, k^2 for each output element of a pooling module,
and the classifier with its bias. Functional pooling counts nothing.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from adjcompress.cost.materialise import materialised
from adjcompress.running import watching


def mult_adds(network: nn.Module, example: Tensor, global_pool: bool = False) -> int:
    """The published count for one image of `example` (N, C, H, W).

    `global_pool`: count adaptive pooling to one pixel as a window of the whole image. The authors' WRN-50-2 pools by such a
    window, their DARTS network adaptively, which counts nothing.
    """
    network = materialised(copy.deepcopy(network).to("meta").eval())
    modules, total = dict(network.named_modules()), 0

    def see(name: str, inputs: Any, output: Any) -> None:
        nonlocal total
        module = modules[name]
        if isinstance(module, nn.Conv2d):
            total += output[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.ReLU):
            total += inputs[0].numel()
        elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            sides = module.kernel_size if isinstance(module.kernel_size, tuple) else (module.kernel_size,) * 2
            total += output[0].numel() * math.prod(sides)
        elif isinstance(module, nn.AdaptiveAvgPool2d) and global_pool:
            total += inputs[0].numel()
        elif isinstance(module, nn.Linear):
            total += module.weight.numel() + module.out_features

    with torch.no_grad(), watching(modules, see):
        network(torch.zeros(1, *example.shape[1:], device="meta"))
    return total
