"""segjax: semantic segmentation in JAX and Flax.

The names in `__all__` are imported when they are first used: importing segjax loads no JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segjax import layers, losses, metrics, models, weights
    from segjax.api import create_model, load_pretrained
    from segjax.export.load import load_exported
    from segjax.inference.predictor import Predictor
    from segjax.models import build

__all__ = [
    "Predictor",
    "build",
    "create_model",
    "layers",
    "load_exported",
    "load_pretrained",
    "losses",
    "metrics",
    "models",
    "weights",
]
__version__ = "0.1.0"

_MODULES = {
    "Predictor": "segjax.inference.predictor",
    "build": "segjax.models",
    "create_model": "segjax.api",
    "load_exported": "segjax.export.load",
    "load_pretrained": "segjax.api",
}


def __getattr__(name: str):
    """Imports a name of `__all__`: a package of segjax, or what a module of it holds."""
    if name not in __all__:
        raise AttributeError(f"module 'segjax' has no attribute {name!r}")
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    return importlib.import_module(f"segjax.{name}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
