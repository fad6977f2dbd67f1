"""results/dan.md and its plots: what the comparisons of widths found, from their JSON.

python benchmarks/dan_page.py
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from record import RESULTS
from shown import BUSY, shown_ms

from adjcompress.adjoined.decision import LATENCY_MARGIN
from adjcompress.files import write_text

DIAGNOSES = {
    "dan_diagnosis": "",
    "dan_diagnosis_resnet18": "",
    "dan_diagnosis_all_widths": " that never chooses, so that all widths learn alike",
    "dan_diagnosis_patient": " that chooses nothing for half of it, the divergence at its full weight from the first step",
}
"""Results of dan_diagnosis.py, and what was special in the search."""
DIAGNOSED = (
    "A finished search, with its weights, its logits at zero and its budget off: what a billion more multiply-adds in a group "
    "lower the divergence by. By gradient: the slope of the draws, at the temperatures of the begin, the middle and the end of "
    "the choosing. Truth: a group's next narrower candidate against its next wider one, one-hot, the others at uniform alpha "
    "2; where it is the same for all groups, no trade between them lowers the divergence, to first order, and uniform widths "
    "are right. The weights are those at the end of the search, which learnt at the widths it prefers; where that is said, at "
    "all widths alike."
)
RENDERED = "Rendered from {}.json."


def unreserved(row: dict[str, Any]) -> str:
    """What is to be said of a plan that uses more of a latency than decision.py, which keeps some in reserve, now lets it."""
    for budget in row["searched"]["budgets"]:
        if budget.startswith("latency="):
            asked, used = milliseconds(budget), row["searched"]["costs"]["latency"]
            if used > (1 - LATENCY_MARGIN) * asked:
                return (
                    f"; takes {used / asked:.1%} of it, as uniform widths do: a search now keeps {LATENCY_MARGIN:.0%} in "
                    f"reserve, and may take so much where {asked / (1 - LATENCY_MARGIN):.4f} ms are asked for"
                )
    return ""


def milliseconds(budget: str) -> float:
    """Of a budget as a search writes it, latency=0.7958ms@one-core."""
    return float(budget.partition("=")[2].partition("ms")[0])


def write_page() -> None:
    """Write results/dan.md anew."""
    write_text(RESULTS / "dan.md", page())


def page() -> str:
    """results/dan.md, from dan.json and, where those were measured, dan_protocol.json and dan_together.json."""

    def figures(name: str) -> dict[str, Any] | None:
        path = RESULTS / f"{name}.json"
        return json.loads(path.read_text())["figures"] if path.is_file() else None

    alone, together, protocol = figures("dan"), figures("dan_together"), figures("dan_protocol")
    constant, diagnoses = figures("dan_constant"), [figures(name) for name in DIAGNOSES]
    assert alone is not None
    lines = ["# Searched, uniform and random widths", ""]
    if protocol is not None:
        assert together is not None
        inside = [row["accuracy"]["expected"] - row["accuracy"]["uniform"] for row in together["rows"]]
        lines += ["## At the full length of training", ""]
        lines += [*protocol_lines(protocol, [*searches_alone(alone), *inside]), ""]
    if constant is not None:
        lines += ["## In a network whose widths nobody tuned", "", *constant_lines(constant), ""]
    latency = figures("dan_together_latency")
    if latency is not None:
        lines += ["## Under a latency, every layer", "", *latency_lines(latency), ""]
    patient = figures("dan_patient")
    if patient is not None:
        how = (
            f"ResNet-18, {patient['images']:,} training images. The search chooses nothing for {patient['warm_up']:.0%} of its "
            f"epochs, with the divergence's weight {patient['schedule']} from the first step; other_expected are the widths "
            "that the ordinary search decided on (quadratic weight, a fifth of 10 epochs)."
        )
        lines += ["## A search that waits", "", how, "", *together_lines(patient), "", *kept_lines(patient), ""]
        lines += [RENDERED.format("dan_patient"), ""]
    if any(diagnoses):
        lines += ["## What reaches the search", "", DIAGNOSED, ""]
        for name, diagnosis in zip(DIAGNOSES, diagnoses, strict=True):
            lines += [*diagnosis_lines(name, diagnosis), ""] if diagnosis is not None else []
    lines += ["## Runs of their own", "", *lines_alone(alone)]
    if together is not None:
        lines += [
            "",
            "## Inside one full network, two seeds",
            "",
            *together_lines(together),
            "",
            RENDERED.format("dan_together"),
        ]
    return "\n".join(lines) + "\n"


def searches_alone(figures: dict[str, Any]) -> list[float]:
    """How far the searches under the MACs of uniform alpha 2 were from uniform widths in runs of their own, by seed."""
    rows = {row["name"]: row for row in figures["rows"]}
    searched, uniform = (
        [row["accuracy"], *(found["accuracy"] for found in row["other_seeds"].values())]
        for row in (rows["macs-alpha2-searched"], rows["alpha2-uniform"])
    )
    return [ours - theirs for ours, theirs in zip(searched, uniform, strict=True)]


def protocol_lines(figures: dict[str, Any], leads: list[float]) -> list[str]:
    """Both levels of the comparison at the protocol's 40 epochs: see dan_protocol.py; `leads` of the four searches."""
    rows = figures["rows"]
    lines = [
        f"One full network for each level, with all its small ones in it: {figures['images']:,} training images, "
        f"{figures['recipe']['epochs']} epochs, seed {figures['seed']}; top-1 on the 10,000 test images; one thread, ONNX "
        "Runtime, batch 1, side by side. Stages: the default layers, at the multiply-adds and the predicted latency of uniform "
        "alpha 2; every-layer: of uniform alpha 4. Searched: under the budget of MACs or of latency, widths as dan.json and "
        "dan_together.json have them. Under the MACs of uniform alpha 2 there were four searches, on test "
        f"{' and '.join(f'{100 * lead:+.2f}' for lead in leads[:2])} points from uniform in runs of their own and "
        f"{' and '.join(f'{100 * lead:+.2f}' for lead in leads[2:])} inside one network (below); the third is the one here. "
        "Under the latency: all that uniform widths take, nothing in reserve. Random: of the uniform network's MACs and "
        "predicted latency. A search of 10 epochs costs two full networks an image, and adds "
        f"{10 * 2 / (figures['recipe']['epochs'] * 1.5):.0%} to what these epochs of a full network and a small one of half "
        "its multiply-adds cost; it is in no row. Rendered from dan_protocol.json. " + BUSY,
        "",
        "| level | widths | MACs | parameters | one thread | top-1 | points over uniform |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        uniform = next(other for other in rows if other["level"] == row["level"] and other["widths"] == "uniform")
        over = 100 * (row["accuracy"] - uniform["accuracy"])
        lines.append(
            f"| {row['level']} | {row['widths']} | {row['macs'] / 1e6:.2f} M | {row['parameters'] / 1e6:.3f} M | "
            f"{shown_ms(row)} | {100 * row['accuracy']:.2f} % | {'' if row is uniform else f'{over:+.2f}'} |"
        )
    lines += ["", "Channels that are kept, of the groups that are cut:", ""]
    for row in (row for row in rows if row["kept"]):
        lines.append(f"- {row['level']}, {row['widths']}: " + ", ".join(f"{name} {kept}" for name, kept in row["kept"].items()))
    return [*lines, "", "![accuracy over MACs and latency](dan_protocol.svg)"]


def lines_alone(figures: dict[str, Any]) -> list[str]:
    lines = [
        f"{figures['model']}, CIFAR-100, {figures['images']:,} training images, {figures['recipe']['epochs']} epochs, "
        f"seed {figures['seed']}; trained several at a time on two cores, so that seconds of training compare roughly; "
        "top-1 of the small network on the 10,000 test images; one thread, ONNX Runtime, batch 1. Rendered from dan.json. "
        + BUSY,
        "",
        "| budget | widths | top-1 | full network's | MACs | parameters | bytes | one thread | training |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in figures["rows"]:
        others = "".join(
            f"; seed {seed}: {100 * found['accuracy']:.2f} %" for seed, found in row.get("other_seeds", {}).items()
        )
        search = f" + {row['search_seconds']:.0f} s search" if "searched" in row else ""
        lines.append(
            f"| {row['level']} | {row['kind']} | {100 * row['accuracy']:.2f} %{others} | {100 * row['full_accuracy']:.2f} % | "
            f"{row['macs'] / 1e6:.2f} M ({row['macs_part']:.3f}) | {row['parameters'] / 1e6:.3f} M | "
            f"{row['bytes'] / 1e6:.2f} MB | {shown_ms(row)} | {row['seconds']:.0f} s{search} |"
        )
    lines += ["", "Channels that the searches keep, of the groups that are cut:", ""]
    for row in (row for row in figures["rows"] if "searched" in row):
        found = ", ".join(f"{name} {kept}" for name, kept in row["widths"].items())
        lines.append(f"- {row['name']} ({', '.join(row['searched']['budgets'])}{unreserved(row)}): {found}")
    return [*lines, "", "![accuracy over MACs and latency](dan.svg)"]


def constant_lines(figures: dict[str, Any]) -> list[str]:
    """Eight layers of equal width, where uniform widths are not the right ones: see constant_width.py and dan_together.py."""
    channels = f"Eight 3x3 convolutions of as many channels, {figures['data']}, uniform alpha {figures['alpha']:g}'s MACs."
    return [channels, "", *together_lines(figures), "", *kept_lines(figures), "", RENDERED.format("dan_constant")]


def latency_lines(figures: dict[str, Any]) -> list[str]:
    """Widths of a predicted latency, and what they take when they are exported and measured."""
    about = (
        f"ResNet-18, every layer may be cut. Asked: {figures['budget']}, which less the {LATENCY_MARGIN:.0%} kept in reserve "
        f"is what the latency table gives uniform alpha {figures['alpha']:g}; random plans are decided under the same. "
        f"Measured: exported, one thread, side by side. {BUSY}"
    )
    lines = [about, "", *together_lines(figures), "", "| widths | parameters | predicted | measured |"]
    lines.append("| --- | ---: | ---: | ---: |")
    for kind in ("full", *figures["over_uniform_mean"]):
        parameters, predicted, measured = (
            ", ".join(shown(row[key][kind]) for row in figures["rows"])
            for key, shown in (
                ("parameters", lambda value: f"{value / 1e6:.3f} M"),
                ("predicted_ms", lambda value: f"{value:.3f} ms"),
                ("timed", shown_ms),
            )
        )
        lines.append(f"| {kind} | {parameters} | {predicted} | {measured} |")
    kinds, rows = list(figures["over_uniform_mean"]), figures["rows"]
    slower = {kind: mean(row["timed"][kind]["p50_ms"] / row["predicted_ms"][kind] for row in rows) for kind in ("full", *kinds)}
    times = [mean(row["timed"][kind]["p50_ms"] for row in rows) for kind in kinds]
    told = ", ".join(f"{kind} {slower[kind] / slower['full']:.2f}" for kind in kinds)
    found = (
        f"The machine took {slower['full']:.2f} times what the table says for the full network; net of that, measured over "
        f"predicted: {told}. The small networks' latencies lie within {max(times) / min(times) - 1:.1%} of each other: "
        "where that is more than some per cent, the accuracies are not of equal latency, for a search takes what a table "
        "wrongly says is cheap."
    )
    return [*lines, "", found, "", *kept_lines(figures), "", RENDERED.format("dan_together_latency")]


def kept_lines(figures: dict[str, Any]) -> list[str]:
    """The widths of every small network inside one full network."""
    kept = [
        f"- seed {row['seed']}, {name}: " + ", ".join(f"{group} {width}" for group, width in widths.items())
        for row in figures["rows"]
        for name, widths in row["widths"].items()
    ]
    return ["Channels that are kept, of the groups that are cut:", "", *kept]


def diagnosis_lines(name: str, figures: dict[str, Any]) -> list[str]:
    """Whether the gradient of the logits ranks the groups as the truth does: see dan_diagnosis.py."""
    measured = figures["by_temperature"]
    count = len(figures["groups"])
    columns = " | ".join(f"gradient, T = {row['temperature']:.2f}" for row in measured)
    model, truth = figures["model"]["name"].rpartition(":")[2], figures["truth_per_gmac"]
    special = DIAGNOSES[name]
    lines = [
        f"{model}, {figures['data']}, a search of {figures['epochs']} epochs{special}; {figures['images']:,} held-out images, "
        f"{figures['draws']} draws a batch:",
        "",
        f"| group | truth | {columns} | likeliest at end |",
        "| --- | ---: |" + " ---: |" * (len(measured) + 1),
    ]
    for number, group in enumerate(figures["groups"]):
        told = " | ".join(f"{row['worth_per_gmac'][number]:.1f}" for row in measured)
        likeliest = figures["likeliest_at_end"][number]
        lines.append(f"| {group} | {truth[number]:.1f} | {told} | {likeliest:.2f} |")
    noise = ", ".join(
        f"{min(row['signal_to_noise_of_a_step']):.2f} to {max(row['signal_to_noise_of_a_step']):.2f}" for row in measured
    )
    helps = ", ".join(f"{row['wider_helps']} of {count}" for row in measured)
    ranks = ", ".join(f"{row['rank_correlation']:.2f}" for row in measured)
    epochs = figures["widths_by_epoch"]
    moves = [sum(abs(new - old) / old for old, new in zip(*pair, strict=True)) / count for pair in pairwise(epochs)]
    return [
        *lines,
        "",
        f"Divergence at uniform widths {figures['uniform_divergence']:.3f}, truth from {min(truth):.1f} to {max(truth):.1f}. "
        f"Groups of which the gradient says that wider helps: {helps}. Rank correlation with the truth: {ranks}. Signal over "
        f"noise of one step: {noise}. Expected widths move from epoch to epoch, on average, by "
        + ", ".join(f"{move:.1%}" for move in moves)
        + f". Rendered from {name}.json.",
    ]


def together_lines(figures: dict[str, Any]) -> list[str]:
    """The comparison without the noise between runs: see dan_together.py."""
    rows, kinds = figures["rows"], list(figures["over_uniform_mean"])
    seeds = "seeds " * (len(rows) > 1) + "seed " * (len(rows) == 1) + " and ".join(str(row["seed"]) for row in rows)
    deviations = figures["over_uniform_deviation"]
    lines = [
        f"Separate runs differ by as much as these widths do, so here one full network holds them all: {figures['images']:,} "
        f"training images, {figures['recipe']['epochs']} epochs after a search of {figures['search_epochs']}, {seeds}; "
        "top-1 on the test images. Expected: the tool's own decision, nearest to the expected widths; likeliest: the likeliest "
        "choice that meets the budget.",
        "",
        "| widths | MACs, of the full network's | top-1 by seed | points over uniform |",
        "| --- | ---: | ---: | ---: |",
    ]
    for kind in kinds:
        parts = ", ".join(f"{row['macs_part'][kind]:.3f}" for row in rows)
        scores = ", ".join(f"{100 * row['accuracy'][kind]:.2f} %" for row in rows)
        spread = f" (deviation {100 * deviations[kind]:.2f})" if deviations else ""
        over = "" if kind == "uniform" else f"{100 * figures['over_uniform_mean'][kind]:+.2f}{spread}"
        lines.append(f"| {kind} | {parts} | {scores} | {over} |")
    full = ", ".join(f"{100 * row['accuracy']['full']:.2f} %" for row in rows)
    return [*lines, f"| full network | 1 | {full} | |"]


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy over MACs and over latency."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    styles = {"searched": ("o", "#c2410c"), "uniform": ("s", "#1d4ed8"), "random": ("x", "#6b7280")}
    for axis, key, scale, label in ((axes[0], "macs", 1e6, "MACs, millions"), (axes[1], "p50_ms", 1, "ms, one thread")):
        for kind, (marker, color) in styles.items():
            own = [row for row in rows if row["kind"].startswith(kind)]
            axis.scatter(
                [row[key] / scale for row in own],
                [100 * row["accuracy"] for row in own],
                marker=marker,
                color=color,
                label=kind,
            )
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("top-1 of the small network, %")
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    write_page()
