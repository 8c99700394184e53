"""The options that data are judged by."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from segjax.data.parallel import TIMEOUT_S

# The meaning of data.mean=() and data.std=().
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options that data are judged by; None where they are not known."""

    train_split: str = "train"  # the split that is trained on
    batch_size: int = 1  # of training
    image_size: tuple[int, int] | None = None  # (height, width) of the canvas
    mean: Sequence[float] | None = None  # of the normalisation of images
    std: Sequence[float] | None = None
    config: Mapping[str, Any] | None = None  # complete

    @property
    def timeout_s(self) -> float:
        """The longest wait for a file."""
        return self.config["data"]["timeout_s"] if self.config else TIMEOUT_S

    @property
    def skips(self) -> bool:
        """Whether training leaves out samples that it cannot read."""
        return bool(self.config) and self.config["data"]["on_unreadable"] == "skip"

    @property
    def mends_masks(self) -> bool:
        """Whether values that compression has changed are read all the same."""
        data = self.config["data"] if self.config else {}
        return bool(data.get("mask_threshold") or data.get("color_distance"))


def settings_of(config: Mapping[str, Any]) -> Settings:
    """The settings of a complete config (see configs/base.py)."""
    data = config["data"]
    # Weights of init_from bring the numbers that they were trained with.
    default = (None, None) if config["init_from"] or data["channels"] != 3 else _IMAGENET
    return Settings(
        data["train_split"],
        config["train"]["batch_size"],
        tuple(data["image_size"]),
        tuple(data["mean"]) or default[0],
        tuple(data["std"]) or default[1],
        config,
    )
