"""Claim: every way out of a run works on networks trained on real images, and int8 costs at most a point.

Runs the commands as a user would, in a folder of its own: train (or go on, or take what is trained), extract, export in
every form, bench on targets and engines, report. Accuracy is that of the ONNX files themselves on the whole test split,
looked at once, at the end.

    python benchmarks/deployment.py --data cifar100-20k.npz --model resnet18 --alpha 8
    python benchmarks/deployment.py --data photos64.npz --model mobilenet_v2 --alpha 2 --epochs 20
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from record import record
from training import hardware

from adjcompress.deploy.runtime import accuracy
from adjcompress.training import open_run

TARGETS = ("--target", "one-core", "--target", "two-core")


def command(folder: Path, *arguments: str) -> Any:
    print("$ adjcompress", *arguments, flush=True)
    done = subprocess.run(["adjcompress", *arguments, "--json"], cwd=folder, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else None


def trained(folder: Path, run: str, arguments: argparse.Namespace) -> None:
    if (folder / run / "results.json").is_file():
        return
    if (folder / run / "config.json").is_file():
        command(folder, "train", "--resume", "--run", run)
        return
    options = ["--data", str(Path(arguments.data).resolve()), "--model", arguments.model, "--alpha", arguments.alpha]
    options += ["--align", "16", "--recipe", "cifar", "--way", "papers"]
    options += ["--precision", hardware().precision, "--run", run]
    command(folder, "train", *options, *(["--epochs", arguments.epochs] if arguments.epochs else []))


def exports(folder: Path, name: str) -> dict[str, Any]:
    """Every form of one network; int8 with the fewest layers in float where it loses too much in 8 bits alone."""
    package, quick = f"{name}.safetensors", ("--max-drop", "1", "--calibration", "256")
    made = {
        f"{name}.onnx": command(folder, "export", f"{name}.onnx", "--from", package),
        f"{name}-raw.onnx": command(folder, "export", f"{name}-raw.onnx", "--from", package, "--preprocess"),
        f"{name}-fp16.onnx": command(folder, "export", f"{name}-fp16.onnx", "--from", package, "--fp16"),
        f"{name}-two.onnx": command(folder, "export", f"{name}-two.onnx", "--from", package, "--external-data"),
    }
    eight = f"{name}-int8.onnx"
    made[eight] = command(folder, "export", eight, "--from", package, "--int8", *quick)
    if made[eight] is None:
        made[eight] = command(folder, "export", eight, "--from", package, "--int8", *quick, "--int8-keep", "auto")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--alpha", default="8")
    parser.add_argument("--epochs")
    parser.add_argument("--folder", type=Path, default=Path("deployment"))
    parser.add_argument("--duration", default="10")
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(exist_ok=True)
    run = f"runs/{arguments.model}"
    trained(folder, run, arguments)
    small, full = f"{arguments.model}-alpha{arguments.alpha}", f"{arguments.model}-full"
    figures: dict[str, Any] = {"extract": {}, "export": {}, "test_accuracy": {}}
    for name, alpha in ((full, "1"), (small, arguments.alpha)):
        extracted = command(folder, "extract", "--run", run, "--alpha", alpha, "-o", f"{name}.safetensors")
        figures["extract"][name] = {key: extracted[key] for key in ("parameters", "macs", "accuracy", "certificate")}
        figures["export"] |= exports(folder, name)
    onnx = [f"{small}-int8.onnx", f"{small}.onnx", f"{full}-int8.onnx", f"{full}.onnx"]
    duration = ("--duration", arguments.duration)
    figures["bench"] = command(folder, "bench", *onnx, *TARGETS, *duration)["timings"]
    openvino = command(folder, "bench", f"{small}.onnx", f"{full}.onnx", *TARGETS[:2], "--engine", "openvino", *duration)
    packages = [f"{small}.safetensors", f"{full}.safetensors"]
    torch = command(folder, "bench", *packages, *TARGETS[:2], "--engine", "torch", *duration)
    figures["engines"] = [timing for report in (openvino, torch) if report for timing in report["timings"]]
    command(folder, "report", run)
    os.chdir(folder)  # where the commands ran: the data's name may be relative to it
    opened = open_run(Path(run))
    config, log, data = opened.config, opened.log(), opened.data()  # seconds in the log count from the start
    for path in onnx:
        figures["test_accuracy"][path] = accuracy(Path(path), data, data.test, from_pixels=False)
    figures["training"] = {
        "recipe": config["recipe"],
        "images": len(data.train),
        "test_images": len(data.test),
        "epochs": len(log),
        "seconds": log[-1]["seconds"],
        "seed": config["seed"],
    }
    record(f"deployment_{arguments.model}", figures, "1 seed (0); bench: see runs; load and first: median of 3 processes")


if __name__ == "__main__":
    main()
