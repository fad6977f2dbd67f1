"""Which network is trained, and from which weights?"""

from adjcompress.models.create import ModelSpec, check_takes, create_model, model_names, takes_option
from adjcompress.models.weights import load_weights_, read_state, state_checksum

__all__ = [
    "ModelSpec",
    "check_takes",
    "create_model",
    "load_weights_",
    "model_names",
    "read_state",
    "state_checksum",
    "takes_option",
]
