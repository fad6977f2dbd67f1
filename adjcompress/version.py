"""Which version is this, and with which others was something made?"""

from __future__ import annotations

import platform
from importlib.metadata import version

__version__ = "0.5.0"

_PACKAGES = ("adjcompress", "torch", "torchvision", "torch-pruning", "lightning-fabric", "onnxruntime", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages whose behaviour a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
