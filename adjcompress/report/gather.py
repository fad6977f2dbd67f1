"""What does a run's folder say, in one piece?

Everything that the page shows is read here, once, into plain data. What is missing is None, what is damaged is a sentence
in `problems`: a run that was interrupted, or is still in training, gives a report as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adjcompress.cost import count
from adjcompress.errors import AdjCompressError, first_line
from adjcompress.report.architecture import Learnt, read_learnt
from adjcompress.report.deployed import FLOAT, MATERIALISED, Deployed, Package, Setting, Timing, number, read_deployed
from adjcompress.report.pictures import Pictures, read_pictures
from adjcompress.report.searched import Searched, notices_of, read_searched
from adjcompress.report.words import printable
from adjcompress.training import Run
from adjcompress.widths import WidthPlan


@dataclass(frozen=True)
class Scores:
    """One network on one split: accuracy in [0, 1], mean cross-entropy in nats; of segmentation the mean IoU, in [0, 1]."""

    accuracy: float | None
    loss: float | None
    mean_iou: float | None = None


@dataclass(frozen=True)
class Epoch:
    """A line of the log: training loss, and every network's scores on validation."""

    epoch: int
    loss: float | None
    validation: Mapping[str, Scores]


@dataclass(frozen=True)
class Network:
    """A network of a run: its accuracy, its counts, and the plan it is cut by (None: nothing is cut, or not known).

    `test` is of its package where batch norms were measured anew for that: what is deployed.
    """

    name: str
    test: float | None
    validation: float | None
    parameters: int | None
    macs: int | None
    bytes: int | None
    plan: WidthPlan | None
    test_iou: float | None = None
    validation_iou: float | None = None

    @property
    def accuracy(self) -> float | None:
        """On the test split; before the end, on validation."""
        return self.validation if self.test is None else self.test


@dataclass(frozen=True)
class Variant:
    """A network as it is deployed: in float32, or as one of its files in lower precision.

    `accuracy` of an int8 file is `derived`: the network's own, less the drop that quantisation was measured to cost.
    `validation` is what was measured on the validation split.
    """

    run: str
    network: str
    kind: str
    accuracy: float | None
    derived: bool
    validation: float | None
    parameters: int | None
    macs: int | None
    bytes: int | None
    timing: Timing | None

    @property
    def label(self) -> str:
        return self.network if self.kind == FLOAT else f"{self.network} {self.kind}"


@dataclass(frozen=True)
class RunFacts:
    """A run, read. `name` is its folder's; `problems` are sentences about what could not be read."""

    folder: Path
    name: str
    config: Mapping[str, Any]
    epochs: tuple[Epoch, ...]
    epochs_planned: int
    seconds: float | None
    finished: bool
    networks: tuple[Network, ...]
    deployed: Deployed
    searched: Searched | None
    learnt: Learnt | None
    pictures: Pictures | None
    problems: tuple[str, ...]
    notices: tuple[str, ...] = ()

    @property
    def segmentation(self) -> bool:
        """Whether its accuracies are of pixels."""
        known = [score for epoch in self.epochs for score in epoch.validation.values()]
        return any(score.mean_iou is not None for score in known)

    @property
    def accuracy_name(self) -> str:
        """What its accuracies are."""
        return "Pixel accuracy" if self.segmentation else "Top-1 accuracy"

    @property
    def epochs_alone(self) -> float:
        """For how many epochs the small networks learn before the full one begins."""
        part = number((self.config["method"].get("settings") or {}).get("small_first"))
        return self.epochs_planned * (part or 0.0)

    @property
    def full(self) -> Network | None:
        return next((network for network in self.networks if network.name == "full"), None)

    @property
    def smalls(self) -> tuple[Network, ...]:
        return tuple(network for network in self.networks if network.name != "full")


def gather(run: Run) -> RunFacts:
    """Read a run's folder. Its networks are rebuilt to be counted, where that is possible; no data set is read."""
    problems: list[str] = []
    results = _results(run, problems)
    epochs = _epochs(run, problems)
    deployed = read_deployed(run.folder)
    test = _by_network(results.get("test") or {})
    last = epochs[-1].validation if epochs else {}
    names = _names_in_order([*test, *last, *(package.name for package in deployed.packages if package.name)])
    networks = _networks(run, names, test, last, deployed, problems)
    searched = read_searched(run, problems)
    learnt = read_learnt(run, problems)
    pictures = read_pictures(run, names, problems)
    seconds = number(results.get("seconds")) or number((_log(run) or [{}])[-1].get("seconds"))
    return RunFacts(
        folder=run.folder,
        name=printable(run.folder.resolve().name),
        config=run.config,
        epochs=epochs,
        epochs_planned=run.config["recipe"]["epochs"],
        seconds=seconds,
        finished=bool(test),
        networks=networks,
        deployed=deployed,
        searched=searched,
        learnt=learnt,
        pictures=pictures,
        problems=(*problems, *([deployed.problem] if deployed.problem else [])),
        notices=(*notices_of(results), *(searched.notices if searched else ())),
    )


def shared_setting(runs: Iterable[RunFacts]) -> Setting | None:
    """The setting in which most networks of these runs were timed, the earliest of several; None where none was."""
    timed: dict[Setting, set[tuple[str, str]]] = {}
    for run in runs:
        for timing in run.deployed.timings:
            if timing.name is not None:
                timed.setdefault(timing.setting, set()).add((run.name, timing.label))
    return max(timed, key=lambda setting: len(timed[setting]), default=None)


