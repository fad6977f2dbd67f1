"""In which ways can a network be trained?"""

from adjcompress.methods.adjoined import AdjoinedMethod
from adjcompress.methods.budgeted import BudgetedMethod
from adjcompress.methods.dan import DanMethod, Found, SearchMethod
from adjcompress.methods.distill import DistillMethod
from adjcompress.methods.dropout import DropoutMethod
from adjcompress.methods.protocol import Method, MethodOptions, Search, Terms, alpha_name, decay_groups
from adjcompress.methods.standard import StandardMethod
from adjcompress.methods.substitute import SubstituteMethod
from adjcompress.methods.teacher import Taught, TeacherFile

METHODS: dict[str, type[Method]] = {
    "adjoined": AdjoinedMethod,  # type: ignore[dict-item]  # its network is narrower than the protocol's, which mypy forbids
    "budgeted": BudgetedMethod,  # type: ignore[dict-item]
    "dan": DanMethod,  # type: ignore[dict-item]
    "distill": DistillMethod,
    "dropout": DropoutMethod,
    "standard": StandardMethod,
    "substitute": SubstituteMethod,
}
# What a method's first phase is trained by; nobody chooses these by name.
PHASES: dict[str, type[Search]] = {
    "search": SearchMethod,  # type: ignore[dict-item]
}

__all__ = [
    "METHODS",
    "PHASES",
    "AdjoinedMethod",
    "BudgetedMethod",
    "DanMethod",
    "DistillMethod",
    "DropoutMethod",
    "Found",
    "Method",
    "MethodOptions",
    "Search",
    "SearchMethod",
    "StandardMethod",
    "SubstituteMethod",
    "Taught",
    "TeacherFile",
    "Terms",
    "alpha_name",
    "decay_groups",
]
