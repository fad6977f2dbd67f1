"""How does a training begin from what a user asks for, and go on after an interruption?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import nn

from adjcompress.data import DataSpec, ImageData, check_asked, read_data
from adjcompress.errors import AdjCompressError, pick
from adjcompress.files import write_text
from adjcompress.methods import METHODS, PHASES, Method, MethodOptions, Search, Taught, check_taken
from adjcompress.models import ModelSpec, check_takes, load_weights_, read_state, state_checksum, takes_option
from adjcompress.training.checkpoint import newest_checkpoint
from adjcompress.training.checks import check_joining, check_training
from adjcompress.training.hardware import Hardware, launch, together
from adjcompress.training.loop import fit
from adjcompress.training.recipes import RECIPES, Recipe
from adjcompress.training.reporter import Reporter
from adjcompress.training.run import (
    PLAN,
    RESULTS,
    SEARCH,
    Run,
    begun_run,
    new_run_folder,
    open_run,
    restore_method,
    stopped_before,
)
from adjcompress.training.teacher import packaged_model, read_teacher
from adjcompress.widths import kept_by_place, order_channels_


@dataclass(frozen=True)
class TrainOptions:
    """What a training is asked to do, by names: everything that is not the machine's affair.

    Where the method searches for widths first: `search_epochs` of that, by default a quarter of the recipe's, and whether the
    training goes on from the search's full network (`keep_weights`) or starts afresh.

    `importance` brings the channels of the `weights` that matter most to the front, where small networks keep them
    (`order_channels_`).

    `model` is a name as for `create_model`, or "package:FILE": the network of a package, with fresh weights. `model_options` go
    to its constructor. `teacher`: a run's folder, a package or a weights file of `model`, whose attention at the layers
    `attention` (by default its stages) a substituted network learns.
    """

    model: str = "resnet18"
    data: DataSpec = field(default_factory=lambda: DataSpec("digits"))
    method: str = "adjoined"
    method_options: MethodOptions = field(default_factory=MethodOptions)
    recipe: Recipe = RECIPES["quick"]
    seed: int = 0
    weights: str | Path | None = None
    importance: str | None = None
    new_classifier: bool = False
    search_epochs: int | None = None
    keep_weights: bool = False
    model_options: Mapping[str, Any] = field(default_factory=dict)
    teacher: str | Path | None = None
    attention: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Everything but a width plan, with which there is no search to remember the rest for."""
        content = asdict(replace(self, method_options=replace(self.method_options, plan=None)))
        paths = {"weights": self.weights, "teacher": self.teacher}
        return {**content, **{name: None if path is None else str(path) for name, path in paths.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrainOptions:
        """Read what `to_json` wrote."""
        return cls(
            **{
                **data,
                "data": DataSpec(**data["data"]),
                "method_options": MethodOptions(**data["method_options"]),
                "recipe": Recipe(**data["recipe"]),
                **{name: Path(data[name]) for name in ("weights", "teacher") if data.get(name) is not None},
            }
        )


def train(
    options: TrainOptions,
    run: str | Path | None = None,
    hardware: Hardware | None = None,
    reporter: Reporter | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Run:
    """Build what `options` name and train it in `run`, by default runs/<data>-<model>-<method>.

    The same options and seed give the same run. All that is wrong with them is found before anything is written. A method
    that needs widths from a search has it first, in the run's folder search/.
    """
    make_method = pick(METHODS, options.method, "Method")
    _check(options)
    options = _unpacked(options)
    hardware = hardware or Hardware()
    fabric = launch(hardware)
    with fabric.rank_zero_first(local=True):  # one process downloads, the others find it
        data = read_data(options.data)
    check_asked(data)
    data.check_files()
    spec = ModelSpec(options.model, len(data.classes), data.preprocessing.image_size, _model_options(options, data))
    model = _fresh_model(options, spec, data)
    search = _first_phase(options)
    first: type[Method] = search or make_method
    method = first.build(model, data.preprocessing.example(2), options.method_options)
    if isinstance(method, Taught) and options.teacher is not None:
        teacher, file = read_teacher(options.teacher, spec, data)
        method.taught_by_(teacher, data.preprocessing.example(2), options.attention, file)
    run = Path(run) if run is not None else None
    with together(fabric):
        if fabric.is_global_zero:
            check_training(method, data, options.recipe, fabric.world_size)
            if search:
                check_joining(cast(Search, method).waiting_then, options.recipe, len(data.train), fabric.world_size)
            if run is None:
                names = (Path(options.data.source).stem, options.model.replace(":", "-"), options.method)
                run = new_run_folder("-".join(names))
            elif search and any((each / "config.json").is_file() for each in (run, run / SEARCH)):
                raise AdjCompressError(f"{run} holds a run already: continue it with --resume, or choose another --run.")
    run = Path(fabric.broadcast(str(run)))
    job = _Job(options, data, spec, run, fabric, reporter, hardware.compile, notes)
    job.warn_of_stopped()
    if not search:
        job.warn_of_places(method, model)
        return job.fit(method, options.recipe)
    return job.search_then_fit(cast(Search, method), resume=False)


def resume(run: str | Path | None = None, hardware: Hardware | None = None, reporter: Reporter | None = None) -> Run:
    """Go on with the interrupted run in this folder, by default the newest, as its config.json says.

    `hardware`: by default in the run's own precision, compiled if it was, in as many processes.
    """
    begun = begun_run(run)
    hardware = hardware or hardware_of(begun)
    searching = begun.config["method"]["name"] in PHASES
    if begun.results() is not None and not searching:
        _refuse_whole(begun)
    fabric = launch(hardware)
    with fabric.rank_zero_first(local=True):
        data = begun.data()
        if not searching:
            (begun.folder / RESULTS).unlink(missing_ok=True)
    notes: Any = begun.config.get("notes")
    method = restore_method(begun.config["method"], begun.model.build())
    if searching:
        then = dict(notes["then"])
        checksum = then.pop("weights_checksum", None)
        options = TrainOptions.from_json(then)
        if options.weights is not None and checksum not in (None, state_checksum(read_state(options.weights))):
            raise AdjCompressError(
                f"{options.weights} no longer holds the weights that {begun.folder.parent} began with: put those back, or "
                "train a new --run."
            )
        own = {name: value for name, value in notes.items() if name != "then"} or None
        job = _Job(options, data, begun.model, begun.folder.parent, fabric, reporter, hardware.compile, own)
        return job.search_then_fit(cast(Search, method), resume=True)
    if isinstance(method, Taught) and method.teacher_file is not None:
        _same_teacher_again(method, begun, data)
    options = TrainOptions(seed=begun.config["seed"])
    job = _Job(options, data, begun.model, begun.folder, fabric, reporter, hardware.compile, notes)
    return job.fit(method, Recipe(**begun.config["recipe"]), resume=True)


def _refuse_whole(run: Run) -> None:
    """A run that has ended has nothing left to train, unless its last checkpoint is lost and one before it is whole."""
    found, ended = newest_checkpoint(run.folder), run.results()
    if found is None or ended is None or found.checkpoint.position.epoch >= ended["epochs"]:
        run.checkpoint()  # says what is the matter, where none is left
        raise AdjCompressError(f"{run.folder} is finished: there is nothing to resume. Extract from it, or train a new --run.")


def hardware_of(run: Run) -> Hardware:
    """What a run goes on with, on one machine; its device may be another."""
    config = run.config
    return Hardware(
        devices=config.get("processes", 1), precision=config.get("precision", "32"), compile=config.get("compile", False)
    )


def _same_teacher_again(method: Taught, run: Run, data: ImageData) -> None:
    """Give a resumed method the teacher that it began with."""
    assert method.teacher_file is not None
    teacher, file = read_teacher(Path(method.teacher_file.path), run.model, data)
    if file != method.teacher_file:
        raise AdjCompressError(
            f"{file.path} is no longer the teacher that {run.folder} began with: put that back, or train a new --run."
        )
    method.taught_by_(teacher, data.preprocessing.example(2), file=file)


@dataclass(frozen=True)
class _Job:
    """A training and where it runs: what both phases share."""

    options: TrainOptions
    data: ImageData
    spec: ModelSpec
    run: Path
    fabric: Fabric
    reporter: Reporter | None
    compile: bool
    notes: Mapping[str, Any] | None

    def fit(self, method: Method, recipe: Recipe, resume: bool = False) -> Run:
        """Train the run itself."""
        if self.reporter is not None and self.fabric.is_global_zero and not resume:
            self.reporter.begins(method)
        return fit(method, self.data, recipe, self.run, resume=resume, notes=self.notes, **self._shared())

    def search_then_fit(self, search: Search, resume: bool) -> Run:
        """The search, or the rest of it, in the run's folder search/; then the training at the widths that it found."""
        options, folder = self.options, self.run / SEARCH
        if not resume or open_run(folder).results() is None:
            notes = {**(self.notes or {}), "then": self._then()}
            fit(
                search,
                self.data,
                _search_recipe(options),
                folder,
                resume=resume,
                notes=notes,
                phase_of=self.run,
                **self._shared(),
            )
        else:
            search = cast(Search, open_run(folder).method())
        found = search.decide()
        if (shortcoming := found.shortcoming()) is not None:
            self._warn(shortcoming)
        if self.fabric.is_global_zero:
            write_text(self.run / PLAN, json.dumps(found.to_json(), indent=1) + "\n")
        model = _fresh_model(options, self.spec, self.data)
        if options.keep_weights:
            model.load_state_dict(search.deployables()["full"].state_dict())
        search.network.cpu()  # the second phase has the device to itself
        chosen = options.method_options.at_plan(found.plan)
        method = METHODS[options.method].build(model, self.data.preprocessing.example(2), chosen)
        self.warn_of_places(method, model)
        return self.fit(method, options.recipe)

    def warn_of_stopped(self) -> None:
        """Say that a training of this name was stopped, which the same command does not go on with."""
        if self.fabric.is_global_zero and (before := stopped_before(self.run)) is not None:
            self._warn(
                f"{before} was not trained to its end: adjcompress train --resume --run {before} goes on with it. This is a "
                f"new run, {self.run}."
            )

    def warn_of_places(self, method: Method, model: nn.Module) -> None:
        """Say which groups are cut at the channels that happen to be last, and not at the least important ones."""
        importance = self.options.importance
        if importance is None:
            return
        plans = [plan for name in method.deployables() if (plan := method.plan_of(name)) is not None]
        example = self.data.preprocessing.example(2)
        names = sorted({name for plan in plans for name in kept_by_place(model, plan, example, importance)})
        if names:
            self._warn(
                f"--importance {importance} cannot order {', '.join(names)}: shortcuts without weights pick their channels by "
                "their places, or no layer says which of them matter. The first ones are kept. Keep these layers whole with "
                "--keep, where that costs too much."
            )

    def _warn(self, text: str) -> None:
        if self.reporter is not None and self.fabric.is_global_zero:
            self.reporter.warn(text)

    def _then(self) -> dict[str, Any]:
        """What the second phase needs: the weights that it starts from as well, from wherever it is resumed."""
        weights = self.options.weights
        if weights is None:
            return self.options.to_json()
        return {
            **self.options.to_json(),
            "weights": str(Path(weights).resolve()),
            "weights_checksum": state_checksum(read_state(weights)),
        }

    def _shared(self) -> dict[str, Any]:
        return {
            "model": self.spec,
            "seed": self.options.seed,
            "fabric": self.fabric,
            "reporter": self.reporter,
            "compile": self.compile,
        }


def _check(options: TrainOptions) -> None:
    beside = {"teacher", "attention", "search_epochs", "keep_weights"}
    check_taken(options.method, options.method_options, [name for name in sorted(beside) if getattr(options, name)])
    if not 0 <= options.seed < 2**63:
        raise AdjCompressError(f"--seed {options.seed} must be 0 or more, and below 2^63.")
    if options.search_epochs is not None and options.search_epochs < 1:
        raise AdjCompressError(f"--search-epochs {options.search_epochs} must be at least 1.")
    if options.new_classifier and options.weights is None:
        raise AdjCompressError("--new-classifier lets the last layer of trained weights start afresh: give --weights too.")
    if options.importance is not None and options.weights is None:
        raise AdjCompressError("--importance orders the channels of trained weights: give --weights too, or leave it out.")
    always = METHODS[options.method].cuts_always and not options.method_options.alphas
    if options.importance is not None and not (options.method_options.cuts or always):
        raise AdjCompressError(
            f"--importance says which channels a small network keeps, and --method {options.method} cuts none here: leave it "
            "out, or give --alpha."
        )
    if METHODS[options.method].needs_teacher and options.teacher is None:
        raise AdjCompressError(
            f"--method {options.method} needs a --teacher: a run, a package or a weights file of the full network."
        )
    if options.attention and options.teacher is None:
        raise AdjCompressError("--attention needs a --teacher: a run, a package or a weights file of the dense network.")
    _check_plan(options)


def _check_plan(options: TrainOptions) -> None:
    """Refuse what belongs to a search where a plan gives the widths that it would find."""
    for option, given in {
        "--search-epochs": options.search_epochs is not None,
        "--keep-weights": options.keep_weights,
    }.items():
        if given and options.method_options.plan is not None:
            raise AdjCompressError(f"--plan gives the widths, so {option} would do nothing: leave one of them out.")


def _first_phase(options: TrainOptions) -> type[Search] | None:
    """The method by which the widths are searched, where that is to be done."""
    return METHODS[options.method].prepared_by if options.method_options.plan is None else None


def _unpacked(options: TrainOptions) -> TrainOptions:
    """The same with the model of a package by its own name and arguments: a run does not need the file again."""
    kind, _, path = options.model.partition(":")
    if kind != "package":
        return options
    spec = packaged_model(Path(path))
    return replace(options, model=spec.name, model_options={**spec.options, **options.model_options})


def _model_options(options: TrainOptions, data: ImageData) -> dict[str, Any]:
    """The options of the network's constructor, which is told that the data is for segmentation if it can be."""
    told = {"segmentation": True} if data.segmentation and takes_option(options.model, "segmentation") else {}
    return {**told, **options.model_options}


def _fresh_model(options: TrainOptions, spec: ModelSpec, data: ImageData) -> nn.Module:
    """The model as the seed makes it, with the weights that were asked for."""
    torch.manual_seed(options.seed)
    model = spec.build()
    per_pixel = data.preprocessing.size if data.segmentation else ()
    check_takes(model, data.preprocessing.example(), options.model, spec.num_classes, per_pixel)
    if options.weights is not None:
        load_weights_(model, options.weights, options.new_classifier, data.preprocessing.example())
    if options.importance is not None:
        order_channels_(model, data.preprocessing.example(2), options.importance)
    return model


def _search_recipe(options: TrainOptions) -> Recipe:
    """The recipe over fewer epochs; averaged weights would say nothing of widths."""
    epochs = options.search_epochs or max(1, round(options.recipe.epochs / 4))
    return replace(options.recipe, epochs=epochs, ema=None)
