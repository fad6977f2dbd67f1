"""Which rows has the table of all results? One function for each result file, or for a few of one kind.

What widths were searched is in tables_dan.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from record import RESULTS
from shown import shown_ms
from vs_torch_pruning_ways import in_blocks


class Row(NamedTuple):
    """What was measured, the figure, and the command that measures it."""

    what: str
    figure: str
    command: str

    def __str__(self) -> str:
        return f"| {self.what} | {self.figure} | {self.command} |"

    @classmethod
    def of(cls, result: dict[str, Any], what: str, figure: str) -> Row:
        """A row of `result`, as record.py wrote it."""
        return cls(what, figure, f"`{result['command']}`")


Rows = Iterator[Row]


def read(name: str) -> dict[str, Any]:
    """A result, as record.py wrote it."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return content


def main_job() -> Rows:
    """The four commands on CIFAR-100."""
    job = read("main_job")
    test, package = job["figures"]["train"]["test"], job["figures"]["extract"]
    epochs = job["figures"]["train"]["epochs"]
    accuracy = ", ".join(f"{name} {100 * score['accuracy']:.2f} %" for name, score in test.items())
    yield Row.of(
        job, f"CIFAR-100, ResNet-18, the papers' way, {epochs} epochs, top-1 on the 10,000 test images (seed 0)", accuracy
    )
    fewer = package["full_parameters"] / package["parameters"]
    yield Row.of(
        job, "... parameters, full and small", f"{package['full_parameters']:,} and {package['parameters']:,} ({fewer:.1f}x)"
    )
    for timing in job["figures"]["bench"]:
        if timing["path"] == "model.onnx":
            speedup, threads = timing["speedup"], timing["threads"]
            figure = f"{timing['latency']['p50_ms']:.3f} ms, {speedup['value']:.2f}x faster than full"
            yield Row.of(job, f"... small network, ONNX Runtime, {threads} thread{'s' * (threads > 1)}, batch 1, 32 px", figure)
    export = job["figures"]["export"]["certificate"]
    text = f"{package['certificate']['max_difference']:g}, {export['relative']:.1e}"
    yield Row.of(job, "... largest difference: sliced to training, ONNX to torch (of the largest logit)", text)


def quick() -> Rows:
    """The four commands on digits, with all defaults."""
    result = read("quick")
    seconds, test = result["figures"]["seconds"], result["figures"]["test_accuracy"]
    text = f"{seconds['train']:.0f} s, {sum(seconds.values()):.0f} s; full {test['full']:.1%}, alpha8 {test['alpha8']:.1%}"
    yield Row.of(result, "Digits: `adjcompress train` alone, all four commands; top-1 on the test split (seed 0)", text)


def latency() -> Rows:
    """ResNet-50 and its slices on one thread."""
    result = read("latency")
    for network, title in (("resnet50", "7x7 stem"), ("xresnet50", "deep stem")):
        figures = result["figures"]["cpu"]
        full = figures[f"{network}-full, 1 threads"]["p50_ms"]
        smalls = [figures[f"{network}-alpha{alpha}, 1 threads"] for alpha in (4, 8, 16)]
        text = ", ".join(f"{small['times_faster']:.2f}x" for small in smalls)
        yield Row.of(result, f"ResNet-50, {title}, 224 px, one thread: alpha 4, 8, 16 against full ({full:.1f} ms)", text)


def paper_counts() -> Rows:
    """Published counts of parameters."""
    counts = read("paper_counts")
    claims = ", ".join(f"{claim['as_published']:.2f}x" for claim in counts["figures"]["claims"])
    yield Row.of(
        counts,
        "Published 13.7x, 11.5x and, of r_beta's sparse weights, 99.7x, 95x, 49x fewer parameters, counted as published",
        claims,
    )


