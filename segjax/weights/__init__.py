"""Weights from elsewhere into our models, and ours out again."""

from segjax.weights.compare import departures, layer_outputs
from segjax.weights.export import save
from segjax.weights.transfer import Loaded, Report, from_file, load, preprocessing

__all__ = [
    "Loaded",
    "Report",
    "departures",
    "from_file",
    "layer_outputs",
    "load",
    "preprocessing",
    "save",
]
