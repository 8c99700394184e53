"""Colours, blur and noise of a view. They change no label."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
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
    """mmsegmentation's PhotoMetricDistortion (1.2.2, mmseg/datasets/transforms/transforms.py), each
    change with its probability.

    By the toss of a coin, contrast comes before saturation and hue or after them, see `distorted`.
    A hue of v is a shift by a whole number of the 180 steps a turn, drawn from [-180 v, 180 v).
    """

    def factor(change):
        amount = getattr(config, change)
        value = jax.random.uniform(key_of(key, change), (), minval=1 - amount, maxval=1 + amount)
        return where(is_made(change), value, 1.0)

    def is_made(change):
        return happens(key, f"{change}_coin", getattr(config, f"{change}_probability"))

    brightness = 255 * config.brightness
    delta = jax.random.uniform(key_of(key, "brightness"), (), minval=-brightness, maxval=brightness)
    steps = round(_HUES * config.hue)
    # The bounds of randint must differ.
    shift = jax.random.randint(key_of(key, "hue"), (), -steps, steps) if steps else 0
    drawn = {
        "delta": where(is_made("brightness"), delta, 0.0),
        "contrast": factor("contrast"),
        "contrast_first": jax.random.bernoulli(key_of(key, "contrast_first")),
        "saturation": factor("saturation"),
        "shift": where(is_made("hue"), shift, 0),
        "saturates": is_made("saturation") if config.saturation else False,
        "shifts": is_made("hue") if steps else False,
    }
    # Without the barrier XLA draws the numbers again for each pixel, a hundred times as long.
    return distorted(image, **jax.lax.optimization_barrier(drawn))


def distorted(
    image: Float[Array, "h w c"],
    *,
    delta: ArrayLike,
    contrast: ArrayLike,
    contrast_first: ArrayLike,
    saturation: ArrayLike,
    shift: ArrayLike,
    saturates: ArrayLike,
    shifts: ArrayLike,
) -> Float[Array, "h w c"]:
    """Brightness, contrast, saturation and hue as OpenCV has them on 8 bits.

    The image is rounded to 8 bits, and the result of each change is clipped and cut to them. Images
    of another number of channels than 3 have no saturation and hue.

    Args:
      image: in [0, 1].
      delta: to add to all values, in 255ths.
      contrast: factor on all values.
      contrast_first: whether contrast comes before saturation and hue, or after them.
      saturation: factor on S of HSV.
      shift: of H of HSV, a whole number of 180 steps a turn.
      saturates, shifts: whether these two changes are made; even a factor of 1 and a shift of 0
        change colours, which go to HSV on 8 bits and back.
    """
    channels = [jnp.clip(jnp.round(255 * image[..., k]), 0, 255) for k in range(image.shape[-1])]
    channels = [_to_bytes(x + delta) for x in channels]
    channels = [_to_bytes(x * jnp.where(contrast_first, contrast, 1.0)) for x in channels]
    if len(channels) == 3:
        hue, chroma, value = _to_hsv(*channels)
        changed = _from_hsv(hue, _to_bytes(chroma * saturation), value)
        channels = [jnp.where(saturates, a, b) for a, b in zip(changed, channels, strict=True)]
        hue, chroma, value = _to_hsv(*channels)
        changed = _from_hsv((hue + shift) % _HUES, chroma, value)
        channels = [jnp.where(shifts, a, b) for a, b in zip(changed, channels, strict=True)]
    channels = [_to_bytes(x * jnp.where(contrast_first, 1.0, contrast)) for x in channels]
    return jnp.stack(channels, -1) / 255


def _to_bytes(values):
    return jnp.floor(jnp.clip(values, 0, 255))


_Plane = Float[Array, "*n"]


def _to_hsv(red: _Plane, green: _Plane, blue: _Plane) -> tuple[_Plane, _Plane, _Plane]:
    """OpenCV's 8-bit RGB2HSV of whole numbers in [0, 255]: H in [0, 180), S and V in [0, 255]."""
    value = jnp.maximum(jnp.maximum(red, green), blue)
    spread = value - jnp.minimum(jnp.minimum(red, green), blue)
    # OpenCV divides by tables in fixed point, of 12 bits behind the point.
    per_value = jnp.round(255 * 4096 / jnp.maximum(value, 1)).astype(jnp.int32)
    per_spread = jnp.round(_HUES * 4096 / 6 / jnp.maximum(spread, 1)).astype(jnp.int32)
    saturation = (spread.astype(jnp.int32) * per_value + 2048) >> 12
    sixth = jnp.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
    sixth = jnp.where(value == red, green - blue, sixth)
    hue = (sixth.astype(jnp.int32) * per_spread + 2048) >> 12
    hue = jnp.where(hue < 0, hue + _HUES, hue)
    return hue.astype(value.dtype), saturation.astype(value.dtype), value


def _from_hsv(hue: _Plane, saturation: _Plane, value: _Plane) -> tuple[_Plane, _Plane, _Plane]:
    """OpenCV's 8-bit HSV2RGB, which cuts to whole numbers where its vectors reach: in all but the
    last pixels of an image's rows, which it rounds."""
    # Products with rounded factors, as there: a quotient cuts to another number here and there.
    sixth, saturation = hue * np.float32(6 / _HUES), saturation * np.float32(1 / 255)
    value = value * np.float32(1 / 255)
    sector = jnp.floor(sixth)
    along = sixth - sector
    least = value * (1 - saturation)
    falling, rising = value * (1 - saturation * along), value * (1 - saturation * (1 - along))
    sector = jnp.clip(sector, 0, 5).astype(jnp.int32)
    red, green, blue = (
        jax.lax.select_n(sector, *cases)
        for cases in (
            (value, falling, least, least, rising, value),
            (rising, value, value, falling, least, least),
            (least, least, rising, value, value, falling),
        )
    )
    return jnp.floor(255 * red), jnp.floor(255 * green), jnp.floor(255 * blue)
