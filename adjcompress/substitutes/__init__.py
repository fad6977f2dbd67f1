"""Which smaller layers can stand for a convolution, inside any network?"""

from adjcompress.substitutes.layer import Reconstructed, Substitute, weights_made_once
from adjcompress.substitutes.replace import (
    SUBSTITUTES,
    Substitution,
    apply_substitution,
    parameter_count,
    plan_substitution,
    substitute,
)

__all__ = [
    "SUBSTITUTES",
    "Reconstructed",
    "Substitute",
    "Substitution",
    "apply_substitution",
    "parameter_count",
    "plan_substitution",
    "substitute",
    "weights_made_once",
]
