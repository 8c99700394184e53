"""What a network costs: parameters, memory and time, as SegNet's tables 1, 5 and 6 measure it."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from segjax import config as configs
from segjax.accelerators import TooLargeError
from segjax.losses import cross_entropy
from segjax.training import planning
from segjax.training.compiler_options import for_one_run
from segjax.training.setup import setup_programs

MEASURES = ("parameters_m", "model_mb", "forward_ms", "backward_ms", "train_mb", "infer_mb")
_ITERATIONS = 10  # as `caffe time` had in table 6
_TRAIN_BATCH = 4  # of the memory in table 6


def measure_cost(config: Mapping[str, Any]) -> dict[str, float]:
    """Measures the network of a config with random weights at `data.image_size`.

    Returns:
      `parameters_m`: millions of parameters, running statistics left out. `model_mb`: 10**6 bytes
      of parameters and running statistics in float32. `forward_ms`, `backward_ms`: one image, the
      median of ten; the second is a step forward and backward less the first. `train_mb`,
      `infer_mb`: 10**6 bytes that the compiled programs hold at once, of a training step with four
      images (optimiser and augmentation included) and of an evaluation step with one.

    Raises:
      ValueError: naming the option that is wrong.
    """
    sizes = {"train.batch_size": _TRAIN_BATCH, "train.eval_batch_size": 1}
    setup = setup_programs(configs.with_overrides(config, {**sizes, "train.steps": 1}))
    options = for_one_run(setup.devices.platform)
    variables = jax.jit(setup.init, compiler_options=options)(setup.first_key())
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    everything = sum(x.size for x in jax.tree.leaves(variables))
    height, width = setup.config["data"]["image_size"]
    shape = (1, height, width, setup.config["data"]["channels"])
    images = jax.random.normal(jax.random.key(0), shape)
    labels = jnp.zeros(shape[:3], jnp.int32)
    others = {name: value for name, value in variables.items() if name != "params"}

    @jax.jit
    def forward(params):
        return setup.model.apply({"params": params, **others}, images, train=False)["logits"]

    @jax.jit
    @jax.grad
    def backward(params):
        outputs, _ = setup.model.apply(
            {"params": params, **others},
            images,
            train=True,
            rngs={"dropout": jax.random.key(1)},
            mutable=[*others],
        )
        return cross_entropy(outputs["logits"], labels)

    alone = _milliseconds(lambda: forward(variables["params"]))
    both = _milliseconds(lambda: backward(variables["params"]))
    memory = {}
    for step, name in (("train", "train_mb"), ("evaluate", "infer_mb")):
        try:
            memory[name] = planning.compiled(setup, step).peak / 1e6
        except TooLargeError as error:
            memory[name] = error.needed / 1e6
    return {
        "parameters_m": count / 1e6,
        "model_mb": everything * 4 / 1e6,
        "forward_ms": alone,
        "backward_ms": max(both - alone, 0.0),
        **memory,
    }


def _milliseconds(call: Callable[[], Any]) -> float:
    """The median time of a call, after one that compiles."""
    jax.block_until_ready(call())
    times = []
    for _ in range(_ITERATIONS):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3
