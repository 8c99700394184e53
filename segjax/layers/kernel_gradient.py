"""Convolutions whose kernel's gradient XLA's CPU backend computes quickly, of large maps above all.

That gradient sums over the cells of two maps, and XLA transposes one of them for it. What computes
the map (a normalisation, a ReLU, an unpooling) is cheap by XLA's count, so it is computed again in
the loop that transposes, which then reads several maps in strides: 1 GB a second, a quarter of a
training step of DeepLabV3. A transposition alone, of a map that is in memory anyway, takes a sixth
of the time (`python -m benchmarks.profiles deeplabv3_r50`). It pads the map, too: within the
convolution padding costs a quarter of the time.

Reverse mode only.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from segjax.layers.dilated import Pads, centered_padding, dilated_conv
from segjax.layers.sharing import rows_are_shared

# A map of fewer numbers (1 MiB of float32) lies in a core's own cache, whatever the order.
_LARGE = 2**18


def transposition_pays(x: Float[Array, "n H W i"], kernel, rate: int, padding: Pads) -> bool:
    """Whether the form below pays: for large maps, and for outputs larger than the map, as of
    transposed convolutions. XLA's program for their kernel's gradient, in which the cotangent is a
    window larger than the map, takes 25 to 400 times as long (`python -m benchmarks.layers
    transpose`). A map of symbolic size, which is exported, is differentiated by nobody; of rows
    that devices share, the transposition would be a message."""
    if not isinstance(x.size, int) or rows_are_shared():
        return False
    sides = zip(kernel.shape[:2], padding, strict=True)
    return x.size >= _LARGE or any(sum(pads) > rate * (side - 1) for side, pads in sides)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv_by_transposition(
    x: Float[Array, "n H W i"],
    kernel: Float[Array, "kh kw i o"],
    rate: int,
    padding: Pads,
    strides: int,
) -> Float[Array, "n h w o"]:
    """`dilated_conv`, with another program for the kernel's gradient on CPUs."""
    return dilated_conv(x, kernel, rate, padding, strides)


def _forward(x, kernel, rate, padding, strides):
    return dilated_conv(x, kernel, rate, padding, strides), (x, kernel)


def _backward(rate, padding, strides, kept, dy):
    x, kernel = kept
    conv = functools.partial(dilated_conv, rate=rate, strides=strides)

    def gradient(x, dy, kernel=kernel, padding=padding):
        return jax.vjp(lambda kernel: conv(x, kernel, padding=padding), kernel)[1](dy)[0]

    def by_transposition(x, dy, kernel=kernel):
        # XLA takes the channels as the batch: its transposition undoes the second one here.
        padded = _channels_first(x, padding, _true(kernel)).transpose(3, 1, 2, 0)
        return gradient(padded, dy, kernel, ((0, 0), (0, 0)))

    def on_cpus(x, dy):
        # The map of fewer channels is transposed. The sum of x and dy shifted by a tap is that of
        # dy and x shifted the other way.
        if kernel.shape[2] <= kernel.shape[3] or not _centered(kernel, rate, padding, strides):
            return by_transposition(x, dy)
        return by_transposition(dy, x, kernel.swapaxes(2, 3)).swapaxes(2, 3)[::-1, ::-1]

    dx = jax.vjp(lambda x: conv(x, kernel, padding=padding), x)[1](dy)[0]
    return dx, lax.platform_dependent(x, dy, cpu=on_cpus, default=gradient)


def _centered(kernel, rate, padding, strides) -> bool:
    odd = all(side % 2 for side in kernel.shape[:2])
    return odd and strides == 1 and padding == centered_padding(kernel, rate)


conv_by_transposition.defvjp(_forward, _backward)


def _channels_first(x, padding, true: Bool[Array, ""]):
    """x padded and transposed to [c, h, w, n] by loops that do nothing else: XLA fuses nothing into
    a branch. It removes optimisation barriers before it fuses."""

    def moved(x):
        return jnp.pad(x, ((0, 0), *padding, (0, 0))).transpose(3, 1, 2, 0)

    result = jax.eval_shape(moved, x)
    return lax.cond(true, moved, lambda x: jnp.zeros(result.shape, result.dtype), x)


def _true(x) -> Bool[Array, ""]:
    """True for every x, NaN included, by a comparison that the compiler does not see through."""
    first = x[(0,) * x.ndim]
    return ~((first < first) & (first > first))
