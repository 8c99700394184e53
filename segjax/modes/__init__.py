"""What launch.py runs: one function per mode. Each prints what it does and where it wrote."""

from segjax.modes.data import benchmark_data, doctor, prepare
from segjax.modes.planning import plan
from segjax.modes.results import export, predict
from segjax.modes.runs import evaluate, train

__all__ = [
    "benchmark_data",
    "doctor",
    "evaluate",
    "export",
    "plan",
    "predict",
    "prepare",
    "train",
]
