"""What launch.py runs: one function per mode. Each prints what it does and where it wrote."""

from segjax.modes.after_training import recalibrate, uncertainty
from segjax.modes.comparison import compare
from segjax.modes.data import benchmark_data, doctor, prepare
from segjax.modes.planning import plan
from segjax.modes.prediction import predict
from segjax.modes.results import export
from segjax.modes.runs import evaluate, train

__all__ = [
    "benchmark_data",
    "compare",
    "doctor",
    "evaluate",
    "export",
    "plan",
    "predict",
    "prepare",
    "recalibrate",
    "train",
    "uncertainty",
]
