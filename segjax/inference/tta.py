"""The views of an image (scales, mirrored) and how their logits become one result.

The order, everywhere: each view's logits are mirrored back, cut to what the image fills, resized
to the image's size, and made probabilities; their mean, every view counting the same, decides. One
view alone is left as logits. (The PSPNet authors' published "single scale" numbers include the
mirrored view; here nothing is mirrored unless `flip` says so.)
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Shaped, UInt8

from segjax.inference.windows import bucket
from segjax.layers.resize import source_positions

# Rows of the result that exist as scores at a time; divides every bucket.
ROWS = 32

Forward = Callable[..., Float[Array, "n H W k"]]


def view_logits(
    forward: Forward,
    flip: bool,
    variables: Any,
    images: UInt8[Array, "n H W c"],
    sizes: Int[Array, "n 2"] | None = None,
) -> Float[Array, "v n H W k"]:
    """The logits of the images and, with `flip`, of the mirrored ones, mirrored back. Jittable.

    Args:
      forward: (variables, images, inside=None) -> logits.
      sizes: (h, w) that each image fills top left; the rest is 0 after normalisation, which is
        the mean colour of training. None: all of it is image.
    """
    known = {}
    if sizes is not None:
        rows = jnp.arange(images.shape[1])[:, None] < sizes[:, :1, None]
        known["inside"] = rows & (jnp.arange(images.shape[2]) < sizes[:, 1:, None])
    logits = [forward(variables, images, **known)]
    if flip:
        known = {name: inside[:, :, ::-1] for name, inside in known.items()}
        logits.append(forward(variables, images[:, :, ::-1], **known)[:, :, ::-1])
    return jnp.stack(logits)


class Taps(NamedTuple):
    """Along one axis, the two pixels that each output pixel lies between, and how far between.

    `low` and `high` are int32, `weight` is float32, each [m]. As arrays, not constants of the
    program, so that one program serves all sizes of a bucket.
    """

    low: Shaped[np.ndarray, "m"]
    high: Shaped[np.ndarray, "m"]
    weight: Shaped[np.ndarray, "m"]


def taps(fitted: int, size: int) -> Taps:
    """From the first `fitted` pixels of a view to `size` pixels, by half-pixel centres, as
    `layers.resize_bilinear`; repeats the last one up to the bucket of `size`."""
    position = source_positions(fitted, size, False)
    position = np.pad(position, (0, bucket(size) - size), mode="edge")
    low = np.minimum(position.astype(np.int32), fitted - 1)
    high = np.minimum(low + 1, fitted - 1)
    return Taps(low, high, (position - low).astype(np.float32))


@functools.partial(jax.jit, static_argnames="labels")
def combine(
    views: tuple[Float[Array, "v H W k"], ...],
    rows: tuple[Taps, ...],
    columns: tuple[Taps, ...],
    labels: bool,
) -> Shaped[Array, "h w *k"]:
    """One image's result from all its views, strip by strip of rows.

    Args:
      views: logits of one image, an array for each scale.
      rows, columns: where the result's pixels lie in each array.
      labels: whether to return labels, of which nothing larger than a strip of scores is made.

    Returns:
      uint8 best classes; or float32 scores: the logits of a single view, else the logarithm of
      the mean probabilities. Beyond the image's size, up to its bucket, they mean nothing.
    """
    count = sum(view.shape[0] for view in views)

    def strip(strip_rows):
        resized = [
            _between(_between(view, row, 1), column, 2)
            for view, row, column in zip(views, strip_rows, columns, strict=True)
        ]
        if count == 1:
            scores = resized[0][0]
        else:
            scores = sum(jax.nn.softmax(view).sum(0) for view in resized) / count
            scores = scores if labels else jnp.log(scores)
        return jnp.argmax(scores, -1).astype(jnp.uint8) if labels else scores

    result = lax.map(strip, jax.tree.map(lambda row: row.reshape(-1, ROWS), rows))
    return result.reshape(-1, *result.shape[2:])


def _between(x: Float[Array, "v H W k"], along: Taps, axis: int) -> Float[Array, "v h w k"]:
    """Linear interpolation along one axis.

    Two gathers rather than `resize_bilinear`'s product with a matrix: that is made for derivatives
    and moderate sizes, and its cost grows with the square of the axis.
    """
    shape = [1] * x.ndim
    shape[axis] = -1
    weight = jnp.reshape(along.weight, shape)
    low, high = (jnp.take(x, i, axis=axis, mode="clip") for i in (along.low, along.high))
    return low * (1 - weight) + high * weight
