"""Depthwise convolution: one kernel a channel, no sums over channels."""

import functools
import operator

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from segjax.layers.banded import shift
from segjax.layers.dilated import Pads, centered_padding

# As in `segjax.layers.conv`: where a kernel reaches further than this share of the rows, XLA's
# partitioner would gather a map whose rows devices share.
_FAR = 0.25


def depthwise_conv(
    x: Float[Array, "n H W c"],
    kernel: Float[Array, "kh kw 1 c"],
    *,
    rate: int = 1,
    strides: int = 1,
    padding: str | Pads = "CENTER",
) -> Float[Array, "n h w c"]:
    """Convolves each channel with its own kernel, `rate - 1` zeros between the taps.

    Args:
      x, rate, strides, padding: as for `segjax.layers.atrous_conv`.
      kernel: taps of each channel; odd sizes for "CENTER".

    Raises:
      ValueError: for an even kernel with "CENTER", or another string.
    """
    centered = padding == "CENTER"
    if isinstance(padding, str):
        if not centered:
            raise ValueError(f'padding={padding!r}; use "CENTER" or ((top, bottom), (left, right))')
        if kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
            raise ValueError(f"an even kernel {kernel.shape[:2]} has no centre; give padding pairs")
        padding = centered_padding(kernel, rate)
    if centered and strides == 1 and rate > 1 and padding[0][0] > _FAR * x.shape[1]:
        return _sum_of_taps(x, kernel, rate)
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(strides, strides),
        padding=padding,
        rhs_dilation=(rate, rate),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _sum_of_taps(x, kernel, rate):
    """The convolution as the sum of moved maps, each times one number a channel."""
    rows, columns = kernel.shape[:2]
    terms = []
    for i in range(rows):
        down = rate * (i - rows // 2)
        if abs(down) >= x.shape[1]:
            continue  # this row of taps reads padding only
        moved = shift(x, 1, -down)
        for j in range(columns):
            across = rate * (j - columns // 2)
            if abs(across) < x.shape[2]:
                terms.append(shift(moved, 2, -across) * kernel[i, j, 0])
    return functools.reduce(operator.add, terms, jnp.zeros_like(x))
