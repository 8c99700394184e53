"""Softmax cross-entropy; ignored pixels take no part."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from segjax.layers.precision import at_least_float32
from segjax.layers.recompute import again
from segjax.losses.divisors import DIVISORS, divided, divisor
from segjax.losses.labels import is_class, is_labelled, of_labelled
from segjax.losses.options import require, require_one_of


def cross_entropy(
    logits: Float[Array, "*shape k"],
    labels: Int[Array, "*shape"],
    class_weights: Float[Array, "k"] | None = None,
    *,
    label_smoothing: float = 0.0,
    divide_by: str = "labelled",
) -> Float[Array, ""]:
    """Softmax cross-entropy in nats, by default the mean over the labelled pixels; 0 where there
    are none.

    Args:
      logits, labels, class_weights: see `cross_entropy_sum`.
      label_smoothing: the share e of the target that is spread over all k classes: the pixel's own
        class has 1 - e + e / k of it, each other one e / k. Class weights multiply the terms of
        this sum, as in torch.
      divide_by: see `losses.divisors`.

    Raises:
      ValueError: for an option out of its range.

    Reference: label smoothing is from Szegedy et al., CVPR 2016 (arXiv 1512.00567), section 7.
    """
    require(0 <= label_smoothing < 1, "label_smoothing", label_smoothing, "a number in [0, 1)")
    require_one_of(DIVISORS, "divide_by", divide_by)
    if label_smoothing:
        total = _smoothed_sum(logits, labels, class_weights, label_smoothing)
    else:
        total = cross_entropy_sum(logits, labels, class_weights)[0]
    return divided(total, divisor(labels, logits.shape[-1], class_weights, divide_by))


def cross_entropy_sum(
    logits: Float[Array, "*shape k"],
    labels: Int[Array, "*shape"],
    class_weights: Float[Array, "k"] | None = None,
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Softmax cross-entropy in nats, summed over the labelled pixels, and their number.

    Args:
      logits: of any size, summed in float32.
      labels: ids 0..k-1; any other id (255 = ignore) does not count.
      class_weights: a factor on each pixel by its class. The number of pixels is not weighted:
        the loss over it is the mean of weighted terms, as in the SegNet authors' Caffe layer
        (torch's `weight=` divides by the sum of weights instead).
    """
    logits = at_least_float32(logits)
    labelled = is_labelled(labels, logits.shape[-1])
    weights = labelled.astype(logits.dtype)
    if class_weights is not None:
        weights = jnp.sum(jnp.where(is_class(labels, logits.shape[-1]), class_weights, 0), -1)
    return weighted_sum(logits, labels, weights), jnp.sum(labelled)


@jax.custom_vjp
def weighted_sum(
    logits: Float[Array, "*shape k"],
    labels: Int[Array, "*shape"],
    weights: Float[Array, "*shape"],
) -> Float[Array, ""]:
    """Cross-entropy summed over pixels with their weights; a pixel of weight 0 takes no part.

    Its derivative computes softmax and the labels' classes again from what it reads: as JAX would
    derive it, both are stored at full size. There is none with respect to the weights.
    """
    return _forward(logits, labels, weights)[0]


def _forward(logits, labels, weights):
    normalizer = jax.nn.logsumexp(logits, -1)
    logit = jnp.sum(jnp.where(is_class(labels, logits.shape[-1]), logits, 0), -1)
    # Nothing where nothing is labelled, whatever the logits are there.
    loss = jnp.sum(jnp.where(weights != 0, weights * (normalizer - logit), 0))
    return loss, (logits, labels, weights, normalizer)


def _backward(kept, cotangent):
    logits, labels, weights, normalizer = kept
    chosen = is_class(again(labels), logits.shape[-1])
    softmax = jnp.exp(logits - normalizer[..., None])
    gradient = (cotangent * weights)[..., None] * (softmax - chosen)
    return jnp.where(weights[..., None] != 0, gradient, 0), None, None


weighted_sum.defvjp(_forward, _backward)


def _smoothed_sum(logits, labels, class_weights, smoothing):
    num_classes = logits.shape[-1]
    log_p = jax.nn.log_softmax(of_labelled(logits, labels))
    target = (1 - smoothing) * is_class(labels, num_classes) + smoothing / num_classes
    if class_weights is not None:
        target *= class_weights
    loss = -jnp.sum(target * log_p, -1)
    return jnp.sum(jnp.where(is_labelled(labels, num_classes), loss, 0))
