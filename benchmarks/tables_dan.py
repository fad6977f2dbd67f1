"""Which rows has the table of all results on widths that were searched under a budget?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dan_page import DIAGNOSES, unreserved
from shown import shown_ms
from tables_rows import Row, Rows, read


def _percents(row: dict[str, Any]) -> str:
    """Accuracy, of all seeds."""
    found = [row, *row.get("other_seeds", {}).values()]
    return " and ".join(f"{100 * each['accuracy']:.2f} %" for each in found)


def beside_others() -> Rows:
    """Searched widths beside uniform and random ones of the same cost, each trained alone."""
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
        text += unreserved(row)
        budget = ", ".join(row["searched"]["budgets"])
        every = ", every layer" if row["level"].startswith("every-layer") else ""
        yield Row.of(
            result,
            f"Widths under {budget}{every}, ResNet-18, CIFAR-100 ({images:,} training images), {epochs} epochs, top-1 (seed 0; "
            "or 0 and 1)",
            text,
        )


def together() -> Rows:
    """The same within one full network, without the noise between runs."""
    networks = {
        "dan_together": "The same budget",
        "dan_patient": "The same budget, a search that chooses nothing for half of it",
        "dan_constant": "Eight layers of equal width, CIFAR-10",
        "dan_together_latency": "Under the predicted latency of uniform alpha 4, every layer of ResNet-18",
    }
    for name, network in networks.items():
        together = read(name)
        figures = together["figures"]
        means, deviations = figures["over_uniform_mean"], figures["over_uniform_deviation"] or {}
        spread = {kind: f" (deviation {100 * deviation:.2f})" for kind, deviation in deviations.items()}
        text = ", ".join(f"{kind} {100 * means[kind]:+.2f}{spread.get(kind, '')}" for kind in means if kind != "uniform")
        seeds = " and ".join(str(row["seed"]) for row in figures["rows"])
        for row in (row for row in figures["rows"] if "timed" in row):
            kinds = [kind for kind in row["timed"] if kind != "full"]
            text += f"; measured (seed {row['seed']}): " + ", ".join(
                f"{kind} {shown_ms(row['timed'][kind], 2)}" for kind in kinds
            )
        yield Row.of(
            together,
            f"{network}, all small networks in one full network, {figures['images']:,} training images, "
            f"{figures['recipe']['epochs']} epochs, points over uniform "
            f'widths (seed{"s" * (len(figures["rows"]) > 1)} {seeds}); "expected" is the tool\'s own decision',
            text,
        )


def diagnosis() -> Rows:
    """What a search's gradient says of the groups, and what is true."""
    for name, how in DIAGNOSES.items():
        diagnosis = read(name)
        figures = diagnosis["figures"]
        truth, ranks = figures["truth_per_gmac"], [row["rank_correlation"] for row in figures["by_temperature"]]
        model = figures["model"]["name"].rpartition(":")[2]
        yield Row.of(
            diagnosis,
            f"What a billion multiply-adds in a group lower the divergence by, {model} after {figures['epochs']} epochs of "
            f"search{how}; rank correlation of the search's gradient with it",
            f"{min(truth):.1f} to {max(truth):.1f}; {min(ranks):.2f} to {max(ranks):.2f}",
        )


def protocol() -> Rows:
    """Both budgets by the protocol, in one full network."""
    protocol = read("dan_protocol")
    figures = protocol["figures"]
    for level in figures["seconds"]:
        own = [row for row in figures["rows"] if row["level"] == level and row["widths"] != "full"]
        text = ", ".join(
            f"{row['widths']} {100 * row['accuracy']:.2f} % at {row['macs'] / 1e6:.1f} M MACs and {shown_ms(row, 2)}"
            for row in own
        )
        cut = "uniform alpha 4, every layer" if level == "every-layer" else "uniform alpha 2, default layers"
        yield Row.of(
            protocol,
            f"Widths at the cost of {cut}, ResNet-18, CIFAR-100 ({figures['images']:,} training images), "
            f"{figures['recipe']['epochs']} epochs, all in one full network, top-1 (seed {figures['seed']})",
            text,
        )


def job() -> Rows:
    """The four commands on digits, with a search."""
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
    yield Row.of(
        job, f"Digits: `train --method dan --budget {figures['train']['search']['budgets'][0]}`, extract, export, bench", text
    )


def papers() -> Rows:
    """The papers' costs of ResNet-50."""
    papers = read("dan_papers")
    figure = papers["figures"]
    text = (
        f"{figure['macs'] / 1e9:.3f} G MACs ({figure['macs_fewer']:.2f}x fewer), {figure['parameters']:,} parameters "
        f"({figure['parameters_fewer']:.2f}x fewer)"
    )
    what = f"ResNet-50 for ImageNet, widths under {' and '.join(figure['budgets'])} by a search on"
    yield Row.of(papers, f"{what} {figure['searched_on']}", text)


def under_latency() -> Rows:
    """Plans under a latency, measured."""
    latency = read("dan_latency")
    for network, figure in latency["figures"].items():
        found = [plan["over_asked"] for plan in figure["plans"]]
        plainly = [plan["measured_ms"] / plan["asked_ms"] - 1 for plan in figure["plans"]]
        text = (
            f"{100 * min(found):+.1f} to {100 * max(found):+.1f} % of what was asked, on {len(found)} plans, if the full "
            f"network took what the table says; it took {figure['drift']:.3f} times that, and the plans as measured "
            f"{100 * min(plainly):+.1f} to {100 * max(plainly):+.1f} %"
        )
        yield Row.of(latency, f"Measured latency of plans decided under a latency, {network}, 224 px, one thread", text)


def search_step() -> Rows:
    """What a search step costs."""
    step = read("search_step")
    for case, figure in step["figures"].items():
        text = f"{figure['search_over_standard']:.2f} standard steps (bound {figure['bound']:.2f})"
        yield Row.of(step, f"Search step, {case}", text)


ALL: tuple[Callable[[], Rows], ...] = (beside_others, together, diagnosis, protocol, job, papers, under_latency, search_step)
