"""Device augmentation: pure functions of (key, image, label), vmapped in the training step.

Scale, crop and flip are one resampling: a random window of the scaled image is read directly from
the original by two small matrix products (image) and two index lookups (label), so that no scaled
image is ever stored and every shape is static.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped, UInt8

from segjax.data.classes import IGNORE


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What to draw at random.

    Attributes:
      crop_size: (h, w) of the result.
      scale: (lowest, highest) zoom, drawn uniformly; 1 keeps the canvas's resolution.
      flip: mirror left-right, half of the time.
      brightness, contrast, saturation: factors drawn from [1 - v, 1 + v]; 0 = off.
      hue: rotation drawn from [-v, v] turns; 0 = off.
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

    def __post_init__(self):
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"augment.scale={self.scale}; use (lowest, highest) with 0 < lowest")
        if min(self.crop_size) < 1:
            raise ValueError(f"augment.crop_size={self.crop_size}; use (height, width) above 0")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"augment.{name}={getattr(self, name)}; use a number in [0, 1)")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"augment.hue={self.hue}; use a number of turns in [0, 0.5]")


def augment(
    key: PRNGKeyArray,
    image: UInt8[Array, "H W 3"],
    label: Shaped[Array, "H W"],
    config: Augmentation,
    fill: Float[Array, "3"] | float = 0.0,
) -> tuple[Float[Array, "h w 3"], Int[Array, "h w"]]:
    """One random view of an image and its label map.

    Args:
      key: everything random comes from it.
      image: 0..255.
      label: ids; 255 = ignore.
      config: what to draw.
      fill: colour in [0, 1] of what lies outside the image (its label is 255).

    Returns:
      The image in [0, 1] (jitter may leave it) and int32 labels, both of `config.crop_size`.
    """
    geometry_key, colour_key = jax.random.split(key)
    scale_key, y_key, x_key, flip_key = jax.random.split(geometry_key, 4)
    scale = jax.random.uniform(scale_key, (), minval=config.scale[0], maxval=config.scale[1])
    y = _window_positions(y_key, image.shape[0], config.crop_size[0], scale)
    x = _window_positions(x_key, image.shape[1], config.crop_size[1], scale)
    if config.flip:
        x = jnp.where(jax.random.bernoulli(flip_key), x[::-1], x)
    rows, row_inside = _sampling_matrix(y, image.shape[0], scale)
    columns, column_inside = _sampling_matrix(x, image.shape[1], scale)

    pixels = image.astype(jnp.float32) / 255
    pixels = jnp.einsum("hH,HWc->hWc", rows, pixels, precision="highest")
    pixels = jnp.einsum("wW,hWc->hwc", columns, pixels, precision="highest")
    pixels = jitter_colours(colour_key, pixels, config)
    inside = row_inside[:, None] & column_inside
    pixels = jnp.where(inside[..., None], pixels, fill)

    nearest_row = jnp.clip(jnp.floor(y + 0.5), 0, image.shape[0] - 1).astype(jnp.int32)
    nearest_column = jnp.clip(jnp.floor(x + 0.5), 0, image.shape[1] - 1).astype(jnp.int32)
    labels = label.astype(jnp.int32)[nearest_row][:, nearest_column]
    return pixels, jnp.where(inside, labels, IGNORE)


def _window_positions(key, size, out, scale):
    """Positions in the original, in pixel centres, of a random window's `out` cells.

    A scaled side longer than the window leaves room to choose from; a shorter one is put at a
    random place inside the window.
    """
    slack = size * scale - out
    offset = jax.random.uniform(key, ()) * slack
    return (jnp.arange(out) + offset + 0.5) / scale - 0.5


def _sampling_matrix(position, size, scale):
    """[out, size] linear interpolation weights (a wider filter when shrinking, so that thin things
    fade instead of flickering), and which positions lie inside the image."""
    inside = (position >= -0.5) & (position < size - 0.5)
    distance = jnp.abs(jnp.clip(position, 0, size - 1)[:, None] - jnp.arange(size))
    weights = jnp.maximum(0.0, 1 - distance * jnp.minimum(scale, 1.0))
    return weights / weights.sum(1, keepdims=True), inside


# RGB to luma and two colour differences (ITU-R BT.601, analogue YIQ); hue turns the latter two.
_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


def jitter_colours(
    key: PRNGKeyArray, image: Float[Array, "h w 3"], config: Augmentation
) -> Float[Array, "h w 3"]:
    """Random brightness, contrast (about the mean luma), saturation and hue, in that order."""
    brightness_key, contrast_key, saturation_key, hue_key = jax.random.split(key, 4)

    def factor(key, amount):
        return jax.random.uniform(key, (), minval=1 - amount, maxval=1 + amount)

    if config.brightness:
        image = image * factor(brightness_key, config.brightness)
    if config.contrast:
        mean = jnp.mean(image @ jnp.array(_YIQ[0]))
        image = mean + (image - mean) * factor(contrast_key, config.contrast)
    if config.saturation or config.hue:
        to_yiq = jnp.array(_YIQ)
        turn = jax.random.uniform(hue_key, (), minval=-config.hue, maxval=config.hue)
        cos, sin = jnp.cos(2 * jnp.pi * turn), jnp.sin(2 * jnp.pi * turn)
        chroma = factor(saturation_key, config.saturation)
        change = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        change = change.at[1:, 1:].set(chroma * jnp.array([[cos, -sin], [sin, cos]]))
        image = image @ (jnp.linalg.inv(to_yiq) @ change @ to_yiq).T
    return image


def normalize(
    image: Float[Array, "*shape 3"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "*shape 3"]:
    """(image - mean) / std, per channel, on images in [0, 1]."""
    return (image - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)
