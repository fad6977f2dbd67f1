"""How is a process of its own started, that times what it is asked for?"""

from __future__ import annotations

import sys
from pathlib import Path

# As a module of the package it would import torch first, seconds and memory that are not asked for; as a script, find its
# neighbours in the place of libraries. And no file in the folder where somebody works is to be taken for a library.
_START = "import sys; sys.path.append(sys.path.pop(0)); import runpy; runpy.run_path(sys.argv[1], run_name='__main__')"


def worker(script: str) -> list[str]:
    """The command that runs a script of this folder."""
    return [sys.executable, "-c", _START, str(Path(__file__).with_name(script))]
