"""Memory of a training step by `train.remat`, `train.accumulate` and donation, as a table.

    python -m benchmarks.remat [--images 8] [--models segnet,pspnet,deeplabv3]

The steps are compiled and never run: XLA's own count of the bytes that a program keeps beside its
arguments and results ("temporary"), and of all ("in all"; arguments that are given up to results
count once). Full-width networks at the sizes of their papers, float32, SGD with momentum. FLOPs are
relative to the first line of the model, where micro-batches are not a loop.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import optax

from segjax.models import build
from segjax.training.state import create_state
from segjax.training.step import Objective, make_train_step
from segjax.transforms.augment import Augmentation
from segjax.transforms.normalize import Normalization

# Image size and classes: CamVid as SegNet's authors have it; VOC as the others' have it.
TASKS = {"segnet": ((360, 480), 11), "pspnet": ((473, 473), 21), "deeplabv3": ((513, 513), 21)}
# remat, accumulate, donated.
LINES = (
    ("none", 1, True),
    ("none", 1, False),
    ("convs", 1, True),
    ("blocks", 1, True),
    ("none", 2, True),
    ("convs", 2, True),
    ("blocks", 2, True),
    ("none", 4, True),
    ("convs", 4, True),
    ("blocks", 4, True),
)


def compiled_step(name: str, images: int, remat: str, accumulate: int, donated: bool):
    """A training step of one model, compiled for one device."""
    size, num_classes = TASKS[name]
    model, optimizer = build({"name": name}, num_classes), optax.sgd(0.01, 0.9)
    objective = Objective(
        Augmentation(crop_size=size),
        normalization=Normalization((0.5,) * 3, (0.25,) * 3),
        accumulate=accumulate,
        remat=remat,
    )
    step = make_train_step(model, optimizer, lambda _: 0.01, objective, jax.random.key(0))
    new = functools.partial(create_state, model, optimizer, (*size, 3))
    state = jax.eval_shape(new, jax.random.key(0))
    batch = {
        "image": jax.ShapeDtypeStruct((images, *size, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((images, *size), jnp.uint8),
        "index": jax.ShapeDtypeStruct((images,), jnp.int32),
    }
    return jax.jit(step, donate_argnums=0 if donated else ()).lower(state, batch).compile()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=8, help="a step; a multiple of 4")
    parser.add_argument("--models", default=",".join(TASKS))
    arguments = parser.parse_args()
    print("| model | remat | micro-batches | state given up | temporary, GB | in all, GB | FLOPs |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in arguments.models.split(","):
        first = None
        for remat, accumulate, donated in LINES:
            program = compiled_step(name, arguments.images, remat, accumulate, donated)
            memory = program.memory_analysis()
            temporary = memory.temp_size_in_bytes
            total = temporary + memory.argument_size_in_bytes + memory.output_size_in_bytes
            total -= memory.alias_size_in_bytes
            flops = program.cost_analysis()["flops"]
            first = first or flops
            cost = f"{flops / first:.2f}" if accumulate == 1 else ""
            print(
                f"| {name} | {remat} | {accumulate} | {'yes' if donated else 'no'} | "
                f"{temporary / 1e9:.2f} | {total / 1e9:.2f} | {cost} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
