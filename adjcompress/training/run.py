"""What does a run's folder hold, and how is it read?

config.json (everything needed to repeat it), log.jsonl (a line an epoch), checkpoint-<epoch>/, results.json (the test
split, once, at the end). `runs/latest` points at the newest run. A run of two phases also holds its first, search/, and what
that decided, plan.json.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from adjcompress.data import DataSpec, ImageData, Preprocessing, read_data, same_images
from adjcompress.errors import AdjCompressError, first_line, pick
from adjcompress.files import system_errors, write_text
from adjcompress.methods import METHODS, PHASES, Method, MethodOptions
from adjcompress.models import ModelSpec
from adjcompress.training.checkpoint import Found, newest_checkpoint
from adjcompress.training.recipes import Recipe
from adjcompress.widths import WidthPlan

RUNS = Path("runs")
LATEST = RUNS / "latest"
SEARCH = "search"  # the folder of a run's first phase, a run itself, and what it decides
PLAN = "plan.json"
RESULTS = "results.json"
FORMAT = 1
# What a resumed training must share with the one that was interrupted; precision and device may change.
_MUST_MATCH = ("model", "data", "method", "recipe", "seed", "processes", "classes")


@dataclass(frozen=True)
class Run:
    """A training's folder and its configuration, read."""

    folder: Path
    config: Mapping[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.config["classes"])

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing.from_json(self.config["preprocessing"])

    @property
    def model(self) -> ModelSpec:
        """How the network is built again; an error for a network that was made by hand."""
        if self.config["model"] is None:
            raise AdjCompressError(
                f"{self.folder} was trained on a network made by hand, which no name rebuilds: "
                "pass fit(..., model=ModelSpec('package.module:function', ...)), or extract it in Python."
            )
        return ModelSpec.from_json(self.config["model"])

    def data(self) -> ImageData:
        """The data it was trained on, read again; other images in their place are an error."""
        data = read_data(DataSpec(**self.config["data"]))
        trained, found = self.config.get("images"), data.fingerprint()
        if trained is not None and not same_images(trained, found):  # runs of earlier versions do not tell
            sizes = (" and ".join(f"{size} {name}" for name, size in each["images"].items()) for each in (trained, found))
            raise AdjCompressError(
                f"{data.spec.source} holds other images than {self.folder} was trained on (of {', now '.join(sizes)}): "
                "put those back, or train again."
            )
        return data

    def log(self) -> list[dict[str, Any]]:
        """One record for each epoch that is done."""
        return read_log(self.folder)

    def results(self) -> dict[str, Any] | None:
        """What the test split said at the end; None before that."""
        path = self.folder / RESULTS
        try:
            return json.loads(path.read_text()) if path.is_file() else None
        except (OSError, ValueError) as error:
            raise AdjCompressError(
                f"{path} is damaged ({first_line(error)}): remove it, and adjcompress train --resume writes it anew."
            ) from error

    def ended(self) -> dict[str, Any]:
        """What `results` holds of a training that has ended; of another an error, which tells how it goes on."""
        results = self.results()
        if results is None:
            raise AdjCompressError(self._left())
        return results

    def checkpoint(self) -> Found:
        """The newest whole checkpoint; of a training that has ended the last one, without which it is no whole run."""
        found, ended = newest_checkpoint(self.folder), self.results()
        if found is None:
            left = "continue it with adjcompress train --resume." if ended is None else "train a new --run."
            raise AdjCompressError(f"{self.folder} has no checkpoint {'yet' if ended is None else 'any more'}: {left}")
        if ended is not None and found.checkpoint.position.epoch < ended["epochs"]:
            raise AdjCompressError(
                f"{self.folder} ended after epoch {ended['epochs']}, but its newest whole checkpoint is {found.folder.name}"
                f"{': ' + ' '.join(found.damaged) if found.damaged else '.'} adjcompress train --resume --run {self.folder} "
                "trains the rest again."
            )
        return found

    def unfinished(self) -> str | None:
        """How far a training is that has not ended, and how it goes on; None where it has."""
        return None if self.results() is not None else self._left()

    def _left(self) -> str:
        position, epochs = self.checkpoint().checkpoint.position, self.config["recipe"]["epochs"]
        return (
            f"{self.folder} is at epoch {position.epoch} of {epochs}: adjcompress train --resume --run {self.folder} goes on "
            "with it."
        )

    def waiting(self, method: Method) -> Collection[str]:
        """The networks of its `method` that have not begun to learn, in a training that has not ended."""
        if self.results() is not None:
            return frozenset()
        position = self.checkpoint().checkpoint.position
        return method.waiting(max(0.0, position.epoch / self.config["recipe"]["epochs"] - 1e-9))

    def method(self) -> Method:
        """The method with the weights of the newest whole checkpoint, in evaluation mode."""
        found = self.checkpoint()
        method = restore_method(self.config["method"], self.model.build())
        try:
            method.network.load_state_dict(found.checkpoint.deployable)
        except RuntimeError as error:
            what = " ".join(line.strip() for line in str(error).splitlines()[1:2])
            raise AdjCompressError(
                f"{self.config['model']['name']} is no longer the network that {self.folder} trained: {what}"
            ) from error
        method.network.eval()
        return method


