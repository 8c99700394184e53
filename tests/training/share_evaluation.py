"""One process of those that share evaluations, started by test_processes.py.

It prints nothing; what it found goes to the file named on the command line, pickled.
"""

import pickle
import sys

import jax

from segjax.data.pipeline import FittedDataset
from segjax.inference.scoring import FullEvaluation, evaluate_fully, make_scoring_step
from segjax.training import processes
from segjax.training.evaluation import Evaluation, evaluate
from segjax.training.mesh import make_devices
from tests.inference import test_scoring as scored
from tests.training import test_evaluation as counted

PLACES = {"mode": "jit", "data": 0, "space": 1, "shard_optimizer": False}


def quick(config) -> Evaluation:
    devices = make_devices(config)
    program = devices.compile_eval(counted.step)
    return evaluate(
        program, counted.NONE, FittedDataset(counted.Scenes(5), counted.SIZE), 3, devices
    )


def full(config) -> FullEvaluation:
    devices = make_devices(config)
    step = make_scoring_step(scored.Colours(), scored.NORMALIZATION)
    return evaluate_fully(
        devices.compile_eval(step), scored.NONE, scored.canvas(), 3, devices, scored.K, threads=1
    )


def main() -> None:
    count = processes.start()
    number = jax.process_index()
    found = {
        "processes": count,
        "first": processes.is_first(),
        "gathered": processes.gather({"number": number, "long": "x" * 1000 * number}),
        # Both ways to share the images, and devices of both processes sharing each image's rows.
        "full": [full(PLACES), full({**PLACES, "mode": "pmap"})],
        "quick": [quick(PLACES), quick({**PLACES, "data": 1, "space": jax.device_count()})],
    }
    processes.barrier("end")
    with open(sys.argv[1], "wb") as file:
        pickle.dump(found, file)


if __name__ == "__main__":
    main()
