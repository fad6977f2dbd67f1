"""In which ways can a network be trained?"""

from adjcompress.methods.adjoined import AdjoinedMethod
from adjcompress.methods.protocol import Method, MethodOptions, Terms, alpha_name, decay_groups
from adjcompress.methods.standard import StandardMethod

METHODS: dict[str, type[Method]] = {
    "adjoined": AdjoinedMethod,  # type: ignore[dict-item]  # its network is narrower than the protocol's, which mypy forbids
    "standard": StandardMethod,
}

__all__ = [
    "METHODS",
    "AdjoinedMethod",
    "Method",
    "MethodOptions",
    "StandardMethod",
    "Terms",
    "alpha_name",
    "decay_groups",
]
