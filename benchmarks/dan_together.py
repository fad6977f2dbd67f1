"""Claim: inside one full network, searched widths are compared with uniform and random ones without the noise between runs.

Full networks of equal recipe and seed differ by a point or more from run to run, which is as much as widths of equal MACs do.
So here one full network is trained with several small ones in it, all at the MACs of uniform alpha 2 (or --alpha, or with
--cost latency at the latency that a table predicts it): uniform widths, random ones, and the same search's decided by two
rules: nearest to the expected widths (the tool's own) and the likeliest choice that meets the budget.

    python benchmarks/dan_together.py train --data cifar100-20k.npz --seed 0      # and other seeds
    python benchmarks/dan_together.py measure --data cifar100-20k.npz --seeds 0 1

And on a network whose widths nobody tuned (constant_width.py), where there is more to be found than in a ResNet's:

    python benchmarks/dan_together.py train --data cifar10-10k.npz --model constant_width:constant_width \\
        --slim '*' --random 3 --name dan_constant --folder dan-constant

Does a search justify its own choices, its weights learning at the widths that it prefers? One in which they learn at all widths
alike for half of it, and the small network from the first step:

    python benchmarks/dan_together.py train --data cifar100-20k.npz --warm-up 0.5 --schedule constant --search-epochs 8 \\
        --beside dan-together --plans expected other_expected uniform --epochs 8 --name dan_patient --folder dan-patient

--beside puts the widths that another folder's search found into the same full network. Under a latency, on every layer:

    adjcompress bench --table table.json --model resnet18 --image-size 32 --classes 100 --slim '*' --target one-core
    python benchmarks/dan_together.py train --data cifar100-20k.npz --cost latency --table table.json --alpha 4 --slim '*' \\
        --random 3 --search-epochs 6 --plans expected uniform random0 random1 random2 --epochs 8 \\
        --name dan_together_latency --folder dan-together-latency

All networks are then exported as well, and timed side by side on one thread.

Trainings are kept in --folder and resumed; `measure` writes results/dan_together.json, or by --name, and dan.md.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from dan import Job
from dan_page import write_page
from record import record
from training import fitted, timed

import adjcompress as ac
from adjcompress.adjoined.decision import decide
from adjcompress.methods import AdjoinedMethod, Method, SearchMethod
from adjcompress.training import recipe


def trained(job: Job, method: Method, epochs: int, folder: Path, **options: Any) -> ac.Run:
    """The finished run of `method` in `folder`; what was begun goes on."""
    chosen = recipe("cifar").changed(epochs=epochs)
    return fitted(method, job.data, chosen, folder, model=job.spec, seed=job.arguments.seed, **options)


def searched(run: ac.Run) -> SearchMethod:
    """A search as it ended."""
    method = run.method()
    assert isinstance(method, SearchMethod), method.name
    return method


def likeliest(search: SearchMethod) -> ac.WidthPlan:
    """The likeliest widths that meet the budget."""
    with torch.no_grad():
        scores = search.network.probabilities().clamp(min=1e-300).log().cpu().numpy()
    return search.found_at(decide(scores, search.counts, search.part_used)).plan


def waiting(part: float) -> type[SearchMethod]:
    """A search that chooses nothing for this part of it."""

    class Waiting(SearchMethod):
        warm_up = part

    return Waiting


def train(job: Job) -> None:
    """A search, and then one full network with the small ones of all plans in it."""
    arguments = job.arguments
    folder = arguments.folder / f"seed{arguments.seed}"
    budget = job.budget(arguments.alpha, arguments.cost)
    torch.manual_seed(arguments.seed)
    options = replace(job.options(budget), schedule=arguments.schedule)
    begun = waiting(arguments.warm_up).build(job.spec.build(), job.example, options)
    search = searched(trained(job, begun, arguments.search_epochs, folder / "search", phase_of=folder))
    plans = {"expected": search.decide().plan, "likeliest": likeliest(search), "uniform": job.uniform(arguments.alpha)}
    if arguments.beside is not None:
        other = searched(ac.open_run(arguments.beside / folder.name / "search"))
        plans |= {"other_expected": other.decide().plan, "other_likeliest": likeliest(other)}
    for number in range(arguments.random):
        name = "random" if arguments.random == 1 else f"random{number}"
        plans[name] = job.random_plan(budget, arguments.random * arguments.seed + number)
    if arguments.plans:
        plans = {name: plans[name] for name in arguments.plans}
    torch.manual_seed(arguments.seed)
    together = AdjoinedMethod(ac.adjoin(job.spec.build(), plans))
    trained(job, together, arguments.epochs, folder / "together")


def widths(plan: ac.WidthPlan) -> dict[str, int]:
    """Channels kept, of the groups that are cut."""
    return {group.name: group.kept for group in plan.groups if group.kept < group.channels}


def measure(job: Job) -> None:
    """Accuracies, costs and widths of all small networks, and their lead over uniform widths in the same full network."""
    arguments, rows = job.arguments, []
    for seed in arguments.seeds:
        run = ac.open_run(arguments.folder / f"seed{seed}" / "together")
        test, method = run.ended()["test"], run.method()
        assert isinstance(method, AdjoinedMethod), method.name
        plans, networks = method.network.plans, method.deployables()
        kinds = list(plans)
        counts = {name: ac.count(network, job.example) for name, network in networks.items()}
        row = {
            "seed": seed,
            "accuracy": {name: test[name]["accuracy"] for name in networks},
            "macs_part": {name: counts[name].macs / counts["full"].macs for name in kinds},
            "parameters": {name: count.parameters for name, count in counts.items()},
            "widths": {name: widths(plans[name]) for name in kinds},
        }
        if arguments.cost == "latency":
            row["predicted_ms"] = {name: job.predicted_ms(network) for name, network in networks.items()}
            row["timed"] = timed(networks, run.folder, job.data.preprocessing.example(7), arguments.duration)
        rows.append(row)
    over = {name: [row["accuracy"][name] - row["accuracy"]["uniform"] for row in rows] for name in kinds}
    figures = {
        "model": arguments.model,
        "data": Path(arguments.data).stem,
        "alpha": arguments.alpha,
        "cost": arguments.cost,
        "budget": job.budget(arguments.alpha, arguments.cost),
        "slim": arguments.slim,
        "images": len(job.data.train),
        "recipe": run.config["recipe"],
        "search_epochs": arguments.search_epochs,
        "warm_up": arguments.warm_up,
        "schedule": arguments.schedule,
        "over_uniform_mean": {name: mean(values) for name, values in over.items()},
        "over_uniform_deviation": {name: stdev(values) for name, values in over.items()} if len(rows) > 1 else None,
        "rows": rows,
    }
    rounds = f"; {rows[0]['timed']['full']['rounds']} rounds of timing" if arguments.cost == "latency" else ""
    record(arguments.name, figures, f"{len(rows)} seed" + "s" * (len(rows) > 1) + rounds)
    write_page()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["train", "measure"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--random", type=int, default=1, help="random plans in each full network")
    parser.add_argument("--alpha", type=float, default=2.0)
    parser.add_argument("--cost", choices=["macs", "latency"], default="macs")
    parser.add_argument("--table", type=Path, default=Path("table.json"), help="with --cost latency")
    parser.add_argument("--slim", nargs="+", help="layers that may be cut, as for train")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--search-epochs", type=int, default=10)
    parser.add_argument("--warm-up", type=float, default=SearchMethod.warm_up, help="part of the search that chooses nothing")
    parser.add_argument("--schedule", default="quadratic", help="of the divergence's weight in the search")
    parser.add_argument("--beside", type=Path, help="folder of another search, whose widths are trained too")
    parser.add_argument("--plans", nargs="+", help="of all plans only these, for a shorter training: expected uniform ...")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="measure: the seeds that were trained")
    parser.add_argument("--duration", type=float, default=30.0, help="measure, with --cost latency: seconds")
    parser.add_argument("--name", default="dan_together", help="measure: of the result")
    parser.add_argument("--folder", type=Path, default=Path("dan-together"))
    arguments = parser.parse_args()
    {"train": train, "measure": measure}[arguments.what](Job(arguments))


if __name__ == "__main__":
    main()
