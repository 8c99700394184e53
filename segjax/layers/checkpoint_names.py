"""Names for arrays of a forward pass at which rematerialisation may cut a network into parts.

Naming an array is the identity and leaves no trace in a compiled program. `segjax.training.remat`
reads the names.
"""

import jax
from jax.ad_checkpoint import checkpoint_name

CONV = "conv"
BLOCK = "block"


def conv_output(x: jax.Array) -> jax.Array:
    """Names the output of a convolution, before bias, normalisation and activation."""
    return checkpoint_name(x, CONV)


def block_output(x: jax.Array) -> jax.Array:
    """Names the output of a block: a stage's pooled map, the sum of a residual block, the end of a
    decoder's stage. Blocks after the last name are never computed again, so a classifier needs
    none."""
    return checkpoint_name(x, BLOCK)
