"""How does a file get in place whole, or not at all?"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adjcompress.errors import AdjCompressError

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space and run the command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the command again",
    errno.EFBIG: "the file would be larger than this process may write",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EACCES: "writing there is not permitted; choose another place",
    errno.EPERM: "writing there is not permitted; choose another place",
    errno.EEXIST: "a file of that name stands where a folder is needed; choose another place",
    errno.ENOTDIR: "a part of that path is a file, not a folder; choose another place",
    errno.EISDIR: "it is a folder; name a file",
}


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file or folder at; rename it to `path` if the block ends well.

    When the block fails, what was written aside is removed and `path` is as it was. A system error (no space, no
    permission) becomes an AdjCompressError. A process killed inside the block leaves only a file whose name starts with
    a dot. An existing file is replaced; an existing folder is not.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with system_errors(f"{path} could not be written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            yield aside
            for written in [aside] if aside.is_file() else sorted(aside.iterdir()):
                _flush_to_disk(written)
            aside.replace(path)
    finally:
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            with suppress(OSError):  # nothing was written in a place that is no folder, or not ours
                aside.unlink()


def check_output(path: Path, suffix: str, what: str, mark: str = "") -> None:
    """Refuse a place where `what` does not belong: another ending, a folder, or a file in whose text `mark` does not occur."""
    if path.suffix != suffix:
        raise AdjCompressError(f"{path}: {what} must end in {suffix}.")
    if path.is_dir():
        raise AdjCompressError(f"{path} could not be written: {_REASONS[errno.EISDIR]}.")
    if mark and path.is_file() and mark not in path.read_text(encoding="utf-8", errors="replace"):
        raise AdjCompressError(f"{path} is there already, and holds something else: choose another name, or remove it.")


@contextmanager
def written_together(folder: Path) -> Iterator[Path]:
    """Yield an empty folder inside `folder` to write files in; if the block ends well, each is renamed into `folder`.

    In the order of their names, the longest first: what a file refers to (model.onnx.data) is there before it, and a file that
    is replaced is taken away before: killed in between, a process leaves no file that refers to another's.
    """
    aside = folder / f".{uuid.uuid4().hex[:8]}"
    try:
        with system_errors(f"{folder} could not be written to"):
            aside.mkdir(parents=True)
            yield aside
            together = sorted(aside.iterdir(), key=lambda path: -len(path.name))
            for written in together:
                _flush_to_disk(written)
            if len(together) > 1:
                (folder / together[-1].name).unlink(missing_ok=True)
            for written in together:
                written.replace(folder / written.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def system_errors(what: str) -> Iterator[None]:
    """Turn an OSError of the block into one line: what failed, why, and what to do."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise AdjCompressError(f"{what}: {reason}.") from error


def checksum(path: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Replace a text file as a whole."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
