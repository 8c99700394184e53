"""Normalisation of images: from [0, 1] to the network's input, wherever a network runs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Per-channel standardisation, or local contrast normalisation in its place.

    Attributes:
      mean, std: one number per channel, of images in [0, 1].
      local_contrast: side of the window of `normalize_contrast`; 0 = standardise by mean and std.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    local_contrast: int = 0

    @classmethod
    def from_config(cls, data: Mapping[str, Any]) -> "Normalization":
        """The normalisation of a run, from its `config.data`."""
        # Runs from before the option have no local_contrast.
        return cls(tuple(data["mean"]), tuple(data["std"]), data.get("local_contrast", 0))

    def __call__(
        self, image: Float[Array, "*n h w c"], inside: Bool[Array, "*n h w"] | None = None
    ) -> Float[Array, "*n h w c"]:
        """Normalises images in [0, 1].

        Args:
          image: one image or a batch.
          inside: the pixels that belong to the image; the others do not count and become 0.
        """
        if self.local_contrast:
            # Without mean and std: a mean or deviation per channel would tint grey regions.
            image = normalize_contrast(image, self.local_contrast, inside)
        else:
            mean, std = jnp.asarray(self.mean, jnp.float32), jnp.asarray(self.std, jnp.float32)
            image = (image - mean) / std
        return image if inside is None else jnp.where(inside[..., None], image, 0)


# The smallest divisor, so that the noise of a blank image is not amplified.
_SMALLEST_SPREAD = 1e-4


def normalize_contrast(
    image: Float[Array, "*n h w c"], side: int, inside: Bool[Array, "*n h w"] | None = None
) -> Float[Array, "*n h w c"]:
    """Local contrast normalisation: subtractive, then divisive, over all channels together.

    Each value loses the Gaussian-weighted mean of its window. The difference is divided by its own
    weighted root mean square in the window, or by the mean of that number over the image where
    that is larger, so that flat regions stay flat. At a border, the weights of the pixels inside
    are rescaled to sum to 1.

    Args:
      image: any offset and scale; the result depends on neither, blank images apart.
      side: of the window in pixels, odd; the Gaussian's standard deviation is a quarter of it.
      inside: the pixels that count, all by default; the result elsewhere is undefined.

    Reference: Jarrett et al., "What is the Best Multi-Stage Architecture for Object Recognition?",
    ICCV 2009, section 2 (9x9 windows); the input of SegNet (PAMI 2017, section 3.3).
    """
    count = jnp.ones(image.shape[:-1]) if inside is None else inside.astype(jnp.float32)
    weight = jnp.maximum(_gaussian(count, side), jnp.finfo(jnp.float32).tiny)

    def window_mean(x):
        return _gaussian(count * jnp.mean(x, -1), side) / weight

    centred = image - window_mean(image)[..., None]
    spread = jnp.sqrt(window_mean(jnp.square(centred)))
    pixels = jnp.maximum(jnp.sum(count, (-2, -1), keepdims=True), 1)
    mean_spread = jnp.sum(count * spread, (-2, -1), keepdims=True) / pixels
    divisor = jnp.maximum(jnp.maximum(spread, mean_spread), _SMALLEST_SPREAD)
    return centred / divisor[..., None]


def _gaussian(x: Float[Array, "*n h w"], side: int) -> Float[Array, "*n h w"]:
    """Gaussian-weighted sums over side x side windows, with zeros beyond the border.

    Computed as sums of shifted copies, rows first: one fused loop per axis on every device, and
    where devices share the rows of an image they exchange the window's margin only.
    """
    distance = np.arange(side) - (side - 1) / 2
    taps = np.exp(-0.5 * np.square(distance / (side / 4)))
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in (x.ndim - 2, x.ndim - 1):
        pads = [(side // 2, side // 2) if a == axis else (0, 0) for a in range(x.ndim)]
        padded, size = jnp.pad(x, pads), x.shape[axis]
        shifted = [jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k in range(side)]
        x = jnp.asarray(sum(tap * part for tap, part in zip(taps, shifted, strict=True)))
    return x


def check_window(side: int, image_size: tuple[int, int]) -> None:
    """Raises ValueError if `data.local_contrast` is neither 0 nor a window of the canvas."""
    if side and (side % 2 != 1 or not 3 <= side <= min(image_size)):
        raise ValueError(
            f"data.local_contrast={side}; use 0 for none, or the odd side of a window from 3 to "
            f"{min(image_size)} (data.image_size={tuple(image_size)}); Jarrett et al. use 9"
        )
