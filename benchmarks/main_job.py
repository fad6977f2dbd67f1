"""Claim: the four commands take real images to a small, fast network whose every step is proven.

Runs them as a user would, in a folder of its own, and keeps what each one printed with --json.

    python benchmarks/main_job.py --data cifar100.npz --model resnet18 --alpha 8 --epochs 6
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

from record import record


def command(folder: Path, *arguments: str) -> Any:
    print("$ adjcompress", *arguments, flush=True)
    done = subprocess.run(["adjcompress", *arguments, "--json"], cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--alpha", default="8")
    parser.add_argument("--epochs", default="6")
    parser.add_argument("--folder", type=Path, default=Path("main-job"))
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    arguments.folder.mkdir(exist_ok=True)
    options = ["--data", str(Path(arguments.data).resolve()), "--model", arguments.model]
    options += ["--alpha", arguments.alpha, "--epochs", arguments.epochs, "--way", "papers"]
    folder = arguments.folder
    train = command(folder, "train", "--resume") if arguments.resume else command(folder, "train", *options)
    log = [json.loads(line) for line in (folder / train["run"] / "log.jsonl").read_text().splitlines()]
    extract = command(folder, "extract")
    export = command(folder, "export", "model.onnx")
    bench = command(folder, "bench", "--threads", "1,2", "--duration", "10")
    for result in (extract, *bench["timings"]):
        result.pop("data", None)
    figures = {"train": train, "log": log, "extract": extract, "export": export, "bench": bench["timings"]}
    record("main_job", figures, "1 seed (0); bench: see runs")


if __name__ == "__main__":
    main()
