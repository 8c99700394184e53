"""Adaptive average pooling: a map's means over a grid of bins, whatever its size."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from segjax.layers.precision import at_least_float32


def adaptive_avg_pool(
    x: Float[Array, "n H W c"], output_size: tuple[int, int]
) -> Float[Array, "n h w c"]:
    """Averages over h x w bins that cover the map.

    Neighbouring bins overlap where sizes do not divide, as in torch's `adaptive_avg_pool2d`; with
    more bins than cells, cells are repeated.
    """
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


def _bin_means(size: int, bins: int) -> np.ndarray:
    """[bins, size]: row b averages the cells floor(b*size/bins) .. ceil((b+1)*size/bins) - 1."""
    matrix = np.zeros((bins, size), np.float32)
    for b in range(bins):
        start, stop = b * size // bins, -(-(b + 1) * size // bins)
        matrix[b, start:stop] = 1 / (stop - start)
    return matrix
