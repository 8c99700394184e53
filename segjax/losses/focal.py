"""Focal loss: cross-entropy with less weight on pixels that are classified well."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from segjax.losses.divisors import DIVISORS, divided, divisor
from segjax.losses.labels import is_class, is_labelled, of_labelled
from segjax.losses.options import require, require_one_of

ACTIVATIONS = ("softmax", "sigmoid")


def focal(
    logits: Float[Array, "*shape k"],
    labels: Int[Array, "*shape"],
    class_weights: Float[Array, "k"] | None = None,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    activation: str = "softmax",
    divide_by: str = "labelled",
) -> Float[Array, ""]:
    """Focal loss, by default the mean over the labelled pixels; 0 where there are none.

    Args:
      logits, labels: see `cross_entropy_sum`.
      class_weights: with softmax a factor on each pixel by its class, the paper's alpha_t; with
        sigmoid a factor on each class's binary loss, as in mmsegmentation.
      gamma: the loss of a pixel has the factor (1 - p)**gamma, where p is the probability of what
        is true; 0 is cross-entropy.
      alpha: sigmoid only: the weight of a class's own pixels; other pixels have 1 - alpha. None = 1
        for both, as segmentation_models.pytorch; mmsegmentation's default is 0.5.
      activation: "softmax": one probability for the pixel's class. "sigmoid": one binary loss for
        each class, and the mean of the k, as both libraries.
      divide_by: see `losses.divisors`; segmentation_models.pytorch divides by labelled pixels,
        mmsegmentation by all.

    Raises:
      ValueError: for an option out of its range.

    Reference: Lin et al., ICCV 2017 (arXiv 1708.02002), section 3.
    """
    check_options(gamma, alpha)
    require_one_of(ACTIVATIONS, "activation", activation)
    require_one_of(DIVISORS, "divide_by", divide_by)
    if activation == "softmax" and alpha is not None:
        raise ValueError(
            f"alpha={alpha} with activation='softmax'; use activation=sigmoid, or class weights, "
            "which balance the classes of a softmax"
        )
    num_classes = logits.shape[-1]
    chosen, z = is_class(labels, num_classes), of_labelled(logits, labels)
    weights = jnp.ones(num_classes) if class_weights is None else jnp.asarray(class_weights)
    if activation == "softmax":
        loss = _softmax_focal(z, chosen, gamma) * jnp.sum(jnp.where(chosen, weights, 0), -1)
    else:
        loss = jnp.mean(sigmoid_focal(z, chosen, gamma, alpha) * weights, -1)
    total = jnp.sum(jnp.where(is_labelled(labels, num_classes), loss, 0))
    return divided(total, divisor(labels, num_classes, class_weights, divide_by))


def _softmax_focal(logits, chosen, gamma):
    log_p = jnp.sum(jnp.where(chosen, jax.nn.log_softmax(logits), 0), -1)
    # 0 has no derivative below gamma = 1.
    miss = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(log_p.dtype).tiny)
    return -(miss**gamma) * log_p


def check_options(gamma: float, alpha: float | None) -> None:
    """Raises ValueError for a `gamma` or `alpha` of `focal` out of its range."""
    require(0 <= gamma < float("inf"), "gamma", gamma, "a number of 0 or more")
    require(alpha is None or 0 <= alpha <= 1, "alpha", alpha, "a number in [0, 1]")


def sigmoid_focal(
    logits: Float[Array, "*shape k"],
    chosen: Bool[Array, "*shape k"],
    gamma: float,
    alpha: float | None,
) -> Float[Array, "*shape k"]:
    """The binary focal loss of each class of each pixel; `chosen` is what is true. The other
    arguments are those of `focal`."""
    wrong = jnp.where(chosen, -logits, logits)  # its sigmoid is the probability of what is false
    loss = jnp.exp(gamma * jax.nn.log_sigmoid(wrong)) * jax.nn.softplus(wrong)
    return loss if alpha is None else loss * jnp.where(chosen, alpha, 1 - alpha)
