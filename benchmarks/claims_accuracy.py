"""What the papers claim of accuracy, and their authors' logs, beside what accuracy.py measured: rows of claims.md."""

from __future__ import annotations

import json
import re
from statistics import mean
from typing import Any

from accuracy_ways import results_of

ACCURACY = (
    ("the full network gains 3.58 (ResNet-50) and 5.55 points (ResNet-18)", "P1, CIFAR-100", "full", "standard", "full"),
    ("the small network is at most 1.4 points below the full one alone", "P1", "small", "standard", "full"),
    ("the small network beats one taught by the full one", "P1, all cases but one", "small", "distill", "small"),
)
"""Claims of accuracy: in words, from where, of which network, beside which way's, and beside which network of that."""


LOGS = {
    "standard": {"full": 66.84},
    "adjoined4": {"full": 68.01, "alpha4": 66.23},
    "adjoined16": {"full": 69.81, "alpha16": 65.15},
}
"""Top-1 at the end of the authors' own logs, by way and network."""
SCHEDULES = {"cosine": (-2.86, -3.14), "linear": (-0.10, -0.15), "exponential": (-0.37, 0.38)}
"""Points of the full and of the small network by other schedules of the divergence's weight, against the quadratic."""
AUTHORS = "P1, the authors' logs, CIFAR-100, ResNet-50, 150 epochs"


def log_rows() -> list[dict[str, Any]]:
    """What the authors' logs end at, beside ours by their own setting."""
    measured = [row for figures in measured_by("gpu") if full_length(figures) for row in figures["rows"]]
    rows = []
    for way, scores in LOGS.items():
        own = [row for row in measured if row["way"] == way]
        ours = {label: 100 * mean(row["test"][label] for row in own) for label in scores} if own else {}
        rows.append(
            {
                "claim": f"{way}: {shown(scores)}",
                "source": AUTHORS,
                "setting": "protocol gpu",
                "found": f"{shown(ours)} (seed {', '.join(str(row['seed']) for row in own)})" if own else "not run",
                "figures": ours,
                "command": "python benchmarks/accuracy.py measure --protocol gpu --data cifar100.npz",
            }
        )
    return rows


def loss_rows() -> list[dict[str, Any]]:
    """How the full network's validation loss goes in the authors' logs, and in ours by every protocol that was run."""
    rows = []
    for figures in measured_by("gpu", "cpu"):
        ends: dict[str, tuple[float, int, float, int]] = {}
        for row in sorted(figures["rows"], key=lambda row: row["seed"]):
            if row["way"] == "standard" or re.fullmatch(r"adjoined\d+", row["way"]):
                losses = [point["loss"]["full"] for point in row["curve"]]
                ends.setdefault(row["way"], (min(losses), losses.index(min(losses)) + 1, losses[-1], row["seed"]))
        if len(ends) > 1 and "standard" in ends:
            each = (
                f"{way}: least {least:.3f} after epoch {at}, {last:.3f} at the end (seed {seed})"
                for way, (least, at, last, seed) in ends.items()
            )
            rows.append(
                {
                    "claim": "the full network's validation loss rises from epoch 17 on; in adjoined training it keeps falling",
                    "source": AUTHORS,
                    "setting": setting(figures),
                    "found": "; ".join(each),
                    "figures": ends,
                    "command": figures["command"],
                }
            )
    return rows


def schedule_rows() -> list[dict[str, Any]]:
    """What another schedule than the quadratic gives both networks, beside ours by every protocol that was run."""
    rows = []
    for figures in measured_by("gpu", "cpu"):
        tests: dict[str, dict[int, dict[str, float]]] = {}
        for row in figures["rows"]:
            tests.setdefault(row["way"], {})[row["seed"]] = row["test"]
        alpha = figures["small"]
        quadratic = tests.get(f"adjoined{alpha.removeprefix('alpha')}", {})
        for name, told in SCHEDULES.items():
            seeds = sorted(tests.get(name, {}).keys() & quadratic.keys())
            if not seeds:
                continue
            gains = {
                label: 100 * mean(tests[name][seed][label] - quadratic[seed][label] for seed in seeds)
                for label in ("full", alpha)
            }
            rows.append(
                {
                    "claim": f"{name} schedule in place of the quadratic: full {told[0]:+.2f}, small {told[1]:+.2f} points",
                    "source": "P1 Table 13, CIFAR-100, ResNet-18, alpha 4",
                    "setting": f"{setting(figures)}, {alpha.replace('alpha', 'alpha ')}, seed {', '.join(map(str, seeds))}",
                    "found": ", ".join(f"{label} {gain:+.2f}" for label, gain in gains.items()) + " points",
                    "figures": gains,
                    "command": figures["command"],
                }
            )
    return rows


def shown(scores: dict[str, float]) -> str:
    """Top-1 of each network."""
    return ", ".join(f"{label} {score:.2f} %" for label, score in scores.items())


def measured_by(*protocols: str) -> list[dict[str, Any]]:
    """What accuracy.py measured by these protocols, for each length that they were run for."""
    contents = [json.loads(path.read_text()) for path in results_of(*protocols)]
    return [{**content["figures"], "command": content["command"]} for content in contents]


def full_length(figures: dict[str, Any]) -> bool:
    """Whether it was run for as long as the protocol asks."""
    return bool(figures["recipe"]["epochs"] == figures["protocols_epochs"])


def setting(figures: dict[str, Any]) -> str:
    """What was trained, on what, for how long."""
    return f"{figures['model']}, CIFAR-100 ({figures['images']:,} images), {figures['recipe']['epochs']} epochs"


def accuracy_rows() -> list[dict[str, Any]]:
    """What the papers say of accuracy, beside what accuracy.py measured, by every protocol that was run."""
    rows = []
    for figures in measured_by("gpu", "cpu"):
        for alpha in (4, 8, 16):
            rows += accuracies(figures, f"adjoined{alpha}", f"alpha{alpha}")
    told = {row["claim"] for row in rows}
    for claim, source, *_ in ACCURACY:
        if claim not in told:
            command = "python benchmarks/accuracy.py train --protocol gpu --data cifar100.npz"
            text = {"setting": "needs both ways of training by one protocol", "found": "not run", "figures": {}}
            rows.append({"claim": claim, "source": source, **text, "command": command})
    return rows


def accuracies(figures: dict[str, Any], way: str, small: str) -> list[dict[str, Any]]:
    """The three claims at one alpha, of the seeds that both ways were trained with."""
    by_seed: dict[str, dict[int, dict[str, float]]] = {}
    for row in figures["rows"]:
        by_seed.setdefault(row["way"], {})[row["seed"]] = row["test"]
    found = []
    for claim, source, *labels in ACCURACY:
        label, other, others = (small if each == "small" else each for each in labels)
        seeds = sorted(by_seed.get(way, {}).keys() & {seed for seed, test in by_seed.get(other, {}).items() if others in test})
        if not seeds:
            continue
        ours, theirs = ([by_seed[name][seed][key] for seed in seeds] for name, key in ((way, label), (other, others)))
        means = [100 * sum(values) / len(seeds) for values in (ours, theirs)]
        found.append(
            {
                "claim": claim,
                "source": source,
                "setting": f"{setting(figures)}, {small.replace('alpha', 'alpha ')}, seed {', '.join(map(str, seeds))}",
                "found": f"{means[0]:.2f} % against {means[1]:.2f} %: {means[0] - means[1]:+.2f} points",
                "figures": {"ours": ours, "others": theirs},
                "command": figures["command"],
            }
        )
    return found
