"""Renders the README's table of results from benchmarks/results/*.json, so that no figure there is typed by hand.

python benchmarks/tables.py            prints the table
python benchmarks/tables.py --write    puts it into README.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shown import BUSY, shown_ms

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

    trunk = read("trunk_step")
    for case, figure in trunk["figures"].items():
        own = figure["own_over_standard"]
        text = f"{figure['shared_over_standard']:.2f} standard steps; with a trunk of its own for each network {own:.2f}"
        add(trunk, f"Adjoined step with --trunk shared, {case}", text)

    rate = read("data_rate")
    slowest = min((figure["over_training"], name) for name, figure in rate["figures"].items() if name != "training")
    add(
        rate,
        f"Loader alone over ResNet-18 training at 32 px, slowest of {len(rate['figures']) - 1} ({slowest[1]})",
        f"{slowest[0]:.0f}x",
    )

    deployed(add)
    searched(add)
    substituted(add)
    speed_of_supernets(add)
    trained(add)

    weights = read("cifar_weights")
    known = weights["figures"]["test_accuracy_percent"]
    add(weights, "CIFAR ResNet-20 and 56 with known weights, CIFAR-10 top-1", f"{known['resnet20']} %, {known['resnet56']} %")
    return found


def deployed(add: Callable[[dict[str, Any], str, str], None]) -> None:
    """Alignment, int8 and the table of layers."""
    aligned = read("alignment")
    widths = aligned["figures"]["widths"]
    text = "; ".join(
        f"{name}: {widths[name]['parameters'] / 1e6:.2f} M parameters, {len(widths[name]['unblocked'])} layers outside blocks, "
        f"{widths[name]['1 thread']['p50_ms']:.1f} ms"
        for name in ("16", "15", "15 aligned")
    )
    add(aligned, "ResNet-50 with 16, 15, and 15 aligned channels per base width, 224 px, one thread", text)

    eight = read("int8")
    names = ("full", "full-int8", "alpha4", "alpha4-int8")
    files = {name: eight["figures"][f"{name}, one-core"] for name in names}
    smallest = files["alpha4-int8"]
    text = ", ".join(f"{name} {file['p50_ms']:.1f} ms and {file['bytes'] / 1e6:.1f} MB" for name, file in files.items())
    text += f": **{smallest['times_faster']:.1f}x faster, {smallest['times_smaller']:.1f}x smaller**"
    add(eight, "ResNet-50, 224 px, one core, float and int8 (random weights; accuracy in the table below)", text)

    predicted = read("latency_table")
    for network, figure in predicted["figures"].items():
        text = (
            f"rank correlation {figure['spearman']:.3f}, median error {100 * figure['median_relative_error']:.1f} % on "
            f"{len(figure['plans'])} plans"
        )
        add(predicted, f"Latency of random width plans of {network}, predicted from a table of its layers", text)


def _percents(row: dict[str, Any]) -> str:
    """Accuracy, of all seeds."""
    found = [row, *row.get("other_seeds", {}).values()]
    return " and ".join(f"{100 * each['accuracy']:.2f} %" for each in found)


def searched(add: Callable[[dict[str, Any], str, str], None]) -> None:
    """Widths learnt under a budget: beside uniform and random ones, at the papers' costs, under a latency, and their price."""
    result = read("dan")
    rows = result["figures"]["rows"]
    epochs, images = result["figures"]["recipe"]["epochs"], result["figures"]["images"]
    for row in (row for row in rows if row["kind"] == "searched"):
        same_alpha = row["level"].replace("macs-", "").replace("latency-", "")
        others = [other for other in rows if other["kind"] == "uniform" and other["level"] == same_alpha]
        others += [other for other in rows if other["kind"].startswith("random") and other["level"] == row["level"]]
        text = ", ".join(
            f"{other['kind']} {_percents(other)} at {other['macs'] / 1e6:.1f} M MACs and {shown_ms(other, 2)}"
            for other in (row, *others)
        )
        budget = ", ".join(row["searched"]["budgets"])
        every = ", every layer" if row["level"].startswith("every-layer") else ""
        add(
            result,
            f"Widths under {budget}{every}, ResNet-18, CIFAR-100 ({images:,} training images), {epochs} epochs, top-1 (seed 0; "
            "or 0 and 1)",
            text,
        )

    networks = {"dan_together": "The same budget", "dan_constant": "Eight layers of equal width, CIFAR-10"}
    for name, network in networks.items():
        together = read(name)
        figures = together["figures"]
        means, deviations = figures["over_uniform_mean"], figures["over_uniform_deviation"] or {}
        spread = {kind: f" (deviation {100 * deviation:.2f})" for kind, deviation in deviations.items()}
        text = ", ".join(f"{kind} {100 * means[kind]:+.2f}{spread.get(kind, '')}" for kind in means if kind != "uniform")
        seeds = " and ".join(str(row["seed"]) for row in figures["rows"])
        add(
            together,
            f"{network}, all small networks in one full network, {figures['images']:,} training images, "
            f"{figures['recipe']['epochs']} epochs, points over uniform "
            f'widths (seed{"s" * (len(figures["rows"]) > 1)} {seeds}); "expected" is the tool\'s own decision',
            text,
        )

    looked_at = {"dan_diagnosis": "", "dan_diagnosis_resnet18": "", "dan_diagnosis_all_widths": ", all widths learning alike"}
    for name, how in looked_at.items():
        diagnosis = read(name)
        figures = diagnosis["figures"]
        truth, ranks = figures["truth_per_gmac"], [row["rank_correlation"] for row in figures["by_temperature"]]
        model = figures["model"]["name"].rpartition(":")[2]
        add(
            diagnosis,
            f"What a billion multiply-adds in a group lower the divergence by, {model} after {figures['epochs']} epochs of "
            f"search{how}; rank correlation of the search's gradient with it",
            f"{min(truth):.1f} to {max(truth):.1f}; {min(ranks):.2f} to {max(ranks):.2f}",
        )

    protocol = read("dan_protocol")
    figures = protocol["figures"]
    for level in figures["seconds"]:
        own = [row for row in figures["rows"] if row["level"] == level and row["widths"] != "full"]
        text = ", ".join(
            f"{row['widths']} {100 * row['accuracy']:.2f} % at {row['macs'] / 1e6:.1f} M MACs and {shown_ms(row, 2)}"
            for row in own
        )
        cut = "uniform alpha 4, every layer" if level == "every-layer" else "uniform alpha 2, default layers"
        add(
            protocol,
            f"Widths at the cost of {cut}, ResNet-18, CIFAR-100 ({figures['images']:,} training images), "
            f"{figures['recipe']['epochs']} epochs, all in one full network, top-1 (seed {figures['seed']})",
            text,
        )

    job = read("dan_job")
    figures = job["figures"]
    small, test = figures["extract"], figures["train"]["test"]
    timing = next(timing for timing in figures["bench"] if timing["path"] == "model.onnx")
    text = (
        f"MACs {small['macs'] / small['full_macs']:.3f} of the full network's, "
        f"{small['full_parameters'] / small['parameters']:.1f}x fewer parameters, "
        f"{'~' * timing['noisy']}{timing['speedup']['value']:.2f}x faster; "
        f"full {test['full']['accuracy']:.1%}, dan {test['dan']['accuracy']:.1%}; "
        f"sliced to training {small['certificate']['max_difference']:g}, "
        f"ONNX to torch {figures['export']['certificate']['relative']:.1e}"
    )
    add(job, f"Digits: `train --method dan --budget {figures['train']['search']['budgets'][0]}`, extract, export, bench", text)

    papers = read("dan_papers")
    figure = papers["figures"]
    text = (
        f"{figure['macs'] / 1e9:.3f} G MACs ({figure['macs_fewer']:.2f}x fewer), {figure['parameters']:,} parameters "
        f"({figure['parameters_fewer']:.2f}x fewer)"
    )
    add(papers, f"ResNet-50 for ImageNet, widths searched under {' and '.join(figure['budgets'])}", text)

    latency = read("dan_latency")
    for network, figure in latency["figures"].items():
        found = [plan["over_asked"] for plan in figure["plans"]]
        text = f"{100 * min(found):+.1f} to {100 * max(found):+.1f} % of what was asked, on {len(found)} plans"
        add(latency, f"Measured latency of plans decided under a latency, {network}, 224 px, one thread", text)

    step = read("search_step")
    for case, figure in step["figures"].items():
        text = f"{figure['search_over_standard']:.2f} standard steps (bound {figure['bound']:.2f})"
        add(step, f"Search step, {case}", text)


