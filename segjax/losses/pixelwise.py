"""Losses on logits and label maps; ignored pixels take no part."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from segjax.layers.recompute import again


def cross_entropy(
    logits: Float[Array, "*shape k"],
    labels: Int[Array, "*shape"],
    class_weights: Float[Array, "k"] | None = None,
) -> Float[Array, ""]:
    """Softmax cross-entropy in nats, the mean over the labelled pixels; 0 where there are none.

    Args:
      logits, labels, class_weights: see `cross_entropy_sum`.
    """
    total, pixels = cross_entropy_sum(logits, labels, class_weights)
    return total / jnp.maximum(pixels, 1)


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
    labelled = (labels >= 0) & (labels < logits.shape[-1])
    weights = labelled.astype(logits.dtype)
    if class_weights is not None:
        weights = jnp.sum(jnp.where(_chosen(labels, logits.shape[-1]), class_weights, 0), -1)
    return _weighted_sum(logits, labels, weights), jnp.sum(labelled)


def _chosen(labels, num_classes):
    """[*shape, k]: whether a class is the label's; never where the label is ignored.

    A comparison instead of a gather, whose derivative would be a scatter.
    """
    return labels[..., None] == jnp.arange(num_classes, dtype=labels.dtype)


@jax.custom_vjp
def _weighted_sum(logits, labels, weights):
    """Cross-entropy summed over pixels with their weights, 0 where a pixel is ignored.

    Its derivative computes softmax and the labels' classes again from what it reads: as JAX would
    derive it, both are stored at full size. There is none with respect to the weights.
    """
    return _forward(logits, labels, weights)[0]


def _forward(logits, labels, weights):
    normalizer = jax.nn.logsumexp(logits, -1)
    logit = jnp.sum(jnp.where(_chosen(labels, logits.shape[-1]), logits, 0), -1)
    # Nothing where nothing is labelled, whatever the logits are there.
    loss = jnp.sum(jnp.where(weights != 0, weights * (normalizer - logit), 0))
    return loss, (logits, labels, weights, normalizer)


def _backward(kept, cotangent):
    logits, labels, weights, normalizer = kept
    chosen = _chosen(again(labels), logits.shape[-1])
    softmax = jnp.exp(logits - normalizer[..., None])
    return (cotangent * weights)[..., None] * (softmax - chosen), None, None


_weighted_sum.defvjp(_forward, _backward)
