"""Adaptive pooling: a map's means or maxima over a grid of bins, whatever its size.

Neighbouring bins overlap where sizes do not divide, as in torch's `adaptive_avg_pool2d` and
`adaptive_max_pool2d`; with more bins than cells, cells are repeated.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from segjax.layers.precision import at_least_float32


def adaptive_avg_pool(
    x: Float[Array, "n H W c"], output_size: tuple[int, int]
) -> Float[Array, "n h w c"]:
    """Averages over h x w bins that cover the map."""
    return adaptive_avg_pools(x, [output_size])[0]


def adaptive_avg_pools(
    x: Float[Array, "n H W c"], output_sizes: Sequence[tuple[int, int]]
) -> list[Float[Array, "n _h _w c"]]:
    """`adaptive_avg_pool` to several sizes, reading the map once.

    Two small matrix products, static in shape, exportable, and their own derivative. Sums are taken
    in float32 at least. Columns go first: where devices share the rows, only arrays of the result's
    size are then summed over devices. The columns of all sizes are one product, so that the
    derivative writes one map rather than one per size and their sum.
    """
    widths = [width for _, width in output_sizes]
    columns = np.concatenate([_bin_means(x.shape[2], width) for width in widths])
    # The matrix is repeated for every row of the map, and below for every image: in one product for
    # all, XLA would transpose the map first, which takes longer than the sums.
    columns = jnp.broadcast_to(columns, (*x.shape[:2], *columns.shape))
    means = jnp.matmul(columns, at_least_float32(x), precision="highest")
    pooled = []
    for (height, _), part in zip(
        output_sizes, jnp.split(means, np.cumsum(widths)[:-1], axis=2), strict=True
    ):
        n, cells, width, channels = part.shape
        rows = _bin_means(cells, height)
        rows = jnp.broadcast_to(rows, (n, *rows.shape))
        part = jnp.matmul(rows, part.reshape(n, cells, width * channels), precision="highest")
        pooled.append(part.reshape(n, height, width, channels).astype(x.dtype))
    return pooled


def adaptive_max_pool(
    x: Float[Array, "n H W c"], output_size: tuple[int, int]
) -> Float[Array, "n h w c"]:
    """Maxima over h x w bins that cover the map.

    Maxima of the columns of each bin, then of its rows: slices, and no gather. Cells of a bin that
    share its maximum share its derivative.
    """
    for axis, bins in ((2, output_size[1]), (1, output_size[0])):
        limits = _bin_limits(x.shape[axis], bins)
        parts = [_maximum(lax.slice_in_dim(x, *ends, axis=axis), axis) for ends in limits]
        x = jnp.concatenate(parts, axis)
    return x


def _maximum(x: Float[Array, "n H W c"], axis: int) -> Float[Array, "n _ _ c"]:
    """The maximum along an axis, of length 1 then: of both halves, again and again.

    `jnp.max` divides by the number of cells that equal the maximum. Where XLA computes the map once
    more for that, rounded otherwise, none does, and the derivative is NaN.
    """
    while (size := x.shape[axis]) > 1:
        half = (size + 1) // 2  # the middle of an odd number is in both
        halves = ((0, half), (size - half, size))
        x = jnp.maximum(*(lax.slice_in_dim(x, *ends, axis=axis) for ends in halves))
    return x


def _bin_limits(size: int, bins: int) -> list[tuple[int, int]]:
    """Bin b has the cells floor(b * size / bins) .. ceil((b + 1) * size / bins) - 1."""
    return [(b * size // bins, -(-(b + 1) * size // bins)) for b in range(bins)]


def _bin_means(size: int, bins: int) -> np.ndarray:
    """[bins, size]: a row averages the cells of a bin."""
    matrix = np.zeros((bins, size), np.float32)
    for row, (start, stop) in zip(matrix, _bin_limits(size, bins), strict=True):
        row[start:stop] = 1 / (stop - start)
    return matrix
