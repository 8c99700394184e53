"""Convolution with an atrous rate, and the convolution-normalisation-activation block."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Below this share of taps that see the map at all, summing the taps one by one beats a convolution
# that multiplies the padding's zeros (measured on CPU; see tests/layers/bench_layers.py).
_TAP_SUM_BELOW = 0.55

he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def atrous_conv(
    x: Float[Array, "n H W i"],
    kernel: Float[Array, "kh kw i o"],
    *,
    rate: int = 1,
    strides: int = 1,
    padding: str | tuple[tuple[int, int], tuple[int, int]] = "CENTER",
) -> Float[Array, "n h w o"]:
    """2-D convolution with `rate - 1` zeros between the kernel's taps.

    Args:
      x: the map.
      kernel: taps; odd sizes for "CENTER".
      rate: atrous (dilation) rate, at least 1.
      strides: output step, the same for rows and columns.
      padding: "CENTER" pads `rate * (k // 2)` zeros on every side, as torch with that explicit
        padding (XLA's "SAME" differs from it at stride 2); or explicit pairs.

    At large rates most taps fall outside the map (rate 24 on a 33x33 map: the corner taps see
    only 9x9 cells of it). Those products are not computed: the same sum, several times faster.

    Raises:
      ValueError: for an even kernel with "CENTER".

    Reference: Chen et al., "Rethinking Atrous Convolution", arXiv 1706.05587, section 3.1.
    """
    if padding == "CENTER":
        if kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
            raise ValueError(f"an even kernel {kernel.shape[:2]} has no centre; give padding pairs")
        centered = True
        padding = tuple((rate * (k // 2),) * 2 for k in kernel.shape[:2])
    else:
        centered = False
    if kernel.shape[:2] == (1, 1) and not any(map(any, padding)):
        # A 1x1 convolution is a matrix product, and XLA's CPU backend runs it faster as one.
        return jnp.dot(x[:, ::strides, ::strides], kernel[0, 0])
    # At rate 1 only tiny maps have so few taps inside, and there is nothing to gain: 49 products of
    # a 7x7 kernel on a 4x4 map would take XLA ten seconds to compile.
    sparse = rate > 1 and _share_inside(x.shape[1:3], kernel.shape, rate) < _TAP_SUM_BELOW
    if centered and strides == 1 and sparse:
        return _sum_of_taps(x, kernel, rate)
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(strides, strides),
        padding=padding,
        rhs_dilation=(rate, rate),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _share_inside(size, kernel_shape, rate) -> float:
    """The share of (output cell, tap) pairs whose tap lies inside the map."""
    return math.prod(
        sum(max(0, n - rate * abs(tap - k // 2)) for tap in range(k)) / (n * k)
        for n, k in zip(size, kernel_shape[:2], strict=True)
    )


def _sum_of_taps(x, kernel, rate):
    """The convolution as one matrix product per tap, over the cells where the tap is inside."""
    _, height, width, _ = x.shape
    out = None
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            dy, dx = rate * (i - kernel.shape[0] // 2), rate * (j - kernel.shape[1] // 2)
            if abs(dy) >= height or abs(dx) >= width:
                continue  # this tap sees padding only
            seen = x[:, max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)]
            product = jnp.dot(seen, kernel[i, j])
            product = jnp.pad(
                product,
                ((0, 0), (max(0, -dy), max(0, dy)), (max(0, -dx), max(0, dx)), (0, 0)),
            )
            out = product if out is None else out + product
    return out


class Conv(nn.Module):
    """`atrous_conv` with its own kernel [k, k, i, features] and, if asked, a bias."""

    features: int
    kernel_size: int = 3
    strides: int = 1
    rate: int = 1
    use_bias: bool = False
    padding: str | tuple[tuple[int, int], tuple[int, int]] = "CENTER"
    dtype: Any = jnp.float32
    kernel_init: Callable = he_normal

    @nn.compact
    def __call__(self, x: Float[Array, "n H W i"]) -> Float[Array, "n h w o"]:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x = atrous_conv(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            rate=self.rate,
            strides=self.strides,
            padding=self.padding,
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            x = x + bias.astype(self.dtype)
        return x


class ConvNormAct(nn.Module):
    """Convolution, batch normalisation, activation: the block that all models here are made of.

    Statistics are kept in float32. `momentum` is linen's (the share of the old value that stays):
    0.9 here is torch's 0.1. Under jit the statistics are those of the whole batch, whatever the
    number of devices.
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    rate: int = 1
    use_bias: bool = False
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Any = jnp.float32
    kernel_init: Callable = he_normal
    scale_init: Callable = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "n H W i"], *, train: bool) -> Float[Array, "n h w o"]:
        x = Conv(
            self.features,
            self.kernel_size,
            self.strides,
            self.rate,
            self.use_bias,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            name="conv",
        )(x)
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            dtype=self.dtype,
            scale_init=self.scale_init,
            name="norm",
        )(x)
        return self.activation(x) if self.activation else x