def steps() -> Rows:
    """What a training step and the loader cost."""
    step = read("train_step")
    for case, figure in step["figures"].items():
        text = (
            f"{figure['adjoined_over_standard']:.2f} standard steps (bound {figure['bound']:.2f}), "
            f"computed as the papers do {figure['papers_over_adjoined']:.2f} times as long, "
            f"memory x{figure['memory_ratio']:.2f}"
        )
        yield Row.of(step, f"Adjoined step, {case}", text)

    trunk = read("trunk_step")
    for case, figure in trunk["figures"].items():
        own = figure["own_over_standard"]
        text = f"{figure['shared_over_standard']:.2f} standard steps; with a trunk of its own for each network {own:.2f}"
        yield Row.of(trunk, f"Adjoined step with --trunk shared, {case}", text)

    alone = read("alone_step")
    for case, figure in alone["figures"].items():
        text = f"{figure['apart_over_small']:.2f}; in views of the full network's weights {figure['views_over_small']:.2f}"
        yield Row.of(alone, f"Step of the small network that learns first, over its own alone, {case}", text)

    rate = read("data_rate")
    slowest = min((figure["over_training"], name) for name, figure in rate["figures"].items() if name != "training")
    yield Row.of(
        rate,
        f"Loader alone over ResNet-18 training at 32 px, slowest of {len(rate['figures']) - 1} ({slowest[1]})",
        f"{slowest[0]:.0f}x",
    )


def alignment() -> Rows:
    """Widths that fit the kernels' blocks."""
    aligned = read("alignment")
    for words, settings in aligned["figures"]["networks"].items():
        text = "; ".join(
            f"{name}: {figures['parameters'] / 1e6:.2f} M parameters, {figures['macs'] / 1e6:,.1f} M MACs, "
            f"{len(figures['unblocked'])} layers outside blocks, {shown_ms(figures['1 thread'], 2)}"
            for name, figures in settings.items()
        )
        yield Row.of(aligned, f"{words}, one thread", text)


def int8() -> Rows:
    """Quantised files beside float ones."""
    eight = read("int8")
    names = ("full", "full-int8", "alpha4", "alpha4-int8")
    files = {name: eight["figures"][f"{name}, one-core"] for name in names}
    smallest = files["alpha4-int8"]
    text = ", ".join(f"{name} {file['p50_ms']:.1f} ms and {file['bytes'] / 1e6:.1f} MB" for name, file in files.items())
    text += f": **{smallest['times_faster']:.1f}x faster, {smallest['times_smaller']:.1f}x smaller**"
    yield Row.of(eight, "ResNet-50, 224 px, one core, float and int8 (random weights: for speed and size)", text)


def latency_table() -> Rows:
    """Predictions from a table of layers."""
    predicted = read("latency_table")
    for network, figure in predicted["figures"].items():
        text = (
            f"rank correlation {figure['spearman']:.3f}, median error {100 * figure['median_relative_error']:.1f} % on "
            f"{len(figure['plans'])} plans, if the full network took what the table says; it took {figure['drift']:.3f} times "
            f"that: {100 * figure['without_drift']['median_relative_error']:.1f} % as measured"
        )
        yield Row.of(predicted, f"Latency of random width plans of {network}, predicted from a table of its layers", text)


def substitute_counts() -> Rows:
    """Published counts of structured substitutes."""
    counts = read("substitute_counts")
    rows = counts["figures"]["rows"]
    same = sum(row["published_parameters"] == row["parameters_published_way"] for row in rows)
    names = ", ".join(dict.fromkeys(row["network"] for row in rows))
    yield Row.of(
        counts,
        f"Published parameters of arXiv:1906.00859 to the integer, {names} and their substitutes",
        f"{same} of {len(rows)}",
    )


def substitute_step() -> Rows:
    """What a step costs whose weights are made in it."""
    step = read("substitute_step")
    text = ", ".join(
        f"{row['substitute']} {row['setting']:g} {row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        for row in step["figures"]["rows"]
    )
    batch, threads = step["figures"]["batch"], step["figures"]["threads"]
    what = f"WRN-28-10 step, batch {batch}, {threads} thread{'s' * (threads > 1)}, over dense pointwise layers"
    yield Row.of(step, what, text)


