"""What the sum of a loss over pixels is divided by: a number that the labels alone determine."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Real

from segjax.losses.labels import is_class, is_labelled

# labelled: the labelled pixels, as Caffe. all: ignored pixels too, as mmsegmentation's default
# (`avg_non_ignore=False`). weights: the class weights of the labelled pixels, as torch's `weight=`.
# none: the sum, as the SegNet paper, section 3.
DIVISORS = ("labelled", "all", "weights", "none")


def divisor(
    labels: Int[Array, "*shape"],
    num_classes: int,
    class_weights: Float[Array, "k"] | None,
    divide_by: str,
) -> Real[Array, ""]:
    """The divisor of a batch: the sum of those of its parts.

    Args:
      labels: see `losses.labels`.
      class_weights: one per class, or None for 1 each.
      divide_by: one of `DIVISORS`; 0 for "none".
    """
    if divide_by == "all":
        return jnp.sum(labels >= 0)
    if divide_by == "weights" and class_weights is not None:
        return jnp.sum(jnp.where(is_class(labels, num_classes), class_weights, 0))
    if divide_by == "none":
        return jnp.zeros((), jnp.int32)
    return jnp.sum(is_labelled(labels, num_classes))


def divided(total: Float[Array, ""], by: Real[Array, ""]) -> Float[Array, ""]:
    """The sum over a divisor; the sum itself where that is 0."""
    return total / at_least_something(by)


def at_least_something(by: Real[Array, ""]) -> Real[Array, ""]:
    """A divisor, and 1 in place of 0."""
    return jnp.where(by > 0, by, 1)
