"""In which ways can a network be trained?"""

from adjcompress.methods.adjoined import AdjoinedMethod
from adjcompress.methods.budgeted import BudgetedMethod
from adjcompress.methods.dan import DanMethod, Found, SearchMethod
from adjcompress.methods.distill import DistillMethod
from adjcompress.methods.dropout import DropoutMethod
from adjcompress.methods.options import MethodOptions, check_taken
from adjcompress.methods.protocol import Method, Search, Terms, alpha_name, decay_groups
from adjcompress.methods.standard import StandardMethod
from adjcompress.methods.substitute import SubstituteMethod
from adjcompress.methods.teacher import Taught, TeacherFile

METHODS: dict[str, type[Method]] = {
    "adjoined": AdjoinedMethod,
    "budgeted": BudgetedMethod,
    "dan": DanMethod,
    "distill": DistillMethod,
    "dropout": DropoutMethod,
    "standard": StandardMethod,
    "substitute": SubstituteMethod,
}
# What a method's first phase is trained by; nobody chooses these by name.
PHASES: dict[str, type[Search]] = {
    "search": SearchMethod,
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
    "check_taken",
    "decay_groups",
]
