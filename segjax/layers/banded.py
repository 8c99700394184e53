"""Products of a constant banded matrix with the rows or columns of a map.

Interpolation reads a few neighbouring rows only. A plain matrix product hides that from the
compiler: where devices share a map's rows it gathers all of them. By blocks of rows, each a small
product, the compiled program sends a row or two to each neighbour. On GPUs each output is a sum of
its few neighbours, which XLA fuses with its consumers: upsampled logits are never stored, and no
product has two or three terms, for which XLA 0.10 finds no tiles.
"""

import functools
import operator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# Fewer rows than this are a pooled map, which every device holds completely: there the plain
# product is local already, and its result is shared as its rows are.
_LEAST_BLOCKS = 8

# Sums of more terms per output, or of more weights per block, are taken as products.
_MOST_TERMS = 6
_MOST_WEIGHTS = 128


class _Blocks(NamedTuple):
    """A banded matrix by blocks of `inputs` columns.

    The outputs of a block read inputs `first` to `last - 1`, counted from the block's own first;
    below 0 are those of the blocks before, from `inputs` on those of the blocks after. `weights`
    is [blocks, outputs, last - first]; the last block may have more outputs than the matrix has
    rows.
    """

    inputs: int
    first: int
    last: int
    weights: np.ndarray


def banded_matmul(
    matrix: Float[np.ndarray, "o i"], x: Float[Array, "n H W c"], axis: int
) -> Float[Array, "n h w c"]:
    """The rows (axis 1) or columns (axis 2) of x mixed by a constant matrix.

    As `einsum("oi,nihc->nohc")`, in x's dtype. Where devices share the rows in complete blocks,
    rows stay on their devices: each input row is a block where `o` is a multiple of `i`; at other
    ratios there are 8 blocks or more, if the number of rows has such a divisor.
    """
    product = functools.partial(_product, matrix, axis=axis)
    blocks = _narrow_blocks(matrix)
    if blocks is None:
        return product(x)
    summed = functools.partial(_summed, blocks, axis=axis, out=len(matrix))
    return lax.platform_dependent(x, cuda=summed, rocm=summed, default=product)


def shift(x: Float[Array, "*shape"], axis: int, by: int) -> Float[Array, "*shape"]:
    """x moved by so many places along an axis, zeros in its place."""
    if not by:
        return x
    pads = [(by, -by, 0) if a == axis else (0, 0, 0) for a in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), pads)


def _product(matrix, x, axis: int):
    """The result by matrix products, which CPUs are fastest at and TPUs are made for."""
    blocks = _wide_blocks(matrix) if axis == 1 else None
    if blocks:
        return _product_of_blocks(blocks, x, len(matrix))
    equation = "oi,nihc->nohc" if axis == 1 else "oi,nhic->nhoc"
    return jnp.einsum(equation, matrix.astype(x.dtype), x, precision="highest")


def _summed(blocks: _Blocks, x, axis: int, out: int):
    """The result by sums over a block's few neighbours; the derivative sums a block's outputs."""
    count, outputs, terms = blocks.weights.shape
    # [count, outputs, terms, 1 ...]: the blocks lie along the axis, the outputs on a new one.
    weights = blocks.weights.reshape(*blocks.weights.shape, *[1] * (x.ndim - axis - 1))
    weights = weights.astype(x.dtype)
    own = x.reshape(*x.shape[:axis], count, blocks.inputs, *x.shape[axis + 1 :])

    def term(t: int):
        distance, place = divmod(blocks.first + t, blocks.inputs)
        neighbour = lax.slice_in_dim(own, place, place + 1, axis=axis + 1)
        return weights[:, :, t] * shift(neighbour, axis, -distance)

    total = functools.reduce(operator.add, map(term, range(terms)))
    y = total.reshape(*x.shape[:axis], count * outputs, *x.shape[axis + 1 :])
    return lax.slice_in_dim(y, 0, out, axis=axis)


def _product_of_blocks(
    blocks: _Blocks, x: Float[Array, "n H w c"], out: int
) -> Float[Array, "n h w c"]:
    """The product with rows as one small product per block."""
    n, _, width, channels = x.shape
    count, inputs = len(blocks.weights), blocks.inputs
    own = x.reshape(n, count, inputs, width * channels)
    taps = [own[:, :, max(0, blocks.first) : min(inputs, blocks.last)]]
    if blocks.first < 0:
        taps.insert(0, shift(own[:, :, inputs + blocks.first :], 1, 1))
    if blocks.last > inputs:
        taps.append(shift(own[:, :, : blocks.last - inputs], 1, -1))
    # Blocks are a batch of the product. The weights are repeated for every image: otherwise XLA
    # transposes x to make it one.
    weights = jnp.broadcast_to(blocks.weights.astype(x.dtype), (n, *blocks.weights.shape))
    y = jnp.matmul(weights, jnp.concatenate(taps, 2), precision="highest")
    return y.reshape(n, count * y.shape[2], width, channels)[:, :out]


def _narrow_blocks(matrix: np.ndarray) -> _Blocks | None:
    """The matrix [out, size] in the most blocks whose outputs are short sums, if there are any."""
    size = matrix.shape[1]
    for count in range(size, 0, -1):
        if size % count:
            continue
        blocks = _in_blocks(matrix, count)
        _, outputs, terms = blocks.weights.shape
        if terms <= _MOST_TERMS and terms * outputs <= _MOST_WEIGHTS:
            return blocks
    return None


def _wide_blocks(matrix: np.ndarray) -> _Blocks | None:
    """The matrix [out, size] in the most blocks that read no further than their neighbours; None if
    those are too few."""
    out, size = matrix.shape
    if out < _LEAST_BLOCKS or not matrix.any():
        return None
    for count in range(size, _LEAST_BLOCKS - 1, -1):
        if size % count == 0:
            blocks = _in_blocks(matrix, count)
            if blocks.first >= -blocks.inputs and blocks.last <= 2 * blocks.inputs:
                return blocks
    return None


def _in_blocks(matrix: np.ndarray, count: int) -> _Blocks:
    """The matrix [out, size] in `count` blocks, a divisor of its size."""
    out, size = matrix.shape
    inputs, outputs = size // count, -(-out // count)
    i, j = np.nonzero(matrix)
    block = i // outputs
    offset = j - inputs * block
    # At least one of the block's own inputs, to which the neighbours' are joined.
    first = min(int(offset.min(initial=0)), inputs - 1)
    last = max(int(offset.max(initial=0)) + 1, 1)
    weights = np.zeros((count, outputs, last - first), matrix.dtype)
    weights[block, i - outputs * block, offset - first] = matrix[i, j]
    return _Blocks(inputs, first, last, weights)
