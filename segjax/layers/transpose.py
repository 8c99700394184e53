"""Transposed convolution ("deconvolution"), and its use as bilinear upsampling.

Reference: Long et al., "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015,
section 3.3; Noh et al., "Learning Deconvolution Network for Semantic Segmentation", ICCV 2015,
section 3.2.2.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from segjax.layers.banded import banded_matmul
from segjax.layers.checkpoint_names import conv_output
from segjax.layers.conv import he_normal
from segjax.layers.dilated import Pads, dilated_conv
from segjax.layers.kernel_gradient import conv_by_transposition, transposition_pays
from segjax.layers.precision import at_least_float32


def conv_transpose(
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "kh kw i o"],
    *,
    strides: int = 1,
    padding: int = 0,
) -> Float[Array, "n H W o"]:
    """Every cell of x adds its multiple of the kernel to the output, `strides` cells apart.

    It is the derivative of a convolution with respect to its input. Sizes and numbers are those of
    torch's `ConvTranspose2d`: H = (h - 1) * strides - 2 * padding + kh. Torch stores its weight
    [i, o, kh, kw]; `kernel[a, b, i, o] = weight[i, o, a, b]`.

    Args:
      x: the map.
      kernel: of any size, odd or even.
      strides: distance of two neighbours' kernels in the output, at least 1.
      padding: rows and columns that are cut off on every side.

    The textbook form spreads x out with `strides - 1` zeros between its cells and convolves that.
    Here the output cells at the same place between two cells of x, one of strides * strides phases,
    are channels of one convolution on x itself, so no zeros are multiplied (63 of 64 cells at
    stride 8). Reverse mode only.

    Raises:
      ValueError: if the padding leaves no output.
    """
    size = [(n - 1) * strides + k for n, k in zip(x.shape[1:3], kernel.shape[:2], strict=True)]
    if padding < 0 or min(size) - 2 * padding < 1:
        raise ValueError(
            f"padding={padding} on an output of {tuple(size)}; use 0 to {(min(size) - 1) // 2}"
        )
    if x.shape[1:3] == (1, 1):
        # One cell's output is its own multiple of the kernel. A convolution would apply the kernel
        # at each of the kh * kw output cells, mostly to padding.
        full = jnp.einsum("ni,hwio->nhwo", x[:, 0, 0], kernel)
    else:
        full = _by_phases(x, kernel, strides)
    return full[:, padding : size[0] - padding, padding : size[1] - padding]


def _by_phases(x, kernel, strides):
    """The transposed convolution without padding, with rows and columns of zeros at its end."""
    taps = [-(-k // strides) for k in kernel.shape[:2]]  # cells of x that reach an output cell
    inputs, outputs = kernel.shape[2:]
    after = [t * strides - k for t, k in zip(taps, kernel.shape[:2], strict=True)]
    kernel = jnp.pad(kernel, ((0, after[0]), (0, after[1]), (0, 0), (0, 0)))
    # Row a * strides + p is tap a of phase p. A convolution counts its taps from the other end.
    kernel = kernel.reshape(taps[0], strides, taps[1], strides, inputs, outputs)
    kernel = kernel.transpose(0, 2, 4, 1, 3, 5)[::-1, ::-1]
    kernel = kernel.reshape(*taps, inputs, strides * strides * outputs)
    before, left = (t - 1 for t in taps)
    padding: Pads = ((before, before), (left, left))
    pays = transposition_pays(x, kernel, 1, padding)
    conv = conv_by_transposition if pays else dilated_conv
    phases = functools.partial(conv, rate=1, padding=padding, strides=1)(x, kernel)
    n, rows, columns, _ = phases.shape
    phases = phases.reshape(n, rows, columns, strides, strides, outputs)
    return phases.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows * strides, columns * strides, outputs)


def _tent(size: int) -> np.ndarray:
    """[size] float64: 1 at the centre, falling by 1 / ceil(size / 2) per cell."""
    factor = -(-size // 2)
    centre = factor - 1 if size % 2 else factor - 0.5
    return 1 - np.abs(np.arange(size) - centre) / factor


def bilinear_kernel(size: int) -> np.ndarray:
    """[size, size] float32: the filter that upsamples by ceil(size / 2) bilinearly, with which the
    FCN authors initialise their upsampling layers."""
    return np.outer(_tent(size), _tent(size)).astype(np.float32)


def _gain(size: int, strides: int) -> float:
    """The factor, per axis, by which a filter of that size would scale a constant map.

    It is 1 where `size` is 2 * strides or 2 * strides - 1, as in FCN; a wider filter reaches each
    output cell more often. Dividing by it makes the filter an interpolation again.
    """
    return -(-size // 2) / strides


def bilinear_conv_transpose(
    x: Float[Array, "n h w c"], kernel_size: int, *, strides: int, padding: int = 0
) -> Float[Array, "n H W c"]:
    """`conv_transpose` with a fixed bilinear kernel, each channel by itself; x's dtype.

    Equal to an untrained `ConvTranspose(bilinear=True)` of that size. The filter is separable, so
    it is one product with a constant matrix per axis. Sums are taken in float32 at least.

    Raises:
      ValueError: if the padding leaves no output.
    """
    tent = _tent(kernel_size) / _gain(kernel_size, strides)
    y = at_least_float32(x)
    for axis in (1, 2):
        cells = x.shape[axis]
        out = (cells - 1) * strides + kernel_size - 2 * padding
        if padding < 0 or out < 1:
            raise ValueError(f"padding={padding} leaves {out} of {out + 2 * padding} output cells")
        matrix = np.zeros((out + 2 * padding, cells), np.float32)
        for cell in range(cells):
            matrix[cell * strides : cell * strides + kernel_size, cell] = tent
        matrix = matrix[padding : padding + out]
        y = banded_matmul(matrix, y, axis)
    return y.astype(x.dtype)


class ConvTranspose(nn.Module):
    """`conv_transpose` with its own kernel [kh, kw, i, features] and, with `use_bias`, a bias.

    Attributes:
      features: output channels.
      kernel_size: one number, or (rows, columns).
      strides, padding: see `conv_transpose`.
      bilinear: the kernel starts as bilinear upsampling of each channel by itself (Long et al.,
        section 3.3) instead of He normal; it must be square and keep the number of channels.
    """

    features: int
    kernel_size: int | tuple[int, int]
    strides: int = 1
    padding: int = 0
    use_bias: bool = False
    bilinear: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w i"]) -> Float[Array, "n H W o"]:
        sides = self.kernel_size
        sides = (sides, sides) if isinstance(sides, int) else tuple(sides)
        shape = (*sides, x.shape[-1], self.features)
        init = self._bilinear_init if self.bilinear else he_normal
        kernel = self.param("kernel", init, shape, jnp.float32)
        x = conv_transpose(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            strides=self.strides,
            padding=self.padding,
        )
        x = conv_output(x)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            x = x + bias.astype(self.dtype)
        return x

    def _bilinear_init(self, key, shape, dtype):
        del key
        rows, columns, inputs, outputs = shape
        if rows != columns or inputs != outputs:
            raise ValueError(
                f"a bilinear kernel is square and keeps the channels; not {tuple(shape)}"
            )
        kernel = bilinear_kernel(rows) / _gain(rows, self.strides) ** 2
        return jnp.asarray(kernel[:, :, None, None] * np.eye(inputs), dtype)
