"""Losses of sigmoid heads on logits and label maps of bits; ignored pixels take no part.

A label map holds bits: bit j of a pixel is set where label j is present, so its values are
0..2**k - 1; any other (255 = ignore) does not count. With one label 1 is the foreground and 0 the
background.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_EPSILON = 1e-7  # keeps a quotient of two zeros finite


def binary_cross_entropy(
    logits: Float[Array, "*shape k"],
    labels: Int[Array, "*shape"],
    positive_weights: Float[Array, "k"] | None = None,
) -> Float[Array, ""]:
    """Sigmoid cross-entropy in nats, the mean over the labelled pixels; 0 where there are none.

    Args:
      logits, labels, positive_weights: see `binary_cross_entropy_by_pixel`.
    """
    total, pixels = binary_cross_entropy_sum(logits, labels, positive_weights)
    return total / jnp.maximum(pixels, 1)


def binary_cross_entropy_sum(
    logits: Float[Array, "*shape k"],
    labels: Int[Array, "*shape"],
    positive_weights: Float[Array, "k"] | None = None,
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Sigmoid cross-entropy in nats, summed over the labelled pixels, and their number.

    Args:
      logits, labels, positive_weights: see `binary_cross_entropy_by_pixel`.
    """
    losses = binary_cross_entropy_by_pixel(logits, labels, positive_weights)
    return jnp.sum(losses), jnp.sum(is_labelled(labels, logits.shape[-1]))


def binary_cross_entropy_by_pixel(
    logits: Float[Array, "*shape k"],
    labels: Int[Array, "*shape"],
    positive_weights: Float[Array, "k"] | None = None,
) -> Float[Array, "*shape"]:
    """Sigmoid cross-entropy of each pixel in nats: the mean over its labels, 0 where it is ignored.

    The mean, and not the sum, so that a learning rate suits any number of labels; torch's
    BCEWithLogitsLoss divides alike.

    Args:
      logits: any float; losses are computed and summed in float32.
      labels: bits, see above.
      positive_weights: a factor for each label on the pixels that have it, as torch's `pos_weight`;
        the number of pixels is not weighted.
    """
    logits, present, labelled = _prepared(logits, labels)
    positive, negative = jax.nn.softplus(-logits), jax.nn.softplus(logits)
    if positive_weights is not None:
        positive *= positive_weights
    losses = jnp.where(present, positive, negative)
    return jnp.where(labelled, jnp.mean(losses, -1), 0)


def binary_focal_by_pixel(
    logits: Float[Array, "*shape k"],
    labels: Int[Array, "*shape"],
    gamma: float = 2.0,
    alpha: float | None = None,
) -> Float[Array, "*shape"]:
    """Focal loss of each pixel: the mean over its labels of (1 - p)**gamma times the cross-entropy,
    p being the probability of what is true; 0 where the pixel is ignored.

    Args:
      logits, labels: see `binary_cross_entropy_by_pixel`.
      gamma: 0 is the cross-entropy.
      alpha: weight of present labels, and 1 - alpha of absent ones; None: no weights.

    Reference: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, section 3.
    """
    logits, present, labelled = _prepared(logits, labels)
    signed = jnp.where(present, logits, -logits)  # of what is true
    # log(1 - p) = -softplus(signed), so no power of a number that rounds to 0.
    losses = jnp.exp(-gamma * jax.nn.softplus(signed)) * jax.nn.softplus(-signed)
    if alpha is not None:
        losses *= jnp.where(present, alpha, 1 - alpha)
    return jnp.where(labelled, jnp.mean(losses, -1), 0)


def binary_overlap(
    logits: Float[Array, "*shape k"], labels: Int[Array, "*shape"]
) -> Float[Array, "3 k"]:
    """Per label, summed over the labelled pixels: the probability where the label is present, the
    probability, and the pixels that have the label. Sums of parts of a batch add up."""
    logits, present, labelled = _prepared(logits, labels)
    probability = jnp.where(labelled[..., None], jax.nn.sigmoid(logits), 0)
    present = present.astype(jnp.float32)
    axes = tuple(range(labels.ndim))
    return jnp.stack([jnp.sum(x, axes) for x in (probability * present, probability, present)])


def binary_dice(
    logits: Float[Array, "*shape k"], labels: Int[Array, "*shape"], smooth: float = 0.0
) -> Float[Array, ""]:
    """1 - Dice coefficient over the whole batch, the mean over the labels.

    A label that no pixel of the batch has counts 0, and is in the mean, as in
    segmentation_models.pytorch.

    Args:
      logits, labels: see `binary_cross_entropy_by_pixel`.
      smooth: added to numerator and denominator.
    """
    return dice_of_overlap(binary_overlap(logits, labels), smooth)


def binary_jaccard(
    logits: Float[Array, "*shape k"], labels: Int[Array, "*shape"], smooth: float = 0.0
) -> Float[Array, ""]:
    """1 - intersection over union of probabilities and labels, as `binary_dice` for the rest."""
    return jaccard_of_overlap(binary_overlap(logits, labels), smooth)


def dice_of_overlap(overlap: Float[Array, "3 k"], smooth: float = 0.0) -> Float[Array, ""]:
    """`binary_dice` of the sums of `binary_overlap`."""
    both, probability, present = overlap
    score = (2 * both + smooth) / jnp.maximum(probability + present + smooth, _EPSILON)
    return jnp.mean(jnp.where(present > 0, 1 - score, 0))


def jaccard_of_overlap(overlap: Float[Array, "3 k"], smooth: float = 0.0) -> Float[Array, ""]:
    """`binary_jaccard` of the sums of `binary_overlap`."""
    both, probability, present = overlap
    score = (both + smooth) / jnp.maximum(probability + present - both + smooth, _EPSILON)
    return jnp.mean(jnp.where(present > 0, 1 - score, 0))


def is_labelled(labels: Int[Array, "*shape"], num_labels: int) -> Bool[Array, "*shape"]:
    """Whether pixels count: their value is a set of `num_labels` labels."""
    return (labels >= 0) & (labels < 2**num_labels)


def present_labels(labels: Int[Array, "*shape"], num_labels: int) -> Bool[Array, "*shape k"]:
    """Whether labelled pixels have each label; False where a pixel is ignored."""
    bits = (jnp.asarray(labels, jnp.int32)[..., None] >> jnp.arange(num_labels)) & 1
    return (bits == 1) & is_labelled(labels, num_labels)[..., None]


def _prepared(logits, labels):
    """Logits, 0 where ignored, so that nothing of them reaches a gradient; presence; labelled."""
    count = logits.shape[-1]
    labelled = is_labelled(labels, count)
    logits = jnp.where(labelled[..., None], logits.astype(jnp.float32), 0)
    return logits, present_labels(labels, count), labelled
