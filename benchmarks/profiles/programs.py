"""The programs that are profiled: a training step, and a batch's predictions."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from segjax.training import planning
from segjax.training.forward import logits_fn
from segjax.training.setup import Setup

WORKS = ("train", "infer")


def lowered(setup: Setup, work: str) -> jax.stages.Lowered:
    """The training step with its update, or `predict(variables, images)`, to be compiled."""
    if work == "train":
        return planning.lowered(setup, "train")
    state = setup.abstract_state()
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    images = setup.abstract_batch()["image"]
    forward = logits_fn(setup.model, setup.objective.normalization)
    return jax.jit(functools.partial(predict, forward)).lower(variables, images)


def predict(forward: Callable, variables: Any, images: jax.Array) -> jax.Array:
    """uint8 classes [n, H, W] of uint8 images [n, H, W, 3]."""
    return jnp.argmax(forward(variables, images), -1).astype(jnp.uint8)


def runner(setup: Setup, work: str, program: jax.stages.Compiled) -> Callable[[], Any]:
    """A function that runs the program on random images, and waits for it."""
    state = setup.init_state()
    batch = _random_batch(setup)
    if work == "infer":
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return lambda: jax.block_until_ready(program(variables, batch["image"]))
    held = [state]

    def step():
        held[0], metrics = program(held[0], batch)
        jax.block_until_ready((held, metrics))

    return step


def _random_batch(setup: Setup) -> dict[str, jax.Array]:
    shapes = setup.abstract_batch()
    image, label, index = shapes["image"], shapes["label"], shapes["index"]
    key = jax.random.key(0)
    return {
        "image": jax.random.randint(key, image.shape, 0, 256).astype(image.dtype),
        "label": jax.random.randint(key, label.shape, 0, len(setup.classes)).astype(label.dtype),
        "index": jnp.arange(*index.shape, dtype=index.dtype),
    }
