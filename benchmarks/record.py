"""How is a result kept? As JSON in benchmarks/results/, with what it was measured on and by which command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from adjcompress.bench import machine_facts
from adjcompress.files import write_text

RESULTS = Path(__file__).parent / "results"


def record(name: str, figures: Any, repetitions: int | str) -> Path:
    """Write results/<name>.json: the figures, the command, the repetitions and the machine."""
    arguments = [Path(argument).name if "/" in argument else argument for argument in sys.argv[1:]]
    content = {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *arguments]),
        "repetitions": repetitions,
        "machine": machine_facts().to_json(),
        "figures": figures,
    }
    path = RESULTS / f"{name}.json"
    write_text(path, json.dumps(content, indent=1) + "\n")
    print(f"-> benchmarks/results/{path.name}")
    return path
