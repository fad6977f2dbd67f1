"""Claim: making the weights of tensor-train layers costs at most 15 % of a WRN-28-10 training step.

A step of the network with each reconstructed substitute over a step of the same network with dense pointwise layers, side by
side and interleaved; and from which size on ACDC's transform is faster by FFT than by a matrix product.

    python benchmarks/substitute_step.py

writes results/substitute_step.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from clock import milliseconds
from record import record
from torch import Tensor, nn

import adjcompress as ac
from adjcompress.bench.summary import speedup
from adjcompress.cost.materialise import materialised
from adjcompress.substitutes import weights_made_once
from adjcompress.substitutes.acdc import _dct_by_fft, dct_matrix

SETTINGS = (("tensor_train", 0.7), ("tucker", 0.67), ("hashed", 0.05), ("acdc", 2))


def stepper(network: nn.Module, batch: int) -> Callable[[], None]:
    """A whole training step: forward, backward, SGD."""
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    optimizer = torch.optim.SGD(network.train().parameters(), 1e-4, 0.9)

    def step() -> None:
        with weights_made_once(network):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def forward_and_backward(transform: Callable[..., Tensor], *inputs: Tensor) -> None:
    transform(*inputs).sum().backward()


def transforms(sizes: list[int], rounds: int) -> list[dict[str, float]]:
    """Forward and backward of one transform of `size` rows, by both ways."""
    found = []
    for size in sizes:
        rows = torch.randn(size, size, requires_grad=True)
        matrix = dct_matrix(size, rows)
        ways = {
            "product": partial(forward_and_backward, lambda rows, matrix: rows @ matrix.T, rows, matrix),
            "fft": partial(forward_and_backward, _dct_by_fft, rows),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                times[name].append(milliseconds(way))
        found.append({"size": size, **{f"{name}_ms": sorted(values)[rounds // 2] for name, values in times.items()}})
        print(found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    dense = ac.create_model("wrn_28_10", 10)
    rows = []
    for name, setting in SETTINGS:
        network = ac.substitute(dense, name, setting, approximate=False)
        steps = {"dense": stepper(materialised(network), arguments.batch), name: stepper(network, arguments.batch)}
        times: dict[str, list[float]] = {which: [] for which in steps}
        for step in steps.values():
            step()
        for _ in range(arguments.rounds):
            for which, step in steps.items():
                times[which].append(milliseconds(step))
        ratio = speedup([times[name]], [times["dense"]])
        rows.append(
            {"substitute": name, "setting": setting, "ratio": ratio.value, "low": ratio.low, "high": ratio.high, "times": times}
        )
        print(f"{name} {setting}: {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] dense steps", flush=True)
    figures = {
        "network": "wrn_28_10",
        "batch": arguments.batch,
        "threads": arguments.threads,
        "rows": rows,
        "transforms": transforms([128, 320, 640, 1024, 2048], 9),
    }
    record("substitute_step", figures, f"{arguments.rounds} steps each, interleaved")


if __name__ == "__main__":
    main()
