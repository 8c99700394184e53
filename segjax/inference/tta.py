"""Test-time augmentation: the views of an image (scales, mirrored), and their mean.

The order is the same everywhere: the logits of each view are mirrored back, cut to the part that
the image fills, resized to the image's size, and turned into probabilities by the head (softmax, or
sigmoids); their unweighted mean decides. The logits of a single view stay logits. (The PSPNet
authors' published "single scale" numbers include the mirrored view; here an image is mirrored only
with `flip`.)

`Predictor` and sliding windows make the views of an image or window, evaluation those of the canvas
(`view_scores`).
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Shaped, UInt8

from segjax.inference.options import InferenceOptions
from segjax.inference.windows import bucket
from segjax.layers.resize import resize_bilinear, source_positions
from segjax.training.forward import Forward
from segjax.training.head import SOFTMAX, Head

# Rows of the result whose scores exist at a time; divides every bucket.
ROWS = 32


def view_logits(
    forward: Forward,
    flip: bool,
    variables: Any,
    images: UInt8[Array, "n H W c"],
    sizes: Int[Array, "n 2"] | None = None,
) -> Float[Array, "v n H W k"]:
    """The logits of images and, with `flip`, of the mirrored images, mirrored back. Jittable.

    Args:
      forward: of `segjax.training.forward.logits_fn`.
      sizes: (h, w) that each image fills, top left; the rest becomes 0 after normalisation, the
        mean colour of training. None: the image fills all.
    """
    options = {}
    if sizes is not None:
        rows = jnp.arange(images.shape[1])[:, None] < sizes[:, :1, None]
        options["inside"] = rows & (jnp.arange(images.shape[2]) < sizes[:, 1:, None])
    logits = [forward(variables, images, **options)]
    if flip:
        options = {name: inside[:, :, ::-1] for name, inside in options.items()}
        logits.append(forward(variables, images[:, :, ::-1], **options)[:, :, ::-1])
    return jnp.stack(logits)


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width times a factor, at least 1 each."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resized_views(
    forward: Forward,
    options: InferenceOptions,
    variables: Any,
    images: UInt8[Array, "n H W c"],
    sizes: Int[Array, "n 2"] | None = None,
) -> Iterator[Float[Array, "n H W k"]]:
    """Yields the logits of each view, mirrored back and resized to the images' size. Jittable.

    Args:
      forward, sizes: see `view_logits`.
      options: scales and flip are used. Images are resized to each scale as `data.fitted` resizes
        them (bilinearly, antialiased where they shrink, to whole levels), on the device.
    """
    count, height, width, channels = images.shape
    for scale in options.scales:
        seen = scaled_size((height, width), scale)
        scaled, filled = images, sizes
        if seen != (height, width):
            scaled = jax.image.resize(
                images.astype(jnp.float32), (count, *seen, channels), "linear", antialias=True
            )
            scaled = jnp.round(scaled).astype(jnp.uint8)
            filled = None if sizes is None else jnp.ceil(sizes * scale).astype(jnp.int32)
        for logits in view_logits(forward, options.flip, variables, scaled, filled):
            yield resize_bilinear(logits, (height, width))


def view_scores(forward: Forward, options: InferenceOptions, head: Head = SOFTMAX) -> Forward:
    """The forward pass of the views: `forward(variables, images) -> scores`. Jittable.

    The scores are the head's of the mean probabilities; the logits of a single view stay logits,
    and without views, one scale 1 unmirrored, `forward` itself is returned.

    The canvas is the image that is seen: at another scale it is made of the canvas, not of the
    larger or smaller image that was fitted to it, and where an image fills a part of the canvas the
    rest, of its mean colour, is resized or mirrored with it. Both stay in their place. Unlike with
    `Predictor`, which fits the image to the canvas of each scale, the outermost pixels of the image
    beside that rest mix with it, a little. Where labels have another size than the canvas, the mean
    is interpolated to it, not each view.

    Args:
      options: scales and flip are used.
      head: what the logits mean.
    """
    if not options.augmented:
        return forward

    def scores(variables: Any, images: UInt8[Array, "n H W c"]) -> Float[Array, "n H W k"]:
        if options.views == 1:
            return next(resized_views(forward, options, variables, images))
        total: Any = None
        for scale in options.scales:
            if total is not None:
                # Otherwise the compiler may run all scales side by side, in as much more memory.
                images, total = lax.optimization_barrier((images, total))
            at_scale = dataclasses.replace(options, scales=(scale,))
            for logits in resized_views(forward, at_scale, variables, images):
                view = head.logarithms(logits)
                total = view if total is None else jax.tree.map(jnp.logaddexp, total, view)
        return head.mean_scores(jax.tree.map(lambda x: x - math.log(options.views), total))

    return scores


class Interpolation(NamedTuple):
    """Linear interpolation along one axis, to m pixels.

    Output pixel i is `(1 - weight[i]) * x[low[i]] + weight[i] * x[high[i]]`; `low` and `high` are
    int32, `weight` is float32. These are arguments of the program, not constants, so that one
    program serves all sizes of a bucket.
    """

    low: Shaped[np.ndarray, "m"]
    high: Shaped[np.ndarray, "m"]
    weight: Shaped[np.ndarray, "m"]


def interpolation(fitted: int, size: int) -> Interpolation:
    """From the first `fitted` pixels of a view to `size` pixels.

    By half-pixel centres, as in `layers.resize_bilinear`. The last pixel is repeated up to the
    bucket of `size`.
    """
    position = source_positions(fitted, size, False)
    position = np.pad(position, (0, bucket(size) - size), mode="edge")
    low = np.minimum(position.astype(np.int32), fitted - 1)
    high = np.minimum(low + 1, fitted - 1)
    return Interpolation(low, high, (position - low).astype(np.float32))


@functools.partial(jax.jit, static_argnames=("labels", "head"))
def combine(
    views: tuple[Float[Array, "v _ _ k"], ...],
    rows: tuple[Interpolation, ...],
    columns: tuple[Interpolation, ...],
    labels: bool,
    head: Head = SOFTMAX,
) -> Shaped[Array, "h w *k"]:
    """Resizes all views of one image to its size and averages them, strip by strip of rows.

    Args:
      views: logits of one image, an array per scale.
      rows, columns: from each array to the image.
      labels: whether to return labels; then no more than a strip of scores exists at a time.
      head: what the logits mean.

    Returns:
      uint8 labels; or float32 scores: the logits of a single view, else the head's `scores` of the
      mean probabilities. Both have the size of the image's bucket; the part beyond the image is
      undefined.
    """
    count = sum(view.shape[0] for view in views)

    def strip(strip_rows):
        resized = [
            _interpolate(_interpolate(view, row, 1), column, 2)
            for view, row, column in zip(views, strip_rows, columns, strict=True)
        ]
        if count == 1:
            scores = resized[0][0]
            return head.predict(scores).astype(jnp.uint8) if labels else scores
        mean = jnp.asarray(sum(head.probabilities(view).sum(0) for view in resized)) / count
        return head.decide(mean).astype(jnp.uint8) if labels else head.scores(mean)

    result = lax.map(strip, jax.tree.map(lambda row: row.reshape(-1, ROWS), rows))
    return result.reshape(-1, *result.shape[2:])


def _interpolate(
    x: Float[Array, "v H W k"], to: Interpolation, axis: int
) -> Float[Array, "v h w k"]:
    """Linear interpolation along one axis.

    It gathers twice. `resize_bilinear` multiplies with a matrix, which suits derivatives and
    moderate sizes, but its cost grows with the square of the axis.
    """
    shape = [1] * x.ndim
    shape[axis] = -1
    weight = jnp.reshape(to.weight, shape)
    low, high = (jnp.take(x, i, axis=axis, mode="clip") for i in (to.low, to.high))
    return low * (1 - weight) + high * weight
