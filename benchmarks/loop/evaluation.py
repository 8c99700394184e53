"""Seconds an image of an evaluation, beside the network alone."""

import argparse
import functools
import itertools
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.loop.files import config_of, write
from segjax.data.batches import eval_batches
from segjax.inference.scoring import evaluate_fully, make_scoring_step
from segjax.training.evaluation import evaluate
from segjax.training.forward import logits_fn
from segjax.training.options import MEASURES
from segjax.training.runtime import keep_freed_memory
from segjax.training.setup import setup_run

_ROUNDS = 3  # of which the fastest counts


def measure(folder: pathlib.Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each kind of pass."""
    keep_freed_memory()
    config = config_of(options.tiny, options.full)
    config.data.update(write(folder, "PNG", options.images, options.tiny), cache_mb=2000.0)
    setup = setup_run(config)
    split, devices, head = setup.validation, setup.devices, setup.objective.head
    assert split is not None  # `setup_run` opens it
    variables, size = setup.init_state().eval_variables(), config.train.batch_size
    normalization, classes = setup.objective.normalization, len(setup.classes)
    forward = logits_fn(setup.model, normalization)
    network = jax.jit(lambda variables, image: jnp.argmax(forward(variables, image), -1))
    images = [batch["image"] for batch in eval_batches(split, size)]

    def alone() -> None:
        outputs = [network(variables, image) for image in images]
        jax.device_get(outputs)

    eval_step = setup.eval_step()
    passes = {
        "network and argmax": alone,
        "during training": functools.partial(
            evaluate, eval_step, variables, split, size, devices, head=head
        ),
    }
    for measures in ((), *((name,) for name in MEASURES), MEASURES):
        step = make_scoring_step(setup.model, normalization, head, measures)
        passes[f"--mode=evaluate, {', '.join(measures) or 'counts alone'}"] = functools.partial(
            evaluate_fully,
            devices.compile_eval(step),
            variables,
            split,
            size,
            devices,
            classes,
            measures=measures,
        )
    best = dict.fromkeys(passes, float("inf"))
    for number, (name, call) in itertools.product(range(_ROUNDS + 1), passes.items()):
        began = time.perf_counter()
        call()
        if number:  # the first compiles
            best[name] = min(best[name], time.perf_counter() - began)
    bare = best["network and argmax"]
    return [
        {"pass": name, "seconds an image": seconds / len(split), "ratio": seconds / bare}
        for name, seconds in best.items()
    ]
