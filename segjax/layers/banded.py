"""Products of a constant matrix with the rows of a map, kept local where the matrix is banded.

Interpolation reads a few neighbouring rows only. A plain matrix product hides that from the
compiler: on a map whose rows are shared between devices it gathers all of them. By blocks of rows,
each a small product, the compiled program sends a row or two to each neighbour.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# Fewer rows than this are a pooled map, which every device holds whole: there the plain product is
# local already, and its result is shared as its rows are.
_LEAST_BLOCKS = 8


class _Blocks(NamedTuple):
    """A banded matrix by blocks of `inputs` columns.

    A block's outputs read its own inputs from `first` on and before `last`; below 0 those of the
    block before, from `inputs` on those of the block after. `weights` is [blocks, outputs, last -
    first]; the last block may have more outputs than the matrix has rows.
    """

    inputs: int
    first: int
    last: int
    weights: np.ndarray


def rows_product(
    matrix: Float[np.ndarray, "h H"], x: Float[Array, "n H w c"]
) -> Float[Array, "n h w c"]:
    """The rows of x mixed by a constant matrix: `einsum("hH,nHwc->nhwc")`.

    Where the matrix is banded, as interpolation's is at any ratio, each block of output rows is a
    product with the few input rows that it reads: the same sums, fewer zeros, and a derivative of
    the same form. Rows shared between devices stay where they are if the shares are whole blocks:
    each input row is a block where h is a multiple of H; at other ratios there are 8 or more, if H
    has such a divisor.
    """
    blocks = _blocks(matrix)
    if blocks is None:
        return jnp.einsum("oh,nhwc->nowc", matrix.astype(x.dtype), x, precision="highest")
    n, _, width, channels = x.shape
    count, inputs = len(blocks.weights), blocks.inputs
    own = x.reshape(n, count, inputs, width * channels)
    taps = [own[:, :, max(0, blocks.first) : min(inputs, blocks.last)]]
    zero = jnp.zeros((), x.dtype)
    if blocks.first < 0:
        above = own[:, :, inputs + blocks.first :]
        taps.insert(0, lax.pad(above, zero, [(0, 0, 0), (1, -1, 0), (0, 0, 0), (0, 0, 0)]))
    if blocks.last > inputs:
        below = own[:, :, : blocks.last - inputs]
        taps.append(lax.pad(below, zero, [(0, 0, 0), (-1, 1, 0), (0, 0, 0), (0, 0, 0)]))
    # Blocks are a batch of the product; the weights are repeated for n, so that XLA need not
    # transpose x to make it one.
    weights = jnp.broadcast_to(blocks.weights.astype(x.dtype), (n, *blocks.weights.shape))
    y = jnp.matmul(weights, jnp.concatenate(taps, 2), precision="highest")
    return y.reshape(n, count * y.shape[2], width, channels)[:, : len(matrix)]


def _blocks(matrix: np.ndarray) -> _Blocks | None:
    """The matrix [out, size] in as many blocks as it has; None if those are too few."""
    out, size = matrix.shape
    i, j = np.nonzero(matrix)
    if out < _LEAST_BLOCKS or not i.size:
        return None
    for count in range(size, _LEAST_BLOCKS - 1, -1):
        if size % count:
            continue
        inputs, outputs = size // count, -(-out // count)
        block = i // outputs
        offset = j - inputs * block
        first, last = int(offset.min()), int(offset.max()) + 1
        if first < -inputs or last > 2 * inputs:
            continue  # a block would read beyond its neighbours
        # At least one input of its own, so that there is something to put the others beside.
        first, last = min(first, inputs - 1), max(last, 1)
        weights = np.zeros((count, outputs, last - first), matrix.dtype)
        weights[block, i - outputs * block, offset - first] = matrix[i, j]
        return _Blocks(inputs, first, last, weights)
    return None
