"""Convolution with an atrous rate, and the convolution-normalisation-activation block."""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from segjax.layers.banded import shift
from segjax.layers.checkpoint_names import conv_output
from segjax.layers.depthwise import depthwise_conv, grouped_conv
from segjax.layers.dilated import (
    Pads,
    centered_padding,
    dilated_conv,
    dilated_conv_with_phases,
    explicit_padding,
)
from segjax.layers.kernel_gradient import conv_by_transposition, transposition_pays
from segjax.layers.norm import BatchNorm
from segjax.layers.sharing import rows_are_shared
from segjax.layers.winograd import pays, winograd_conv

# Below this share of taps that see the map at all, summing the taps one by one beats a convolution
# that multiplies the padding's zeros (measured on CPU; see benchmarks/layers.py).
_TAP_SUM_BELOW = 0.7

# At rates above this share of the rows, the kernel's rows are convolved one by one. For a single
# convolution XLA's partitioner gathers the map where its reach, up and down, covers the shards of
# all devices: from 3/8 of the rows on 4 devices, 1/2 on 8. Up to 1/4 it never does.
_FAR = 0.25

he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def atrous_conv(
    x: Float[Array, "n H W c"],
    kernel: Float[Array, "kh kw i o"],
    *,
    rate: int = 1,
    strides: int = 1,
    padding: str | Pads = "CENTER",
    groups: int = 1,
) -> Float[Array, "n h w o"]:
    """2-D convolution with `rate - 1` zeros between the kernel's taps.

    Args:
      x: the map.
      kernel: taps; odd sizes for "CENTER".
      rate: atrous (dilation) rate, at least 1.
      strides: output step, the same for rows and columns.
      padding: "CENTER" pads `rate * (k // 2)` zeros on every side, as torch with that explicit
        padding; "SAME" pads as TensorFlow does, which at stride 2 is one row less before; or
        explicit pairs.
      groups: c / i. As many groups as channels and outputs: `depthwise_conv`; other numbers above
        1: `grouped_conv`.

    At large rates most taps fall outside the map (rate 24 on a 33x33 map: the corner taps see
    only 9x9 cells of it). On CPUs those products are left out: the same sum, several times faster.
    GPUs take the kernel's gradient in another way, see `segjax.layers.dilated`. Where devices share
    the rows, none ever holds the complete map, whatever the rate, see `_sum_of_rows`.

    Raises:
      ValueError: for an even kernel with "CENTER", another string, or groups that do not divide.

    Reference: Chen et al., "Rethinking Atrous Convolution", arXiv 1706.05587, section 3.1.
    """
    if groups > 1:
        depthwise = groups == x.shape[-1] == kernel.shape[-1]
        conv = depthwise_conv if depthwise else grouped_conv
        return conv(x, kernel, rate=rate, strides=strides, padding=padding)
    centered = padding == "CENTER"
    padding = explicit_padding(x, kernel, rate, strides, padding)
    if kernel.shape[:2] == (1, 1) and not any(map(any, padding)):
        return _pointwise(x, kernel, strides)
    # At rate 1 only tiny maps have so few taps inside, and there is nothing to gain: 49 products of
    # a 7x7 kernel on a 4x4 map would take XLA ten seconds to compile.
    sparse = rate > 1 and _share_inside(x.shape[1:3], kernel.shape, rate) < _TAP_SUM_BELOW
    far = rate > 1 and padding[0][0] > _FAR * x.shape[1]
    if not centered or strides > 1 or not (sparse or far):
        return _convolved(x, kernel, rate, padding, strides)
    by_taps = functools.partial(_sum_of_rows, rate=rate, row_of_taps=_row_of_taps)
    by_rows = functools.partial(_sum_of_rows, rate=rate, row_of_taps=_row_convolved)
    at_once = functools.partial(_convolved, rate=rate, padding=padding)
    elsewhere = by_rows if far else at_once
    if not sparse:
        return elsewhere(x, kernel)
    # On a CPU fewer products are faster; on accelerators, few programs and one pass over the map.
    return lax.platform_dependent(x, kernel, cpu=by_taps, default=elsewhere)


def _convolved(x, kernel, rate, padding, strides=1):
    pays_off = transposition_pays(x, kernel, rate, padding)
    conv = conv_by_transposition if pays_off else dilated_conv
    plain = functools.partial(conv, rate=rate, padding=padding, strides=strides)
    if strides > 1 or padding != centered_padding(kernel, rate):
        return plain(x, kernel)
    forms: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {}
    if pays(x, kernel, rate):
        forms["cpu"] = functools.partial(winograd_conv, rate=rate)
    if rate > 1:
        forms["cuda"] = forms["rocm"] = functools.partial(dilated_conv_with_phases, rate)
    return lax.platform_dependent(x, kernel, **forms, default=plain) if forms else plain(x, kernel)


