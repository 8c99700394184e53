"""A convolution of a bilinearly enlarged map, computed before the map is enlarged.

Both are linear, one in the channels and one in the cells, so they may change places: each tap of
the kernel is a 1x1 convolution of the small map, and the enlarged results are added up, each moved
by its tap's distance. A map enlarged 48 times needs 48 times fewer products of channels.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from segjax.layers.precision import at_least_float32
from segjax.layers.resize import interpolation_matrix


def conv_of_enlarged(
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "kh kw i o"],
    enlarged: tuple[int, int],
    size: tuple[int, int],
) -> Float[Array, "n H W o"]:
    """A centred convolution of x, enlarged and then framed by zeros or cropped.

    Equal to the convolution with `kernel` of `resize_bilinear(x, enlarged)`, whose middle is put
    into a map of `size`: of an odd difference the larger part is after the map.

    Args:
      x: the small map.
      kernel: taps, of odd sizes.
      enlarged: (rows, columns) that x is resized to, half-pixel centres.
      size: (H, W) of the result.
    """
    (n, h, w, _), (kh, kw, inputs, outputs) = x.shape, kernel.shape
    taps = jnp.dot(x, kernel.transpose(2, 0, 1, 3).reshape(inputs, kh * kw * outputs))
    taps = at_least_float32(taps).reshape(n, h, w, kh, kw, outputs)
    rows, columns = (
        _moved(_framed(interpolation_matrix(cells, out), full), k).astype(taps.dtype)
        for cells, out, full, k in zip((h, w), enlarged, size, (kh, kw), strict=True)
    )
    y = jnp.einsum("bXw,nhwabo->nhXao", columns, taps, precision="highest")
    return jnp.einsum("aYh,nhXao->nYXo", rows, y, precision="highest").astype(x.dtype)


def _framed(matrix: Float[np.ndarray, "out i"], size: int) -> Float[np.ndarray, "size i"]:
    """Rows of zeros around the matrix, or its middle rows."""
    before = abs(size - len(matrix)) // 2
    if size < len(matrix):
        return matrix[before : before + size]
    return np.pad(matrix, ((before, size - len(matrix) - before), (0, 0)))


def _moved(matrix: Float[np.ndarray, "out i"], taps: int) -> Float[np.ndarray, "taps out i"]:
    """What each tap reads: the matrix moved by the tap's distance from the centre."""
    reach = taps // 2
    padded = np.pad(matrix, ((reach, reach), (0, 0)))
    return np.stack([padded[tap : tap + len(matrix)] for tap in range(taps)])
