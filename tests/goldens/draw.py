"""Weights and images that a reference script and a test both draw, so that neither is stored.

Every array depends on its name and shape alone.
"""

import zlib

import numpy as np

Shape = tuple[int, ...]


def draw(name: str, shape: Shape, channels_last: bool = False) -> np.ndarray:
    """The float32 array of that name in a state dict, at a scale that keeps activations sane.

    Kernels are He normal; `channels_last` says whether the last axis is the output (Keras) or the
    first (torch). Variances and scales are positive; a scale below 1 keeps residual sums bounded.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    kind = name.replace("/", ".").rsplit(".", 1)[-1]
    if len(shape) > 1:
        fan_in = np.prod(shape[:-1]) if channels_last else np.prod(shape[1:])
        array = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
    elif "var" in kind:
        array = rng.uniform(0.5, 1.5, shape)
    elif kind in ("weight", "gamma"):
        array = rng.uniform(0.4, 0.9, shape)
    else:  # biases and means
        array = 0.1 * rng.standard_normal(shape)
    return np.asarray(array, np.float32)


def images(count: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """Normalised images [n, h, w, c], float32: smooth fields with noise on them."""
    rng = np.random.default_rng([count, height, width, channels])
    coarse = rng.standard_normal((count, height // 8 + 2, width // 8 + 2, channels))
    smooth = coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width]
    return (smooth + 0.3 * rng.standard_normal(smooth.shape)).astype(np.float32)


def digest(array: np.ndarray) -> np.ndarray:
    """Nine numbers that stand for a layer's output: eight values at places drawn from its size, and
    the largest absolute value."""
    places = np.random.default_rng(array.size).integers(0, array.size, 8)
    flat = np.asarray(array, np.float32).reshape(-1)
    return np.append(flat[places], np.abs(flat).max()).astype(np.float32)
