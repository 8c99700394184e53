"""Marks on what a network computes: where rematerialisation may cut it into parts.

A mark is the identity, and leaves no trace in a compiled program. `segjax.training.remat` looks for
them.
"""

import jax
from jax.ad_checkpoint import checkpoint_name

CONV = "conv"
BLOCK = "block"


def conv_output(x: jax.Array) -> jax.Array:
    """Marks what a convolution computed, before bias, normalisation and activation."""
    return checkpoint_name(x, CONV)


def block_output(x: jax.Array) -> jax.Array:
    """Marks what one block of a network hands to the next: a stage's pooled map, the sum of a
    residual block, the end of a decoder's stage. Blocks after the last mark are never computed
    again, so the classifier needs none."""
    return checkpoint_name(x, BLOCK)
