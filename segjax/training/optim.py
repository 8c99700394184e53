"""Optimisers and learning-rate schedules of `config.optim`."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

OPTIMIZERS = ("sgd", "adam", "adamw", "adadelta")
SCHEDULES = ("constant", "poly", "cosine", "step")

Schedule = Callable[[Any], Any]


def kernels_only(params: Any) -> Any:
    """True for convolution kernels, False for biases and normalisation parameters."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def make_schedule(config: Mapping[str, Any], total_steps: int) -> Schedule:
    """The learning rate as a function of the step. A resumed run continues it.

    The rate rises linearly from 0 to `learning_rate` over `warmup_steps`. With t in [0, 1], the
    share of the steps after the warm-up that are done, it then follows `schedule`:

    * constant: `learning_rate`.
    * poly: falls as (1 - t) ** `poly_power` to `end_factor` times `learning_rate`.
    * cosine: falls as half a cosine to `end_factor` times `learning_rate`.
    * step: multiplied by `step_factor` at each t in `step_at`.

    Args:
      config: `config.optim`.
      total_steps: number of steps of the run.

    Raises:
      ValueError: naming the field that is out of range.

    Reference: "poly" with power 0.9 is Liu et al., "ParseNet", 2015, as PSPNet and DeepLab use it.
    """
    name, rate, warmup = config["schedule"], config["learning_rate"], config["warmup_steps"]
    if name not in SCHEDULES:
        raise ValueError(f"optim.schedule={name!r} is unknown; known: {', '.join(SCHEDULES)}")
    if not 0 < rate < math.inf:
        raise ValueError(f"optim.learning_rate={rate}; use a number above 0")
    if not 0 <= warmup < total_steps:
        raise ValueError(f"optim.warmup_steps={warmup}; use 0 .. {total_steps - 1} (train.steps-1)")
    if not 0 <= config["end_factor"] <= 1:
        raise ValueError(f"optim.end_factor={config['end_factor']}; use a share in [0, 1]")
    if not all(0 < share < 1 for share in config["step_at"]):
        raise ValueError(f"optim.step_at={tuple(config['step_at'])}; use shares in (0, 1)")
    steps = total_steps - warmup
    end = rate * config["end_factor"]
    if name == "constant":
        schedule = optax.constant_schedule(rate)
    elif name == "poly":
        schedule = optax.polynomial_schedule(rate, end, config["poly_power"], steps)
    elif name == "cosine":
        schedule = optax.cosine_decay_schedule(rate, steps, alpha=config["end_factor"])
    else:
        at = {round(share * steps): config["step_factor"] for share in config["step_at"]}
        schedule = optax.piecewise_constant_schedule(rate, at)
    if not warmup:
        return schedule
    rise = optax.linear_schedule(0.0, rate, warmup)
    return optax.join_schedules([rise, schedule], [warmup])


def make_optimizer(
    config: Mapping[str, Any],
    schedule: Schedule,
    decayed: Callable[[Any], Any] | None = kernels_only,
) -> optax.GradientTransformation:
    """Chains gradient clipping, weight decay and the update rule with its learning rate.

    With sgd, adam and adadelta, weight decay adds `weight_decay * parameter` to the gradient, as
    torch and Caffe do; adamw decays the weights apart from the gradient.

    Args:
      config: `config.optim`. What it has for parts of a network is left to `parts.Parts`.
      schedule: of the learning rate.
      decayed: which parameters decay, as a tree of bool made from theirs; None: all.

    Raises:
      ValueError: naming the field that is unknown or out of range.
    """
    name, decay = config["name"], config["weight_decay"]
    if name not in OPTIMIZERS:
        raise ValueError(f"optim.name={name!r} is unknown; known: {', '.join(OPTIMIZERS)}")
    if decay < 0:
        raise ValueError(f"optim.weight_decay={decay}; use 0 or more")
    if config["clip_norm"] < 0:
        raise ValueError(f"optim.clip_norm={config['clip_norm']}; use 0 (off) or more")
    chain = []
    if config["clip_norm"]:
        chain.append(optax.clip_by_global_norm(config["clip_norm"]))
    if decay and name != "adamw":
        chain.append(optax.add_decayed_weights(decay, decayed))
    if name == "sgd":
        chain.append(optax.sgd(schedule, config["momentum"] or None, config["nesterov"]))
    elif name == "adam":
        chain.append(optax.adam(schedule, config["beta1"], config["beta2"], config["epsilon"]))
    elif name == "adamw":
        chain.append(
            optax.adamw(
                schedule,
                config["beta1"],
                config["beta2"],
                config["epsilon"],
                weight_decay=decay,
                mask=decayed,
            )
        )
    else:
        chain.append(optax.adadelta(schedule, config["rho"], config["epsilon"]))
    return optax.chain(*chain)
