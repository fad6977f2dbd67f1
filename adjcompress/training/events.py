"""How does TensorBoard see a run? Where it is installed, its events lie in the run's folder beside log.jsonl."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Events:
    """Writes the records of log.jsonl as TensorBoard scalars; does nothing where TensorBoard is not installed."""

    def __init__(self, folder: Path, epochs_done: int) -> None:
        self._writer: Any = None
        if importlib.util.find_spec("tensorboard") is None:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard import SummaryWriter
        # What an interrupted training wrote after its last checkpoint is written again: the viewer drops the first.
        self._writer = SummaryWriter(str(folder), purge_step=epochs_done + 1 if epochs_done else None)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Add one epoch's scalars: lr, train/<name>, and accuracy and loss of every network on validation."""
        if self._writer is None:
            return
        scalars = {"lr": record["lr"], **{f"train/{name}": value for name, value in record["train"].items()}}
        for name, score in record["validation"].items():
            scalars |= {f"accuracy/{name}": score["accuracy"], f"validation loss/{name}": score["loss"]}
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, record["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
