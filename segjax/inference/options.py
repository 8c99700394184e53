"""The options of inference: how an image becomes the network's input, and which views of it."""

import dataclasses

from segjax.inference.crf import DenseCRF

INFERENCE = ("resize", "whole", "slide")
BLENDS = ("uniform", "linear", "gaussian")
_LARGEST = 1 << 15  # side of a window; batch


@dataclasses.dataclass(frozen=True)
class InferenceOptions:
    """Options of `Predictor`.

    Attributes:
      inference: "resize": the image is resized to fit the canvas of training (`data.image_size`)
        and the logits are resized back; this is what evaluation scores. "whole": the network sees
        the image at its own size. "slide": the network sees windows of the image at its own size,
        whose probabilities are blended.
      window: (h, w) for "slide"; None = the canvas.
      overlap: share of a window that the next one covers again, in [0, 1).
      blend: weight of a window's pixels: "uniform", "linear" (falls to the borders along both
        axes) or "gaussian" (standard deviation: an eighth of the window).
      scales: test-time augmentation: factors on the size that the network sees.
      flip: test-time augmentation: each scale once more, mirrored left-right.
      batch_size: images, or windows, that the devices compute at a time; rounded up to a multiple
        of the number of devices.
      crf: the dense CRF that refines the probabilities, at the image's size; None = none.

    With several views (scales times flip) the logits of each view are mirrored back, resized to
    the image, and turned into probabilities; their unweighted mean decides.

    Raises:
      ValueError: naming the option, the value and what is allowed.
    """

    inference: str = "resize"
    window: tuple[int, int] | None = None
    overlap: float = 0.5
    blend: str = "gaussian"
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    batch_size: int = 4
    crf: DenseCRF | None = None

    def __post_init__(self):
        if self.inference not in INFERENCE:
            raise ValueError(f"inference={self.inference!r} is unknown; use {', '.join(INFERENCE)}")
        if self.blend not in BLENDS:
            raise ValueError(f"blend={self.blend!r} is unknown; use {', '.join(BLENDS)}")
        if self.window is not None:
            if self.inference != "slide":
                raise ValueError(
                    f"window={self.window} with inference={self.inference!r}; use inference='slide'"
                )
            window = tuple(self.window)
            if len(window) != 2 or any(n != int(n) or not 1 <= n <= _LARGEST for n in window):
                raise ValueError(
                    f"window={self.window}; use (height, width), 1 or more each, {_LARGEST} at most"
                )
            object.__setattr__(self, "window", (int(window[0]), int(window[1])))
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap={self.overlap}; use a share from 0 to below 1, such as 0.5")
        for name in ("overlap", "blend"):
            value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            if self.inference != "slide" and value != default:
                raise ValueError(
                    f"{name}={value} with inference={self.inference!r}; use inference='slide'"
                )
        scales = tuple(float(s) for s in self.scales)
        if not scales or not all(0.01 <= s <= 100 for s in scales):
            raise ValueError(
                f"scales={self.scales}; use factors above 0, such as (0.75, 1, 1.25), from 0.01 to "
                "100"
            )
        object.__setattr__(self, "scales", scales)
        if self.batch_size != int(self.batch_size) or not (1 <= self.batch_size <= _LARGEST):
            raise ValueError(
                f"batch_size={self.batch_size}; use a whole number, 1 or more, {_LARGEST} at most"
            )

    @property
    def augmented(self) -> bool:
        """Whether the network sees anything but each image, or window, once as it is."""
        return self.flip or self.scales != (1.0,)

    @property
    def views(self) -> int:
        """How many times the network sees each image or window."""
        return len(self.scales) * (2 if self.flip else 1)
