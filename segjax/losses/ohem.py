"""Online hard example mining: cross-entropy of the pixels that are hardest now."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from segjax.losses.divisors import divided, divisor
from segjax.losses.labels import is_class, is_image, is_labelled, of_labelled
from segjax.losses.options import require, require_one_of
from segjax.losses.pixelwise import cross_entropy_sum
from segjax.losses.sorting import ascending

# kept: the pixels that are kept. weights: the sum of their class weights. all: all pixels.
OHEM_DIVISORS = ("kept", "weights", "all", "none")


def ohem(
    logits: Float[Array, "n *shape k"],
    labels: Int[Array, "n *shape"],
    class_weights: Float[Array, "k"] | None = None,
    *,
    threshold: float = 0.7,
    min_kept: int = 100_000,
    divide_by: str = "kept",
) -> Float[Array, ""]:
    """Cross-entropy of the pixels whose own class has a probability up to `threshold`; if these are
    fewer than `min_kept` pixels an image, of that many with the lowest probability.

    mmsegmentation's OHEMPixelSampler keeps the same pixels (two that tie apart, and all where
    `min_kept` is more than there are, of which it drops the easiest one) and divides by all pixels;
    the code of CCNet and OCNet divides by those kept. It is no sum over pixels: which ones are kept
    depends on the whole batch.

    Args:
      logits, labels, class_weights: see `cross_entropy_sum`; weights do not choose pixels.
      threshold: 0 keeps exactly the `min_kept` hardest.
      min_kept: pixels times the images of the batch.
      divide_by: "kept", the pixels that are kept; "weights", the sum of their class weights; "all",
        all pixels of the batch; "none".

    Raises:
      ValueError: for an option out of its range.

    Reference: Shrivastava et al., CVPR 2016 (arXiv 1604.03540), for detection.
    """
    require(0 <= threshold <= 1, "threshold", threshold, "a number in [0, 1]")
    require(min_kept >= 1, "min_kept", min_kept, "1 or more")
    require_one_of(OHEM_DIVISORS, "divide_by", divide_by)
    num_classes = logits.shape[-1]
    labelled = is_labelled(labels, num_classes)
    p = jax.nn.softmax(jax.lax.stop_gradient(of_labelled(logits, labels)))
    p = jnp.sum(jnp.where(is_class(labels, num_classes), p, 0), -1)
    p = jnp.where(labelled, p, jnp.inf)
    pixels = labels[0].size
    least = jnp.minimum(min(min_kept, pixels) * jnp.sum(is_image(labels)), jnp.sum(labelled))
    highest = ascending(p.ravel())[jnp.maximum(least - 1, 0)]
    kept = labelled & (p <= jnp.maximum(threshold, highest))
    hard = jnp.where(kept, labels, 255)
    total, count = cross_entropy_sum(logits, hard, class_weights)
    if divide_by == "all":
        return divided(total, divisor(labels, num_classes, None, "all"))
    by = count if divide_by == "kept" else divisor(hard, num_classes, class_weights, divide_by)
    return divided(total, by)
