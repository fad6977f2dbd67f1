"""Claim: the CIFAR ResNets are the published ones: known weights give their known accuracy on CIFAR-10's test images.

ResNet-20 91.73 % and ResNet-56 93.39 %, with weights in the layout that is common for these networks.

    python benchmarks/cifar_weights.py --data cifar10.npz --resnet20 resnet20.th --resnet56 resnet56.th
"""

from __future__ import annotations

import argparse
from pathlib import Path

from record import record

import adjcompress as ac
from adjcompress.models import load_weights_
from adjcompress.training import evaluate_split

EXPECTED = {"resnet20": 91.73, "resnet56": 93.39}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--resnet20", type=Path, required=True)
    parser.add_argument("--resnet56", type=Path, required=True)
    arguments = parser.parse_args()
    data = ac.load_data(arguments.data)
    networks = {}
    for name in EXPECTED:
        networks[name] = ac.create_model(f"cifar_{name}", 10)
        load_weights_(networks[name], getattr(arguments, name))
    scores = evaluate_split(networks, data, data.test)
    figures = {name: round(100 * score.accuracy, 2) for name, score in scores.items()}
    print(figures)
    record("cifar_weights", {"test_accuracy_percent": figures, "images": len(data.test)}, 1)
    assert figures == EXPECTED


if __name__ == "__main__":
    main()
