"""results/vs_torch_pruning.md and its plots, from the JSON of every network.

python benchmarks/vs_torch_pruning_page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from record import RESULTS
from shown import BUSY, measured_on, shown_ms
from vs_torch_pruning_ways import BEFORE, alike, in_blocks

from adjcompress.files import write_text

ABOUT = (
    "Adjoined: a trunk of its own for each network; trunk: shared, which is cheaper; labels: a shared trunk, the small "
    "network learns from labels too, at a constant weight, for about what adjoined costs; inner: the same at the first layers"
    " of the blocks alone, which are those that Torch-Pruning cuts; cut and inner-cut: adjoined's and inner's channels, "
    "trained alone; magnitude-rounded: its widths are multiples of 8; inner-taught and magnitude-taught: inner-cut's and "
    "magnitude's networks, taught by the one that they were cut out of. All that are cut train for as long as adjoined costs,"
    " sparse learning and teaching included. The weights that all begin with had seen the training images, and not the test "
    "ones. Layers that a CIFAR ResNet's shortcut picks channels of keep their width under Torch-Pruning, which knows no such "
    "layer, and not in ours."
)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy of the small network over the cost of its training, and over its latency."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, key, scale, label in (
        (axes[0], "training_macs", 1e12, "multiply-adds of training, 1e12"),
        (axes[1], "p50_ms", 1, "ms, one thread"),
    ):
        for number, row in enumerate(rows):
            marker = "s" if alike(row["way"]) in ("ours", "inner") else "o"
            style = {"color": f"C{number}", "marker": marker, "label": row["way"], "alpha": 0.8}
            axis.scatter([row[key] / scale], [100 * row["accuracy"]], **style)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("top-1, %")
    axes[1].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, metadata={"Date": None})


def write_page() -> None:
    write_text(RESULTS / "vs_torch_pruning.md", page())


def page() -> str:
    """results/vs_torch_pruning.md, from the JSON of every network."""
    lines = ["# Beside Torch-Pruning", ""]
    for path in sorted(RESULTS.glob("vs_torch_pruning_*.json")):
        content = json.loads(path.read_text())
        figures = content["figures"]
        equal = "multiply-adds" if figures["equal"] == "macs" else "latency"
        equal += " to inner's" * (figures.get("like") == "inner")
        alpha = figures.get("alpha", BEFORE["alpha"])
        lines += [
            f"## {figures['model']} on {figures['data']}, alpha {alpha:g}{in_blocks(figures)}, at equal {equal}",
            "",
            f"{figures['images']:,} training images, {figures['recipe']['epochs']} epochs of full and small network together; "
            f"seed {figures['seed']}; top-1 on the test images; one thread, ONNX Runtime, batch 1. {ABOUT} "
            f"Seconds are of trainings beside others: compare multiply-adds. {BUSY} {measured_on(content)}. "
            f"`{content['command']}`",
            "",
            "| way | small | full | parameters | MACs | one thread | bytes | epochs | images | MACs in training | seconds "
            "| precision |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        ]
        for row in figures["rows"]:
            whole = f"{100 * row['full_accuracy']:.2f} %" if row["full_accuracy"] is not None else ""
            lines.append(
                f"| {row['way']} | {100 * row['accuracy']:.2f} % | {whole} | {row['parameters']:,} | "
                f"{row['macs'] / 1e6:.1f} M | {shown_ms(row)} | {row['bytes'] / 1e3:.0f} kB | "
                f"{row.get('epochs', '')} | {row.get('images', 0) / 1e3:,.0f} k | "
                f"{row['training_macs'] / 1e12:.1f} T | {row['seconds']:.0f}{' *' * row.get('added', False)} | "
                f"{row.get('precision', '')} |"
            )
        if any(row.get("added") for row in figures["rows"]):
            lines += ["", "\\* Added later, on another machine: its seconds do not compare with the rest's."]
        lines += ["", f"![accuracy over multiply-adds of training]({path.stem}.svg)", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    write_page()
