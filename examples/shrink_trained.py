"""Shrink a trained network by structured layers: start from its weights, learn where it looks, export a small file.

python examples/shrink_trained.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import adjcompress as ac
from adjcompress.data import DataSpec, read_data
from adjcompress.methods import SubstituteMethod


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--substitute", default="tensor_train")
    parser.add_argument("--parameters", type=float, default=0.1, help="of the trained network's")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--limit", type=int, help="images of each split, for a first try")
    arguments = parser.parse_args()
    data = read_data(DataSpec("digits", limit=arguments.limit))
    spec = ac.ModelSpec("wrn_16_2", len(data.classes), data.preprocessing.image_size)
    recipe, example = ac.recipe("quick").changed(epochs=arguments.epochs), data.preprocessing.example(2)

    dense = spec.build()
    trained = ac.fit(ac.StandardMethod(dense), data, recipe, "runs/dense", model=spec)

    budget = int(arguments.parameters * ac.count(dense, example).parameters)
    plan = ac.plan_substitution(dense, arguments.substitute, parameters=budget)
    network = ac.apply_substitution(dense, plan, approximate=True)
    method = SubstituteMethod(network, plan, ac.count(dense, example).parameters)
    method.taught_by_(dense, example)
    run = ac.fit(method, data, recipe, f"runs/{arguments.substitute}", model=spec)

    report = ac.extract_package(run)
    exported = ac.export_package(report.path, Path("shrunk.onnx"), data)
    print(f"{plan.substitute} at setting {plan.setting:g} in {len(plan.layers)} layers")
    print(f"parameters: {report.package.parameters:,} of {report.full_parameters:,}; {exported.path}: {exported.bytes:,} bytes")
    for name, finished in (("full", trained), ("substitute", run)):
        print(f"{name}: accuracy on the test split {finished.ended()['test'][name]['accuracy']:.4f}")


if __name__ == "__main__":
    main()
