"""What was trained, on what, and how, in one line?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adjcompress.report.gather import RunFacts
from adjcompress.report.words import counted, duration, printable


def summary(run: RunFacts) -> str:
    """The line under a page's title."""
    config = run.config
    model, data = (config.get("model") or {}).get("name", "a network made by hand"), config.get("data") or {}
    classes = [str(name) for name in config.get("classes", ())]
    shown = ", ".join(classes[:4]) + (", …" if len(classes) > 4 else "")
    parts = [
        f"{model} on {Path(str(data.get('source', 'unknown data'))).name}",
        f"{counted(len(classes), 'class', 'classes')} ({shown})",
        f"method {config['method']['name']}",
        f"recipe {config['recipe']['name']}",
        f"{len(run.epochs)} of {counted(run.epochs_planned, 'epoch')}",
    ]
    parts += [f"{duration(run.seconds)} of training"] if run.seconds else []
    parts += _substitution(config)
    return " · ".join(printable(part) for part in parts)


def _substitution(config: Mapping[str, Any]) -> list[str]:
    """Which substitute stands in how many layers, and how it was trained."""
    settings = config["method"].get("settings") or {}
    found = settings.get("substitution")
    if not isinstance(found, Mapping):
        return []
    layers = counted(len(found.get("layers") or ()), "layer", "layers")
    parts = [f"{found.get('substitute')} at {found.get('setting'):g} in {layers}"]
    parts.append(f"weight decay scaling {settings.get('scaling')}")
    if settings.get("attention"):
        parts.append(f"attention transfer at {', '.join(map(str, settings['attention']))}")
    return parts
