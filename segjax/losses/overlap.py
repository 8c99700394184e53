"""Losses of the overlap of classes: Dice, Jaccard and Tversky.

All are 1 minus a score of a class's overlap with its label, as soft counts over the labelled pixels
of the whole batch or of each image, and the mean over classes. None is a sum over pixels: its value
for a batch is not the mean of its values for parts of the batch.

`absent` says what a class without a labelled pixel (in the batch, or the image) adds to the mean:
"zero": 0, in a mean over all k classes, as segmentation_models.pytorch.
"skip": nothing; the mean is over the classes that are there.
"count": its loss like any other, 1 - smooth / (soft count + smooth), as mmsegmentation.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from segjax.losses.labels import is_class, is_labelled, mean_over_images, of_labelled
from segjax.losses.options import require, require_one_of

ABSENT = ("zero", "skip", "count")
_LEAST = 1e-7  # of a divisor, as in segmentation_models.pytorch


def dice(
    logits: Float[Array, "n *shape k"],
    labels: Int[Array, "n *shape"],
    *,
    smooth: float = 0.0,
    squared: bool = False,
    per_image: bool = False,
    absent: str = "zero",
) -> Float[Array, ""]:
    """1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth) of each class, and their mean; p is
    its probability by softmax, t is 1 where it is the label.

    segmentation_models.pytorch has these defaults (its `smooth` is half of this one);
    mmsegmentation's are smooth=1, squared=True, per_image=True, absent="count", except that its p
    counts at ignored pixels too.

    Args:
      logits: float32 or less; sums are in float32.
      labels: ids 0..k-1; any other id (255 = ignore) takes no part.
      smooth: pixels that are added to both counts.
      squared: sums p**2 instead of p in the divisor, as V-Net (arXiv 1606.04797, section 3).
      per_image: whether each image has its own loss, and the mean of these is taken.
      absent: see the module.

    Raises:
      ValueError: for an option out of its range.
    """
    check_options(smooth, absent)
    both, predicted, labelled = _counts(logits, labels, per_image, squared)
    score = overlap_score(2 * both, predicted + labelled, smooth)
    return _reduced(mean_over_classes(1 - score, labelled, absent), labels)


def jaccard(
    logits: Float[Array, "n *shape k"],
    labels: Int[Array, "n *shape"],
    *,
    smooth: float = 0.0,
    per_image: bool = False,
    absent: str = "zero",
) -> Float[Array, ""]:
    """1 - (sum(p t) + smooth) / (sum(p) + sum(t) - sum(p t) + smooth) of each class, and their
    mean: `dice` with the IoU in place of its score, as segmentation_models.pytorch.

    Args and errors: see `dice`.
    """
    check_options(smooth, absent)
    both, predicted, labelled = _counts(logits, labels, per_image)
    score = overlap_score(both, predicted + labelled - both, smooth)
    return _reduced(mean_over_classes(1 - score, labelled, absent), labels)


def tversky(
    logits: Float[Array, "n *shape k"],
    labels: Int[Array, "n *shape"],
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    gamma: float = 1.0,
    smooth: float = 0.0,
    per_image: bool = False,
    absent: str = "zero",
) -> Float[Array, ""]:
    """1 - (tp + smooth) / (tp + alpha fp + beta fn + smooth) of each class, and their mean, with
    the soft counts tp = sum(p t), fp = sum(p (1 - t)), fn = sum((1 - p) t).

    The defaults are those of segmentation_models.pytorch, and are Dice; mmsegmentation's are
    alpha=0.3, beta=0.7, smooth=1, per_image=True, absent="count".

    Args:
      logits, labels, smooth, per_image, absent: see `dice`.
      alpha: weight of false positives.
      beta: weight of false negatives; above alpha, the loss favours rare classes.
      gamma: power of the mean over classes, as segmentation_models.pytorch.

    Raises:
      ValueError: for an option out of its range.

    Reference: Salehi et al., MLMI 2017 (arXiv 1706.05721).
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        require(0 <= value < math.inf, name, value, "a number of 0 or more")
    require(0 < gamma < math.inf, "gamma", gamma, "a number above 0")
    check_options(smooth, absent)
    both, predicted, labelled = _counts(logits, labels, per_image)
    score = overlap_score(
        both, both + alpha * (predicted - both) + beta * (labelled - both), smooth
    )
    mean = mean_over_classes(1 - score, labelled, absent)
    if gamma != 1:  # 0 has no derivative below gamma = 1
        mean = jnp.where(mean > 0, jnp.where(mean > 0, mean, 1) ** gamma, 0)
    return _reduced(mean, labels)


def check_options(smooth: float, absent: str = "zero") -> None:
    """Raises ValueError for a `smooth` or `absent` out of its range."""
    require(0 <= smooth < math.inf, "smooth", smooth, "a number of 0 or more")
    require_one_of(ABSENT, "absent", absent)
    if absent == "count" and not smooth:
        raise ValueError(
            "absent='count' with smooth=0; use smooth=1, since otherwise the loss of an absent "
            "class is 1 whatever is predicted"
        )


def _counts(logits, labels, per_image, squared=False):
    """Soft counts [k], or [n, k] per image: of both, of the prediction and of the label."""
    num_classes = logits.shape[-1]
    p = jax.nn.softmax(of_labelled(logits, labels))
    p = jnp.where(is_labelled(labels, num_classes)[..., None], p, 0)
    chosen = is_class(labels, num_classes)
    axes = range(1 if per_image else 0, labels.ndim)
    both = jnp.sum(jnp.where(chosen, p, 0), axes)
    predicted = jnp.sum(p**2 if squared else p, axes)
    return both, predicted, jnp.sum(chosen, axes).astype(p.dtype)


def overlap_score(
    a: Float[Array, "*n k"], b: Float[Array, "*n k"], smooth: float
) -> Float[Array, "*n k"]:
    """a / b with `smooth` added to both; 0 where both are 0."""
    return (a + smooth) / jnp.maximum(b + smooth, _LEAST)


def mean_over_classes(
    losses: Float[Array, "*n k"], labelled: Float[Array, "*n k"], absent: str
) -> Float[Array, "*n"]:
    """The mean over the classes, of which `labelled` counts the pixels; see the module for
    `absent`."""
    if absent == "count":
        return jnp.mean(losses, -1)
    present = labelled > 0
    total = jnp.sum(jnp.where(present, losses, 0), -1)
    return total / (losses.shape[-1] if absent == "zero" else jnp.maximum(jnp.sum(present, -1), 1))


def _reduced(values, labels):
    """The scalar, or the mean of one per image."""
    return mean_over_images(values, labels) if values.ndim else values