def open_run(folder: str | Path | None = None) -> Run:
    """Read a run; without a folder, the newest one of the working directory."""
    folder = latest_run() if folder is None else Path(folder)
    path = folder / "config.json"
    if not path.is_file() and (folder / SEARCH / "config.json").is_file():
        raise AdjCompressError(
            f"{folder} is still searching for its widths: go on with adjcompress train --resume --run {folder}."
        )
    if not path.is_file():
        raise AdjCompressError(f"{folder} is no run: it has no config.json. Runs are made by adjcompress train.")
    try:
        config = json.loads(path.read_text())
        kind = config["format"]
        if missing := [name for name in (*_MUST_MATCH[:-2], *_MUST_MATCH[-1:], "preprocessing") if name not in config]:
            raise ValueError(f"it lacks {missing[0]}")
        if kind == FORMAT:
            _check_parts(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AdjCompressError) as error:
        raise AdjCompressError(f"{path} is damaged ({error}); the run cannot be read without it.") from error
    if kind != FORMAT:
        raise AdjCompressError(
            f"{folder} has format {kind}; this version reads format {FORMAT}: install the version that wrote it "
            f"({config.get('versions', {}).get('adjcompress', 'unknown')})."
        )
    return Run(folder, config)


def _check_parts(config: Mapping[str, Any]) -> None:
    """Build what is read of a config.json; whatever that raises, the file is damaged."""
    if config["model"] is not None:
        ModelSpec.from_json(config["model"])
    DataSpec(**config["data"])
    Recipe(**config["recipe"])
    Preprocessing.from_json(config["preprocessing"])
    if config.get("images") is not None:
        same_images(config["images"], config["images"])
    for name, part, kind in (
        ("classes", config["classes"], list),
        ("seed", config["seed"], int),
        ("method", config["method"]["name"], str),
        ("method", config["method"]["settings"], dict),
        ("processes", config.get("processes", 1), int),
        ("precision", config.get("precision", "32"), str),
        ("device", config.get("device", "cpu"), str),
        ("notes", config.get("notes") or {}, dict),
    ):
        if not isinstance(part, kind):
            raise TypeError(f"its {name} is {part!r}")


def begun_run(folder: str | Path | None = None) -> Run:
    """Like `open_run`, but of a run whose first phase has not ended: that phase."""
    folder = Path(folder) if folder is not None else latest_run()
    searching = not (folder / "config.json").is_file() and (folder / SEARCH / "config.json").is_file()
    return open_run(folder / SEARCH if searching else folder)


def read_plan(path: Path) -> WidthPlan:
    """The width plan in a plan.json, or of the only small network in a run's config.json."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        plans = {"": content}
        if "method" in content:
            settings = content["method"]["settings"]
            plans = settings.get("plans") or ({"": settings["plan"]} if settings.get("plan") else {})
        found = [WidthPlan.from_json(plan) for plan in plans.values()]
    except (AdjCompressError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AdjCompressError(f"--plan {path} cannot be read ({error}): give a run's plan.json or config.json.") from error
    if len(found) != 1:
        raise AdjCompressError(f"--plan {path} holds {len(found)} width plans: give the config.json of a run that has one.")
    return found[0]


def latest_run() -> Path:
    """The newest run of the working directory."""
    if not LATEST.exists():
        raise AdjCompressError(f"There is no run in {RUNS}/ here: make one with adjcompress train, or name one with --run.")
    return RUNS / LATEST.resolve().name if LATEST.resolve().parent == RUNS.resolve() else LATEST.resolve()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Within the block no other process can train in this run; the system lets go of it when the process ends.

    Where files cannot be locked (some network file systems) nothing is held.
    """
    with (folder / "config.json").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AdjCompressError(
                f"{folder} is being trained by another process: wait for it, or choose another --run."
            ) from error
        except OSError:
            pass
        yield


