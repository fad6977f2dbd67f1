"""What do the options of adjcompress train ask for?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adjcompress_cli.model_options import model_options

from adjcompress.data import DataSpec
from adjcompress.errors import AdjCompressError, check_choice
from adjcompress.methods import MethodOptions
from adjcompress.training import WAYS, TrainOptions, default_way, read_plan, recipe

_BY_WAY = ("detach", "small_first", "small_labels", "widen", "trunk")  # None where they were not given
_OF_RECIPE = ("epochs", "batch_size", "lr", "augmentation", "label_smoothing", "mixup", "clip_norm", "ema")


def settled(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the way that suits them, where none is given, and with what it sets."""
    way, ordinary = _way(options), MethodOptions()
    by_way = {name: WAYS[way or "papers"].method.get(name, getattr(ordinary, name)) for name in _BY_WAY}
    if options["weights"] is not None:
        by_way["widen"] = "fresh"  # copies would take the place of what the full network's own filters know
    given = {name: options[name] for name in _BY_WAY if options[name] is not None}
    return {**options, "way": way, **by_way, **given}


def train_options(options: Mapping[str, Any]) -> TrainOptions:
    """Options that are `settled`, by their names on the command line, as a training."""
    way = WAYS[options["way"] or "papers"]
    height, width = options["image_size"] or (None, None)
    return TrainOptions(
        model=options["model"],
        data=DataSpec(
            options["data"],
            height,
            options["validation"],
            options["seed"],
            options["limit"],
            width=width,
            ignore_label=options["ignore_label"],
        ),
        method=options["method"],
        method_options=MethodOptions(
            alphas=options["alpha"],
            slim=options["slim"] or None,
            keep=options["keep"] or None,
            align=_align(options["align"]),
            beta=options["beta"],
            seed=options["seed"],
            schedule=options["schedule"],
            plan=None if options["plan"] is None else read_plan(options["plan"]),
            budgets=options["budget"],
            table=None if options["table"] is None else str(options["table"].resolve()),
            width_step=options["width_step"],
            halves=options["halves"],
            substitute=options["substitute"],
            setting=options["setting"],
            substitute_layers=options["substitute_layers"] or None,
            dense_layers=options["dense_layers"] or None,
            approximate=options["weights"] is not None,
            weight_decay_scaling=options["weight_decay_scaling"],
            machines=options["machines"],
            cost=options["cost"],
            samples_per_batch=options["samples_per_batch"],
            warm_up=options["warm_up"],
            weight=options["weight"],
            growing=options["growing"],
            temperature=options["temperature"],
            dropout=options["dropout"],
            dropout_blocks=options["dropout_blocks"],
            **{name: options[name] for name in _BY_WAY},
        ),
        recipe=way.recipe(recipe(options["recipe"])).changed(**{name: options[name] for name in _OF_RECIPE}),
        seed=options["seed"],
        weights=options["weights"],
        importance=options["importance"],
        new_classifier=options["new_classifier"],
        search_epochs=options["search_epochs"],
        keep_weights=options["keep_weights"],
        model_options=model_options(options["model_option"]),
        teacher=options["teacher"],
        attention=options["attention"].split(",") if options["attention"] else (),
    )


def _way(options: Mapping[str, Any]) -> str | None:
    """The way that was asked for, or that suits the rest; None: the method has no ways."""
    asked: str | None = options["way"]
    if options["method"] != "adjoined":
        if asked is not None:
            raise AdjCompressError(f"--way goes with --method adjoined, not with {options['method']}: leave it out.")
        return None
    if asked is None:
        return default_way(options["recipe"], options)
    check_choice(WAYS, asked, "--way")
    if asked == "small-first" and options["small_first"] == 0:
        raise AdjCompressError("--small-first 0 has no small network learn first: give --way papers.")
    return asked


def _align(value: str) -> int:
    """--align as a number: auto asks ONNX Runtime what suits this machine."""
    from adjcompress.deploy import align_auto

    if value == "auto":
        return align_auto()
    try:
        return int(value)
    except ValueError:
        raise AdjCompressError(f"--align {value!r} is neither a number nor auto.") from None
