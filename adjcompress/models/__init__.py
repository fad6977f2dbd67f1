"""Which network is trained, and from which weights?"""

from adjcompress.models.create import ModelSpec, create_model, model_names
from adjcompress.models.weights import load_weights_

__all__ = ["ModelSpec", "create_model", "model_names", "load_weights_"]
