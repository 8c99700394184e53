"""Seeds of a small network in one program (`jax.vmap` over states and batches), and in turn.

    python -m benchmarks.seeds [--seeds=1,2,4] [--features=8,32] [--size=96x128] [--batch=4]

A training step of SegNet-Basic in float32, SGD with momentum, no augmentation: milliseconds for one
seed's step, the median of `--turns`, in turns. "in turn" is K steps of the program of one seed. Run
it on a quiet machine.
"""

import argparse
import functools
import statistics
import time

import jax
import jax.numpy as jnp
import optax

from segjax.models import build
from segjax.training.compiler_options import for_training
from segjax.training.runtime import keep_freed_memory
from segjax.training.state import create_state
from segjax.training.step import Objective, make_train_step
from segjax.transforms.augment import Augmentation
from segjax.transforms.normalize import Normalization

CLASSES = 11


def programs(features: int, seeds: int, size: tuple[int, int], batch: int):
    """The step of one seed and of all, each with its state and batch."""
    model = build({"name": "segnet_basic", "features": features}, CLASSES)
    optimizer = optax.sgd(0.01, 0.9)
    objective = Objective(
        Augmentation(crop_size=size), normalization=Normalization((0.5,) * 3, (0.25,) * 3)
    )
    step = make_train_step(model, optimizer, lambda _: 0.01, objective, jax.random.key(0))
    new = functools.partial(create_state, model, optimizer, (*size, 3))
    keys = jax.random.split(jax.random.key(0), seeds)
    shape = (seeds, batch, *size)
    batches = {
        "image": jax.random.randint(keys[0], (*shape, 3), 0, 256).astype(jnp.uint8),
        "label": jax.random.randint(keys[0], shape, 0, CLASSES).astype(jnp.uint8),
        "index": jnp.broadcast_to(jnp.arange(batch, dtype=jnp.int32), (seeds, batch)),
    }
    states = jax.vmap(new)(keys)
    first = jax.tree.map(lambda x: x[0], (states, batches))
    options = for_training(jax.default_backend())  # as a run's step has them
    compiled = functools.partial(jax.jit, compiler_options=options)
    return (compiled(step), first), (compiled(jax.vmap(step)), (states, batches))


def milliseconds(step, arguments) -> float:
    began = time.perf_counter()
    jax.block_until_ready(step(*arguments))
    return 1e3 * (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="1,2,4")
    parser.add_argument("--features", default="8,32")
    parser.add_argument("--size", default="96x128")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()
    height, width = map(int, options.size.split("x"))
    print(f"SegNet-Basic, {options.batch} x {options.size}, {jax.devices()[0].device_kind}\n")
    print("| features | seeds | in turn, ms a seed | in one program, ms a seed | ratio |")
    print("|---:|---:|---:|---:|---:|")
    for features in map(int, options.features.split(",")):
        for seeds in map(int, options.seeds.split(",")):
            cases = programs(features, seeds, (height, width), options.batch)
            for case in cases:
                milliseconds(*case)  # compiles
            alone, together = [], []
            for _ in range(options.turns):
                alone.append(sum(milliseconds(*cases[0]) for _ in range(seeds)) / seeds)
                together.append(milliseconds(*cases[1]) / seeds)
            a, b = statistics.median(alone), statistics.median(together)
            print(f"| {features} | {seeds} | {a:.1f} | {b:.1f} | {b / a:.2f} |", flush=True)


if __name__ == "__main__":
    main()
