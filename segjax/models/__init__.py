"""The model table, and `build`."""

from segjax.models.registry import MODELS, build, model_options

__all__ = ["MODELS", "build", "model_options"]
