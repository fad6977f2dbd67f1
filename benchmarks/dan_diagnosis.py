"""Claim: what reaches the logits of a width search tells, group by group, what width is worth.

Reads a finished search, with its weights, and looks at it with the budget off, on the held-out images:

- gradient: with all logits at zero, tilted to the budget, the slope of the divergence by each group's step towards wider, over
  the slope of its multiply-adds, at the temperatures of the search's beginning, middle and end.
- truth: around the same uniform widths, one-hot, the divergence of a group's next narrower candidate less that of its next
  wider one, over the multiply-adds between them. Both rank the groups: their rank correlation says whether the gradient's order
  is the right one.
- spread and annealing: how probable the likeliest candidate of each group is at the end, and the expected widths by epoch.

    python benchmarks/dan_diagnosis.py --run dan-constant/seed0/search
    python benchmarks/dan_diagnosis.py --run dan-together/seed0/search --name dan_diagnosis_resnet18

Weights that learnt in a search learnt at the widths it came to prefer. To see whether that makes them the better ones, the same
network learns first in a search that never chooses, so that all widths learn alike at the budget:

    python benchmarks/dan_diagnosis.py --run all-widths --all-widths 4 --data cifar100-20k.npz --name dan_diagnosis_all_widths

Writes results/dan_diagnosis.json, or by --name, and dan.md.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dan import Job
from dan_page import write_page
from dan_together import trained
from record import record
from torch import Tensor

import adjcompress as ac
from adjcompress.adjoined import adjoint_loss
from adjcompress.data import Central, evaluation_batches
from adjcompress.methods import SearchMethod

BATCH, DRAWS, SEED, ALPHA = 125, 8, 0, 2.0


class AllWidths(SearchMethod):
    """A search that never chooses."""

    warm_up = 1.0


def learn_all_widths(arguments: argparse.Namespace) -> None:
    """The run of such a search, in --run; what was begun goes on."""
    arguments.folder = arguments.run.parent
    job = Job(arguments)
    torch.manual_seed(SEED)
    search = AllWidths.build(job.spec.build(), job.example, job.options(job.budget(ALPHA, "macs")))
    trained(job, search, arguments.all_widths, arguments.run, phase_of=arguments.run)


def batches_of(data: ac.ImageData) -> list[tuple[Tensor, Tensor]]:
    """The held-out images as the network sees them, and their labels."""
    found = evaluation_batches(data.validation, Central(data.preprocessing), BATCH, torch.device("cpu"))
    return [(data.preprocessing.normalise(images), labels) for images, labels in found]


def gradients(search: SearchMethod, batches: list[tuple[Tensor, Tensor]], temperature: float) -> Tensor:
    """The divergence's slope by each group's logits along wider, for every batch and draw: (batches x draws, groups)."""
    network = search.network
    rows: list[Tensor] = []
    for images, labels in batches:
        for _ in range(DRAWS):
            network.logits.grad = None
            outputs = network(images, network.draw(temperature))
            adjoint_loss(outputs.full, outputs.smalls, labels, 1.0, detach=True).divergence.backward()
            assert network.logits.grad is not None
            rows.append((network.logits.grad.double() * network.place).sum(1))
    return torch.stack(rows)


@torch.no_grad()
def divergence(search: SearchMethod, batches: list[tuple[Tensor, Tensor]], choice: list[int]) -> float:
    """The mean divergence at a one-hot choice, a candidate's number for every group."""
    network = search.network
    one_hot = torch.zeros_like(network.logits)
    one_hot[torch.arange(len(choice)), torch.tensor(choice)] = 1
    losses = []
    for images, labels in batches:
        outputs = network(images, one_hot)
        losses.append(float(adjoint_loss(outputs.full, outputs.smalls, labels, 1.0).divergence))
    return float(np.mean(losses))


def macs(search: SearchMethod, choice: list[int]) -> float:
    return float(search.costs["macs"].exact(np.array([choice]))[0])


def truths(search: SearchMethod, batches: list[tuple[Tensor, Tensor]], uniform: list[int]) -> list[float]:
    """For each group: what a multiply-add lowers the divergence by, between its narrower and its wider neighbour."""
    found = []
    for group in range(len(uniform)):
        ends = [[*uniform[:group], uniform[group] + move, *uniform[group + 1 :]] for move in (-1, 1)]
        narrower, wider = (divergence(search, batches, end) for end in ends)
        found.append((narrower - wider) / (macs(search, ends[1]) - macs(search, ends[0])))
    return found


def rank_correlation(first: Any, second: Any) -> float:
    """Spearman's: the correlation of the ranks; there are no ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a finished search")
    parser.add_argument("--all-widths", type=int, metavar="EPOCHS", help="make that run first, of a search that never chooses")
    parser.add_argument("--data", help="with --all-widths")
    parser.add_argument("--model", default="resnet18", help="with --all-widths")
    parser.add_argument("--name", default="dan_diagnosis", help="of the result")
    parser.set_defaults(slim=None, seed=SEED)
    arguments = parser.parse_args()
    if arguments.all_widths:
        learn_all_widths(arguments)
    torch.manual_seed(SEED)
    run = ac.open_run(arguments.run)
    search = run.method()
    assert isinstance(search, SearchMethod)
    data = run.data()
    batches, free = batches_of(data), search.network.free
    ended = [round(float(row.max()), 4) for row in search.network.probabilities().detach()]
    fresh = copy.deepcopy(search)
    with torch.no_grad():
        fresh.network.logits.zero_()
    fresh.start_at_budget_()
    fresh.network.train()  # batch statistics, as in the search; its own copy
    uniform = [int(np.searchsorted(each.widths, each.group.channels / 2 - 1e-9)) for each in free]
    _, slope = fresh.expected_part()
    per_cost = (slope * fresh.network.place).sum(1) * fresh.limits[0].most
    truth = truths(fresh, batches, uniform)
    figures: dict[str, Any] = {"model": run.config["model"], "data": Path(data.spec.source).stem, "draws": DRAWS}
    figures |= {"images": len(data.validation), "epochs": run.config["recipe"]["epochs"]}
    figures["chose"] = not arguments.all_widths
    figures["uniform_divergence"] = divergence(fresh, batches, uniform)
    figures["groups"] = [each.group.name for each in free]
    figures["truth_per_gmac"] = [value * 1e9 for value in truth]
    figures["by_temperature"] = []
    for progress in (0.2, 0.6, 1.0):
        temperature = fresh.temperature_at(progress)
        rows = gradients(fresh, batches, temperature)
        mean, deviation = rows.mean(0), rows.std(0)
        worth = -mean / per_cost
        figures["by_temperature"].append(
            {
                "progress": progress,
                "temperature": temperature,
                "worth_per_gmac": (worth * 1e9).tolist(),
                "wider_helps": int((mean < 0).sum()),
                "signal_to_noise_of_a_step": (mean.abs() / deviation).tolist(),
                "rank_correlation": rank_correlation(worth.numpy(), truth),
            }
        )
    figures["likeliest_at_end"] = ended
    figures["widths_by_epoch"] = [list(line["search"]["widths"].values()) for line in run.log()]
    record(arguments.name, figures, f"{len(batches)} batches of {BATCH} and {DRAWS} draws")
    write_page()


if __name__ == "__main__":
    main()
