"""Convolutions of large maps whose kernel's gradient XLA's CPU backend computes quickly.

That gradient sums over the cells of two maps, and XLA transposes one of them for it. What computes
the map (a normalisation, a ReLU, an unpooling) is cheap by XLA's count, so it is computed again in
the loop that transposes, which then reads several maps in strides: 1 GB a second, a quarter of a
training step of DeepLabV3. A transposition alone, of a map that is in memory anyway, takes a sixth
of the time (`python -m benchmarks.profiles deeplabv3_r50`).

Reverse mode only.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from segjax.layers.dilated import Pads, dilated_conv

# A map of fewer numbers (1 MiB of float32) lies in a core's own cache, whatever the order.
_LARGE = 2**18


def is_large(x: Float[Array, "n H W i"]) -> bool:
    """Whether the forms below pay. A map of symbolic size, which is exported, is differentiated by
    nobody."""
    return isinstance(x.size, int) and x.size >= _LARGE


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv_of_large(
    x: Float[Array, "n H W i"],
    kernel: Float[Array, "kh kw i o"],
    rate: int,
    padding: Pads,
    strides: int,
) -> Float[Array, "n h w o"]:
    """`dilated_conv`, with another program for the kernel's gradient on CPUs."""
    return dilated_conv(x, kernel, rate, padding, strides)


def _conv_forward(x, kernel, rate, padding, strides):
    return dilated_conv(x, kernel, rate, padding, strides), (x, kernel)


def _conv_backward(rate, padding, strides, kept, dy):
    x, kernel = kept

    def conv(x, kernel):
        return dilated_conv(x, kernel, rate, padding, strides)

    def kernel_gradient(x, dy):
        return jax.vjp(functools.partial(conv, x), kernel)[1](dy)[0]

    def of_transposed(x, dy):
        # XLA takes the channels as the batch: its transposition undoes the second one here.
        channels_first = _transposed_alone(x, (3, 1, 2, 0), _true(kernel))
        return kernel_gradient(channels_first.transpose(3, 1, 2, 0), dy)

    dx = jax.vjp(lambda x: conv(x, kernel), x)[1](dy)[0]
    return dx, lax.platform_dependent(x, dy, cpu=of_transposed, default=kernel_gradient)


conv_of_large.defvjp(_conv_forward, _conv_backward)


@jax.custom_vjp
def product_of_large(
    x: Float[Array, "n h w i"], kernel: Float[Array, "i o"]
) -> Float[Array, "n h w o"]:
    """`jnp.dot`, with another program for the kernel's gradient: for CPUs."""
    return jnp.dot(x, kernel)


def _product_forward(x, kernel):
    return jnp.dot(x, kernel), (x, kernel)


def _product_backward(kept, dy):
    x, kernel = kept
    first, true = (3, 0, 1, 2), _true(kernel)
    if x.shape[-1] <= dy.shape[-1]:  # the map of fewer channels is transposed
        dk = jnp.einsum("inhw,nhwo->io", _transposed_alone(x, first, true), dy)
    else:
        dk = jnp.einsum("onhw,nhwi->oi", _transposed_alone(dy, first, true), x).T
    return jnp.dot(dy, kernel.T), dk


product_of_large.defvjp(_product_forward, _product_backward)


def _transposed_alone(x, axes, true: Bool[Array, ""]):
    """x transposed by a loop that does nothing else: XLA fuses nothing into a branch. It removes
    optimisation barriers before it fuses."""
    shape = [x.shape[axis] for axis in axes]
    return lax.cond(true, lambda x: x.transpose(axes), lambda x: jnp.zeros(shape, x.dtype), x)


def _true(x) -> Bool[Array, ""]:
    """True for every x, NaN included, by a comparison that the compiler does not see through."""
    first = x[(0,) * x.ndim]
    return ~((first < first) & (first > first))
