"""Scale, aspect, rotation, crop, flips and quarter turns of a view.

Up to the turns they are one resampling: a random window of the scaled image is read directly from
the original, so that no scaled image is stored and every shape is static. Without rotation the
image takes two small matrix products and the labels two index lookups; with rotation they take four
lookups and one. Labels are looked up, never blended.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped, UInt8

from segjax.data.classes import IGNORE
from segjax.transforms.draws import happens, key_of, where
from segjax.transforms.options import Augmentation

CROPS_TRIED = 10  # for max_class_share; mmsegmentation tries as many


class _Frame(NamedTuple):
    """How the original lies in the scaled and rotated image.

    Attributes:
      scale_y, scale_x: of the axes.
      angle: in radians; None = no rotation.
      antialias: whether shrinking smooths first.
      smooths: whether a rotation is smoothed before it; only where an axis can shrink.
      cuts: whether pixels that the rotation moves out of the frame are lost.
      keeps_aspect: whether both scales are always the same.
    """

    scale_y: Float[Array, ""]
    scale_x: Float[Array, ""]
    angle: Float[Array, ""] | None
    antialias: bool
    smooths: bool
    cuts: bool
    keeps_aspect: bool


def random_window(
    key: PRNGKeyArray,
    image: UInt8[Array, "H W c"],
    label: Shaped[Array, "H W"],
    config: Augmentation,
) -> tuple[Float[Array, "h w c"], Int[Array, "h w"], Bool[Array, "h w"]]:
    """A random window of an image, scaled, rotated, mirrored and turned.

    Returns:
      The image in [0, 1], int32 labels, and the mask of the pixels inside the original image, each
      of `config.crop_size`. Outside, labels are 255 and the image is undefined.
    """
    # These five keys are as they were before there were more changes; others go by name.
    keys = jax.random.split(jax.random.split(key)[0], 5)
    scale_key, y_key, x_key, flip_key, angle_key = keys
    frame = _draw_frame(key, scale_key, angle_key, config)
    mirrored = upended = turns = None
    if config.flip:
        mirrored = jax.random.bernoulli(flip_key, config.flip_probability)
    if config.flip_vertical:
        upended = jnp.asarray(happens(key, "flip_vertical", config.flip_vertical))
    if config.quarter_turns:
        turns = jax.random.randint(key_of(key, "turns"), (), 1, 4)
        turns = where(happens(key, "quarter_turns", config.quarter_turns), turns, 0)

    def positions(keys, crop_size):
        place = functools.partial(_window_positions, padding=config.padding)
        y = place(keys[0], image.shape[0], crop_size[0], frame.scale_y, reverse=upended)
        x = place(keys[1], image.shape[1], crop_size[1], frame.scale_x, reverse=mirrored)
        return y, x

    def view(read: Callable, keys):
        """What `read` finds at the positions of the window, turned."""
        upright = read(*positions(keys, config.crop_size))
        if turns is None:
            return upright
        height, width = config.crop_size
        lying = upright if height == width else read(*positions(keys, (width, height)))
        return jax.tree.map(lambda a, b: _turned(a, b, turns), upright, lying)

    look_up = functools.partial(_look_up, label, frame=frame)
    if config.max_class_share < 1:
        y_key, x_key = _first_varied(
            lambda keys: view(look_up, keys)[0], config.max_class_share, y_key
        )
    pixels = jnp.asarray(image, jnp.float32) / 255
    resample = _resample if frame.angle is None else _resample_rotated

    def read(y, x):
        return resample(pixels, y, x, frame), *look_up(y, x)

    return view(read, (y_key, x_key))


def _draw_frame(key, scale_key, angle_key, config: Augmentation) -> _Frame:
    scale = jax.random.uniform(scale_key, (), minval=config.scale[0], maxval=config.scale[1])
    scale_y, scale_x, smallest = scale, scale, config.scale[0]
    if config.aspect != (1.0, 1.0):
        low, high = config.aspect
        stretch = jnp.sqrt(jax.random.uniform(key_of(key, "aspect"), (), minval=low, maxval=high))
        scale_y, scale_x = scale / stretch, scale * stretch
        smallest *= min(low**0.5, high**-0.5)
    angle = None
    if config.rotate and config.rotate_probability:
        limit = jnp.deg2rad(config.rotate)
        angle = jax.random.uniform(angle_key, (), minval=-limit, maxval=limit)
        angle = where(happens(key, "rotate", config.rotate_probability), angle, 0.0)
    return _Frame(
        scale_y,
        scale_x,
        angle,
        antialias=config.antialias,
        smooths=config.antialias and smallest < 1,
        cuts=config.padding != "around",
        keeps_aspect=config.aspect == (1.0, 1.0),
    )


def _window_positions(key, size, out, scale, *, padding, reverse):
    """Positions in the original, in pixel centres, of the `out` cells of a random window.

    A scaled side that is longer than the window is cropped at random; a shorter one lies in the
    window where `padding` says. The cells are in reverse order where `reverse` is true.
    """
    slack = size * scale - out
    share = jax.random.uniform(key, ())
    if padding == "centre":
        share = jnp.where(slack < 0, 0.5, share)
    elif padding == "end":  # of the cells as they come out, reversed or not
        start = 0.0 if reverse is None else jnp.where(reverse, 1.0, 0.0)
        share = jnp.where(slack < 0, start, share)
    offset = share * slack
    position = (jnp.arange(out) + offset + 0.5) / scale - 0.5
    return position if reverse is None else jnp.where(reverse, position[::-1], position)


def _turned(upright, lying, turns):
    """np.rot90(window, turns): `upright` is the window for an even number of turns, `lying` the
    one for an odd number, whose sides are exchanged."""
    array = jnp.where(turns % 2 == 1, jnp.swapaxes(lying, 0, 1), upright)
    array = jnp.where((turns == 1) | (turns == 2), array[::-1], array)
    return jnp.where(turns >= 2, array[:, ::-1], array)


def _first_varied(labels_of, share, key):
    """The keys of the first window that has labels and in which no class has more than `share` of
    the labelled pixels; else of the last window tried."""
    keys = jax.vmap(jax.random.split)(jax.random.split(key, CROPS_TRIED))

    def is_varied(pair):
        counts = jnp.bincount(labels_of(pair).reshape(-1), length=IGNORE + 1)[:IGNORE]
        return (jnp.max(counts) <= share * jnp.sum(counts)) & (jnp.sum(counts) > 0)

    tried, _ = jax.lax.while_loop(
        lambda state: (state[0] < CROPS_TRIED) & ~state[1],
        lambda state: (state[0] + 1, is_varied(keys[state[0]])),
        (0, False),
    )
    return keys[tried - 1]


def _rotated(y, x, shape, frame: _Frame):
    """The window's positions, [h, w] each, rotated about the centre of the scaled image."""
    assert frame.angle is not None
    down, right = (jnp.asarray(n - 1, jnp.float32) / 2 for n in shape)
    y, x = y[:, None] - down, x[None, :] - right
    cos, sin = jnp.cos(frame.angle), jnp.sin(frame.angle)
    if frame.keeps_aspect:
        return cos * y - sin * x + down, sin * y + cos * x + right
    wider = frame.scale_x / frame.scale_y
    return cos * y - sin * wider * x + down, sin / wider * y + cos * x + right


