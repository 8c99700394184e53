"""The numbers that each option may be."""

import math
import numbers
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

# An option that is in no table of its own place (Augmentation, a model) is here: as an interval,
# "[" and "]" with the number beside it, "(" and ")" without; "whole" for whole numbers; before
# them the length of a tuple, or "any".
RANGES = {
    "seed": "whole [0, 4294967295]",
    "data.image_size": "2 whole [0, 32768]",
    "data.ignore_ids": "any whole (-inf, inf)",
    "data.local_contrast": "whole [0, inf)",
    "data.mean": "any (-inf, inf)",
    "data.std": "any (0, inf)",
    "data.repeat_threshold": "(0, 1]",
    "augment.crop_size": "2 whole [0, 32768]",
    "parallel.data": "whole [0, inf)",
    "parallel.space": "whole [1, inf)",
    "data.num_classes": "whole [0, inf)",
    "data.channels": "whole [1, 1024]",
    "data.mask_threshold": "[0, inf)",
    "data.val_share": "[0, 1)",
    "data.test_share": "[0, 1)",
    "data.color_distance": "whole [0, 255]",
    "data.train_images": "whole [1, 100000000]",
    "data.eval_images": "whole [1, 100000000]",
    "data.workers": "whole [0, 1024]",
    "data.timeout_s": "(0, 1000000]",
    "data.cache_mb": "[0, inf)",
    "model.threshold": "any (0, 1)",
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
    "optim.step_at": "any (-inf, inf)",
    "optim.step_factor": "(0, 1)",
    "optim.end_factor": "[0, 1]",
    "optim.eta_min": "[0, inf)",
    "optim.pct_start": "(0, 1)",
    "optim.div_factor": "[1, inf)",
    "optim.final_div_factor": "[1, inf)",
    "optim.cycles": "whole [1, 10000]",
    "optim.cycle_mult": "[1, 100]",
    "optim.warmup_steps": "whole [0, inf)",
    "optim.warmup_start_factor": "[0, 1]",
    "optim.plateau_patience": "whole [0, inf)",
    "optim.plateau_factor": "(0, 1)",
    "optim.plateau_min_rate": "[0, inf)",
    "train.steps": "whole [0, inf)",
    "train.epochs": "[0, 1000000]",
    "train.batch_size": "whole [1, inf)",
    "train.eval_batch_size": "whole [0, inf)",
    "train.accumulate": "whole [1, inf)",
    "train.nonfinite_factor": "(0, inf)",
    "train.ema_decay": "[0, 1)",
    "train.eval_every": "whole [0, inf)",
    "train.save_every": "whole [0, inf)",
    "train.early_stop_patience": "whole [0, inf)",
    "train.log_every": "whole [1, inf)",
    "report.samples": "whole [1, 1000]",
}


# What arrays of 32 bits hold.
_LARGEST_WHOLE, _LARGEST = 2**31 - 1, 3.4e38


class _Range(NamedTuple):
    """A row of RANGES. `length` is "" of one number."""

    length: str
    whole: bool
    interval: str

    @classmethod
    def of(cls, name: str) -> "_Range":
        parts = re.fullmatch(r"(?:(\d|any) )?(whole )?(\S.*)", RANGES[name])
        assert parts, f"RANGES[{name!r}]"
        return cls(parts[1] or "", bool(parts[2]), parts[3])

    @property
    def ends(self) -> tuple[float, float]:
        low, high = map(float, self.interval[1:-1].split(","))
        return low, high

    def holds(self, value: Any) -> bool:
        """Whether a value is such a number, or a tuple of them."""
        if not self.length:
            return self._has(value)
        some = isinstance(value, list | tuple)
        return some and self.length in ("any", str(len(value))) and all(map(self._has, value))

    def _has(self, value: Any) -> bool:
        """False for NaN and for infinity too, and for True and False."""
        if not _is_number(value, self.whole):
            return False
        low, high = self.ends
        above = value >= low if self.interval.startswith("[") else value > low
        below = value <= high if self.interval.endswith("]") else value < high
        return above and below and (high < math.inf or _fits(value))

    def __str__(self) -> str:
        """What to use, in words."""
        low, high = self.ends
        kind = "whole number" if self.whole else "number"
        if self.length:
            kind = f"{self.length} {kind}s" if self.length != "any" else f"{kind}s"
        else:
            kind = f"a {kind}"
        if high < math.inf:
            return f"{kind} in {self.interval}"
        if self.interval.startswith("(") or self.length:
            return f"{kind} above {low:g}" if low > -math.inf else f"finite {kind}"
        return f"{low:g} or more" + f", a whole number up to {_LARGEST_WHOLE}" * self.whole


def check_numbers(options: Mapping[str, Any]) -> None:
    """Checks the numbers of some or all options.

    Args:
      options: as `config.flatten` gives them.

    Raises:
      ValueError: naming the first option that is out of its range, is no number, or one that no
        array holds: NaN, infinite, or too large.
    """
    for name, value in options.items():
        if name in RANGES and not _Range.of(name).holds(value):
            raise ValueError(f"{name}={value}; use {_Range.of(name)}")
        for number in _numbers(value) if name not in RANGES else ():
            if not math.isfinite(number):
                raise ValueError(f"{name}={value}; use finite numbers")
            if not _fits(number):
                raise ValueError(f"{name}={value}; use numbers up to {_LARGEST_WHOLE}")


def check_type(name: str, value: Any, default: Any) -> None:
    """Checks that a value is of the type of an option's default; int counts as float.

    A tuple's entries are of the types of the default's, and any without these.

    Raises:
      ValueError: naming the option.
    """
    kind = tuple if isinstance(default, list) else type(default)
    if kind in (int, float):
        right = _is_number(value, whole=kind is int)
    elif kind is tuple:
        right = isinstance(value, list | tuple)
        for entry in value if right and default else ():
            check_type(name, entry, default[0])
    else:
        right = kind not in (bool, str) or isinstance(value, kind)
    if not right:
        words = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
        raise ValueError(f"{name}={value!r}; use {words.get(kind, 'a tuple')}, such as {default!r}")


def _is_number(value: Any, whole: bool) -> bool:
    kind = numbers.Integral if whole else numbers.Real
    return isinstance(value, kind) and not isinstance(value, bool)


def _fits(number: float) -> bool:
    """Whether arrays of 32 bits hold the number."""
    return abs(number) <= (_LARGEST_WHOLE if isinstance(number, numbers.Integral) else _LARGEST)


def _numbers(value: Any) -> Iterable[Any]:
    if isinstance(value, tuple | list):
        for entry in value:
            yield from _numbers(entry)
    elif isinstance(value, numbers.Real):
        yield value
