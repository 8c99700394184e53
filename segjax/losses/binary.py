"""Losses of sigmoid heads on logits and label maps of bits; ignored pixels take no part.

A label map holds bits: bit j of a pixel is set where label j is present, so its values are
0..2**k - 1; any other (255 = ignore) does not count. With one label 1 is the foreground and 0 the
background.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Real

from segjax.losses.divisors import divided, divisor
from segjax.losses.focal import check_options as check_focal
from segjax.losses.focal import sigmoid_focal
from segjax.losses.options import require_one_of
from segjax.losses.overlap import check_options as check_overlap
from segjax.losses.overlap import mean_over_classes, overlap_score

BINARY_DIVISORS = ("labelled", "all", "none")


def binary_cross_entropy(
    logits: Float[Array, "*shape k"],
    labels: Int[Array, "*shape"],
    class_weights: Float[Array, "k"] | None = None,
    *,
    divide_by: str = "labelled",
) -> Float[Array, ""]:
    """Sigmoid cross-entropy in nats, by default the mean over the labelled pixels; 0 where there
    are none.

    The loss of a pixel is the mean over its labels, and not the sum, so that a learning rate suits
    any number of labels; torch's BCEWithLogitsLoss divides alike.

    Args:
      logits: any float; losses are computed and summed in float32.
      labels: bits, see above.
      class_weights: a factor for each label on the pixels that have it, as torch's `pos_weight`;
        the number of pixels is not weighted.
      divide_by: one of `BINARY_DIVISORS`, see `losses.divisors`.

    Raises:
      ValueError: for an option out of its range.
    """
    require_one_of(BINARY_DIVISORS, "divide_by", divide_by)
    total, _ = binary_cross_entropy_sum(logits, labels, class_weights)
    return divided(total, binary_divisor(labels, logits.shape[-1], class_weights, divide_by))


def binary_cross_entropy_sum(
    logits: Float[Array, "*shape k"],
    labels: Int[Array, "*shape"],
    class_weights: Float[Array, "k"] | None = None,
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Sigmoid cross-entropy in nats, summed over the labelled pixels, and their number.

    Args:
      logits, labels, class_weights: see `binary_cross_entropy`.
    """
    logits, present, labelled = _prepared(logits, labels)
    positive, negative = jax.nn.softplus(-logits), jax.nn.softplus(logits)
    if class_weights is not None:
        positive *= class_weights
    losses = jnp.mean(jnp.where(present, positive, negative), -1)
    return jnp.sum(jnp.where(labelled, losses, 0)), jnp.sum(labelled)


def binary_focal(
    logits: Float[Array, "*shape k"],
    labels: Int[Array, "*shape"],
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    divide_by: str = "labelled",
) -> Float[Array, ""]:
    """Focal loss, by default the mean over the labelled pixels; 0 where there are none.

    The loss of a pixel is the mean over its labels of (1 - p)**gamma times the cross-entropy, p
    being the probability of what is true.

    Args:
      logits, labels, divide_by: see `binary_cross_entropy`.
      gamma: 0 is the cross-entropy.
      alpha: weight of present labels, and 1 - alpha of absent ones; None: no weights.

    Raises:
      ValueError: for an option out of its range.

    Reference: Lin et al., ICCV 2017 (arXiv 1708.02002), section 3.
    """
    check_focal(gamma, alpha)
    require_one_of(BINARY_DIVISORS, "divide_by", divide_by)
    z, present, labelled = _prepared(logits, labels)
    losses = sigmoid_focal(z, present, gamma, alpha)
    total = jnp.sum(jnp.where(labelled, jnp.mean(losses, -1), 0))
    return divided(total, binary_divisor(labels, logits.shape[-1], None, divide_by))


def binary_dice(
    logits: Float[Array, "*shape k"], labels: Int[Array, "*shape"], *, smooth: float = 0.0
) -> Float[Array, ""]:
    """1 - Dice coefficient over the whole batch, the mean over the labels.

    A label that no pixel of the batch has counts 0, and is in the mean, as in
    segmentation_models.pytorch.

    Args:
      logits, labels: see `binary_cross_entropy`.
      smooth: added to numerator and denominator.

    Raises:
      ValueError: for an option out of its range.
    """
    check_overlap(smooth)
    both, probability, present = _overlap(logits, labels)
    score = overlap_score(2 * both, probability + present, smooth)
    return mean_over_classes(1 - score, present, "zero")


def binary_jaccard(
    logits: Float[Array, "*shape k"], labels: Int[Array, "*shape"], *, smooth: float = 0.0
) -> Float[Array, ""]:
    """1 - intersection over union of probabilities and labels, as `binary_dice` for the rest."""
    check_overlap(smooth)
    both, probability, present = _overlap(logits, labels)
    score = overlap_score(both, probability + present - both, smooth)
    return mean_over_classes(1 - score, present, "zero")


def _overlap(logits, labels):
    """Per label, summed over the labelled pixels: the probability where the label is present, the
    probability, and the pixels that have the label."""
    logits, present, labelled = _prepared(logits, labels)
    probability = jnp.where(labelled[..., None], jax.nn.sigmoid(logits), 0)
    axes = range(labels.ndim)
    both = jnp.sum(jnp.where(present, probability, 0), axes)
    return both, jnp.sum(probability, axes), jnp.sum(present, axes, dtype=jnp.float32)


def binary_divisor(
    labels: Int[Array, "*shape"],
    num_labels: int,
    class_weights: Float[Array, "k"] | None,
    divide_by: str,
) -> Real[Array, ""]:
    """The divisor of a batch, as `losses.divisors.divisor`."""
    if divide_by == "labelled":
        return jnp.sum(is_labelled(labels, num_labels))
    # The others are no matter of what labels mean; weights are of a pixel's labels, not of pixels.
    return divisor(labels, num_labels, None, divide_by)


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