def trained(add: Callable[[dict[str, Any], str, str], None]) -> None:
    """What the ways to train made of both networks, by the protocols that were run."""
    for name in ("gpu", "cpu", "finetune"):
        if not (ROOT / "benchmarks" / "results" / f"accuracy_{name}.json").is_file():
            continue
        result = read(f"accuracy_{name}")
        figures = result["figures"]
        asked, epochs = figures["protocols_epochs"], figures["recipe"]["epochs"]
        length = f"{epochs} epochs" if epochs == asked else f"{epochs} of the protocol's {asked} epochs"
        parts = []
        for row in figures["rows"]:
            scores = ", ".join(f"{label} {100 * score:.2f} %" for label, score in row["test"].items())
            parts.append(f"{row['way']} (seed {row['seed']}) {scores} for {row['training_macs'] / 1e12:.0f} T multiply-adds")
        add(result, f"Ways to train, {figures['model']}, {figures['images']:,} images, {length}, top-1", "; ".join(parts))


def substituted(add: Callable[[dict[str, Any], str, str], None]) -> None:
    """Structured substitutes: published counts, the step's price, what is faster, and what files cost at load."""
    counts = read("substitute_counts")
    rows = counts["figures"]["rows"]
    same = sum(row["published_parameters"] == row["parameters_published_way"] for row in rows)
    names = ", ".join(dict.fromkeys(row["network"] for row in rows))
    add(
        counts,
        f"Published parameters of arXiv:1906.00859 to the integer, {names} and their substitutes",
        f"{same} of {len(rows)}",
    )

    step = read("substitute_step")
    text = ", ".join(
        f"{row['substitute']} {row['setting']:g} {row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        for row in step["figures"]["rows"]
    )
    batch, threads = step["figures"]["batch"], step["figures"]["threads"]
    what = f"WRN-28-10 step, batch {batch}, {threads} thread{'s' * (threads > 1)}, over dense pointwise layers"
    add(step, what, text)

    latency = read("substitute_latency")
    for channels in dict.fromkeys(row["channels"] for row in latency["figures"]["layers"]):
        layers = [row for row in latency["figures"]["layers"] if row["channels"] == channels and row["layer"] != "dense"]
        text = ", ".join(f"{row['layer']} ({row['macs_part']:.2f} of the MACs) {row['times_faster']:.2f}x" for row in layers)
        side = layers[0]["side"]
        add(latency, f"1x1 convolutions of {channels} channels, {side} x {side}, one thread, over dense", text)
    for row in latency["figures"]["files"]:
        made, dense = row["made"], row["materialised"]
        text = (
            f"{made['bytes'] / 1e6:.2f} MB, loads in {made['load_ms']:.0f} ms, {made['peak_memory_bytes'] / 1e6:.0f} MB in "
            f"memory, {made['p50_ms']:.1f} ms; written dense {dense['bytes'] / 1e6:.2f} MB, {dense['load_ms']:.0f} ms, "
            f"{dense['peak_memory_bytes'] / 1e6:.0f} MB, {dense['p50_ms']:.1f} ms"
        )
        add(latency, f"WRN-28-10 with {row['substitute']} {row['setting']:g}: ONNX file that makes its weights at load", text)


