"""Augmentation on the device: pure functions of (key, image, label), vmapped in a training step."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped, UInt8

from segjax.data.classes import IGNORE
from segjax.transforms.colours import add_noise, blur, distort_colours, jitter_colours
from segjax.transforms.geometry import random_window
from segjax.transforms.mix import cutout_mask, mixed
from segjax.transforms.options import Augmentation


def augment(
    key: PRNGKeyArray,
    image: UInt8[Array, "H W c"],
    label: Shaped[Array, "H W"],
    config: Augmentation,
) -> tuple[Float[Array, "h w c"], Int[Array, "h w"], Bool[Array, "h w"]]:
    """One random view of an image and its label map, unmixed.

    Args:
      key: all randomness comes from it.
      image: 0..255.
      label: ids; 255 = ignore.
      config: the changes to draw.

    Returns:
      The image in [0, 1] (colour jitter and noise may go beyond), int32 labels, and the mask of the
      pixels that show the original image, each of `config.crop_size`. Outside of it labels are 255;
      under a cutout they are kept or 255. Where the mask is False the image is undefined; the
      caller fills it.
    """
    colour_key = jax.random.split(key)[1]
    pixels, labels, inside = random_window(key, image, label, config)
    if config.blur:
        blur_key = jax.random.split(colour_key, 5)[4]
        blurred = jax.random.bernoulli(blur_key, config.blur)
        pixels = jnp.where(blurred, blur(pixels), pixels)
    change_colours = distort_colours if config.colour_model == "hsv" else jitter_colours
    pixels = change_colours(colour_key, pixels, config)
    if config.noise:
        pixels = add_noise(key, pixels, config)
    if config.cutout:
        hidden = cutout_mask(key, config)
        inside &= ~hidden
        if config.cutout_labels == "ignored":
            labels = jnp.where(hidden, IGNORE, labels)
    return pixels, labels, inside


def augment_batch(
    key: PRNGKeyArray,
    images: UInt8[Array, "n H W c"],
    labels: Shaped[Array, "n H W"],
    index: Int[Array, "n"],
    config: Augmentation,
    axis_name: str | None = None,
) -> tuple[Float[Array, "n h w c"], Int[Array, "n h w"], Bool[Array, "n h w"]]:
    """The random views of a batch, mixed where the config says so: what `augment` returns, of each.

    Args:
      key: of the batch; an example's randomness comes from it and the example's index.
      index: of the examples in the data set; below 0 for padding rows.
      axis_name: pmap's axis, if devices share the batch over one.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    views = jax.vmap(lambda key, image, label: augment(key, image, label, config))(
        keys, images, labels
    )
    return mixed(keys, views, index, config, axis_name) if config.mixes else views
