"""The host state of a run: the best score, early stopping, reduce-on-plateau.

Plain Python, saved as JSON with every checkpoint.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass
class Patience:
    """Counts evaluations without an improvement of more than `min_delta`, as Keras's callbacks do.

    NaN is no improvement.
    """

    min_delta: float = 0.0
    best: float = -1.0
    waited: int = 0

    def update(self, score: float) -> int:
        """Takes a score; returns the number of evaluations since the best one."""
        if score > self.best + self.min_delta:
            self.best, self.waited = score, 0
        else:
            self.waited += 1
        return self.waited


@dataclasses.dataclass
class RunState:
    """Host state of a run.

    Attributes:
      best_miou, best_step: the best evaluation so far (-1 before the first).
      stopping, plateau: the two counters.
      lr_scale: factor on the learning rate; reduce-on-plateau lowers it.
      evaluated: the step of the last evaluation (0 before the first).
      stopped: why the run ended before its last step, or "".
      unreadable: indices of the training samples that could not be read, and were skipped.
      skipped_steps: steps that changed nothing because their loss was not finite.
      seconds: training time until the last save, over all resumes.
    """

    best_miou: float = -1.0
    best_step: int = -1
    stopping: Patience = dataclasses.field(default_factory=Patience)
    plateau: Patience = dataclasses.field(default_factory=lambda: Patience(min_delta=1e-4))
    lr_scale: float = 1.0
    evaluated: int = 0
    stopped: str = ""
    skipped_steps: int = 0
    unreadable: list[int] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def update(
        self, step: int, miou: float, train_config, optim_config, *, best_lost: bool = False
    ) -> None:
        """Takes the val mIoU of an evaluation, perhaps NaN, which is never the best.

        `optim.plateau_patience` evaluations without improvement multiply the learning rate by
        `optim.plateau_factor`, down to `optim.plateau_min_rate`; `train.early_stop_patience` of
        them set `stopped`. A patience of 0 switches either off.

        Args:
          best_lost: whether the best checkpoint so far is damaged or gone. This one is the best
            then; patience still counts from the best score.
        """
        self.evaluated = step
        # The later of equals, as in checkpoints/best.
        if miou >= self.best_miou or (best_lost and not math.isnan(miou)):
            self.best_miou, self.best_step = miou, step
        patience = optim_config["plateau_patience"]
        if patience and self.plateau.update(miou) >= patience:
            lowest = optim_config["plateau_min_rate"] / optim_config["learning_rate"]
            # A floor above the current rate never raises it.
            lowered = max(self.lr_scale * optim_config["plateau_factor"], lowest)
            self.lr_scale = min(self.lr_scale, lowered)
            self.plateau.waited = 0
        patience = train_config["early_stop_patience"]
        if patience and self.stopping.update(miou) >= patience:
            self.stopped = f"no better val mIoU in {patience} evaluations"

    def to_json(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict) -> "RunState":
        """The run state that `to_json` has given.

        Raises:
          ValueError: if the values are another's.
        """
        try:
            nested = {k: Patience(**values[k]) for k in ("stopping", "plateau")}
            state = cls(**{**values, **nested})
        except (TypeError, KeyError) as error:
            raise ValueError(f"its run state is none: {error}") from error
        for part in (state, state.stopping, state.plateau):
            for field in dataclasses.fields(part):
                value, default = getattr(part, field.name), getattr(type(part)(), field.name)
                if not _is_like(value, default):
                    raise ValueError(f"its run state has {field.name}={value!r}")
        return state


def steps_of(train: Mapping[str, Any], images: int) -> int:
    """The steps of a run of `config.train` on so many training images."""
    return train["steps"] or math.ceil(train["epochs"] * images / train["batch_size"])


def _is_like(value: Any, default: Any) -> bool:
    """Whether a value is of the type of a default; all numbers are finite."""
    if isinstance(default, list):
        return isinstance(value, list) and all(_is_like(v, 0) for v in value)
    if isinstance(default, float):
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is type(default)
