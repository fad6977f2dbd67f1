"""From which files can another network come: one to learn from, or one to train again?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from adjcompress.data import ImageData, Preprocessing
from adjcompress.errors import AdjCompressError, shortened
from adjcompress.methods import TeacherFile
from adjcompress.models import ModelSpec, load_weights_, state_checksum
from adjcompress.packages import is_package, load_package, package_info
from adjcompress.training.run import open_run


def read_teacher(path: str | Path, model: ModelSpec, data: ImageData) -> tuple[nn.Module, TeacherFile]:
    """A trained network to learn from: of a run (its full network), of a package, or `model` with a weights file.

    A run or package of other classes, or whose images were normalised or sized otherwise than those of `data`, is an
    AdjCompressError.
    """
    path = Path(path)
    if path.is_dir():
        run = open_run(path)
        _check_alike(path, run.classes, run.preprocessing, data)
        if (unfinished := run.unfinished()) is not None:
            raise AdjCompressError(f"--teacher {unfinished}")
        networks = run.method().deployables()
        teacher = networks.get("full") or next(iter(networks.values()))
    elif is_package(path):
        info = package_info(path)
        _check_alike(path, info.classes, info.preprocessing, data)
        teacher = load_package(path)
    elif path.is_file():
        teacher = model.build()
        try:
            load_weights_(teacher, path)
        except AdjCompressError as error:
            raise AdjCompressError(f"--teacher {error} A teacher of another kind comes from a run or a package.") from error
    else:
        raise AdjCompressError(f"--teacher {path} does not exist: it takes a run's folder, a package or a weights file.")
    return teacher.eval(), TeacherFile(str(path.resolve()), state_checksum(teacher.state_dict()))


def _check_alike(path: Path, classes: Sequence[str], preprocessing: Preprocessing, data: ImageData) -> None:
    if tuple(classes) != tuple(data.classes):
        theirs, ours = (shortened(names, 3) for names in (classes, data.classes))
        raise AdjCompressError(
            f"--teacher {path} knows {len(classes)} classes ({theirs}) and the data has {len(data.classes)} ({ours}): give one "
            "that was trained on the same."
        )
    own = data.preprocessing
    if (preprocessing.mean, preprocessing.std) != (own.mean, own.std):
        raise AdjCompressError(
            f"--teacher {path} normalises images by {preprocessing.mean} and {preprocessing.std}, the data by {own.mean} and "
            f"{own.std}: give one that was trained on images normalised alike."
        )
    if preprocessing.size != own.size:
        theirs, ours = ("x".join(map(str, size)) for size in (preprocessing.size, own.size))
        raise AdjCompressError(
            f"--teacher {path} was trained on {theirs} images, the data has {ours}: give one that was trained on that size, or "
            "--image-size."
        )


def packaged_model(path: Path) -> ModelSpec:
    """How the network in a package is built, with fresh weights; an error where it was cut or its layers were replaced."""
    if not is_package(path):
        raise AdjCompressError(f"--model package:{path} is no package: packages are made by adjcompress extract.")
    info = package_info(path)
    if info.plan is not None or info.substitution is not None:
        what = "was cut out of a wider one" if info.plan is not None else "has substitutes for layers"
        raise AdjCompressError(
            f"--model package:{path}: its network {what}, which no constructor builds; take the package of a network that is "
            "trained whole, such as a searched architecture's or --alpha 1."
        )
    return info.model
