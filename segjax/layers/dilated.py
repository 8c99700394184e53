"""The atrous convolution of XLA, and one whose kernel's gradient GPUs have a fast program for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Pads = tuple[tuple[int, int], tuple[int, int]]

# Phases of fewer rows or columns than this see little but padding: their kernel's gradient is taken
# tap by tap.
_LEAST_PHASE = 4


def centered_padding(kernel: Float[Array, "kh kw i o"], rate: int) -> Pads:
    """Zeros on every side that keep a map's size at stride 1, for a kernel of odd sides."""
    rows, columns = (rate * (k // 2) for k in kernel.shape[:2])
    return (rows, rows), (columns, columns)


def explicit_padding(
    x: Float[Array, "n H W c"],
    kernel: Float[Array, "kh kw i o"],
    rate: int,
    strides: int,
    padding: str | Pads,
) -> Pads:
    """The pairs that a padding is: "CENTER", "SAME" or pairs, see `segjax.layers.atrous_conv`.

    Raises:
      ValueError: for an even kernel with "CENTER", or another string.
    """
    if not isinstance(padding, str):
        return padding
    if padding == "SAME":
        rows, columns = (
            max(0, (-(-n // strides) - 1) * strides + rate * (k - 1) + 1 - n)
            for n, k in zip(x.shape[1:3], kernel.shape[:2], strict=True)
        )
        return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)
    if padding != "CENTER":
        raise ValueError(
            f'padding={padding!r}; use "CENTER", "SAME" or ((top, bottom), (left, right))'
        )
    if kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
        raise ValueError(f"an even kernel {kernel.shape[:2]} has no centre; give padding pairs")
    return centered_padding(kernel, rate)


def dilated_conv(
    x: Float[Array, "n H W c"],
    kernel: Float[Array, "kh kw i o"],
    rate: int,
    padding: Pads,
    strides: int = 1,
    groups: int = 1,
) -> Float[Array, "n h w o"]:
    """XLA's convolution, channels-last, with `rate - 1` zeros between the kernel's taps; c is
    groups * i."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(strides, strides),
        padding=padding,
        rhs_dilation=(rate, rate),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def dilated_conv_with_phases(
    rate: int, x: Float[Array, "n h w c"], kernel: Float[Array, "kh kw i o"]
) -> Float[Array, "n h w o"]:
    """A centred convolution of stride 1 whose kernel's gradient is that of a plain convolution.

    XLA calls no cuDNN program for the kernel's gradient of an atrous convolution: it transposes
    both maps and convolves one with the other as the kernel. Every `rate`-th row and column make a
    phase, and within a phase the convolution is a plain one. c / i groups of channels are convolved
    each by itself.
    """
    padding = centered_padding(kernel, rate)
    return dilated_conv(x, kernel, rate, padding, groups=x.shape[-1] // kernel.shape[2])


def _forward(rate, x, kernel):
    return dilated_conv_with_phases(rate, x, kernel), (x, kernel)


def _backward(rate, kept, dy):
    x, kernel = kept
    groups = x.shape[-1] // kernel.shape[2]
    conv = functools.partial(
        dilated_conv, rate=rate, padding=centered_padding(kernel, rate), groups=groups
    )
    dx = jax.vjp(lambda x: conv(x, kernel), x)[1](dy)[0]
    rates = [rate if k > 1 else 1 for k in kernel.shape[:2]]
    if any(r > 1 and n < _LEAST_PHASE * r for n, r in zip(x.shape[1:3], rates, strict=True)):
        if groups > 1:
            return dx, jax.vjp(lambda kernel: conv(x, kernel), kernel)[1](dy)[0]
        return dx, _kernel_gradient_by_taps(rate, x, dy, kernel)
    x, dy = _phases(x, rates), _phases(dy, rates)
    plain = functools.partial(
        dilated_conv, rate=1, padding=centered_padding(kernel, 1), groups=groups
    )
    return dx, jax.vjp(lambda kernel: plain(x, kernel), kernel)[1](dy)[0]


def _kernel_gradient_by_taps(rate, x, dy, kernel):
    """One product per tap, of the cells that it reads with those that it adds to."""
    height, width = x.shape[1:3]
    taps = []
    for i, j in np.ndindex(*kernel.shape[:2]):
        down, across = rate * (i - kernel.shape[0] // 2), rate * (j - kernel.shape[1] // 2)
        if abs(down) >= height or abs(across) >= width:
            taps.append(jnp.zeros(kernel.shape[2:], kernel.dtype))
            continue
        read = x[:, max(0, down) : height + min(0, down), max(0, across) : width + min(0, across)]
        added = dy[
            :, max(0, -down) : height - max(0, down), max(0, -across) : width - max(0, across)
        ]
        taps.append(jnp.einsum("nhwi,nhwo->io", read, added))
    return jnp.stack(taps).reshape(kernel.shape)


dilated_conv_with_phases.defvjp(_forward, _backward)


def _phases(x, rates):
    """[n, H, W, c] to [n * phases, h, w, c]; zeros at the end make H and W divide."""
    (down, across), (n, _, _, c) = rates, x.shape
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % down), (0, -x.shape[2] % across), (0, 0)))
    height, width = x.shape[1] // down, x.shape[2] // across
    x = x.reshape(n, height, down, width, across, c).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(n * down * across, height, width, c)
