"""Convolutions of few input channels for each output: depthwise, one channel each, and grouped.

A depthwise convolution does k * k products for each number of the map, so a sum of k * k moved maps
reads and writes no more than it must. XLA's CPU backend fuses that sum; its own program for
`feature_group_count` takes 10 to 60 times as long. Of grouped convolutions its gradients are the
slow part, 20 to 40 times slower than sums (benchmarks/layers.py). GPUs and TPUs have their own
programs for both: compiled for an H200, a depthwise convolution of step 1 and its gradients each
read and write the maps once.
"""

import functools
import math
import operator
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from segjax.layers.banded import shift
from segjax.layers.dilated import (
    Pads,
    centered_padding,
    dilated_conv,
    dilated_conv_with_phases,
    explicit_padding,
)
from segjax.layers.precision import at_least_float32


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
      x: the map.
      kernel: taps of each channel; odd sizes for "CENTER".
      rate: atrous (dilation) rate, at least 1.
      strides: output step, the same for rows and columns.
      padding: "CENTER", "SAME" or explicit pairs, as for `segjax.layers.atrous_conv`.

    Where devices share the rows, none ever holds the complete map: each row of taps moves rows to
    the next device.

    Raises:
      ValueError: for an even kernel with "CENTER", or another string.
    """
    padding = explicit_padding(x, kernel, rate, strides, padding)
    summed = functools.partial(_depthwise_sum, _Window.of(x, kernel, rate, strides, padding))
    return _by_platform(x, kernel, rate, strides, padding, summed)


def grouped_conv(
    x: Float[Array, "n H W c"],
    kernel: Float[Array, "kh kw i o"],
    *,
    rate: int = 1,
    strides: int = 1,
    padding: str | Pads = "CENTER",
) -> Float[Array, "n h w o"]:
    """Convolves each of c / i groups of channels with its own share of the outputs.

    Args:
      x, rate, strides, padding: as for `depthwise_conv`.
      kernel: of all groups; output channels are ordered by group.

    Where devices share the rows, the kernel's gradient gathers both maps on GPUs and TPUs; all else
    is as in `depthwise_conv`.

    Raises:
      ValueError: if channels or outputs cannot be divided, and for a padding as `depthwise_conv`.

    Reference: Xie et al., "Aggregated Residual Transformations", CVPR 2017 (arXiv 1611.05431),
    section 3.3.
    """
    (channels, inputs, outputs) = (x.shape[-1], *kernel.shape[2:])
    if channels % inputs or outputs % (channels // inputs):
        raise ValueError(
            f"a kernel of {inputs} input channels and {outputs} outputs cannot be shared by the "
            f"groups of a map of {channels} channels; use divisors"
        )
    padding = explicit_padding(x, kernel, rate, strides, padding)
    mixed = functools.partial(_grouped_with_sums, rate, strides, padding)
    return _by_platform(x, kernel, rate, strides, padding, mixed)


def _by_platform(x, kernel, rate, strides, padding, on_cpu):
    """XLA's own program but on CPUs; on GPUs with the kernel's gradient of `segjax.layers.dilated`
    where there are rates."""
    at_once = functools.partial(_at_once, rate, strides, padding)
    if rate == 1 or strides > 1 or padding != centered_padding(kernel, rate):
        return lax.platform_dependent(x, kernel, cpu=on_cpu, default=at_once)
    by_phases = functools.partial(dilated_conv_with_phases, rate)
    return lax.platform_dependent(
        x, kernel, cpu=on_cpu, cuda=by_phases, rocm=by_phases, default=at_once
    )


def _at_once(rate, strides, padding, x, kernel):
    return dilated_conv(x, kernel, rate, padding, strides, groups=x.shape[-1] // kernel.shape[2])


# A map that few taps read may as well be computed by each of them.
_FEW_TAPS = 9


def _stored(x):
    """The same map, as an array of its own: a product with the identity, for groups of channels.

    XLA's CPU backend fuses the sum of taps with what makes the map, which each of the taps then
    computes again: 49 times for 7x7. A barrier of `lax.optimization_barrier` is gone before that
    happens; a product stays.
    """
    group = math.gcd(x.shape[-1], 16)
    if group == 1:  # no product, but by 1
        return x
    grouped = x.reshape(*x.shape[:-1], -1, group)
    return jnp.dot(grouped, jnp.eye(group, dtype=x.dtype)).reshape(x.shape)


class _Window(NamedTuple):
    """Where the taps of a kernel read: output y, x reads y * strides + i * rate - top, ...

    Attributes:
      rate, strides: of the taps, and of the outputs.
      before: rows and columns of zeros before the map.
      size: of the output.
    """

    rate: int
    strides: int
    before: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def of(cls, x, kernel, rate, strides, padding: Pads) -> "_Window":
        size = tuple(
            (n + sum(pads) - rate * (k - 1) - 1) // strides + 1
            for n, k, pads in zip(x.shape[1:3], kernel.shape[:2], padding, strict=True)
        )
        return cls(rate, strides, (padding[0][0], padding[1][0]), cast(tuple[int, int], size))

    def columns(self, x, taps: int) -> list[Array]:
        """The columns of x [n, H, W, ...] that each tap of a row reads, at every output column."""
        width, step = self.size[1], self.strides
        last = (width - 1) * step + (taps - 1) * self.rate + 1
        before = self.before[1]
        x = _pad(x, 2, before, last - x.shape[2] - before)
        ends = (last - (taps - 1 - j) * self.rate for j in range(taps))
        return [x[:, :, j * self.rate : end : step] for j, end in enumerate(ends)]

    def rows(self, x, i: int) -> Array | None:
        """The rows of x [n, H, ...] that tap row i reads, at every output row; None: only zeros.

        Where devices share the rows this is one exchange with the next device. XLA would gather the
        map first if it were moved by more than half of its rows at once.
        """
        rows, step = x.shape[1], self.strides
        by, padded = self.before[0] - i * self.rate, self.size[0] * step
        if by <= -rows or by >= padded:
            return None
        if padded == rows and abs(by) > rows // 2:
            half = rows // 2 if by > 0 else -(rows // 2)
            x, by = shift(x, 1, half), by - half
        return _pad(x, 1, by, padded - rows - by)[:, ::step]


def _pad(x, axis: int, before: int, after: int):
    """Zeros before and after; negative numbers crop."""
    pads = [(before, after, 0) if a == axis else (0, 0, 0) for a in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), pads)


def _sum_of_taps(product, window: _Window, x, kernel):
    """The convolution as the sum of `product(map, tap)`, the map as each tap reads it."""
    columns = window.columns(at_least_float32(x), kernel.shape[1])
    terms = []
    for i, taps in enumerate(at_least_float32(kernel)):
        row = functools.reduce(operator.add, map(product, columns, taps))
        if (moved := window.rows(row, i)) is not None:
            terms.append(moved)
    return functools.reduce(operator.add, terms).astype(x.dtype)


def _depthwise_product(x, tap):
    return x * tap[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _depthwise_sum(window: _Window, x, kernel):
    """The sum of taps. Its derivatives are sums of the same kind: JAX's own would add up k * k
    padded maps, and read the maps k * k times for the kernel's."""
    if kernel.shape[0] * kernel.shape[1] > _FEW_TAPS:
        x = _stored(x)
    return _sum_of_taps(_depthwise_product, window, x, kernel)


