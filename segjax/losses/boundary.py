"""Cross-entropy with more weight on pixels near the boundaries between classes."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from segjax.layers.precision import at_least_float32
from segjax.losses.divisors import divided, divisor
from segjax.losses.labels import is_class, is_labelled
from segjax.losses.options import require, require_one_of
from segjax.losses.pixelwise import weighted_sum

# The sum of the pixels' weights would not do: it divides by what the boundary is to add.
BOUNDARY_DIVISORS = ("labelled", "all", "none")
_REACH = 4  # sigmas; the weight has fallen to 0.0003 of its highest there, and is 0 beyond


def boundary_cross_entropy(
    logits: Float[Array, "n h w k"],
    labels: Int[Array, "n h w"],
    class_weights: Float[Array, "k"] | None = None,
    *,
    edge_weight: float = 10.0,
    sigma: float = 5.0,
    divide_by: str = "labelled",
) -> Float[Array, ""]:
    """Cross-entropy in which a pixel weighs w_class + edge_weight * exp(-d**2 / (2 * sigma**2)),
    where d is its distance to the nearest boundary.

    The U-Net paper has d1 + d2, the distances to the nearest and the second nearest cell, in place
    of d, to keep touching cells apart. Classes have no instances, so d is the distance to the
    nearest boundary pixel: a pixel with a labelled pixel of another class above, below, left or
    right of it (the definition of `segjax.metrics.boundary`). Neither an ignored pixel nor the
    image's edge makes a boundary. An image without any is plain cross-entropy.

    Args:
      logits, labels: see `cross_entropy_sum`.
      class_weights: w_class; None = 1.
      edge_weight: the paper's w0.
      sigma: in pixels.
      divide_by: "labelled", "all" or "none", see `losses.divisors`.

    Raises:
      ValueError: for an option out of its range.

    Reference: Ronneberger et al., MICCAI 2015 (arXiv 1505.04597), equation 2.
    """
    require(0 <= edge_weight < math.inf, "edge_weight", edge_weight, "a number of 0 or more")
    require(0 < sigma <= 100, "sigma", sigma, "a number of pixels in (0, 100]")
    require_one_of(BOUNDARY_DIVISORS, "divide_by", divide_by)
    num_classes = logits.shape[-1]
    labelled = is_labelled(labels, num_classes)
    near = nearness(labels, labelled, sigma)
    weights = jnp.ones(num_classes) if class_weights is None else jnp.asarray(class_weights)
    weights = jnp.sum(jnp.where(is_class(labels, num_classes), weights, 0), -1)
    weights = jnp.where(labelled, weights + edge_weight * near, 0)
    total = weighted_sum(at_least_float32(logits), labels, weights)
    return divided(total, divisor(labels, num_classes, class_weights, divide_by))


def nearness(
    labels: Int[Array, "n h w"], labelled: Bool[Array, "n h w"], sigma: float
) -> Float[Array, "n h w"]:
    """exp(-d**2 / (2 * sigma**2)) of each pixel's distance d to the nearest boundary pixel; 0
    beyond four sigma."""
    reach = math.ceil(_REACH * sigma)
    squared = jnp.where(_is_boundary(labels, labelled), 0.0, jnp.inf)
    for axis in (2, 1):
        squared = _nearest_along(squared, axis, reach)
    return jnp.where(squared <= reach**2, jnp.exp(-squared / (2 * sigma**2)), 0)


def _is_boundary(labels, labelled):
    boundary = jnp.zeros(labels.shape, bool)
    for axis in (1, 2):
        cut = jax.lax.slice_in_dim
        one, other = cut(labels, 1, None, axis=axis), cut(labels, 0, -1, axis=axis)
        both = cut(labelled, 1, None, axis=axis) & cut(labelled, 0, -1, axis=axis)
        differs = (one != other) & both
        for before in (0, 1):
            padding = [(0, 0)] * 3
            padding[axis] = (before, 1 - before)
            boundary |= jnp.pad(differs, padding)
    return boundary


def _nearest_along(squared, axis, reach):
    """The least of squared[i + offset] + offset**2 over the offsets within reach: squared distances
    after one axis more (Felzenszwalb and Huttenlocher, 2012, equation 2)."""
    size = squared.shape[axis]
    reach = min(reach, size - 1)
    padding = [(0, 0)] * squared.ndim
    padding[axis] = (reach, reach)
    padded = jnp.pad(squared, padding, constant_values=jnp.inf)

    def nearer(step, nearest):
        moved = jax.lax.dynamic_slice_in_dim(padded, step, size, axis)
        return jnp.minimum(nearest, moved + jnp.float32((step - reach) ** 2))

    return jax.lax.fori_loop(0, 2 * reach + 1, nearer, squared)
