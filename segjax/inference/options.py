"""How an image becomes what the network sees: whole, on the canvas or by windows, and views."""

import dataclasses
import math

WAYS = ("canvas", "whole", "sliding")
BLENDS = ("uniform", "linear", "gaussian")


@dataclasses.dataclass(frozen=True)
class InferenceOptions:
    """Options of `Predictor`.

    Attributes:
      way: "canvas": the image is fitted to the canvas of training (`data.image_size`) and the
        logits are resized back, which is what evaluation scores. "whole": the image at its own
        size. "sliding": windows of the image at its own size, their probabilities blended.
      window: (h, w) of "sliding"; None = the canvas.
      overlap: share of a window that the next one covers again, in [0, 1).
      blend: weight of a window's pixels: "uniform", "linear" (falls to the borders along both
        axes) or "gaussian" (standard deviation: an eighth of the window).
      scales: test-time augmentation: factors of the size that the network sees.
      flip: test-time augmentation: each scale once more, mirrored left-right.
      batch_size: images, or windows, that the devices compute at a time; rounded up to a multiple
        of their number.

    With several views (scales times flip) each view's logits are mirrored back, resized to the
    image, and made probabilities; the mean of those, every view counting the same, decides.

    Raises:
      ValueError: naming the option, what was found and what is allowed.
    """

    way: str = "canvas"
    window: tuple[int, int] | None = None
    overlap: float = 0.5
    blend: str = "gaussian"
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    batch_size: int = 4

    def __post_init__(self):
        if self.way not in WAYS:
            raise ValueError(f"way={self.way!r} is unknown; use {', '.join(WAYS)}")
        if self.blend not in BLENDS:
            raise ValueError(f"blend={self.blend!r} is unknown; use {', '.join(BLENDS)}")
        if self.window is not None:
            if self.way != "sliding":
                raise ValueError(f"window={self.window} with way={self.way!r}; use way='sliding'")
            window = tuple(self.window)
            if len(window) != 2 or any(n != int(n) or n < 1 for n in window):
                raise ValueError(f"window={self.window}; use (height, width), 1 or more each")
            object.__setattr__(self, "window", (int(window[0]), int(window[1])))
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap={self.overlap}; use a share from 0 to below 1, such as 0.5")
        scales = tuple(float(s) for s in self.scales)
        if not scales or not all(math.isfinite(s) and s > 0 for s in scales):
            raise ValueError(f"scales={self.scales}; use factors above 0, such as (0.75, 1, 1.25)")
        object.__setattr__(self, "scales", scales)
        if self.batch_size != int(self.batch_size) or self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}; use a whole number, 1 or more")

    @property
    def views(self) -> int:
        """How many times the network sees each image or window."""
        return len(self.scales) * (2 if self.flip else 1)