def substitute_latency() -> Rows:
    """Which substitutes are faster, and what files cost that make their weights at load."""
    latency = read("substitute_latency")
    for channels in dict.fromkeys(row["channels"] for row in latency["figures"]["layers"]):
        layers = [row for row in latency["figures"]["layers"] if row["channels"] == channels and row["layer"] != "dense"]
        text = ", ".join(f"{row['layer']} ({row['macs_part']:.2f} of the MACs) {row['times_faster']:.2f}x" for row in layers)
        side = layers[0]["side"]
        yield Row.of(latency, f"1x1 convolutions of {channels} channels, {side} x {side}, one thread, over dense", text)
    for row in latency["figures"]["files"]:
        made, dense = row["made"], row["materialised"]
        text = (
            f"{made['bytes'] / 1e6:.2f} MB, loads in {made['load_ms']:.0f} ms, {made['peak_memory_bytes'] / 1e6:.0f} MB in "
            f"memory, {made['p50_ms']:.1f} ms; written dense {dense['bytes'] / 1e6:.2f} MB, {dense['load_ms']:.0f} ms, "
            f"{dense['peak_memory_bytes'] / 1e6:.0f} MB, {dense['p50_ms']:.1f} ms"
        )
        yield Row.of(
            latency, f"WRN-28-10 with {row['substitute']} {row['setting']:g}: ONNX file that makes its weights at load", text
        )


def supernet_speed() -> Rows:
    """A step of a super network, and its distributed cost."""
    speed = read("supernet_speed")
    steps, schedule = speed["figures"]["steps"], speed["figures"]["schedule"]
    text = ", ".join(f"{row['part']:.2f} of the MACs: {row['time_for_each_mac']:.2f}" for row in steps[:-1])
    yield Row.of(
        speed, "Super network, time of a training step for each MAC that was drawn, over that of the whole network", text
    )
    text = f"{schedule['ms']:.2f} ms, kept {schedule['cached_ms']:.3f} ms"
    yield Row.of(speed, f"Distributed cost of a network of {schedule['nodes']} nodes", text)


def beside_torch_pruning() -> Rows:
    """What Torch-Pruning cuts out of a trained network, and what adjoined training makes of it, at equal cost."""
    for path in sorted(RESULTS.glob("vs_torch_pruning_*.json")):
        result = read(path.stem)
        figures = result["figures"]
        equal = "multiply-adds" if figures["equal"] == "macs" else "latency"
        text = "; ".join(
            f"{row['way']} {100 * row['accuracy']:.2f} % at {row['macs'] / 1e6:.1f} M MACs and {shown_ms(row, 3)}, "
            f"trained for {row['training_macs'] / 1e12:.1f} T"
            for row in figures["rows"]
        )
        model, images = f"{figures['model']}{in_blocks(figures)}", f"{figures['images']:,} images"
        what = f"Beside Torch-Pruning at equal {equal}, {model}, {figures['data']}, {images}"
        yield Row.of(result, f"{what}, {figures['recipe']['epochs']} epochs, top-1 (seed {figures['seed']})", text)


def cifar_weights() -> Rows:
    """Known weights, read."""
    weights = read("cifar_weights")
    known = weights["figures"]["test_accuracy_percent"]
    yield Row.of(
        weights, "CIFAR ResNet-20 and 56 with known weights, CIFAR-10 top-1", f"{known['resnet20']} %, {known['resnet56']} %"
    )


BEFORE: tuple[Callable[[], Rows], ...] = (main_job, quick, latency, paper_counts, steps, alignment, int8, latency_table)
AFTER: tuple[Callable[[], Rows], ...] = (
    substitute_counts,
    substitute_step,
    substitute_latency,
    supernet_speed,
    beside_torch_pruning,
    cifar_weights,
)
"""Those before and after the rows on searched widths."""
