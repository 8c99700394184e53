"""Batch normalisation and the activation after it, differentiated as one.

Linen's module followed by an activation is two functions to JAX: the backward pass stores the
activation's masked cotangent, a whole map, and reads it back twice. Here that cotangent is computed
again, from the map and the cotangent that the backward pass reads anyway, by the sums and by the
product with them. Per map and training step that is two passes less, of 17, and fewer kernels.

Reference: Ioffe and Szegedy, "Batch Normalization", ICML 2015 (arXiv 1502.03167), section 3.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from segjax.layers.precision import at_least_float32
from segjax.layers.recompute import again

Activation = Callable[[jax.Array], jax.Array]


class BatchNorm(nn.BatchNorm):
    """Linen's `BatchNorm`: the same fields, parameters, statistics and numbers, and an activation.

    Over all axes but the last. Statistics are float32 at least: E[x^2] - E[x]^2.
    """

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n *size c"],
        use_running_average: bool | None = None,
        *,
        mask: Bool[Array, "n *ones"] | None = None,
        activation: Activation | None = None,
    ) -> Float[Array, "n *size c"]:
        """Normalises x by the batch's statistics, or by the running ones.

        Args:
          x: the map.
          use_running_average: as linen's; here or as the module's field.
          mask: [n, 1, ..., 1], the examples that the batch's statistics are of; all by default.
          activation: of each number by itself.
        """
        features = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
        variance = self.variable("batch_stats", "var", jnp.ones, features, jnp.float32)
        factor, shift = 1.0, 0.0
        if self.use_scale:
            factor = self.param("scale", self.scale_init, features, self.param_dtype)
        if self.use_bias:
            shift = self.param("bias", self.bias_init, features, self.param_dtype)
        running = nn.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        if not running and not self.is_initializing():
            return normalize_batch(self, x, mask=mask, activation=activation)
        factor = factor * lax.rsqrt(variance.value + self.epsilon)
        y = ((x - mean.value) * factor + shift).astype(self.dtype or x.dtype)
        return activation(y) if activation else y


def normalize_batch(
    module: nn.BatchNorm,
    x: Float[Array, "n *size c"],
    *,
    mask: Bool[Array, "n *ones"] | None = None,
    activation: Activation | None = None,
    axis_name: str | None = None,
) -> Float[Array, "n *size c"]:
    """What a `BatchNorm` computes in training: normalises by the batch, moves the statistics.

    Args:
      module: linen's or ours, while it is applied; its parameters and statistics are used.
      x, mask, activation: see `BatchNorm`.
      axis_name: of pmap, if the rest of the batch is on other devices. Gradients of scale and bias
        are this device's share, to be summed with all others.
    """
    ones = jnp.ones(x.shape[-1], at_least_float32(x).dtype)
    scale = module.get_variable("params", "scale") if module.use_scale else ones
    bias = module.get_variable("params", "bias") if module.use_bias else 0 * ones
    y, mean, variance, cells = _normalized(
        x, scale, bias, mask, module.epsilon, activation, axis_name, module.dtype or x.dtype
    )
    keep = module.momentum
    if mask is not None:
        keep = jnp.where(cells > 0, keep, 1.0)  # padding alone says nothing
    for name, value in (("mean", mean), ("var", variance)):
        running = module.get_variable("batch_stats", name)
        module.put_variable("batch_stats", name, keep * running + (1 - keep) * value)
    return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def _normalized(x, scale, bias, mask, epsilon, activation, axis_name, dtype):
    """Returns the activated map, its mean and variance before (which have no gradient), and the
    number of cells per channel."""
    return _forward(x, scale, bias, mask, epsilon, activation, axis_name, dtype)[0]


def _forward(x, scale, bias, mask, epsilon, activation, axis_name, dtype):
    wide = at_least_float32(x)
    if mask is None:
        cells = jnp.asarray(x.size / x.shape[-1], wide.dtype)
        counted = wide
    else:
        cells = jnp.sum(mask, dtype=wide.dtype) * (x.size / x.shape[0] / x.shape[-1])
        counted = wide * mask
    moments = (*_sums(counted, jnp.square(counted)), cells)
    first, second, cells = lax.psum(moments, axis_name) if axis_name else moments
    mean = first / jnp.maximum(cells, 1)
    variance = jnp.maximum(second / jnp.maximum(cells, 1) - jnp.square(mean), 0)
    inverse = lax.rsqrt(variance + epsilon)
    y = (wide - mean) * (inverse * scale) + bias
    y = (activation(y) if activation else y).astype(dtype)
    return (y, mean, variance, cells), (x, scale, bias, mask, mean, inverse, cells)


def _backward(epsilon, activation, axis_name, dtype, kept, cotangents):
    del epsilon, dtype
    x, scale, bias, mask, mean, inverse, cells = kept
    factor = inverse * scale
    # Once per channel, not once per cell.
    factor, shift = again(factor), again(bias - mean * factor)

    def before_activation(x, dy):
        """The cotangent of what was activated."""
        dy = at_least_float32(dy)
        if activation is None:
            return dy
        # Not from x - mean, which the sums use too: what several read XLA's GPU backend stores. So
        # it does with comparisons, whose results are small; the sign is none.
        before = at_least_float32(x) * factor + shift
        if activation is nn.relu:
            return dy * jnp.clip(jnp.sign(before), 0, 1)
        return jax.vjp(activation, before)[1](dy)[0]

    cells = jnp.maximum(cells, 1)
    dy = cotangents[0]
    x = again(x)
    g = before_activation(x, dy)
    d_bias, d_scale = _sums(g, g * (at_least_float32(x) - mean))
    d_scale *= inverse
    of_all = lax.psum((d_bias, d_scale), axis_name) if axis_name else (d_bias, d_scale)
    constant, slope = factor * of_all[0] / cells, factor * inverse * of_all[1] / cells
    x = again(x)
    through_statistics = constant + (at_least_float32(x) - mean) * slope
    if mask is not None:
        through_statistics *= mask
    dx = factor * before_activation(x, dy) - through_statistics
    return dx.astype(x.dtype), d_scale, d_bias, None


def _sums(a: Array, b: Array) -> tuple[Array, Array]:
    """Both summed over all axes but the last, reading what they are made of once.

    XLA's GPU backend makes several passes of two reductions; its CPU backend makes one slow pass of
    one reduction of two, and its TPU backend stores what that reads.
    """
    return lax.platform_dependent(a, b, cuda=_together, rocm=_together, default=_apart)


def _together(a, b):
    """Columns first, as one reduction of two: over devices XLA would gather the results of such a
    reduction. What is left is one plain sum, and one message."""
    zero = jnp.zeros((), a.dtype)
    columns, *others = range(a.ndim - 1)[::-1]
    sums = lax.reduce((a, b), (zero, zero), lambda x, y: (x[0] + y[0], x[1] + y[1]), (columns,))
    return tuple(jnp.split(jnp.sum(jnp.concatenate(sums, -1), others), 2))


def _apart(a, b):
    axes = range(a.ndim - 1)
    return jnp.sum(a, axes), jnp.sum(b, axes)


_normalized.defvjp(_forward, _backward)