def _forward(window, x, kernel):
    x = _stored(x)  # for the backward pass, too
    return _sum_of_taps(_depthwise_product, window, x, kernel), (x, kernel)


def _backward(window, kept, dy):
    x, kernel = kept
    dy = _stored(dy)
    return _map_gradient(window, x, kernel, dy), _kernel_gradient(window, x, kernel, dy)


def _map_gradient(window, x, kernel, dy):
    """The cotangent, zeros between its cells, convolved with the flipped kernel."""
    rows, columns = kernel.shape[:2]
    between = (0, 0, window.strides - 1)
    spread = lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), between, between, (0, 0, 0)])
    before = tuple(
        window.rate * (k - 1) - zeros
        for k, zeros in zip((rows, columns), window.before, strict=True)
    )
    flipped = _Window(window.rate, 1, before, x.shape[1:3])
    return _sum_of_taps(_depthwise_product, flipped, spread, kernel[::-1, ::-1])


def _kernel_gradient(window, x, kernel, dy):
    """For each tap the sum of the cells that it reads times those that it adds to.

    XLA's CPU backend makes one pass of several sums over the columns, and of nothing else.
    """
    columns = window.columns(at_least_float32(x), kernel.shape[1])
    dy = at_least_float32(dy)
    zeros = [jnp.zeros((), dy.dtype)] * len(columns)
    gradient = []
    for i in range(kernel.shape[0]):
        moved = [window.rows(column, i) for column in columns]
        if moved[0] is None:
            gradient.append(jnp.zeros((len(columns), x.shape[-1]), dy.dtype))
            continue
        products = [column * dy for column in moved]
        sums = lax.reduce(products, zeros, lambda a, b: [*map(operator.add, a, b)], (2,))
        gradient.append(jnp.sum(jnp.stack(sums), (1, 2)))
    return jnp.stack(gradient)[:, :, None].astype(kernel.dtype)


_depthwise_sum.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _grouped_with_sums(rate, strides, padding, x, kernel):
    """XLA's convolution, with the derivative of a sum of taps."""
    return _at_once(rate, strides, padding, x, kernel)


def _grouped_forward(rate, strides, padding, x, kernel):
    return _at_once(rate, strides, padding, x, kernel), (x, kernel)


def _grouped_backward(rate, strides, padding, kept, dy):
    x, kernel = kept
    window = _Window.of(x, kernel, rate, strides, padding)
    return jax.vjp(functools.partial(_sum_of_taps, _grouped_product, window), x, kernel)[1](dy)


def _grouped_product(x, tap):
    (*cells, channels), (inputs, outputs) = x.shape, tap.shape
    groups = channels // inputs
    x, tap = x.reshape(*cells, groups, inputs), tap.reshape(inputs, groups, -1)
    return jnp.einsum("nhwgi,igo->nhwgo", x, tap).reshape(*cells, outputs)


_grouped_with_sums.defvjp(_grouped_forward, _grouped_backward)
