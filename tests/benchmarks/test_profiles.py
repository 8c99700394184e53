"""Kernels of small compiled programs land in the category of the layer that they come from."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import optax
import pytest

from benchmarks.profiles import categories, networks, page, profile, trace
from segjax.layers import ConvNormAct, adaptive_avg_pool, max_pool_2x2, resize_bilinear
from segjax.losses.terms import parse_terms


@functools.cache
def _text(width: int = 24) -> str:
    """A step of one 3x3 and one 1x1 block, pooled, resized, with cross-entropy and momentum."""
    first, second = ConvNormAct(width, name="first"), ConvNormAct(5, kernel_size=1, name="second")
