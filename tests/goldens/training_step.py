"""What a reference script and a test must draw alike to compare one step of training."""

import numpy as np
from numpy.random import default_rng

IGNORE = 255


def labels(count: int, height: int, width: int, classes: int) -> np.ndarray:
    """Label maps [n, h, w], int32: blocks of 4x4 pixels, a fifth of them to be ignored."""
    rng = default_rng([count, height, width, classes])
    blocks = rng.integers(0, classes, (count, height // 4 + 1, width // 4 + 1))
    blocks[rng.random(blocks.shape) < 0.2] = IGNORE
    return blocks.repeat(4, 1).repeat(4, 2)[:, :height, :width].astype(np.int32)


def gradient_sums(gradient: np.ndarray) -> np.ndarray:
    """Two numbers that stand for a parameter's gradient: its norm, and its product with a direction
    of unit length that is drawn from its shape."""
    direction = default_rng(gradient.shape).standard_normal(gradient.shape)
    direction /= np.linalg.norm(direction)
    return np.array([np.linalg.norm(gradient), np.sum(direction * gradient)])
