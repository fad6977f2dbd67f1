"""What did the command before make?

Each command takes the newest thing that the one before it made. `runs/latest` is the newest run; `runs/made.json` names
the newest package and ONNX file, and where each came from. What was made of a run, with every figure, is kept beside the
run, in deployed.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adjcompress.errors import AdjCompressError
from adjcompress.files import checksum, write_text
from adjcompress.training.run import RUNS

_MADE = RUNS / "made.json"
DEPLOYED = "deployed.json"


@dataclass(frozen=True)
class Made:
    """Paths as the user would write them: the run, the package extracted from it, the ONNX file exported from that."""

    run: str | None = None
    package: str | None = None
    onnx: str | None = None


def made() -> Made:
    """What was made last in this working directory; empty where nothing was."""
    try:
        return Made(**json.loads(_MADE.read_text()))
    except (OSError, ValueError, TypeError):
        return Made()


def remember(newest: Made) -> None:
    """Keep what was made for the next command."""
    write_text(_MADE, json.dumps(asdict(newest), indent=1))


def newest_package() -> Path:
    """The package that `adjcompress extract` made last here."""
    return _newest("package", made().package, "adjcompress extract")


def newest_onnx() -> Path:
    """The file that `adjcompress export` made last here."""
    newest = made()
    if newest.onnx is None and newest.package is not None:
        raise AdjCompressError(
            f"No ONNX file was made of the newest package, {newest.package}: run adjcompress export model.onnx first, or name "
            "a file."
        )
    return _newest("ONNX file", newest.onnx, "adjcompress export model.onnx")


def keep(run: Path, step: str, what: str, report: Mapping[str, Any]) -> None:
    """Keep a report of "extract", "export" or "bench" last in a run's deployed.json, under the file's or measurement's name.

    A file's name is as the user wrote it; its "sha256" tells it from another that takes its place.
    """
    content = deployed(run)
    reports = content.setdefault(step, {})
    reports.pop(what, None)
    reports[what] = dict(report) if step == "bench" else {**report, "sha256": checksum(Path(what))}
    write_text(run / DEPLOYED, json.dumps(content, indent=1))


def deployed(run: Path) -> dict[str, dict[str, Any]]:
    """What was made of a run: {"extract": {path: report}, "export": ..., "bench": ...}; empty where nothing was."""
    path = run / DEPLOYED
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
        if not all(isinstance(reports, dict) for reports in content.values()):
            raise TypeError("an object of reports is expected")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise AdjCompressError(
            f"{path} is damaged ({error}): remove it, then extract, export and measure again to fill it."
        ) from error
    return content


def run_of(path: Path) -> Path | None:
    """The run that a package or an ONNX file was made from, of the one used last and those in runs/; else None.

    By what is in it: several runs may have written a file of that name, one over the other, and it may have been moved. By its
    name where no run knows the content, for versions before kept no more.
    """
    if not path.is_file():
        return None
    content, wanted, last = checksum(path), path.resolve(), made().run
    others = sorted(RUNS.glob("*"), key=lambda folder: -_written(folder / DEPLOYED))
    named: Path | None = None
    for folder in [*([Path(last)] if last else []), *others]:
        if folder.is_symlink() or not (folder / DEPLOYED).is_file():
            continue
        try:
            steps = deployed(folder)
        except AdjCompressError:
            continue  # what is damaged there is said where that run is asked for
        for name, report in (each for step in ("extract", "export") for each in steps.get(step, {}).items()):
            kept = report.get("sha256") if isinstance(report, Mapping) else None
            if kept == content:
                return folder
            if kept is None and Path(name).resolve() == wanted:
                named = named or folder
    return named


def _written(path: Path) -> float:
    return path.stat().st_mtime if path.is_file() else 0.0


def _newest(what: str, path: str | None, command: str) -> Path:
    if path is None:
        raise AdjCompressError(f"No {what} was made here yet: run {command} first, or name one.")
    if not Path(path).is_file():
        raise AdjCompressError(f"The newest {what}, {path}, is gone: run {command} again, or name another.")
    return Path(path)
