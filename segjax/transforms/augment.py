"""Augmentation on the device: pure functions of (key, image, label), vmapped in the training step.

Scale, rotation, crop and flip are one resampling: a random window of the scaled image is read
directly from the original, so that no scaled image is stored and every shape is static. Without
rotation the image takes two small matrix products and the labels two index lookups; with rotation
they take four lookups and one. Labels are looked up, never blended.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped, UInt8

from segjax.data.classes import IGNORE

CROPS_TRIED = 10  # for max_class_share; mmsegmentation tries as many


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The random changes of a view, and their ranges.

    Attributes:
      crop_size: (h, w) of the result.
      scale: (lowest, highest) zoom, drawn uniformly; 1 keeps the canvas's resolution.
      rotate: degrees about the image's centre, drawn from [-v, v]; 0 = off.
      flip: mirror left-right, half of the time.
      max_class_share: largest share of a crop's labelled pixels that one class may have; if it has
        more, another crop is drawn, 10 at most, and the last one is kept; 1 = off.
      blur: probability of a 5x5 Gaussian blur; 0 = off.
      brightness, contrast, saturation: factors drawn from [1 - v, 1 + v]; 0 = off.
      hue: rotation drawn from [-v, v] turns; 0 = off. Hue and saturation change RGB images only.
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
        if not 0 <= self.rotate <= 180:
            raise ValueError(f"augment.rotate={self.rotate}; use degrees in [0, 180]")
        if not 0 < self.max_class_share <= 1:
            raise ValueError(
                f"augment.max_class_share={self.max_class_share}; use a share in (0, 1], 1 for off"
            )
        if not 0 <= self.blur <= 1:
            raise ValueError(f"augment.blur={self.blur}; use a probability in [0, 1]")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"augment.{name}={getattr(self, name)}; use a number in [0, 1)")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"augment.hue={self.hue}; use a number of turns in [0, 0.5]")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Augmentation":
        """The augmentation of a run, from its `config.augment` and the canvas of `config.data`.

        Raises:
          ValueError: naming the option that is wrong.
        """
        options: dict[str, Any] = dict(config["augment"])
        crop_size = options.pop("crop_size")
        options["scale"] = tuple(options["scale"])
        crop_size = crop_size if any(crop_size) else config["data"]["image_size"]
        return cls(crop_size=tuple(crop_size), **options)


def augment(
    key: PRNGKeyArray,
    image: UInt8[Array, "H W c"],
    label: Shaped[Array, "H W"],
    config: Augmentation,
) -> tuple[Float[Array, "h w c"], Int[Array, "h w"], Bool[Array, "h w"]]:
    """One random view of an image and its label map.

    Args:
      key: all randomness comes from it.
      image: 0..255.
      label: ids; 255 = ignore.
      config: the changes to draw.

    Returns:
      The image in [0, 1] (colour jitter may go beyond), int32 labels, and the mask of the pixels
      inside the original image, each of `config.crop_size`. Outside, labels are 255 and the image
      is undefined; the caller fills it.
    """
    geometry_key, colour_key = jax.random.split(key)
    scale_key, y_key, x_key, flip_key, angle_key = jax.random.split(geometry_key, 5)
    scale = jax.random.uniform(scale_key, (), minval=config.scale[0], maxval=config.scale[1])
    mirrored = jax.random.bernoulli(flip_key) if config.flip else None
    angle = None
    if config.rotate:
        limit = jnp.deg2rad(config.rotate)
        angle = jax.random.uniform(angle_key, (), minval=-limit, maxval=limit)

    def window(y_key, x_key):
        y = _window_positions(y_key, image.shape[0], config.crop_size[0], scale)
        x = _window_positions(x_key, image.shape[1], config.crop_size[1], scale)
        return y, x if mirrored is None else jnp.where(mirrored, x[::-1], x)

    if config.max_class_share < 1:
        y_key, x_key = _first_varied(window, label, angle, config.max_class_share, y_key)
    y, x = window(y_key, x_key)
    pixels = jnp.asarray(image, jnp.float32) / 255
    pixels = (
        _resample(pixels, y, x, scale)
        if angle is None
        else _resample_rotated(pixels, y, x, scale, angle, shrinks=config.scale[0] < 1)
    )
    if config.blur:
        blur_key = jax.random.split(colour_key, 5)[4]
        blurred = jax.random.bernoulli(blur_key, config.blur)
        pixels = jnp.where(blurred, blur(pixels), pixels)
    labels, inside = _look_up(label, y, x, angle)
    return jitter_colours(colour_key, pixels, config), labels, inside


def _window_positions(key, size, out, scale):
    """Positions in the original, in pixel centres, of the `out` cells of a random window.

    A scaled side that is longer than the window is cropped at random; a shorter one lies at a
    random place inside the window.
    """
    slack = size * scale - out
    offset = jax.random.uniform(key, ()) * slack
    return (jnp.arange(out) + offset + 0.5) / scale - 0.5


def _first_varied(window, label, angle, share, key):
    """The keys of the first window that has labels and in which no class has more than `share` of
    the labelled pixels; else of the last window tried."""
    keys = jax.vmap(jax.random.split)(jax.random.split(key, CROPS_TRIED))

    def is_varied(pair):
        y, x = window(*pair)
        labels, _ = _look_up(label, y, x, angle)
        counts = jnp.bincount(labels.reshape(-1), length=IGNORE + 1)[:IGNORE]
        return (jnp.max(counts) <= share * jnp.sum(counts)) & (jnp.sum(counts) > 0)

    tried, _ = jax.lax.while_loop(
        lambda state: (state[0] < CROPS_TRIED) & ~state[1],
        lambda state: (state[0] + 1, is_varied(keys[state[0]])),
        (0, False),
    )
    return keys[tried - 1]


def _rotated(y, x, shape, angle):
    """The window's positions, [h, w] each, rotated about the centre of the image."""
    down, right = (jnp.asarray(n - 1, jnp.float32) / 2 for n in shape)
    y, x = y[:, None] - down, x[None, :] - right
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return cos * y - sin * x + down, sin * y + cos * x + right


