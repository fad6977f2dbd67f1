"""A graph of one's own in which an architecture is searched: every stage may have a 3x3, a 5x5 and a depthwise branch.

    python examples/own_graph.py

The same through the command line, in the folder that holds this file:

    adjcompress train --method budgeted --model own_graph:network --budget macs=0.4
    adjcompress extract
    adjcompress export model.onnx
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from torch import nn

import adjcompress as ac

WIDTHS = (16, 32, 64)


def branch(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(inputs, inputs if groups > 1 else outputs, kernel, 2, kernel // 2, groups=groups)]
    if groups > 1:
        layers.append(nn.Conv2d(inputs, outputs, 1))
    return nn.Sequential(*layers, nn.BatchNorm2d(outputs))


def network(num_classes: int) -> nn.Module:
    """Three stages, each the sum of up to three branches; without a branch a stage is a strided 1x1 convolution alone."""
    stem = nn.Sequential(nn.Conv2d(3, WIDTHS[0], 3, 1, 1), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU())
    nodes, layers = [ac.Node("stem", ("images",))], {"stem": stem}
    before = "stem"
    for stage, outputs in enumerate(WIDTHS):
        inputs = WIDTHS[max(stage - 1, 0)]
        choices = {
            "3x3": branch(inputs, outputs, 3),
            "5x5": branch(inputs, outputs, 5),
            "depthwise": branch(inputs, outputs, 3, groups=inputs),
        }
        for name, layer in choices.items():
            nodes.append(ac.Node(f"stage{stage}_{name}", (before,), gate=f"stage{stage}_{name}"))
            layers[f"stage{stage}_{name}"] = layer
        nodes.append(ac.Node(f"stage{stage}_1x1", (before,)))  # no gate: every architecture reaches the output
        layers[f"stage{stage}_1x1"] = branch(inputs, outputs, 1)
        taken = (*(f"stage{stage}_{name}" for name in choices), f"stage{stage}_1x1")
        nodes.append(ac.Node(f"stage{stage}", taken))
        layers[f"stage{stage}"] = nn.Sequential(nn.ReLU())
        before = f"stage{stage}"
    nodes.append(ac.Node("output", (before,)))
    layers["output"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], num_classes))
    return ac.GraphNetwork(ac.Graph(tuple(nodes)), layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="macs=0.4")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--limit", type=int, help="use so many images of each split only")
    arguments = parser.parse_args()
    data = ac.load_data("digits")
    if arguments.limit:
        data = data.limited(arguments.limit)
    sys.path.insert(0, str(Path(__file__).parent))  # so that the run, and its package, find this file again
    spec = ac.ModelSpec("own_graph:network", len(data.classes), data.preprocessing.image_size)
    method = ac.BudgetedMethod.build(spec.build(), data.preprocessing.example(2), ac.MethodOptions(budgets=(arguments.budget,)))
    run = ac.fit(method, data, ac.recipe("quick").changed(epochs=arguments.epochs), "runs/own-graph", model=spec)
    print(method.shortcoming() or f"The budget {arguments.budget} is met.")
    report = ac.extract_package(run, output=Path("own-graph.safetensors"))
    chances = run.log()[-1]["architecture"]["gates"]
    print("open:", ", ".join(gate for gate, chance in chances.items() if chance > 0.5))
    print(f"{report.package.macs:,} of {report.full_macs:,} MACs, {report.package.accuracy['test']:.1%} on the test split")
    print(ac.export_package(report.path, "own-graph.onnx", data).certificate)


if __name__ == "__main__":
    main()
