"""How does a training begin from what a user asks for, and go on after an interruption?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from adjcompress.data import DataSpec, read_data
from adjcompress.errors import AdjCompressError, pick
from adjcompress.methods import METHODS, MethodOptions
from adjcompress.models import ModelSpec, check_takes, load_weights_
from adjcompress.training.hardware import Hardware, launch
from adjcompress.training.loop import fit
from adjcompress.training.recipe import RECIPES, Recipe
from adjcompress.training.reporter import Reporter
from adjcompress.training.run import Run, new_run_folder, open_run, restore_method


@dataclass(frozen=True)
class TrainOptions:
    """What a training is asked to do, by names: everything that is not the machine's affair."""

    model: str = "resnet18"
    data: DataSpec = field(default_factory=lambda: DataSpec("digits"))
    method: str = "adjoined"
    method_options: MethodOptions = field(default_factory=MethodOptions)
    recipe: Recipe = RECIPES["quick"]
    seed: int = 0
    weights: Path | None = None
    new_classifier: bool = False


def train(
    options: TrainOptions,
    run: Path | None = None,
    hardware: Hardware | None = None,
    reporter: Reporter | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Run:
    """Build what `options` name and train it in `run`, by default runs/<data>-<model>-<method>.

    The same options and seed give the same run. All that is wrong with them is found before anything is written.
    """
    make_method = pick(METHODS, options.method, "Method")
    if options.seed < 0:
        raise AdjCompressError(f"--seed {options.seed} must be 0 or more.")
    hardware = hardware or Hardware()
    fabric = launch(hardware)
    with fabric.rank_zero_first(local=True):  # one process downloads, the others find it
        data = read_data(options.data)
    spec = ModelSpec(options.model, len(data.classes), data.preprocessing.image_size)
    torch.manual_seed(options.seed)
    model = spec.build()
    if options.weights is not None:
        load_weights_(model, options.weights, options.new_classifier)
    check_takes(model, data.preprocessing.example(), options.model)
    method = make_method.build(model, data.preprocessing.example(2), options.method_options)
    if run is None:
        names = (Path(options.data.source).stem, options.model.replace(":", "-"), options.method)
        run = new_run_folder("-".join(names)) if fabric.is_global_zero else Path()
    return fit(
        method,
        data,
        options.recipe,
        run,
        model=spec,
        seed=options.seed,
        fabric=fabric,
        reporter=reporter,
        compile=hardware.compile,
        notes=notes,
    )


def resume(folder: Path | None = None, hardware: Hardware | None = None, reporter: Reporter | None = None) -> Run:
    """Go on with an interrupted run, by default the newest, as its config.json says."""
    run = open_run(folder)
    hardware = hardware or Hardware(precision=run.config["precision"])
    if run.results() is not None:
        raise AdjCompressError(f"{run.folder} is finished: there is nothing to resume. Extract from it, or train a new --run.")
    fabric = launch(hardware)
    with fabric.rank_zero_first(local=True):
        data = run.data()
    method = restore_method(run.config["method"], run.model.build())
    return fit(
        method,
        data,
        Recipe(**run.config["recipe"]),
        run.folder,
        model=run.model,
        seed=run.config["seed"],
        resume=True,
        fabric=fabric,
        reporter=reporter,
        compile=hardware.compile,
        notes=run.config["notes"],
    )
