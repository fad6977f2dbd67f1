"""Learn the widths of a small network under a budget, train it at these widths, and cut it out.

python examples/search_widths.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import adjcompress as ac
from adjcompress.data import DataSpec
from adjcompress.training import TrainOptions, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", nargs="+", default=["macs=0.5", "params=0.4"])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--limit", type=int, help="images of each split, for a first try")
    arguments = parser.parse_args()
    options = TrainOptions(
        model="cifar_resnet20",
        data=DataSpec("digits", limit=arguments.limit),
        method="dan",
        method_options=ac.MethodOptions(budgets=arguments.budget),
        recipe=ac.recipe("quick").changed(epochs=arguments.epochs),
    )
    run = train(options)  # the search in <run>/search, the training in <run>
    report = ac.extract_package(run)
    print(report.package.plan)
    search = json.loads((run.folder / "plan.json").read_text())["search"]
    for name, cost in search["costs"].items():
        print(f"{name}: {cost:,.0f} of {search['full'][name]:,.0f} ({cost / search['full'][name]:.3f})")
    print(f"accuracy on the test split: {run.ended()['test']['dan']['accuracy']:.4f}, in {Path(report.path)}")


if __name__ == "__main__":
    main()
