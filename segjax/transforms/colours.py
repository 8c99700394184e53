"""Colours, blur and noise of a view. They change no label."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from segjax.transforms.draws import happens, key_of, where
from segjax.transforms.options import Augmentation

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


def add_noise(
    key: PRNGKeyArray, image: Float[Array, "h w c"], config: Augmentation
) -> Float[Array, "h w c"]:
    """Adds Gaussian noise of standard deviation `config.noise`, independent in each value, with
    its probability. Nothing is clipped."""
    noise = config.noise * jax.random.normal(key_of(key, "noise"), image.shape)
    return where(happens(key, "noise_coin", config.noise_probability), image + noise, image)


# RGB to luma and two colour differences (ITU-R BT.601, analogue YIQ); hue rotates the differences.
_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))
# Inverted on the host: on a GPU jnp.linalg.inv makes three calls of cuSOLVER and cuBLAS per image.
_TO_RGB = np.linalg.inv(np.array(_YIQ)).astype(np.float32)


def jitter_colours(
    key: PRNGKeyArray, image: Float[Array, "h w c"], config: Augmentation
) -> Float[Array, "h w c"]:
    """Random brightness, contrast (about the mean luma), saturation and hue, in that order, each
    with its probability.

    The luma of images with another number of channels than 3 is the mean of their channels;
    saturation and hue do not change them.
    """
    brightness_key, contrast_key, saturation_key, hue_key = jax.random.split(key, 4)

    def drawn(change, value, otherwise):
        probability = getattr(config, f"{change}_probability")
        return where(happens(key, change, probability), value, otherwise)

    def factor(change, key):
        amount = getattr(config, change)
        value = jax.random.uniform(key, (), minval=1 - amount, maxval=1 + amount)
        return drawn(change, value, 1.0)

    if config.brightness:
        image = image * factor("brightness", brightness_key)
    if config.contrast:
        mean = jnp.mean(image @ jnp.array(_YIQ[0]) if image.shape[-1] == 3 else image)
        image = mean + (image - mean) * factor("contrast", contrast_key)
    if (config.saturation or config.hue) and image.shape[-1] == 3:
        to_yiq = jnp.array(_YIQ)
        turn = jax.random.uniform(hue_key, (), minval=-config.hue, maxval=config.hue)
        turn = drawn("hue", turn, 0.0)
        cos, sin = jnp.cos(2 * jnp.pi * turn), jnp.sin(2 * jnp.pi * turn)
        chroma = factor("saturation", saturation_key)
        change = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        change = change.at[1:, 1:].set(chroma * jnp.array([[cos, -sin], [sin, cos]]))
        image = image @ (_TO_RGB @ change @ to_yiq).T
    return image


_HUES = 180  # steps of a turn in OpenCV's 8-bit HSV


def distort_colours(
    key: PRNGKeyArray, image: Float[Array, "h w c"], config: Augmentation
) -> Float[Array, "h w c"]:
    """mmsegmentation's PhotoMetricDistortion, each change with its probability.

    On 8 bits, as there: the image is rounded to them first, and each change is clipped and cut to
    them (towards 0; conversions of colour round). Brightness is added, `config.brightness` being a
    share of 255; contrast is a factor on all values; saturation is a factor on S, and hue a shift
    of H, of OpenCV's 8-bit HSV. Hue is a whole number of its 180 steps a turn, drawn from [-n, n).
    By the toss of a coin, contrast comes before saturation and hue or after them. Saturation and
    hue do not change images of another number of channels than 3.

    Reference: mmsegmentation 1.2.2, mmseg/datasets/transforms/transforms.py.
    """

    def of_changes(change):
        return happens(key, f"{change}_coin", getattr(config, f"{change}_probability"))

    def factor(change):
        amount = getattr(config, change)
        return jax.random.uniform(key_of(key, change), (), minval=1 - amount, maxval=1 + amount)

    coloured = image.shape[-1] == 3
    image = jnp.clip(jnp.round(255 * image), 0, 255)
    if config.brightness:
        most = 255 * config.brightness
        delta = jax.random.uniform(key_of(key, "brightness"), (), minval=-most, maxval=most)
        image = where(of_changes("brightness"), _to_bytes(image + delta), image)

    def contrasted(image, now):
        changed = _to_bytes(image * factor("contrast"))
        return jnp.where(of_changes("contrast") & now, changed, image)

    first = jax.random.bernoulli(key_of(key, "contrast_first"))
    if config.contrast:
        image = contrasted(image, first)
    if config.saturation and coloured:
        hsv = _to_hsv(image)
        hsv = hsv.at[..., 1].set(_to_bytes(hsv[..., 1] * factor("saturation")))
        image = where(of_changes("saturation"), _from_hsv(hsv), image)
    steps = round(_HUES * config.hue)
    if steps and coloured:
        hsv = _to_hsv(image)
        shift = jax.random.randint(key_of(key, "hue"), (), -steps, steps)
        hsv = hsv.at[..., 0].set((hsv[..., 0] + shift) % _HUES)
        image = where(of_changes("hue"), _from_hsv(hsv), image)
    if config.contrast:
        image = contrasted(image, ~first)
    return image / 255


def _to_bytes(values):
    return jnp.floor(jnp.clip(values, 0, 255))


def _to_hsv(rgb: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """OpenCV's 8-bit RGB2HSV of whole numbers in [0, 255]: H in [0, 180), S and V in [0, 255]."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    value = jnp.max(rgb, -1)
    spread = value - jnp.min(rgb, -1)
    # OpenCV divides by tables in fixed point, of 12 bits behind the point.
    per_value = jnp.round(255 * 4096 / jnp.maximum(value, 1)).astype(jnp.int32)
    per_spread = jnp.round(_HUES * 4096 / 6 / jnp.maximum(spread, 1)).astype(jnp.int32)
    saturation = (spread.astype(jnp.int32) * per_value + 2048) >> 12
    sixth = jnp.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
    sixth = jnp.where(value == red, green - blue, sixth)
    hue = (sixth.astype(jnp.int32) * per_spread + 2048) >> 12
    hue = jnp.where(hue < 0, hue + _HUES, hue)
    return jnp.stack([hue.astype(value.dtype), saturation.astype(value.dtype), value], -1)


def _from_hsv(hsv: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """OpenCV's 8-bit HSV2RGB: the inverse of `_to_hsv`, rounded."""
    hue, saturation, value = hsv[..., 0] * (6 / _HUES), hsv[..., 1] / 255, hsv[..., 2] / 255

    def channel(offset):
        # 1 in the third of the circle about the channel's own hue, 0 in the opposite third.
        distance = jnp.abs((hue - offset + 3) % 6 - 3)
        share = jnp.clip(2 - distance, 0, 1)
        return jnp.round(255 * value * (1 - saturation * (1 - share)))

    return jnp.stack([channel(0), channel(2), channel(4)], -1)
