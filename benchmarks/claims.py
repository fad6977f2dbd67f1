"""Claim: what the papers claim of parameters, multiply-adds, speed and files holds as stated here, by one command.

The papers: P1, "Better Together: ResNet-50 accuracy with 13x fewer parameters and at 3x speed", the first version of
arXiv:2006.05624, and P2, its present one. Parameters are counted as P1 counts, convolution weights and one parameter for
each output channel, and with both parameters of batch norm; speed is what benchmarks/latency.py measured on this machine's
CPU. A file of a network thinned by r_beta is written three ways and read again.

    python benchmarks/claims.py

prints the table, and writes results/claims.json and claims.md. Accuracy is what benchmarks/accuracy.py measured; the papers'
own setting needs its protocol gpu.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from claims_accuracy import accuracy_rows, log_rows, loss_rows, schedule_rows
from paper_counts import CLAIMS, published_count, small_of
from record import RESULTS, no_options, record
from shown import measured_on
from torch import Tensor, nn

import adjcompress as ac
from adjcompress.adjoined.masks import r_beta_mask
from adjcompress.files import write_text

SOURCES = {
    "13.7x": "P1, ImageNet",
    "11.5x": "P1, ImageNet, classifier included",
    "99.7x": "P1, CIFAR-100",
    "95x": "P1, CIFAR-100, classifier included",
    "49x": "P1, CIFAR-100",
}
# claim of speed: source, stem, alpha
SPEED = {"3x": ("P1, title", 4), "5x": ("P1, CIFAR-100", 16)}
SPARSE = ("resnet50", 100, 16, 0.9)


def parameter_rows() -> list[dict[str, Any]]:
    """The published ratios, counted in both ways."""
    rows = []
    for claim, (name, classes, alpha, beta, classifier, _) in CLAIMS.items():
        full, small = small_of(name, classes, alpha, torch.zeros(1, 3, 224, 224))
        ratios = [published_count(full, classifier, each) / published_count(small, classifier, each, beta) for each in (1, 2)]
        dense = [published_count(full, classifier, each) / published_count(small, classifier, each) for each in (1, 2)]
        note = (
            f", r_beta's random zeros among them: dense, this small network has {dense[0]:.2f}x and {dense[1]:.2f}x"
            if beta
            else ""
        )
        rows.append(
            {
                "claim": f"{claim} fewer parameters",
                "source": SOURCES[claim],
                "setting": f"{name}, alpha {alpha}" + (f", beta {beta:g}" if beta else ""),
                "found": f"{ratios[0]:.2f}x as P1 counts, {ratios[1]:.2f}x with both parameters of batch norm{note}",
                "figures": {"as_published": ratios[0], "both_bn": ratios[1], "dense": dense[0], "dense_both_bn": dense[1]},
                "command": "python benchmarks/claims.py",
            }
        )
    _, small = small_of("xresnet50", 1000, 4, torch.zeros(1, 3, 224, 224))
    counts = ac.count(small, torch.zeros(1, 3, 224, 224))
    bare = counts.parameters - sum(parameter.numel() for parameter in small.get_submodule("fc").parameters())
    rows.append(
        {
            "claim": "1.8 M parameters and 1.6 G multiply-adds",
            "source": "P2, ImageNet",
            "setting": "xresnet50 (deep stem), alpha 4",
            "found": f"{bare:,} without the classifier ({counts.parameters:,} with it), {counts.macs / 1e9:.3f} G",
            "figures": {"without_fc": bare, "parameters": counts.parameters, "macs": counts.macs},
            "command": "python benchmarks/claims.py",
        }
    )
    return rows


def speed_rows() -> list[dict[str, Any]]:
    """The published speeds beside what latency.py measured, and beside the bound that multiply-adds set."""
    measured = json.loads((RESULTS / "latency.json").read_text())
    rows = []
    for claim, (source, alpha) in SPEED.items():
        for network, stem in (("resnet50", "7x7 stem"), ("xresnet50", "deep stem")):
            full, small = small_of(network, 1000, alpha, torch.zeros(1, 3, 224, 224))
            example = torch.zeros(1, 3, 224, 224)
            bound = ac.count(full, example).macs / ac.count(small, example).macs
            found = {
                threads: measured["figures"]["cpu"][f"{network}-alpha{alpha}, {threads} threads"]["times_faster"]
                for threads in (1, 2)
            }
            rows.append(
                {
                    "claim": f"{claim} faster",
                    "source": source,
                    "setting": f"{network} ({stem}), alpha {alpha}, 224 px, ONNX Runtime, batch 1",
                    "found": f"{found[1]:.2f}x on one thread, {found[2]:.2f}x on two: "
                    f"{verdict(float(claim.removesuffix('x')), found.values())}; {bound:.2f}x fewer multiply-adds",
                    "figures": {"one_thread": found[1], "two_threads": found[2], "fewer_macs": bound},
                    "command": measured["command"],
                }
            )
            rows += gpu_rows(claim, source, alpha, network, stem)
    return rows


def verdict(claimed: float, found: Iterable[float]) -> str:
    """Whether what was measured is what was claimed."""
    reached = [each >= claimed for each in found]
    return "reached" if all(reached) else "reached in part" if any(reached) else "not reached"


def gpu_rows(claim: str, source: str, alpha: int, network: str, stem: str) -> list[dict[str, Any]]:
    """A published speed beside what throughput.py measured on a GPU, where it was run on one."""
    path = RESULTS / "throughput.json"
    if not path.is_file():
        return []
    measured = json.loads(path.read_text())
    row = measured["figures"][network][f"alpha{alpha}"]
    return [
        {
            "claim": f"{claim} faster",
            "source": source,
            "setting": f"{network} ({stem}), alpha {alpha}, 224 px, torch, {measured['machine']['gpu']}",
            "found": f"{row['times_faster']:.2f}x at batch 1, {row['times_the_images']:.2f}x the images/s at the best batches",
            "figures": {key: row[key] for key in ("times_faster", "times_the_images", "best_batch")},
            "command": measured["command"],
        }
    ]


def searched_rows() -> list[dict[str, Any]]:
    """What the second paper says of searched widths, beside the plan that dan.py decided at these costs."""
    result = json.loads((RESULTS / "dan_papers.json").read_text())
    figures = result["figures"]
    return [
        {
            "claim": "3.8x fewer parameters and 2.2x fewer multiply-adds by searched widths",
            "source": "P2, ImageNet",
            "setting": f"{figures['model']}, budgets {' and '.join(figures['budgets'])}, searched on {figures['searched_on']}",
            "found": f"{figures['parameters_fewer']:.2f}x and {figures['macs_fewer']:.2f}x, exact counts; accuracy not run",
            "figures": {key: figures[key] for key in ("parameters_fewer", "macs_fewer")},
            "command": result["command"],
        }
    ]


def sparse_rows() -> list[dict[str, Any]]:
    """What a file of an r_beta network takes, written three ways, each read again to the same weights."""
    name, classes, alpha, beta = SPARSE
    torch.manual_seed(0)
    full = ac.create_model(name, classes)
    plan = ac.plan_widths(full, torch.zeros(1, 3, 224, 224), alpha)
    network = ac.adjoin(full, {"small": plan}, ac.RandomMask(beta, seed=0)).extract("small")
    state = {key: tensor.detach() for key, tensor in network.state_dict().items()}
    masks = {key: tensor for key in state if (tensor := mask_of(network, plan, key, beta)) is not None}
    with tempfile.TemporaryDirectory() as folder:
        sizes = {}
        for way in ("dense", "values and seed", "values and bitmap"):
            path = Path(folder) / "small.safetensors"
            safetensors.torch.save_file(packed(state, masks, way), path)
            shapes = {key: tensor.shape for key, tensor in state.items()}
            again = unpacked(safetensors.torch.load_file(path), shapes, set(masks), way)
            assert all(torch.equal(again[key], state[key]) for key in state), way
            sizes[way] = path.stat().st_size
    kept = sum(int(mask.sum()) for mask in masks.values())
    whole = 4 * sum(tensor.numel() for tensor in full.state_dict().values())
    text = ", ".join(
        f"{way} {size / 1e6:.3f} MB ({whole / size:.1f}x smaller than the full network's)" for way, size in sizes.items()
    )
    return [
        {
            "claim": "r_beta makes small files",
            "source": "P1",
            "setting": f"{name}, {classes} classes, alpha {alpha}, beta {beta:g}",
            "found": f"{text}; each read again to the same weights, of which {kept:,} of the thinned layers are kept",
            "figures": {"bytes": sizes, "kept": kept},
            "command": "python benchmarks/claims.py",
        }
    ]


def mask_of(network: nn.Module, plan: ac.WidthPlan, key: str, beta: float) -> Tensor | None:
    """The mask of a tensor of the small network; None where it has none."""
    tensor = network.state_dict()[key]
    if 0 not in plan.cuts.get(key, {}) or tensor.ndim < 2:
        return None
    return drawn(tensor.shape, beta, 0, key)


def drawn(shape: torch.Size, beta: float, seed: int, key: str) -> Tensor:
    """The mask of a tensor, drawn from its seed as in training."""
    return r_beta_mask(shape, beta, seed, f"small/{key}").bool()


def packed(state: dict[str, Tensor], masks: dict[str, Tensor], way: str) -> dict[str, Tensor]:
    """The tensors of a file: of thinned ones the values that are kept, and bits or a seed that say which."""
    if way == "dense":
        return {key: tensor.contiguous() for key, tensor in state.items()}
    found = {key: tensor[masks[key]] if key in masks else tensor.contiguous() for key, tensor in state.items()}
    if way == "values and bitmap":
        bits = {f"{key}.bits": torch.from_numpy(np.packbits(mask.flatten().numpy())) for key, mask in masks.items()}
        return {**found, **bits}
    return {**found, "seed": torch.tensor(0), "beta": torch.tensor(SPARSE[3], dtype=torch.double)}


def unpacked(file: dict[str, Tensor], shapes: dict[str, torch.Size], thinned: set[str], way: str) -> dict[str, Tensor]:
    """The state that a file stands for, its tensors of these `shapes`, those in `thinned` thinned."""
    if way == "dense":
        return file
    again = {}
    for key, shape in shapes.items():
        if key not in thinned:
            again[key] = file[key]
            continue
        if way == "values and bitmap":
            bits = np.unpackbits(file[f"{key}.bits"].numpy(), count=shape.numel())
            mask = torch.from_numpy(bits).bool().view(shape)
        else:
            mask = drawn(shape, file["beta"].item(), int(file["seed"]), key)
        again[key] = torch.zeros(shape).masked_scatter(mask, file[key])
    return again


def page() -> str:
    """results/claims.md, from claims.json and from what measured the speeds."""
    result, speeds = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("claims", "latency"))
    rows = result["figures"]["rows"]
    about = f"Rendered from claims.json. Counts do not depend on the machine. Speeds: {measured_on(speeds)}; medians."
    lines = ["# The papers' claims", "", about, ""]
    lines += ["| claim | from | setting | what we get | command |", "| --- | --- | --- | --- | --- |"]
    keys = ("claim", "source", "setting", "found")
    lines += [f"| {' | '.join(row[key] for key in keys)} | `{row['command']}` |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    no_options(__doc__)
    rows = [
        *parameter_rows(),
        *speed_rows(),
        *searched_rows(),
        *accuracy_rows(),
        *log_rows(),
        *loss_rows(),
        *schedule_rows(),
        *sparse_rows(),
    ]
    for row in rows:
        print(f"{row['claim']} ({row['source']}; {row['setting']}): {row['found']}")
    record("claims", {"rows": rows}, "counts exact; speed: see latency.json")
    write_text(RESULTS / "claims.md", page())


if __name__ == "__main__":
    main()
