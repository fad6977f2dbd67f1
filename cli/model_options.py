"""How are arguments of a network's constructor written? NAME=VALUE."""

from __future__ import annotations

import json
from typing import Any


def model_options(texts: tuple[str, ...]) -> dict[str, Any]:
    """name=value, where the value is read as JSON if it is, else as text."""
    from adjcompress.errors import AdjCompressError

    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise AdjCompressError(f"--model-option {text!r}: NAME=VALUE is expected, such as drop_path=0.2.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
