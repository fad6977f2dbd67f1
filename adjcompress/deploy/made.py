"""What did the command before make?

Each command takes the newest thing that the one before it made. `runs/latest` is the newest run; `runs/made.json` names
the newest package and ONNX file, and where each came from.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from adjcompress.errors import AdjCompressError
from adjcompress.files import write_text
from adjcompress.training.run import RUNS

_MADE = RUNS / "made.json"


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
    return _newest("ONNX file", made().onnx, "adjcompress export model.onnx")


def _newest(what: str, path: str | None, command: str) -> Path:
    if path is None:
        raise AdjCompressError(f"No {what} was made here yet: run {command} first, or name one.")
    if not Path(path).is_file():
        raise AdjCompressError(f"The newest {what}, {path}, is gone: run {command} again, or name another.")
    return Path(path)
