"""Which pixels of a label map count: 0..k-1 is a class, -1 fills up a batch, all else is ignored.

Rows of a batch that are there to fill it up have labels of -1 throughout. They are no images:
they count nowhere, not even where ignored pixels do ("all pixels", "mean over images").
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from segjax.layers.precision import at_least_float32


def is_labelled(labels: Int[Array, "*shape"], num_classes: int) -> Bool[Array, "*shape"]:
    """Whether a pixel has a class."""
    return (labels >= 0) & (labels < num_classes)


def is_class(labels: Int[Array, "*shape"], num_classes: int) -> Bool[Array, "*shape k"]:
    """Whether a class is the pixel's; none is an ignored pixel's.

    A comparison instead of a gather, whose derivative would be a scatter.
    """
    return labels[..., None] == jnp.arange(num_classes, dtype=labels.dtype)


def is_image(labels: Int[Array, "n *shape"]) -> Bool[Array, "n"]:
    """Whether a row of a batch is an image, ignored or not, and no filling."""
    return jnp.any(labels >= 0, range(1, labels.ndim))


def of_labelled(
    logits: Float[Array, "*shape k"], labels: Int[Array, "*shape"]
) -> Float[Array, "*shape k"]:
    """The logits in float32, and 0 where a pixel is ignored: what they are there changes neither a
    loss of the result nor its gradient, be it infinite or NaN."""
    labelled = is_labelled(labels, logits.shape[-1])[..., None]
    return at_least_float32(jnp.where(labelled, logits, 0))


def mean_over_images(values: Float[Array, "n"], labels: Int[Array, "n *shape"]) -> Float[Array, ""]:
    """The mean of one value per image; 0 where there is no image."""
    images = is_image(labels)
    return jnp.sum(jnp.where(images, values, 0)) / jnp.maximum(jnp.sum(images), 1)
