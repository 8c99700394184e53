"""The commands of launch.py and segjax: one function in a file of its name."""

from segjax.commands.benchmark import benchmark_data
from segjax.commands.compare import compare
from segjax.commands.doctor import doctor
from segjax.commands.evaluate import evaluate
from segjax.commands.export import export
from segjax.commands.plan import plan
from segjax.commands.predict import predict
from segjax.commands.prepare import prepare
from segjax.commands.recalibrate import recalibrate
from segjax.commands.train import train
from segjax.commands.uncertainty import uncertainty

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
