"""Adaptive average pooling: a map's means over a grid of bins, whatever its size."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from segjax.layers.precision import at_least_float32


def _bin_means(size: int, bins: int) -> np.ndarray:
    """[bins, size]: row b averages the cells floor(b*size/bins) .. ceil((b+1)*size/bins) - 1."""
    matrix = np.zeros((bins, size), np.float32)
    for b in range(bins):
        start, stop = b * size // bins, -(-(b + 1) * size // bins)
        matrix[b, start:stop] = 1 / (stop - start)
    return matrix


def adaptive_avg_pool(
    x: Float[Array, "n H W c"], output_size: tuple[int, int]
) -> Float[Array, "n h w c"]:
    """Averages over h x w bins that cover the map; neighbouring bins overlap where sizes do not
    divide, as torch's `adaptive_avg_pool2d`. More bins than cells repeat cells.

    Two small matrix products: static in shape, exportable, and their own derivative. Sums are
    taken in float32 at least. Columns go first: where rows are shared between devices, what is
    left to sum over them is the result's size.
    """
    rows = _bin_means(x.shape[1], output_size[0])
    columns = _bin_means(x.shape[2], output_size[1])
    # The matrix once per row of the map: as one product for all rows, XLA would transpose the map
    # first, which takes longer than the sums.
    columns = jnp.broadcast_to(columns, (*x.shape[:2], *columns.shape))
    wide = at_least_float32(x)
    pooled = jnp.matmul(columns, wide, precision="highest")
    pooled = jnp.einsum("ah,nhbc->nabc", rows, pooled, precision="highest")
    return pooled.astype(x.dtype)
