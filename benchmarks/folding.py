"""Times inference with normalisation folded, and with argmax fused, against plain inference.

    python -m benchmarks.folding [CONFIG:PRESET ...]

The programs take turns, so that a busy machine slows all of them; read the ratios. Labels that
differ from the plain program's are counted too.
"""

import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.layers import time_interleaved
from segjax.inference.folding import fold
from segjax.inference.fused_argmax import argmax_resized, predict_labels
from segjax.layers import resize_bilinear
from segjax.models import build
from tests.inference.test_folding import random_variables

PRESETS = ("segnet:streets", "pspnet:streets", "deeplabv3:streets")


def programs(config, batch: int):
    """{name: a run that returns labels}, plain first."""
    classes, size = 7, tuple(config.data.image_size)
    model = build(config.model, classes, config.dtype)
    variables = jax.tree.map(jnp.asarray, random_variables(model, size))
    folded, fewer = fold(model, variables)
    shape = (batch, *size, 3)
    images = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)

    def run(function, variables):
        program = jax.jit(function)
        return lambda: program(variables, images)

    def plain(network):
        return lambda v, x: jnp.argmax(network.apply(v, x, train=False)["logits"], -1).astype("u1")

    return {
        "plain": run(plain(model), variables),
        "folded": run(plain(folded), fewer),
        "fused argmax": run(lambda v, x: predict_labels(model, v, x), variables),
        "both": run(lambda v, x: predict_labels(folded, v, x), fewer),
    }


def argmax_programs(shape, size):
    """Upsampling and argmax alone, of logits of `shape`, to `size`."""
    logits = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)
    plain = jax.jit(lambda x: jnp.argmax(resize_bilinear(x, size), -1).astype("u1"))
    fused = jax.jit(lambda x: argmax_resized(x, size))
    return {"plain": lambda: plain(logits), "fused argmax": lambda: fused(logits)}


def report(title: str, runs, repeats: int) -> None:
    times = {k: np.median(t) * 1e3 for k, t in time_interleaved(runs, repeats).items()}
    labels = {k: np.asarray(run()) for k, run in runs.items()}
    print(f"{title}, {jax.devices()[0].device_kind}")
    for k, t in times.items():
        differ = int(np.sum(labels[k] != labels["plain"]))
        print(
            f"  {k:13s} median {t:8.1f} ms   ratio to plain {t / times['plain']:.3f}   "
            f"{differ} of {labels[k].size} labels differ"
        )


def main(presets, batch: int = 4, repeats: int = 15) -> None:
    for preset in presets:
        name, _, variant = preset.partition(":")
        config = importlib.import_module(f"configs.{name}").get_config(variant or "streets")
        size = "x".join(map(str, config.data.image_size))
        report(f"{preset}, {batch} images of {size}", programs(config, batch), repeats)
    for shape, size in (((1, 64, 128, 19), (1024, 2048)), ((1, 60, 60, 150), (473, 473))):
        title = f"logits {shape} to {size[0]}x{size[1]}"
        report(title, argmax_programs(shape, size), repeats // 3)


if __name__ == "__main__":
    main(sys.argv[1:] or PRESETS)
