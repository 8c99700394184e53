"""The numbers that each option may be."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

from segjax.config import flatten

# An option that is in no table of its own place (Augmentation, Devices, a model) is here: as an
# interval, "[" and "]" with the number beside it, "(" and ")" without.
RANGES = {
    "seed": "[0, 4294967295]",
    "data.num_classes": "[0, inf)",
    "data.channels": "[1, inf)",
    "data.mask_threshold": "[0, inf)",
    "data.val_share": "[0, 1)",
    "data.test_share": "[0, 1)",
    "data.color_distance": "[0, 255]",
    "data.train_images": "[1, inf)",
    "data.eval_images": "[1, inf)",
    "data.workers": "[0, inf)",
    "data.timeout_s": "(0, inf)",
    "data.cache_mb": "[0, inf)",
    "loss.aux_weight": "[0, inf)",
    "optim.learning_rate": "(0, inf)",
    "optim.momentum": "[0, 1)",
    "optim.beta1": "[0, 1)",
    "optim.beta2": "[0, 1)",
    "optim.rho": "[0, 1)",
    "optim.epsilon": "(0, inf)",
    "optim.weight_decay": "[0, inf)",
    "optim.layer_decay": "(0, 1]",
    "optim.clip_norm": "[0, inf)",
    "optim.poly_power": "(0, inf)",
    "optim.step_factor": "(0, 1)",
    "optim.end_factor": "[0, 1]",
    "optim.eta_min": "[0, inf)",
    "optim.pct_start": "(0, 1)",
    "optim.div_factor": "[1, inf)",
    "optim.final_div_factor": "[1, inf)",
    "optim.cycles": "[1, inf)",
    "optim.cycle_mult": "[1, inf)",
    "optim.warmup_steps": "[0, inf)",
    "optim.warmup_start_factor": "[0, 1]",
    "optim.plateau_patience": "[0, inf)",
    "optim.plateau_factor": "(0, 1)",
    "optim.plateau_min_rate": "[0, inf)",
    "train.steps": "[0, inf)",
    "train.epochs": "[0, inf)",
    "train.batch_size": "[1, inf)",
    "train.eval_batch_size": "[0, inf)",
    "train.accumulate": "[1, inf)",
    "train.nonfinite_factor": "(0, inf)",
    "train.ema_decay": "[0, 1)",
    "train.eval_every": "[0, inf)",
    "train.save_every": "[0, inf)",
    "train.early_stop_patience": "[0, inf)",
    "train.log_every": "[1, inf)",
    "report.samples": "[1, inf)",
}


def check_numbers(config: Mapping[str, Any]) -> None:
    """Checks every number of a config, or of some of its sections.

    Raises:
      ValueError: naming the first option that is out of its range, or is NaN or infinite.
    """
    for name, value in flatten(config).items():
        if name in RANGES and not _within(value, RANGES[name]):
            raise ValueError(f"{name}={value}; use {_in_words(RANGES[name])}")
        for number in value if isinstance(value, tuple | list) else (value,):
            if isinstance(number, numbers.Real) and not math.isfinite(number):
                raise ValueError(f"{name}={value}; use finite numbers")


def _within(value: float, interval: str) -> bool:
    """False for NaN, and for infinity too."""
    low, high = _ends(interval)
    above = value >= low if interval.startswith("[") else value > low
    below = value <= high if interval.endswith("]") else value < high
    return above and below


def _in_words(interval: str) -> str:
    low, high = _ends(interval)
    if high < math.inf:
        return f"a number in {interval}"
    return f"{low:g} or more" if interval.startswith("[") else f"a number above {low:g}"


def _ends(interval: str) -> tuple[float, float]:
    low, high = interval[1:-1].split(",")
    return float(low), float(high)
