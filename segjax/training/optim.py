"""Optimisers: `optim.name`, with gradient clipping and weight decay.

A row of OPTIMIZERS is a function of the learning rate; its keyword parameters are the options of
`config.optim` that it reads.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from optax import contrib

from segjax.config import flatten
from segjax.ranges import check_numbers
from segjax.training.rows import chosen
from segjax.training.schedules import Schedule


def sgd(rate: Schedule, *, momentum, nesterov) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum or None, nesterov)


def adam(rate, *, beta1, beta2, epsilon) -> optax.GradientTransformation:
    return optax.adam(rate, beta1, beta2, epsilon)


def adamw(rate, *, beta1, beta2, epsilon, weight_decay, decay_mask) -> optax.GradientTransformation:
    return optax.adamw(rate, beta1, beta2, epsilon, weight_decay=weight_decay, mask=decay_mask)


def adadelta(rate, *, rho, epsilon) -> optax.GradientTransformation:
    return optax.adadelta(rate, rho, epsilon)


def nadam(rate, *, beta1, beta2, epsilon) -> optax.GradientTransformation:
    """Dozat, "Incorporating Nesterov Momentum into Adam", 2016, with one beta1 for all steps; the
    NAdam of torch and Keras warms it up."""
    return optax.nadam(rate, beta1, beta2, epsilon)


def rmsprop(rate, *, rho, epsilon, momentum) -> optax.GradientTransformation:
    """torch's: epsilon outside the root, and momentum of steps without the learning rate, which
    optax's own name would put inside. `rho` is torch's alpha."""
    return optax.chain(
        optax.scale_by_rms(rho, epsilon, eps_in_sqrt=False),
        optax.trace(momentum) if momentum else optax.identity(),
        optax.scale_by_learning_rate(rate),
    )


def lamb(rate, *, beta1, beta2, epsilon, weight_decay, decay_mask) -> optax.GradientTransformation:
    """You et al., "Large Batch Optimization for Deep Learning", ICLR 2020 (epsilon 1e-6)."""
    return optax.lamb(rate, beta1, beta2, epsilon, weight_decay=weight_decay, mask=decay_mask)


def lion(rate, *, beta1, beta2, weight_decay, decay_mask) -> optax.GradientTransformation:
    """Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023 (betas 0.9 and 0.99, a
    rate 3 to 10 times below AdamW's, a decay as many times above)."""
    return optax.lion(rate, beta1, beta2, weight_decay=weight_decay, mask=decay_mask)


def muon(
    rate, *, momentum, beta1, beta2, epsilon, weight_decay, decay_mask
) -> optax.GradientTransformation:
    """Jordan et al., "Muon", 2024 (momentum 0.95), with Nesterov momentum: the update of a kernel
    [h, w, in, out] is made orthogonal as a matrix of h*w*in rows and `out` columns. Biases and
    norms take Adam, with Nesterov momentum too.

    Updates are scaled to the size of AdamW's, so that AdamW's rate and decay fit: Liu et al., "Muon
    is Scalable for LLM Training", 2025, section 2.2 (0.2 * sqrt(max(rows, columns))).
    """
    direction = contrib.muon(
        learning_rate=-1.0,  # the direction as it is: the rate follows, after the decay
        beta=momentum,
        eps=epsilon,
        adam_b1=beta1,
        adam_b2=beta2,
        muon_weight_dimension_numbers=_as_matrices,
        consistent_rms=0.2,
    )
    return optax.chain(
        direction,
        optax.add_decayed_weights(weight_decay, decay_mask),
        optax.scale_by_learning_rate(rate),
    )


def _as_matrices(params: Any) -> Any:
    """How Muon reads each kernel as a matrix: the last axis is the output. None: not by Muon."""

    def dimensions(p):
        if p.ndim < 2:
            return None
        return contrib.MuonDimensionNumbers(tuple(range(p.ndim - 1)), p.ndim - 1)

    return jax.tree.map(dimensions, params)


OPTIMIZERS: Mapping[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "adadelta": adadelta,
    "nadam": nadam,
    "rmsprop": rmsprop,
    "lamb": lamb,
    "lion": lion,
    "muon": muon,
}


def kernels_only(params: Any) -> Any:
    """True for convolution kernels, False for biases and normalisation parameters."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def make_optimizer(
    config: Mapping[str, Any],
    schedule: Schedule,
    decay_mask: Callable[[Any], Any] | None = kernels_only,
) -> optax.GradientTransformation:
    """Chains gradient clipping, weight decay and the update rule with its learning rate.

    A rule that reads `weight_decay` (adamw, lamb, lion, muon) decays the weights apart from the
    gradient. For the others `weight_decay * parameter` is added to the gradient, as torch and Caffe
    do.

    Args:
      config: `config.optim`. `optimizer_function`, if it is set, is called as `function(schedule,
        option=...)` with the options that its keyword parameters without a default name, and
        returns an optax transformation. `decay_mask` is one of these. What the config has for
        parts of a network is left to `parts.Parts`.
      schedule: the learning rate as a function of the step.
      decay_mask: optax's mask of the parameters that decay; None: all.

    Raises:
      ValueError: naming the field that is unknown or out of range.
    """
    check_numbers(flatten(config, "optim."))
    decay = config["weight_decay"]
    options = {**config, "decay_mask": decay_mask}
    rule = chosen(options, "name", "optimizer_function", OPTIMIZERS)
    chain = []
    if config["clip_norm"]:
        chain.append(optax.clip_by_global_norm(config["clip_norm"]))
    if decay and "weight_decay" not in rule.keywords:
        chain.append(optax.add_decayed_weights(decay, decay_mask))
    transformation = rule(schedule)
    if not isinstance(transformation, optax.GradientTransformation):
        raise ValueError(
            f"optim.optimizer_function returned {transformation!r}; return an optax transformation"
        )
    return optax.chain(*chain, transformation)
