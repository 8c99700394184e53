"""Learning-rate schedules: `optim.schedule` and the warm-up before it.

A row of SCHEDULES is a function of the number of steps; its keyword parameters are the options of
`config.optim` that it reads.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import optax

from segjax.config import flatten
from segjax.ranges import check_numbers
from segjax.training.rows import chosen

Schedule = Callable[[Any], Any]


def constant(steps: int, *, learning_rate: float) -> Schedule:
    return optax.constant_schedule(learning_rate)


def poly(steps, *, learning_rate, poly_power, end_factor, eta_min) -> Schedule:
    """Liu et al., "ParseNet", 2015, as DeepLab and PSPNet use it; with `eta_min`, mmsegmentation's.
    (Its version 1 reaches the end one step earlier, at the run's last step.)"""
    end = learning_rate * _share_left(learning_rate, end_factor, eta_min)
    return optax.polynomial_schedule(learning_rate, end, poly_power, steps)


def cosine(steps, *, learning_rate, end_factor, eta_min) -> Schedule:
    """Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, without restarts."""
    share = _share_left(learning_rate, end_factor, eta_min)
    return optax.cosine_decay_schedule(learning_rate, steps, alpha=share)


def cosine_restarts(steps, *, learning_rate, end_factor, eta_min, cycles, cycle_mult) -> Schedule:
    """Loshchilov and Hutter, "SGDR", ICLR 2017: `cycle_mult` is their T_mult. Cycles are rounded to
    whole steps, and the last one ends with the run."""
    lengths = itertools.accumulate(cycle_mult**i for i in range(cycles))
    ends = [0, *lengths]
    ends = [round(steps * end / ends[-1]) for end in ends]
    lengths = [end - start for start, end in itertools.pairwise(ends)]
    if min(lengths) < 1:
        raise ValueError(
            f"optim.cycles={cycles} with optim.cycle_mult={cycle_mult} leaves a cycle without a "
            f"step, of {steps}; use fewer cycles"
        )
    each = [
        cosine(n, learning_rate=learning_rate, end_factor=end_factor, eta_min=eta_min)
        for n in lengths
    ]
    return optax.join_schedules(each, ends[1:-1])


def exponential(steps, *, learning_rate, end_factor, eta_min) -> Schedule:
    """torch's ExponentialLR, whose gamma an epoch is `end_factor ** (1 / epochs)`."""
    share = _share_left(learning_rate, end_factor, eta_min)
    if share == 0:
        raise ValueError(
            "optim.end_factor=0.0 with optim.schedule='exponential'; use a share of the rate above "
            "0 to end at, or set optim.eta_min"
        )
    return optax.exponential_decay(learning_rate, steps, share, end_value=learning_rate * share)


def one_cycle(
    steps, *, learning_rate, pct_start, div_factor, final_div_factor, warmup_steps
) -> Schedule:
    """Smith and Topin, "Super-Convergence", 2017, as torch's OneCycleLR. (The peak and the end come
    one step later than torch's.)"""
    if warmup_steps:
        raise ValueError(
            f"optim.warmup_steps={warmup_steps} with optim.schedule='one_cycle', which rises by "
            "itself; use 0"
        )
    return optax.cosine_onecycle_schedule(
        steps, learning_rate, pct_start, div_factor, final_div_factor
    )


def step(steps, *, learning_rate, step_at, step_factor) -> Schedule:
    at: dict[int, float] = {}
    for share in step_at:  # in a short run two may be at the same step
        at[round(share * steps)] = at.get(round(share * steps), 1.0) * step_factor
    return optax.piecewise_constant_schedule(learning_rate, at)


def _share_left(learning_rate: float, end_factor: float, eta_min: float) -> float:
    """The share of the rate that is left at the end."""
    if not eta_min:
        return end_factor
    if end_factor:
        raise ValueError(
            f"optim.end_factor={end_factor} and optim.eta_min={eta_min} are both set; set one of "
            "them to 0"
        )
    if eta_min > learning_rate:
        raise ValueError(
            f"optim.eta_min={eta_min}; use a rate of at most optim.learning_rate={learning_rate}"
        )
    return eta_min / learning_rate


SCHEDULES: Mapping[str, Callable[..., Schedule]] = {
    "constant": constant,
    "poly": poly,
    "cosine": cosine,
    "step": step,
    "cosine_restarts": cosine_restarts,
    "exponential": exponential,
    "one_cycle": one_cycle,
}
WARMUPS = ("linear", "constant")


def make_schedule(config: Mapping[str, Any], total_steps: int) -> Schedule:
    """The learning rate as a function of the step. A resumed run continues it.

    Over `warmup_steps` the rate rises linearly from `warmup_start_factor` times `learning_rate` to
    `learning_rate`, or stays at the former (`warmup_kind` "constant"). With t in [0, 1], the share
    of the steps after the warm-up that are done, it then follows `schedule`:

    * constant: `learning_rate`.
    * poly: falls as (1 - t) ** `poly_power` to its end.
    * cosine: falls as half a cosine to its end.
    * cosine_restarts: `cycles` such falls, each `cycle_mult` times as long as the one before.
    * exponential: falls by the same factor at each step to its end.
    * step: multiplied by `step_factor` at each t in `step_at`.
    * one_cycle: rises as half a cosine from `learning_rate / div_factor` to `learning_rate` at t =
      `pct_start`, then falls to the first rate divided by `final_div_factor`.

    The end is `end_factor` times `learning_rate`, or the rate `eta_min`: learning_rate 0.02 and
    end_factor 0.1 end at 0.002, and a doubled learning_rate at 0.004; eta_min=0.002 stays.

    Args:
      config: `config.optim`. `schedule_function`, if it is set, is called as `function(steps,
        option=...)` with the options that its keyword parameters without a default name, and
        returns the rate as a function of the step after the warm-up.
      total_steps: number of steps of the run.

    Raises:
      ValueError: naming the field that is out of range.

    Reference: a constant warm-up is DeepLab's slow start; a linear one from `warmup_start_factor`
    is torchvision's (`lr_warmup_decay`) and mmsegmentation's (`start_factor`).
    """
    check_numbers(flatten(config, "optim."))
    rate, warmup = config["learning_rate"], config["warmup_steps"]
    first, kind = config["warmup_start_factor"] * rate, config["warmup_kind"]
    row = chosen(config, "schedule", "schedule_function", SCHEDULES)
    shares = tuple(config["step_at"])
    if not all(a < b for a, b in itertools.pairwise((0.0, *shares, 1.0))):
        raise ValueError(f"optim.step_at={shares}; use rising shares in (0, 1)")
    if warmup >= total_steps:
        raise ValueError(f"optim.warmup_steps={warmup}; use 0 .. {total_steps - 1} (train.steps-1)")
    if kind not in WARMUPS:
        raise ValueError(f"optim.warmup_kind={kind!r}; use {', '.join(WARMUPS)}")
    if warmup and kind == "constant" and not first:
        raise ValueError(
            "optim.warmup_start_factor=0.0 with optim.warmup_kind='constant' would change nothing "
            "during the warm-up; use a share of the rate in (0, 1]"
        )
    steps = total_steps - warmup
    schedule = row(steps)
    if config["schedule_function"] is not None:
        _check_rates(schedule, steps)
    if not warmup:
        return schedule
    rise = optax.linear_schedule(first, rate if kind == "linear" else first, warmup)
    return optax.join_schedules([rise, schedule], [warmup])


def _check_rates(schedule: Any, steps: int) -> None:
    """Raises ValueError if what a config file's function returned gives no rates."""
    option = "optim.schedule_function"
    if not callable(schedule):
        raise ValueError(f"{option} returned {schedule!r}; return a function of the step")
    for at in sorted({0, steps // 2, steps - 1}):
        rate = float(schedule(at))
        if not 0 <= rate < math.inf:
            raise ValueError(f"{option} gives the rate {rate} at step {at}; return 0 or more")