def variants(run: RunFacts, setting: Setting | None) -> tuple[Variant, ...]:
    """Every network of a run in float32, and every file of lower precision, with its latency in one setting."""
    found = []
    for network in run.networks:
        found.append(_variant(run, network, FLOAT, setting))
        kinds = {file.kind for file in run.deployed.files if file.name == network.name} - {FLOAT}
        found += [_variant(run, network, kind, setting) for kind in sorted(kinds)]
    return tuple(found)


def _variant(run: RunFacts, network: Network, kind: str, setting: Setting | None) -> Variant:
    files = [file for file in run.deployed.files if (file.name, file.kind) == (network.name, kind)]
    timings = [timing for timing in run.deployed.timings if (timing.name, timing.kind) == (network.name, kind)]
    here = [timing for timing in timings if timing.setting == setting]
    exact = kind in (FLOAT, MATERIALISED)  # the same network, and its accuracy
    accuracy: float | None = network.accuracy if exact else None
    drops = [file.int8.drop_points for file in files if file.int8 and file.int8.drop_points is not None]
    measured = [file.int8.accuracy for file in files if file.int8]
    if drops and network.accuracy is not None:
        accuracy = network.accuracy - drops[-1] / 100
    sizes = [file.bytes for file in files] + [timing.bytes for timing in timings if Path(timing.path).suffix == ".onnx"]
    return Variant(
        run=run.name,
        network=network.name,
        kind=kind,
        accuracy=accuracy,
        derived=not exact,
        validation=network.validation if exact else (measured or [None])[-1],
        parameters=network.parameters,
        macs=network.macs,
        bytes=next((size for size in reversed(sizes) if size), network.bytes if kind == FLOAT else None),
        timing=here[-1] if here else None,
    )


def _log(run: Run) -> list[dict[str, Any]]:
    try:
        return [record for record in run.log() if isinstance(record, dict)]
    except (OSError, ValueError):
        return []


def _epochs(run: Run, problems: list[str]) -> tuple[Epoch, ...]:
    epochs = []
    try:
        for record in _log(run):
            loss = number(record["train"].get("loss"))
            epochs.append(Epoch(int(record["epoch"]), loss, _by_network(record["validation"])))
    except (KeyError, TypeError, ValueError, AttributeError):
        problems.append(f"log.jsonl is damaged after epoch {len(epochs)}: the curves end there.")
    return tuple(epochs)


def _results(run: Run, problems: list[str]) -> dict[str, Any]:
    try:
        results = run.results() or {}
        _by_network(results.get("test") or {})
        return results
    except (AdjCompressError, OSError, ValueError, TypeError, AttributeError) as error:
        problems.append(f"results.json is damaged ({printable(first_line(error))}): accuracies are those on validation.")
        return {}


def _by_network(data: Mapping[str, Any]) -> dict[str, Scores]:
    return {
        printable(name): Scores(*(number(scores.get(kind)) for kind in ("accuracy", "loss", "mean_iou")))
        for name, scores in data.items()
    }


def _names_in_order(names: Iterable[str]) -> list[str]:
    """Each once, the full network first."""
    return sorted(dict.fromkeys(names), key=lambda name: name != "full")


def _networks(
    run: Run,
    names: list[str],
    test: Mapping[str, Scores],
    last: Mapping[str, Scores],
    deployed: Deployed,
    problems: list[str],
) -> tuple[Network, ...]:
    """The run's networks with their counts and plans: rebuilt where that is possible, else as far as the JSON tells."""
    plans: dict[str, WidthPlan] = {}
    counts: dict[str, tuple[int, int, int]] = {}
    try:
        plans = _kept_plans(run)
        method = run.method()
        example = run.preprocessing.example()
        for name, network in method.deployables().items():
            found = count(network, example)
            counts[printable(name)] = (found.parameters, found.macs, found.bytes)
            plan = method.plan_of(name)
            plans |= {printable(name): plan} if plan is not None else {}
    except (AdjCompressError, OSError, KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        problems.append(f"Networks were not rebuilt to be counted: {printable(first_line(error))}")
    networks = []
    for name in _names_in_order([*names, *counts, *plans]):
        parameters, macs, size = counts.get(name) or _kept_counts(name, deployed)
        scores, package = test.get(name), _deployed_package(name, deployed)
        anew = package if package is not None and package.reestimated is not None else None
        networks.append(
            Network(
                name=name,
                test=anew.test if anew else scores.accuracy if scores else None,
                validation=last[name].accuracy if name in last else None,
                parameters=parameters,
                macs=macs,
                bytes=size,
                plan=plans.get(name),
                test_iou=anew.test_iou if anew else scores.mean_iou if scores else None,
                validation_iou=last[name].mean_iou if name in last else None,
            )
        )
    return tuple(networks)


def _deployed_package(name: str, deployed: Deployed) -> Package | None:
    """The package that a network's last ONNX file was made of; without one, the last that was extracted."""
    packages = {package.path: package for package in deployed.packages if package.name == name}
    exported = [packages[file.package] for file in deployed.files if file.name == name and file.package in packages]
    found = exported or list(packages.values())
    return found[-1] if found else None


def _kept_plans(run: Run) -> dict[str, WidthPlan]:
    """The width plans in config.json, by network."""
    settings = run.config["method"].get("settings") or {}
    kept = settings.get("plans") or {settings.get("deployable", "small"): settings.get("plan")}
    return {printable(name): WidthPlan.from_json(plan) for name, plan in kept.items() if plan}


def _kept_counts(name: str, deployed: Deployed) -> tuple[int | None, int | None, int | None]:
    """What an extraction said of a network: parameters, MACs, bytes."""
    for package in deployed.packages:
        if package.name == name:
            return package.parameters, package.macs, package.bytes
    if name == "full" and deployed.packages:
        return deployed.packages[-1].full_parameters, deployed.packages[-1].full_macs, None
    return None, None, None
