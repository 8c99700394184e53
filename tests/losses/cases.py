"""Inputs for tests of losses, and each loss with options that take all of its ways."""

import inspect

import jax
import numpy as np

K = 4
WEIGHTS = np.array([0.5, 2.0, 0.25, 7.0], np.float32)

CASES = [
    ("cross_entropy", {}),
    ("cross_entropy", {"divide_by": "all"}),
    ("cross_entropy", {"divide_by": "none"}),
    ("cross_entropy", {"label_smoothing": 0.2, "divide_by": "weights"}),
    ("focal", {}),
    ("focal", {"gamma": 0.5, "activation": "sigmoid", "alpha": 0.25, "divide_by": "all"}),
    ("boundary_cross_entropy", {"sigma": 1.0}),
    ("boundary_cross_entropy", {"edge_weight": 2.0, "divide_by": "all"}),
    ("dice", {}),
    ("dice", {"smooth": 1.0, "squared": True, "per_image": True, "absent": "count"}),
    ("jaccard", {"absent": "skip"}),
    ("jaccard", {"smooth": 3.0, "per_image": True}),
    ("tversky", {"alpha": 0.3, "beta": 0.7, "gamma": 0.75}),
    ("tversky", {"smooth": 1.0, "per_image": True, "absent": "skip"}),
    ("lovasz_softmax", {}),
    ("lovasz_softmax", {"classes": "all", "per_image": True}),
    ("ohem", {"threshold": 0.3, "min_kept": 10}),
    ("ohem", {"threshold": 0.9, "min_kept": 5, "divide_by": "all"}),
    ("ohem", {"threshold": 0.0, "min_kept": 20, "divide_by": "weights"}),
]


def compiled(loss):
    """The loss as one program for each set of its options, where it would be many small ones."""
    parameters = inspect.signature(loss).parameters.values()
    return jax.jit(loss, static_argnames=[p.name for p in parameters if p.kind == p.KEYWORD_ONLY])


def names(case) -> str:
    name, options = case
    return ",".join([name, *(f"{k}={v}" for k, v in options.items())])


def random_case(shape=(2, 6, 7), seed=0, scale=2.0):
    """Logits, and labels of which a quarter are ignored; class 1 is in the first image only, and
    class 3 in none."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, scale, (*shape, K)).astype(np.float32)
    labels = random.choice([0, 1, 2], shape)
    labels[1:][labels[1:] == 1] = 2
    labels[random.random(shape) < 0.25] = 255
    return logits, labels.astype(np.int32)


def softmax(logits):
    """[..., k] in float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)
