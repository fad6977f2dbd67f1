"""How is a result kept? As JSON in benchmarks/results/, with what it was measured on and by which command."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from adjcompress.bench import machine_facts
from adjcompress.files import write_text

RESULTS = Path(__file__).parent / "results"


def record(name: str, figures: Any, repetitions: int | str, added: bool = False) -> Path:
    """Write results/<name>.json: the figures, the command, the repetitions and the machine.

    With `added`, a part of the figures is new and the rest is what the file held: its own command, repetitions and machine
    stay, and those of the new part are appended to `added`.
    """
    arguments = [Path(argument).name if Path(argument).is_absolute() else argument for argument in sys.argv[1:]]
    content = {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *arguments]),
        "repetitions": repetitions,
        "machine": machine_facts().to_json(),
        "figures": figures,
    }
    path = RESULTS / f"{name}.json"
    if added:
        earlier = json.loads(path.read_text())
        new = {key: value for key, value in content.items() if key != "figures"}
        content = {**earlier, "added": [*earlier.get("added", []), new], "figures": figures}
    write_text(path, json.dumps(content, indent=1) + "\n")
    print(f"-> benchmarks/results/{path.name}")
    return path


def no_options(about: str | None) -> None:
    """A script that takes no options says so, and its help, before it measures anything: `about` is its docstring."""
    argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
