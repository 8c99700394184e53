"""Lovasz-softmax: the convex extension of the Jaccard loss of discrete predictions."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from segjax.losses.labels import is_class, is_labelled, mean_over_images, of_labelled
from segjax.losses.options import require_one_of
from segjax.losses.sorting import by_descending

CLASSES = ("present", "all")


def lovasz_softmax(
    logits: Float[Array, "n *shape k"],
    labels: Int[Array, "n *shape"],
    *,
    classes: str = "present",
    per_image: bool = False,
) -> Float[Array, ""]:
    """Lovasz-softmax loss, the mean over classes; 0 where nothing is labelled.

    It sorts the pixels of the batch by their error once for each class. It is no sum over pixels:
    its value for a batch is not the mean of its values for parts of the batch.

    Args:
      logits: float32 or less; sums are in float32.
      labels: ids 0..k-1; any other id (255 = ignore) takes no part.
      classes: "present": the mean over the classes that are labelled. "all": over all k; the loss
        of an absent class is its highest probability.
      per_image: whether each image has its own loss, and the mean of these is taken. An image that
        is ignored altogether adds 0 to this mean, as in the authors' code.

    Raises:
      ValueError: for an unknown option.

    Reference: Berman et al., CVPR 2018 (arXiv 1705.08790), algorithm 1 and section 3.2; the
    defaults are those of the authors' code, mmsegmentation and segmentation_models.pytorch.
    """
    require_one_of(CLASSES, "classes", classes)
    p = jax.nn.softmax(of_labelled(logits, labels))
    num_classes = p.shape[-1]
    if per_image:
        p, flat = p.reshape(len(p), -1, num_classes), labels.reshape(len(p), -1)
        values = jax.vmap(_of_pixels, (0, 0, None))(p, flat, classes)
        return mean_over_images(values, labels)
    return _of_pixels(p.reshape(-1, num_classes), labels.reshape(-1), classes)


def _of_pixels(p: Float[Array, "p k"], labels: Int[Array, "p"], classes: str) -> Float[Array, ""]:
    num_classes = p.shape[-1]
    counts, chosen = is_labelled(labels, num_classes), is_class(labels, num_classes).T
    errors = jnp.where(counts, jnp.where(chosen, 1 - p.T, p.T), 0)
    # One class after the other: the sort of a class needs several arrays of its pixels.
    weights = lax.map(lambda x: _weights(x[0], x[1], counts), (lax.stop_gradient(errors), chosen))
    losses = jnp.sum(weights * errors, -1)
    if classes == "all":
        return jnp.where(jnp.any(counts), jnp.mean(losses), 0)
    present = jnp.any(chosen, -1)
    return jnp.sum(jnp.where(present, losses, 0)) / jnp.maximum(jnp.sum(present), 1)


def _weights(
    errors: Float[Array, "p"], chosen: Bool[Array, "p"], counts: Bool[Array, "p"]
) -> Float[Array, "p"]:
    """By how much the Jaccard loss of a class rises as pixels become wrong in the order of their
    errors, each pixel's share of it.

    The rise is computed as such. The authors' code subtracts one loss from the next, which leaves
    float32 no digit where an image has a million pixels.
    """
    # Rounding may leave an error below 0. Ignored pixels come last.
    keys = jnp.where(counts, jnp.maximum(errors, 0), -1)
    pixels = jnp.arange(len(errors), dtype=jnp.uint32)
    pixels = by_descending(keys, 2 * pixels + chosen)
    order, hits = pixels // 2, (pixels % 2).astype(jnp.int32)
    number, found = jnp.sum(hits), jnp.cumsum(hits)
    missed = number - found  # of the class's pixels, those that are right still
    union = number + jnp.arange(1, len(errors) + 1) - found
    missed, union = missed.astype(errors.dtype), union.astype(errors.dtype)
    # A pixel of the class leaves the intersection; any other one enters the union.
    rise = jnp.where(hits, 1 / union, missed / jnp.maximum(union * (union - 1), 1))
    rise = jnp.where(number > 0, rise, jnp.arange(len(errors)) == 0)
    return jnp.zeros_like(errors).at[order].set(rise, unique_indices=True)