def _is_inside(position, size):
    return (position >= -0.5) & (position < size - 0.5)


def _nearest(position, size):
    return jnp.clip(jnp.floor(position + 0.5), 0, size - 1).astype(jnp.int32)


def _look_up(label, y, x, angle):
    """The label nearest to each position, 255 outside of the image, and the mask of the inside."""
    height, width = label.shape
    label = jnp.asarray(label, jnp.int32)
    if angle is None:
        inside = _is_inside(y, height)[:, None] & _is_inside(x, width)
        labels = label[_nearest(y, height)][:, _nearest(x, width)]
    else:
        y, x = _rotated(y, x, label.shape, angle)
        inside = _is_inside(y, height) & _is_inside(x, width)
        labels = label[_nearest(y, height), _nearest(x, width)]
    return jnp.where(inside, labels, IGNORE), inside


def _resample(pixels, y, x, scale):
    """The image at rows y and columns x, interpolated linearly."""
    rows = _sampling_matrix(y, pixels.shape[0], scale)
    columns = _sampling_matrix(x, pixels.shape[1], scale)
    pixels = jnp.einsum("hH,HWc->hWc", rows, pixels, precision="highest")
    return jnp.einsum("wW,hWc->hwc", columns, pixels, precision="highest")


def _resample_rotated(pixels, y, x, scale, angle, *, shrinks):
    """The image at the window's rotated positions: bilinear, after a smoothing that depends on the
    scale (none at 1 and above)."""
    height, width, _ = pixels.shape
    if shrinks:
        pixels = _resample(pixels, jnp.arange(height), jnp.arange(width), scale)
    y, x = _rotated(y, x, (height, width), angle)
    y, x = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)
    top, left = jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32)
    bottom, right = jnp.minimum(top + 1, height - 1), jnp.minimum(left + 1, width - 1)
    down, across = (y - top)[..., None], (x - left)[..., None]
    upper = pixels[top, left] * (1 - across) + pixels[top, right] * across
    lower = pixels[bottom, left] * (1 - across) + pixels[bottom, right] * across
    return upper * (1 - down) + lower * down


def _sampling_matrix(position, size, scale):
    """[out, size] weights of linear interpolation, with a wider filter when shrinking: thin objects
    fade instead of flickering."""
    distance = jnp.abs(jnp.clip(position, 0, size - 1)[:, None] - jnp.arange(size))
    weights = jnp.maximum(0.0, 1 - distance * jnp.minimum(scale, 1.0))
    return weights / weights.sum(1, keepdims=True)


# OpenCV's getGaussianKernel(5, 0): up to 7 taps it takes constants instead of computing exp.
_BLUR = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def blur(image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """5x5 Gaussian blur, mirrored at the border: OpenCV's GaussianBlur(image, (5, 5), 0)."""
    for axis in (0, 1):
        pads = [(2, 2) if a == axis else (0, 0) for a in range(3)]
        padded, size = jnp.pad(image, pads, mode="reflect"), image.shape[axis]
        shifted = [jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k in range(len(_BLUR))]
        image = jnp.asarray(sum(tap * x for tap, x in zip(_BLUR, shifted, strict=True)))
    return image


# RGB to luma and two colour differences (ITU-R BT.601, analogue YIQ); hue rotates the differences.
_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))
# Inverted on the host: on a GPU jnp.linalg.inv makes three calls of cuSOLVER and cuBLAS per image.
_TO_RGB = np.linalg.inv(np.array(_YIQ)).astype(np.float32)


def jitter_colours(
    key: PRNGKeyArray, image: Float[Array, "h w c"], config: Augmentation
) -> Float[Array, "h w c"]:
    """Random brightness, contrast (about the mean luma), saturation and hue, in that order.

    The luma of images with another number of channels than 3 is the mean of their channels;
    saturation and hue do not change them.
    """
    brightness_key, contrast_key, saturation_key, hue_key = jax.random.split(key, 4)

    def factor(key, amount):
        return jax.random.uniform(key, (), minval=1 - amount, maxval=1 + amount)

    if config.brightness:
        image = image * factor(brightness_key, config.brightness)
    if config.contrast:
        mean = jnp.mean(image @ jnp.array(_YIQ[0]) if image.shape[-1] == 3 else image)
        image = mean + (image - mean) * factor(contrast_key, config.contrast)
    if (config.saturation or config.hue) and image.shape[-1] == 3:
        to_yiq = jnp.array(_YIQ)
        turn = jax.random.uniform(hue_key, (), minval=-config.hue, maxval=config.hue)
        cos, sin = jnp.cos(2 * jnp.pi * turn), jnp.sin(2 * jnp.pi * turn)
        chroma = factor(saturation_key, config.saturation)
        change = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        change = change.at[1:, 1:].set(chroma * jnp.array([[cos, -sin], [sin, cos]]))
        image = image @ (_TO_RGB @ change @ to_yiq).T
    return image