def _pointwise(x, kernel, strides):
    """A 1x1 convolution.

    It is a matrix product, and XLA's CPU backend runs it faster as one. GPUs have their own
    programs for it, which add a residual's gradient in the same pass; and a product of a strided
    slice aborts the compiler for CUDA in jaxlib 0.10 (a check in `triton_tiling_propagation.cc`).
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _product(x[:, ::strides, ::strides], kernel[0, 0]),
        default=lambda x, kernel: _convolved(x, kernel, 1, ((0, 0), (0, 0)), strides),
    )


def _product(x, kernel):
    """The product over the channels. Of two axes, as XLA transposes a map of four for the kernel's
    gradient; where devices share the rows it would gather them to make two axes."""
    if rows_are_shared():
        return jnp.dot(x, kernel)
    flat = jnp.dot(x.reshape(-1, x.shape[-1]), kernel)
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])


def _share_inside(size, kernel_shape, rate) -> float:
    """The share of (output cell, tap) pairs whose tap lies inside the map."""
    return math.prod(
        sum(max(0, n - rate * abs(tap - k // 2)) for tap in range(k)) / (n * k)
        for n, k in zip(size, kernel_shape[:2], strict=True)
    )


def _sum_of_rows(x, kernel, rate, row_of_taps):
    """The convolution as the sum of its kernel's rows, each over the cells where it is inside.

    Where devices share the map's rows, each row of taps needs the map moved up or down, which is
    one exchange. XLA would gather the map first if more than half of the rows were cropped, or
    padded to more than twice as many: the rest of a larger distance is a shift that keeps the size.
    """
    height = x.shape[1]
    terms = []
    for i, taps in enumerate(kernel):
        dy = rate * (i - kernel.shape[0] // 2)
        if abs(dy) >= height:
            continue  # this row of taps reads padding only
        cropped = min(abs(dy), height // 2)
        above, below = (0, cropped) if dy > 0 else (cropped, 0)
        term = row_of_taps(x[:, below : height - above], taps, rate)
        term = jnp.pad(term, ((0, 0), (above, below), (0, 0), (0, 0)))
        terms.append(shift(term, 1, below - above - dy))
    return functools.reduce(operator.add, terms)


def _row_of_taps(x, taps, rate):
    """Taps [kw, i, o] along the columns, one matrix product each, where they are inside."""
    width, terms = x.shape[2], []
    for j, tap in enumerate(taps):
        dx = rate * (j - len(taps) // 2)
        if abs(dx) >= width:
            continue
        product = _product(x[:, :, max(0, dx) : width + min(0, dx)], tap)
        terms.append(jnp.pad(product, ((0, 0), (0, 0), (max(0, -dx), max(0, dx)), (0, 0))))
    return functools.reduce(operator.add, terms)


def _row_convolved(x, taps, rate):
    """Taps [kw, i, o] along the columns, as a convolution."""
    return _convolved(x, taps[None], rate, centered_padding(taps[None], rate))


class Conv(nn.Module):
    """`atrous_conv` with its own kernel [k, k, i, features] and, with `use_bias`, a bias.

    Attributes:
      features: output channels.
      kernel_size: k, rows and columns of the kernel.
      strides, rate, padding: see `atrous_conv`.
      groups: of input channels and features, each convolved by itself.
      frozen_bias: the bias gets no gradient. Before a normalisation by the batch, which takes the
        mean away again, its gradient is zero, and computing that costs a pass over the map.
      function: of the map and the kernel, in place of `atrous_conv`; it takes none of the options.
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    rate: int = 1
    use_bias: bool = False
    frozen_bias: bool = False
    padding: str | Pads = "CENTER"
    groups: int = 1
    dtype: DTypeLike = jnp.float32
    kernel_init: Callable = he_normal
    function: Callable[[jax.Array, jax.Array], jax.Array] | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "n H W i"]) -> Float[Array, "n h w o"]:
        inputs = x.shape[-1] // self.groups
        shape = (self.kernel_size, self.kernel_size, inputs, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x, taps = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.function:
            x = self.function(x, taps)
        else:
            x = atrous_conv(
                x,
                taps,
                rate=self.rate,
                strides=self.strides,
                padding=self.padding,
                groups=self.groups,
            )
        x = conv_output(x)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            bias = lax.stop_gradient(bias) if self.frozen_bias else bias
            x = x + bias.astype(self.dtype)
        return x


class ConvNormAct(nn.Module):
    """Convolution, batch normalisation, activation: the block that most models here are made of.

    Statistics are float32. Under jit they are those of the complete batch, whatever the number of
    devices.

    Attributes:
      features, kernel_size, strides, rate, use_bias, padding, groups: see `Conv`.
      activation: of each number by itself; None: none.
      momentum: share of the old statistics that stays at each step: 0.9 is torch's 0.1.
      epsilon: added to the variance.
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    rate: int = 1
    use_bias: bool = False
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    momentum: float = 0.9
    epsilon: float = 1e-5
    padding: str | Pads = "CENTER"
    groups: int = 1
    dtype: DTypeLike = jnp.float32
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
            frozen_bias=train,
            padding=self.padding,
            groups=self.groups,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            name="conv",
        )(x)
        return batch_norm(
            x,
            self.activation,
            train=train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            dtype=self.dtype,
            scale_init=self.scale_init,
        )


def batch_norm(
    x: Float[Array, "n *size c"],
    activation: Callable[[jax.Array], jax.Array] | None = None,
    *,
    train: bool,
    epsilon: float = 1e-5,
    **options: Any,
) -> Float[Array, "n *size c"]:
    """Batch normalisation and an activation, as the submodule "norm" of the module that calls.

    Args:
      x: the map.
      activation: of each number by itself; None: none.
      train: normalise by the batch's statistics, and move the running ones.
      epsilon: added to the variance.
      options: other fields of `BatchNorm`.
    """
    norm = BatchNorm(use_running_average=not train, epsilon=epsilon, **options, name="norm")
    if train:
        return norm(x, activation=activation)  # one derivative for both
    x = norm(x)
    return activation(x) if activation else x
