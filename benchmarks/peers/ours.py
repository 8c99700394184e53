"""Our side: the step that a run of segjax makes, with an augmentation that changes nothing.

segjax and its configs are imported where they are used: a worker may take them from another folder
than this one (`--against`), which it puts first on the path before.
"""

import importlib.metadata
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import work
from benchmarks.peers.rows import AUX_WEIGHT
from benchmarks.peers.work import Request, Work


def make(request: Request) -> Work:
    """The network as `segjax.training.setup.setup_programs` builds it."""
    from segjax.training import runtime

    runtime.use_compilation_cache()  # as the command line does
    runtime.keep_freed_memory()
    if jax.default_backend() != request.device:
        raise RuntimeError(f"JAX computes on {jax.default_backend()}, not on {request.device}")
    from segjax.training.setup import setup_programs

    setup = setup_programs(config_of(request))
    images, labels = work.batch(request.row)
    index = np.arange(len(images), dtype=np.int32)
    batch = setup.devices.put({"image": images, "label": labels, "index": index})
    state = setup.init_state()
    make_run = _training if request.work == "train" else _inference
    run, logits = make_run(setup, state, batch)
    parameters = sum(x.size for x in jax.tree.leaves(setup.variables["params"]))
    device = jax.devices()[0]

    def peak() -> int:
        return device.memory_stats()["peak_bytes_in_use"]

    return Work(
        run,
        parameters,
        logits,
        about={
            "versions": {name: importlib.metadata.version(name) for name in ("jax", "flax")},
            "threads": f"JAX: the {len(os.sched_getaffinity(0))} cores of its affinity mask",
            "device": device.device_kind,
        },
        peak=None
        if request.device == "cpu"
        else lambda: device.memory_stats()["peak_bytes_in_use"],
    )


def config_of(request: Request) -> Any:
    from configs import base, recipes

    row = request.row
    config: Any = base.get_config(row.model["name"]).lock()
    recipes.nothing(config)
    config.model.update(row.model)
    config.dtype = request.dtype
    config.data.update(
        name="folder",
        image_size=tuple(row.size),
        num_classes=row.classes,
        mean=work.MEAN,
        std=work.STD,
    )
    config.loss.aux_weight = AUX_WEIGHT
    options = work.SGD if row.optimizer == "sgd" else work.ADAM
    config.optim.update(name=row.optimizer, **options, weight_decay=0.0, schedule="constant")
    config.train.update(batch_size=row.images, steps=1000)
    config.parallel.data = 1
    return config


def _training(setup, state, batch):
    step, states = setup.train_step(), [state]

    def run(steps: int) -> float:
        state = states.pop()
        for _ in range(steps):
            state, metrics = step(state, batch)
        states.append(jax.block_until_ready(state))
        return float(metrics["loss"])

    return run, _logits(setup, state, batch)


def _inference(setup, state, batch):
    from segjax.training.forward import logits_fn

    forward = logits_fn(setup.model, setup.objective.normalization)
    variables = state.eval_variables()
    predict = jax.jit(lambda variables, images: jnp.argmax(forward(variables, images), axis=-1))

    def run(steps: int) -> float:
        for _ in range(steps):
            labels = predict(variables, batch["image"])
        return float((jax.block_until_ready(labels) == 0).sum())

    return run, _logits(setup, state, batch)


def _logits(setup, state, batch) -> tuple[int, ...]:
    from segjax.training.forward import logits_fn

    forward = logits_fn(setup.model, setup.objective.normalization)
    return jax.eval_shape(forward, state.eval_variables(), batch["image"]).shape
