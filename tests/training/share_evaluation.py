"""One of several processes that share evaluations, started by test_distributed.py.

It pickles its results to the file named on the command line.
"""

import pickle
import sys

import jax

from segjax.data.fitted import FittedDataset
from segjax.inference.scoring import FullEvaluation, evaluate_fully, make_scoring_step
from segjax.training import distributed
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
    count = distributed.start()
    number = jax.process_index()
    results = {
        "processes": count,
        "first": distributed.is_first(),
        "gathered": distributed.gather({"number": number, "long": "x" * 1000 * number}),
        # Images shared in both modes, and image rows sharded over the devices of both processes.
        "full": [full(PLACES), full({**PLACES, "mode": "pmap"})],
        "quick": [quick(PLACES), quick({**PLACES, "data": 1, "space": jax.device_count()})],
    }
    distributed.barrier("end")
    with open(sys.argv[1], "wb") as file:
        pickle.dump(results, file)


if __name__ == "__main__":
    main()