def _is_inside(position, size):
    return (position >= -0.5) & (position < size - 0.5)


def _nearest(position, size):
    return jnp.clip(jnp.floor(position + 0.5), 0, size - 1).astype(jnp.int32)


def _look_up(label, y, x, *, frame: _Frame):
    """The label nearest to each position, 255 outside of the image, and the mask of the inside."""
    height, width = label.shape
    label = jnp.asarray(label, jnp.int32)
    uncut = _is_inside(y, height)[:, None] & _is_inside(x, width)
    if frame.angle is None:
        inside = uncut
        labels = label[_nearest(y, height)][:, _nearest(x, width)]
    else:
        y, x = _rotated(y, x, label.shape, frame)
        inside = _is_inside(y, height) & _is_inside(x, width)
        inside = inside & uncut if frame.cuts else inside
        labels = label[_nearest(y, height), _nearest(x, width)]
    return jnp.where(inside, labels, IGNORE), inside


def _resample(pixels, y, x, frame: _Frame):
    """The image at rows y and columns x, interpolated linearly."""
    rows = _sampling_matrix(y, pixels.shape[0], frame.scale_y, antialias=frame.antialias)
    columns = _sampling_matrix(x, pixels.shape[1], frame.scale_x, antialias=frame.antialias)
    pixels = jnp.einsum("hH,HWc->hWc", rows, pixels, precision="highest")
    return jnp.einsum("wW,hWc->hwc", columns, pixels, precision="highest")


def _resample_rotated(pixels, y, x, frame: _Frame):
    """The image at the window's rotated positions: bilinear, after a smoothing that depends on the
    scale (none at 1 and above)."""
    height, width, _ = pixels.shape
    if frame.smooths:
        pixels = _resample(pixels, jnp.arange(height), jnp.arange(width), frame)
    y, x = _rotated(y, x, (height, width), frame)
    y, x = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)
    top, left = jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32)
    bottom, right = jnp.minimum(top + 1, height - 1), jnp.minimum(left + 1, width - 1)
    down, across = (y - top)[..., None], (x - left)[..., None]
    upper = pixels[top, left] * (1 - across) + pixels[top, right] * across
    lower = pixels[bottom, left] * (1 - across) + pixels[bottom, right] * across
    return upper * (1 - down) + lower * down


def _sampling_matrix(position, size, scale, *, antialias):
    """[out, size] weights of linear interpolation, with a wider filter when shrinking: thin objects
    fade instead of flickering."""
    distance = jnp.abs(jnp.clip(position, 0, size - 1)[:, None] - jnp.arange(size))
    reach = jnp.minimum(scale, 1.0) if antialias else 1.0
    weights = jnp.maximum(0.0, 1 - distance * reach)
    return weights / weights.sum(1, keepdims=True)
