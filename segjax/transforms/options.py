"""The options of random views, `config.augment`, and what they may be."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from segjax.ranges import check_type

COLOUR_MODELS = ("yiq", "hsv")
PADDINGS = ("around", "centre", "end")


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The random changes of a view, their ranges and their probabilities, in the order in which
    they are made. A change is drawn for each example by itself.

    Attributes:
      crop_size: (h, w) of the result.
      scale: (lowest, highest) zoom, drawn uniformly; 1 keeps the canvas's resolution.
      aspect: (lowest, highest) ratio r by which an image gets wider than it is high, drawn
        uniformly: the width is multiplied by sqrt(r), the height by 1 / sqrt(r), as hszhao/semseg's
        RandScale does; (1, 1) = off.
      antialias: whether shrinking smooths first, as PIL does; False = bilinear interpolation of
        four pixels at any scale, as OpenCV's.
      rotate: degrees about the image's centre, drawn from [-v, v]; 0 = off.
      rotate_probability: of a rotation.
      padding: where a scaled image lies that is smaller than the crop: around = at a random place;
        centre; end = at the top left, padded below and to the right. With centre and end a rotated
        image is cut to its own frame before it is padded.
      max_class_share: largest share of a crop's labelled pixels that one class may have; if it has
        more, another crop is drawn, 10 at most, and the last one is kept; 1 = off.
      flip: mirror left-right.
      flip_probability: of this mirroring.
      flip_vertical: probability of mirroring top-bottom.
      quarter_turns: probability of a turn by 90, 180 or 270 degrees, each as likely; 0.75 makes the
        four positions equally likely. A crop that is not square is drawn with its sides exchanged
        before a turn by 90 or 270 degrees, so the result has its size.
      blur: probability of a 5x5 Gaussian blur; 0 = off.
      brightness, contrast, saturation: factors drawn from [1 - v, 1 + v]; 0 = off.
      hue: rotation drawn from [-v, v] turns; 0 = off. Hue and saturation change RGB images only.
      brightness_probability, contrast_probability, saturation_probability, hue_probability: of each
        change.
      colour_model: "yiq": see `colours.jitter_colours`; "hsv": what mmsegmentation does, on 8 bits,
        see `colours.distort_colours`; brightness is then added, from [-v, v].
      noise: standard deviation of Gaussian noise, of images in [0, 1]; 0 = off.
      noise_probability: of noise.
      cutout: number of squares that show nothing, as `mix.cutout_mask` places them; 0 = off.
      cutout_size: side of the squares, as a share of the crop's shorter side.
      cutout_probability: of these squares, all together.
      cutout_labels: "kept" or "ignored" where nothing is shown.
      cutmix, classmix: probabilities, see `mix.mixed`; 0 = off.
    """

    crop_size: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    rotate: float = 0.0
    flip: bool = True
    max_class_share: float = 1.0
    blur: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    aspect: tuple[float, float] = (1.0, 1.0)
    antialias: bool = True
    rotate_probability: float = 1.0
    padding: str = "around"
    flip_probability: float = 0.5
    flip_vertical: float = 0.0
    quarter_turns: float = 0.0
    brightness_probability: float = 1.0
    contrast_probability: float = 1.0
    saturation_probability: float = 1.0
    hue_probability: float = 1.0
    colour_model: str = "yiq"
    noise: float = 0.0
    noise_probability: float = 1.0
    cutout: int = 0
    cutout_size: float = 0.25
    cutout_probability: float = 1.0
    cutout_labels: str = "kept"
    cutmix: float = 0.0
    classmix: float = 0.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            like = (1, 1) if field.name == "crop_size" else field.default
            check_type(f"augment.{field.name}", getattr(self, field.name), like)
        for name in ("scale", "aspect"):
            low, high = pair if len(pair := getattr(self, name)) == 2 else (math.nan, math.nan)
            if not 0 < low <= high < math.inf:
                raise ValueError(
                    f"augment.{name}={getattr(self, name)}; use (lowest, highest) with 0 < lowest "
                    "<= highest"
                )
        if len(self.crop_size) != 2 or min(self.crop_size) < 1:
            raise ValueError(f"augment.crop_size={self.crop_size}; use (height, width) above 0")
        # Written so that NaN, which compares as False, is refused.
        if not 0 <= self.rotate <= 180:
            raise ValueError(f"augment.rotate={self.rotate}; use degrees in [0, 180]")
        if not 0 < self.max_class_share <= 1:
            raise ValueError(
                f"augment.max_class_share={self.max_class_share}; use a share in (0, 1], 1 for off"
            )
        for name in _PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"augment.{name}={getattr(self, name)}; use a probability in [0, 1]"
                )
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"augment.{name}={getattr(self, name)}; use a number in [0, 1)")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"augment.hue={self.hue}; use a number of turns in [0, 0.5]")
        if not 0 <= self.noise <= 1:
            raise ValueError(f"augment.noise={self.noise}; use a standard deviation in [0, 1]")
        if self.cutout not in range(_MOST_SQUARES + 1):
            raise ValueError(
                f"augment.cutout={self.cutout}; use a number of squares from 0 to {_MOST_SQUARES}"
            )
        if not 0 < self.cutout_size <= 1:
            raise ValueError(
                f"augment.cutout_size={self.cutout_size}; use a share of the crop's shorter side "
                "in (0, 1]"
            )
        for name, known in (
            ("colour_model", COLOUR_MODELS),
            ("padding", PADDINGS),
            ("cutout_labels", ("kept", "ignored")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"augment.{name}={getattr(self, name)!r}; use {' or '.join(known)}"
                )

    @property
    def mixes(self) -> bool:
        """Whether an example's view takes pixels from other examples of its batch."""
        return self.cutmix > 0 or self.classmix > 0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Augmentation":
        """The augmentation of a run, from its `config.augment` and the canvas of `config.data`.

        Raises:
          ValueError: naming the option that is wrong.
        """
        options: dict[str, Any] = dict(config["augment"])
        crop_size = options.pop("crop_size")
        for name in ("scale", "aspect"):
            if isinstance(options.get(name), list):  # of JSON
                options[name] = tuple(options[name])
        crop_size = crop_size if any(crop_size) else config["data"]["image_size"]
        recipe = cls(crop_size=tuple(crop_size), **options)
        batch_size = config["train"]["batch_size"]
        if recipe.mixes and batch_size < 2:
            raise ValueError(
                f"augment.cutmix={recipe.cutmix} and augment.classmix={recipe.classmix} mix the "
                f"images of a batch, and train.batch_size={batch_size}; use 2 or more, or 0 for "
                "both"
            )
        return recipe


_MOST_SQUARES = 64

_PROBABILITIES = (
    "rotate_probability",
    "flip_probability",
    "flip_vertical",
    "quarter_turns",
    "blur",
    "brightness_probability",
    "contrast_probability",
    "saturation_probability",
    "hue_probability",
    "noise_probability",
    "cutout_probability",
    "cutmix",
    "classmix",
)
