"""From images in [0, 1] to what a network sees, in training, evaluation and prediction alike."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def normalize(
    image: Float[Array, "*shape c"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    local_contrast: int = 0,
    inside: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape c"]:
    """(image - mean) / std, per channel; or local contrast normalisation in its place.

    Args:
      image: in [0, 1].
      mean, std: one number per channel.
      local_contrast: side of its window; 0 = off.
      inside: what belongs to the image; the rest is 0 in the result and counts nowhere.
    """
    if local_contrast:
        # Of the colours as they are: other means or deviations per channel would tint what is grey.
        image = normalize_contrast(image, local_contrast, inside)
    else:
        image = (image - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)
    return image if inside is None else jnp.where(inside[..., None], image, 0)


# Divides by no less, so that the noise of a blank image is not blown up.
_LEAST = 1e-4


def normalize_contrast(
    image: Float[Array, "*n h w c"], side: int, inside: Bool[Array, "*n h w"] | None = None
) -> Float[Array, "*n h w c"]:
    """Local contrast normalisation: subtractive, then divisive, over all channels together.

    From each value the Gaussian-weighted mean of its window is taken away; what is left is divided
    by its own weighted root mean square in the window, or by that number's mean over the image
    where it is smaller (so that flat regions stay flat). At a border the weights of what is left
    of the window are rescaled to sum to 1.

    Args:
      image: any offset; the result does not depend on it, nor, but for blank images, on the scale.
      side: of the window in pixels, odd; the Gaussian's standard deviation is a quarter of it.
      inside: pixels that count, all by default; the result elsewhere means nothing.

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
    usual = jnp.sum(count * spread, (-2, -1), keepdims=True) / pixels
    return centred / jnp.maximum(jnp.maximum(spread, usual), _LEAST)[..., None]


def _gaussian(x: Float[Array, "*n h w"], side: int) -> Float[Array, "*n h w"]:
    """Gaussian-weighted sums over side x side windows, zeros beyond the border.

    As sums of shifted copies, rows first: one fused loop each, whatever the device, and where rows
    are shared between devices only a window's margin travels.
    """
    distance = np.arange(side) - (side - 1) / 2
    taps = np.exp(-0.5 * np.square(distance / (side / 4)))
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in (x.ndim - 2, x.ndim - 1):
        pads = [(side // 2, side // 2) if a == axis else (0, 0) for a in range(x.ndim)]
        padded, size = jnp.pad(x, pads), x.shape[axis]
        x = sum(
            tap * jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k, tap in enumerate(taps)
        )
    return x


def check_window(side: int, image_size: tuple[int, int]) -> None:
    """Raises ValueError for a `data.local_contrast` that is no window of the canvas."""
    if side and (side % 2 != 1 or not 3 <= side <= min(image_size)):
        raise ValueError(
            f"data.local_contrast={side}; use 0 for none, or the odd side of a window from 3 to "
            f"{min(image_size)} (data.image_size={tuple(image_size)}); Jarrett et al. have 9"
        )
