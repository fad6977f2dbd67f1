"""Renders the README's table of results from benchmarks/results/*.json, so that no figure there is typed by hand.

python benchmarks/tables.py            prints the table
python benchmarks/tables.py --write    puts it into README.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
START, END = "<!-- results: python benchmarks/tables.py --write -->", "<!-- end of results -->"


def read(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def rows() -> list[tuple[str, str, str]]:
    """(what was measured, result, command) of every result."""
    found: list[tuple[str, str, str]] = []

    def add(result: dict[str, Any], what: str, figure: str) -> None:
        found.append((what, figure, f"`{result['command']}`"))

    job = read("main_job")
    test, package = job["figures"]["train"]["test"], job["figures"]["extract"]
    epochs = job["figures"]["train"]["epochs"]
    accuracy = ", ".join(f"{name} {100 * score['accuracy']:.2f} %" for name, score in test.items())
    add(job, f"CIFAR-100, ResNet-18, {epochs} epochs, top-1 on the 10,000 test images (seed 0)", accuracy)
    fewer = package["full_parameters"] / package["parameters"]
    add(job, "... parameters, full and small", f"{package['full_parameters']:,} and {package['parameters']:,} ({fewer:.1f}x)")
    for timing in job["figures"]["bench"]:
        if timing["path"] == "model.onnx":
            speedup, threads = timing["speedup"], timing["threads"]
            figure = f"{timing['latency']['p50_ms']:.3f} ms, {speedup['value']:.2f}x faster than full"
            add(job, f"... small network, ONNX Runtime, {threads} thread{'s' * (threads > 1)}, batch 1, 32 px", figure)
    export = job["figures"]["export"]["certificate"]
    add(job, "... largest difference: sliced to training, ONNX to torch (of the largest logit)",
        f"{package['certificate']['max_difference']:g}, {export['relative']:.1e}")  # fmt: skip

    quick = read("quick")
    seconds, test = quick["figures"]["seconds"], quick["figures"]["test_accuracy"]
    text = f"{seconds['train']:.0f} s, {sum(seconds.values()):.0f} s; full {test['full']:.1%}, alpha8 {test['alpha8']:.1%}"
    add(quick, "Digits: `adjcompress train` alone, all four commands; top-1 on the test split (seed 0)", text)

    latency = read("latency")
    for network, title in (("resnet50", "7x7 stem"), ("xresnet50", "deep stem")):
        figures = latency["figures"]["cpu"]
        full = figures[f"{network}-full, 1 threads"]["p50_ms"]
        smalls = [figures[f"{network}-alpha{alpha}, 1 threads"] for alpha in (4, 8, 16)]
        text = ", ".join(f"{small['times_faster']:.2f}x" for small in smalls)
        add(latency, f"ResNet-50, {title}, 224 px, one thread: alpha 4, 8, 16 against full ({full:.1f} ms)", text)

    counts = read("paper_counts")
    claims = ", ".join(f"{claim['as_published']:.2f}x" for claim in counts["figures"]["claims"])
    add(counts, "Published 13.7x, 11.5x, 99.7x, 95x, 49x fewer parameters, counted as published", claims)

    step = read("train_step")
    for case, figure in step["figures"].items():
        text = (
            f"{figure['adjoined_over_standard']:.2f} standard steps (bound {figure['bound']:.2f}), "
            f"the papers' way {figure['papers_over_adjoined']:.2f} times slower, memory x{figure['memory_ratio']:.2f}"
        )
        add(step, f"Adjoined step, {case}", text)

    rate = read("data_rate")
    slowest = min((figure["over_training"], name) for name, figure in rate["figures"].items() if name != "training")
    add(
        rate,
        f"Loader alone over ResNet-18 training at 32 px, slowest of {len(rate['figures']) - 1} ({slowest[1]})",
        f"{slowest[0]:.0f}x",
    )

    weights = read("cifar_weights")
    known = weights["figures"]["test_accuracy_percent"]
    add(weights, "CIFAR ResNet-20 and 56 with known weights, CIFAR-10 top-1", f"{known['resnet20']} %, {known['resnet56']} %")
    return found


def table() -> str:
    lines = ["| what | measured | command |", "| --- | --- | --- |"]
    lines += [f"| {what} | {figure} | {command} |" for what, figure, command in rows()]
    machine = read("latency")["machine"]
    lines += ["", f"{machine['cpu']} with {', '.join(machine['instructions'])}, {machine['cores']} cores, "
              f"torch {machine['versions']['torch']}, ONNX Runtime {machine['versions']['onnxruntime']}. "
              "Machine, versions, repetitions and every single figure: `benchmarks/results/`."]  # fmt: skip
    return "\n".join(lines)


def with_table(text: str) -> str:
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{table()}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        README.write_text(with_table(README.read_text()))
    else:
        print(table())


if __name__ == "__main__":
    main()
