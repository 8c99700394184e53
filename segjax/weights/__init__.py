"""Reads weights of other projects into our models, and writes ours."""

from segjax.weights.compare import departures, layer_outputs
from segjax.weights.export import model_config, save
from segjax.weights.transfer import Pretrained, Report, from_file, load, preprocessing

__all__ = [
    "Pretrained",
    "Report",
    "departures",
    "from_file",
    "layer_outputs",
    "load",
    "model_config",
    "preprocessing",
    "save",
]