def point_latest_at(folder: Path) -> None:
    """Make `runs/latest` point at a run, at once."""
    with system_errors(f"{LATEST} could not be pointed at {folder}"):
        RUNS.mkdir(exist_ok=True)
        aside = RUNS / f".latest.{os.getpid()}"
        aside.unlink(missing_ok=True)
        aside.symlink_to(os.path.relpath(folder.resolve(), RUNS.resolve()))
        aside.replace(LATEST)


def new_run_folder(name: str) -> Path:
    """Make `runs/<name>`, or with a number behind it where that exists; nobody else gets the same."""
    number = 1
    while True:
        folder = RUNS / (name if number == 1 else f"{name}-{number}")
        with system_errors(f"{folder} could not be made"):
            RUNS.mkdir(exist_ok=True)
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
        number += 1


def stopped_before(folder: Path) -> Path | None:
    """Of a folder from `new_run_folder` the one made before it, if a training has begun there and not ended."""
    base, _, number = folder.name.rpartition("-")
    if not base or not number.isdigit():
        return None
    before = folder.with_name(base if number == "2" else f"{base}-{int(number) - 1}")
    begun = any((each / "config.json").is_file() for each in (before, before / SEARCH))
    return before if begun and not (before / RESULTS).is_file() else None


def restore_method(config: Mapping[str, Any], model: nn.Module) -> Method:
    """The method that config.json describes, around a fresh model."""
    return pick(METHODS | PHASES, config["name"], "Method").restore(model, config["settings"])


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of log.jsonl; a line that a killed process left unfinished is passed over."""
    path = folder / "log.jsonl"
    records = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def write_log(folder: Path, records: list[dict[str, Any]]) -> None:
    """Replace log.jsonl by these records."""
    write_text(folder / "log.jsonl", "".join(json.dumps(record) + "\n" for record in records))


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Replace results.json."""
    write_text(folder / RESULTS, json.dumps(results, indent=1))


_LATER = {"dropout": ("classifier",), "budgeted": ("told",)}
"""Settings that versions before did not write, by method: what they are follows from the rest."""


def _with_later_options(method: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """A method's entry in config.json; what a version before did not write is as asked, or, of a search, as by default."""
    later = {name: asked["settings"].get(name) for name in _LATER.get(method["name"], ())}
    settings = {**later, **method["settings"]}
    if method["name"] in PHASES:
        defaults = json.loads(json.dumps(asdict(MethodOptions())))
        del defaults["plan"]  # which a search is to find
        settings["options"] = {**defaults, **settings["options"]}
    return {**method, "settings": settings}


def start_run(folder: Path, resume: bool, config: Mapping[str, Any], newest: Path) -> None:
    """Make a run's folder and config.json, or check that the one to go on with is the same training.

    `newest` is what `runs/latest` points at then: the run, or the one that it is a phase of.
    """
    if (folder / "config.json").is_file():
        old, asked = dict(open_run(folder).config), json.loads(json.dumps(config))
        old["data"] = asdict(DataSpec(**old["data"]))  # what a version before did not know has its default
        old["recipe"] = Recipe(**old["recipe"]).to_json()
        old["method"] = _with_later_options(old["method"], asked["method"])
        if not resume:
            raise AdjCompressError(f"{folder} holds a run already: continue it with --resume, or choose another --run.")
        differing = [key for key in _MUST_MATCH if old.get(key) != asked.get(key)]
        if not same_images(old.get("images", asked["images"]), asked["images"]):
            differing.append("set of images")
        if differing:
            raise AdjCompressError(
                f"{folder} was started with another {', '.join(differing)}: resume it with the same, or choose another --run."
            )
    elif resume:
        raise AdjCompressError(f"{folder} is no run to resume: it has no config.json.")
    else:
        if folder.exists() and not folder.is_dir():
            raise AdjCompressError(f"{folder} is a file: choose a folder for --run.")
        if folder.exists() and not (folder / SEARCH / "config.json").is_file() and any(folder.iterdir()):
            raise AdjCompressError(f"{folder} is not empty and holds no run: choose another --run.")
        write_text(folder / "config.json", json.dumps(config, indent=1))
    point_latest_at(newest)
