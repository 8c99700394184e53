"""Losses on logits and label maps; ignored pixels take no part."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def cross_entropy_sum(
    logits: Float[Array, "*shape k"],
    labels: Int[Array, "*shape"],
    class_weights: Float[Array, "k"] | None = None,
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Softmax cross-entropy in nats, summed over the labelled pixels, and their number.

    Args:
      logits: float32.
      labels: ids 0..k-1; any other id (255 = ignore) does not count.
      class_weights: a factor on each pixel by its class. The number of pixels is not weighted:
        the loss over it is the mean of weighted terms, as in the SegNet authors' Caffe layer
        (torch's `weight=` divides by the sum of weights instead).
    """
    num_classes = logits.shape[-1]
    labelled = (labels >= 0) & (labels < num_classes)
    # One-hot products instead of a gather: the derivative is then no scatter. An ignored pixel's
    # one-hot row is all zeros.
    one_hot = jax.nn.one_hot(labels, num_classes, dtype=logits.dtype)
    if class_weights is not None:
        one_hot = one_hot * class_weights
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.sum(one_hot * log_probabilities), jnp.sum(labelled)