def speed_of_supernets(add: Callable[[dict[str, Any], str, str], None]) -> None:
    """A step of a super network, and its distributed cost."""
    speed = read("supernet_speed")
    steps, schedule = speed["figures"]["steps"], speed["figures"]["schedule"]
    text = ", ".join(f"{row['part']:.2f} of the MACs: {row['time_for_each_mac']:.2f}" for row in steps[:-1])
    add(speed, "Super network, time of a training step for each MAC that was drawn, over that of the whole network", text)
    text = f"{schedule['ms']:.2f} ms, kept {schedule['cached_ms']:.3f} ms"
    add(speed, f"Distributed cost of a network of {schedule['nodes']} nodes", text)


def _timed(timing: dict[str, Any]) -> str:
    return shown_ms({**timing["latency"], "noisy": timing["noisy"]})


NETWORKS = {"resnet18": "ResNet-18, CIFAR-100", "mobilenet_v2": "MobileNetV2, photographs"}


def deployment() -> list[str]:
    """Float and int8, full and small, of the networks trained on real images."""
    lines = [
        "| network | file | top-1, test | parameters | bytes | one core | times faster | two cores |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, title in NETWORKS.items():
        figures = read(f"deployment_{name}")["figures"]
        timings = {(timing["path"], timing["target"]): timing for timing in figures["bench"]}
        for path, accuracy in reversed(figures["test_accuracy"].items()):
            one, two = timings[path, "one-core"], timings[path, "two-core"]
            int8 = figures["export"][path]["int8"]
            kept = f", {len(int8['float_layers'])} layers in float" if int8 and int8["float_layers"] else ""
            what = path.removesuffix(".onnx").removeprefix(f"{name}-")
            lines.append(
                f"| {title} | {what}{kept} | {100 * accuracy:.2f} % | {one['parameters']:,} | {one['bytes'] / 1e6:.2f} MB | "
                f"{_timed(one)} | {one['speedup']['value']:.2f}x | {_timed(two)} |"
            )
    notes = []
    for name, title in NETWORKS.items():
        result = read(f"deployment_{name}")
        training = result["figures"]["training"]
        notes.append(
            f"{title}: {training['images']:,} images, {training['epochs']} epochs, seed {training['seed']}, "
            f"`{result['command']}`"
        )
    return [*lines, "", "; ".join(notes) + ". Top-1 of the ONNX files on the whole test split. " + BUSY]


def machines() -> list[str]:
    """What the results were measured on: a line for each machine and its versions, with the results' names."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        machine = json.loads(path.read_text())["machine"]
        versions = machine["versions"]
        key = (
            f"{machine['cpu']} with {', '.join(machine['instructions'])}, {machine['cores']} cores, torch {versions['torch']}, "
            f"ONNX Runtime {versions['onnxruntime']}"
        )
        found.setdefault(key, []).append(path.stem)
    return [f"{key}: {', '.join(names)}." for key, names in sorted(found.items(), key=lambda item: -len(item[1]))]


def table() -> str:
    lines = ["| what | measured | command |", "| --- | --- | --- |"]
    lines += [f"| {what} | {figure} | {command} |" for what, figure, command in rows()]
    lines += ["", *deployment()]
    lines += ["", *machines(), "Machine, versions, repetitions and every single figure: `benchmarks/results/`."]
    return "\n".join(lines)


def substitutes() -> str:
    """Which substitute to choose when: every form at both budgets, beside the dense and the adjoined networks."""
    result = read("substitutes")
    figures = result["figures"]
    rows = [row for row in figures["rows"] if row.get("attention", True) and row.get("scaling", "matrix") == "matrix"]
    lines = ["| layer | parameters | MACs | ONNX file | one thread | top-1 |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {row['substitute']}{'' if row['setting'] is None else ' ' + format(row['setting'], 'g')} | {row['parameters']:,} | "
        f"{row['macs'] / 1e6:.2f} M | {row['onnx_bytes'] / 1e3:.0f} kB | {row['p50_ms']:.3f} ms | "
        f"{100 * row['accuracy']:.2f} % |"
        for row in sorted(rows, key=lambda row: (row.get("budget") or 10**9, -row["accuracy"]))
    ]
    lines += [
        "",
        f"{figures['model']}, CIFAR-10, {figures['images']:,} images, {figures['recipe']['epochs']} epochs, seed "
        f"{figures['seed']}, `{result['command']}`; with and without attention transfer and scaled decay: "
        "[benchmarks/results/substitutes.md](benchmarks/results/substitutes.md).",
    ]
    return "\n".join(lines)


def supernets() -> str:
    """Searched, random and plain architectures: images of classes, and pixels."""
    lines: list[str] = []
    for name in ("supernets", "supernet_camvid"):
        result = read(name)
        figures = result["figures"]
        pixels = figures["rows"][0]["mean_iou"] is not None
        right = "pixels right" if pixels else "top-1"
        lines += [
            f"| {figures['model']} | MACs | parameters | cycles on 1, 2, 4 machines | one thread | {right} |"
            + " mean IoU |" * pixels,
            "| --- | ---: | ---: | --- | ---: | ---: |" + " ---: |" * pixels,
        ]
        for level, kind, rows in grouped(figures["rows"]):
            of = f", of {len(rows)}" if len(rows) > 1 else ""
            cells = [
                level if kind == level else f"{level}, {kind}{of}",
                f"{spread(rows, 'macs', 1e-6, 1)} M",
                f"{spread(rows, 'parameters', 1e-3, 0)} k",
                ", ".join(spread_of([row["cycles"][machines] for row in rows], 0) for machines in ("1", "2", "4")),
                f"{spread(rows, 'p50_ms', 1, 2)} ms",
                f"{spread(rows, 'accuracy', 100, 1)} %",
            ]
            cells += [f"{spread(rows, 'mean_iou', 100, 1)} %"] if pixels else []
            lines.append(f"| {' | '.join(cells)} |")
        lines += [
            "",
            f"{figures['images']:,} images, {figures['recipe']['epochs']} epochs, seed {figures['seed']}, "
            f"`{result['command']}`: [{name}.md](benchmarks/results/{name}.md).",
            "",
        ]
    return "\n".join(lines[:-1])


def grouped(rows: list[dict[str, Any]]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Rows of a sweep by level and kind, the plain network first, random ones together."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["level"], "random" if row["kind"].startswith("random") else row["kind"]), []).append(row)
    order = ["plain", "searched", "retrained", "random", "adjoined"]
    levels = sorted({level for level, _ in found}, key=lambda level: (level != "plain", level.rstrip("0123456789"), level))
    return [(level, kind, found[level, kind]) for level in levels for kind in order if (level, kind) in found]


def spread(rows: list[dict[str, Any]], key: str, scale: float, digits: int) -> str:
    return spread_of([row[key] * scale for row in rows], digits)


def spread_of(values: list[float], digits: int) -> str:
    """One value, or the lowest and the highest."""
    ends = [f"{value:,.{digits}f}" for value in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


BLOCKS: dict[str, tuple[str, Callable[[], str]]] = {
    START: (END, table),
    "<!-- substitutes: python benchmarks/tables.py --write -->": ("<!-- end of substitutes -->", substitutes),
    "<!-- supernets: python benchmarks/tables.py --write -->": ("<!-- end of supernets -->", supernets),
}


def with_table(text: str) -> str:
    for start, (end, render) in BLOCKS.items():
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f"{before}{start}\n{render()}\n{end}{after}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        README.write_text(with_table(README.read_text()))
    else:
        print(table())


if __name__ == "__main__":
    main()
