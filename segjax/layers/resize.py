"""Image resizing without antialiasing, in both conventions that segmentation papers use.

`align_corners=False` (half-pixel centres: torchvision, Keras, mmsegmentation) maps output i to
`(i + 0.5) * in / out - 0.5`; `align_corners=True` (Caffe, the PSPNet authors) maps the first and
last pixel centres onto each other: `i * (in - 1) / (out - 1)`. `jax.image.resize` has only the
first, and blurs when it shrinks.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from segjax.layers.banded import banded_matmul
from segjax.layers.precision import at_least_float32


def spatial_size(x: Shaped[Array, "n H W *c"]) -> tuple[int, int]:
    """(H, W) of a channels-last map."""
    return x.shape[1], x.shape[2]


def resize_bilinear(
    x: Float[Array, "n H W c"], size: tuple[int, int], *, align_corners: bool = False
) -> Float[Array, "n h w c"]:
    """Bilinear interpolation to `size` (h, w), any ratio, no antialiasing; x's dtype.

    Equal to torch's `interpolate(mode="bilinear")` in both conventions. Each axis is one product
    with a constant matrix, so the derivative is a product too, never a scatter; an axis that keeps
    its size is left alone. Sums are taken in float32 at least.

    Where devices share the rows, only those next to a border travel, see `banded_matmul`.
    """
    y = at_least_float32(x)
    # An axis that shrinks goes before one that grows: fewer numbers for the other one. Otherwise
    # rows go first: a row of the small map travels between devices.
    axes = sorted((1, 2), key=lambda axis: min(1, size[axis - 1] / x.shape[axis]))
    for axis in axes:
        out = size[axis - 1]
        if out == x.shape[axis]:
            continue
        if x.shape[axis] == 1:
            y = jnp.repeat(y, out, axis)
        else:
            matrix = interpolation_matrix(x.shape[axis], out, align_corners)
            y = banded_matmul(matrix, y, axis)
    return y.astype(x.dtype)


def resize_nearest(
    x: Shaped[Array, "n H W *c"], size: tuple[int, int]
) -> Shaped[Array, "n h w *c"]:
    """The nearest pixel by half-pixel centres (`floor((i + 0.5) * in / out)`); for label maps.

    Equal to torch's `nearest-exact`, and OpenCV's convention for pixel centres; any dtype.
    """
    for axis, out in zip((1, 2), size, strict=True):
        cells = x.shape[axis]
        if out % cells == 0:
            x = jnp.repeat(x, out // cells, axis)  # local where devices share the rows
            continue
        index = np.floor((np.arange(out) + 0.5) * cells / out).astype(np.int32)
        x = jnp.take(x, np.minimum(index, cells - 1), axis=axis)
    return x


def source_positions(size: int, out: int, align_corners: bool) -> np.ndarray:
    """[out] float64: each output pixel's position in the input, clipped to its first and last
    centre."""
    i = np.arange(out, dtype=np.float64)
    if align_corners:
        position = i * (size - 1) / (out - 1) if out > 1 else np.zeros(1)
    else:
        position = (i + 0.5) * size / out - 0.5
    return np.clip(position, 0, size - 1)


def interpolation_matrix(size: int, out: int, align_corners: bool = False) -> np.ndarray:
    """[out, size] float32 with the two weights of each output pixel."""
    position = source_positions(size, out, align_corners)
    low = np.minimum(position.astype(int), size - 1)
    high = np.minimum(low + 1, size - 1)
    weight = position - low
    matrix = np.zeros((out, size))
    np.add.at(matrix, (np.arange(out), low), 1 - weight)
    np.add.at(matrix, (np.arange(out), high), weight)
    return matrix.astype(np.float32)
