"""Sliding windows over images of any size, in memory that does not grow with the image.

Windows are computed in batches, from the top row of windows down. Their probabilities, weighted by
the blend, are added to a strip on the device that is as tall as one window. Rows that no later
window touches are finished there (labels, or scores) and written to the result, and the strip
moves down. An image too wide for `STRIP_BYTES` is cut into bands of columns, each with its own
strip; windows across a cut are computed for both bands.

Probabilities are averaged, not logits, as in test-time augmentation: a window that is very sure
near its border, where it sees least, cannot outvote the others.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Shaped, UInt8

from segjax.data.files.windowed import WindowedImage
from segjax.inference.options import InferenceOptions
from segjax.inference.tta import resized_views
from segjax.inference.windows import bands, blend_weights, bucket, starts
from segjax.training.forward import Forward
from segjax.training.head import SOFTMAX, Head

# Size of the strip of scores, unless two windows side by side need more.
STRIP_BYTES = 2**28


class SlidingWindows:
    """Slides windows over images of any size; the network is compiled once.

    Args:
      forward: of `segjax.training.forward.logits_fn`.
      window: (h, w) that the network sees; with `scales` it sees the window enlarged or shrunk.
      num_classes: K.
      options: overlap, blend, scales, flip and batch_size are used.
      put: places (variables, arrays...) on the devices, arrays divided along their first axis.
      head: what the logits mean.
    """

    def __init__(
        self,
        forward: Forward,
        window: tuple[int, int],
        num_classes: int,
        options: InferenceOptions,
        put: Callable[..., tuple[Any, ...]] | None = None,
        head: Head = SOFTMAX,
    ):
        self.window, self.options, self.head = window, options, head
        self._planes = num_classes + head.extra_planes
        self._put = put or (lambda *arrays: arrays)
        devices = jax.local_device_count()
        self._batch = -(-options.batch_size // devices) * devices
        weights = blend_weights(window, options.blend)[..., None]

        @jax.jit
        def scores(variables, windows, sizes):
            mean = _probabilities(forward, options, variables, windows, sizes, head)
            return head.planes(mean) * weights

        self._scores = scores

    def strip_columns(self, width: int) -> int:
        """Columns of the strip for an image of `width` columns; bounded, and one of few sizes."""
        tall, wide = self.window
        most = STRIP_BYTES // (4 * tall * self._planes)
        return max(min(bucket(max(width, wide)), most), 2 * wide)

    def run(
        self,
        variables: Any,
        image: UInt8[np.ndarray, "h w c"] | WindowedImage,
        out: Shaped[np.ndarray, "h w *k"],
    ) -> Shaped[np.ndarray, "h w *k"]:
        """Fills `out` row by row, and returns it.

        A uint8 [h, w] gets labels; a float32 [h, w, K] the head's `scores` of the mean
        probabilities.
        """
        height, width = image.shape[:2]
        (tall, wide), overlap = self.window, self.options.overlap
        tops = starts(height, tall, overlap)
        lefts = starts(width, wide, overlap)
        strip_columns = self.strip_columns(width)
        unfinished: tuple = ()
        for band in bands(lefts, width, wide, strip_columns):
            strip = jnp.zeros((tall, strip_columns, self._planes))
            first = band.lefts[0]
            columns = slice(band.begin - first, band.end - first)
            for top, after in zip(tops, [*tops[1:], height], strict=True):
                for start in range(0, len(band.lefts), self._batch):
                    lefts_now = band.lefts[start : start + self._batch]
                    strip = self._add_windows(strip, variables, image, top, lefts_now, first)
                result, strip = _finish(strip, after - top, labels=out.ndim == 2, head=self.head)
                if unfinished:  # copied while the device computes the next row of windows
                    _write(out, *unfinished)
                unfinished = top, after, band, columns, result
        _write(out, *unfinished)
        return out

    def _add_windows(self, strip, variables, image, top: int, lefts, first: int):
        tall, wide = self.window
        windows = np.zeros((self._batch, tall, wide, image.shape[2]), np.uint8)
        sizes = np.zeros((self._batch, 2), np.int32)
        columns, valid = np.zeros(self._batch, np.int32), np.zeros(self._batch, np.float32)
        for row, left in enumerate(lefts):
            pixels = image[top : top + tall, left : left + wide]
            sizes[row] = pixels.shape[:2]  # smaller than the window if the image is
            windows[row, : sizes[row, 0], : sizes[row, 1]] = pixels
            columns[row], valid[row] = left - first, 1
        scores = self._scores(*self._put(variables, windows, sizes))
        return _add(strip, scores, valid, columns)


@functools.partial(jax.jit, donate_argnums=0)
def _add(
    strip: Float[Array, "h W k"],
    scores: Float[Array, "n h w k"],
    valid: Float[Array, "n"],
    columns: Int[Array, "n"],
) -> Float[Array, "h W k"]:
    """Adds windows to the strip, each at its column; `valid` is 0 for windows that pad the batch.

    Compiled for each width of strips, unlike the network.
    """

    def add_one(strip, one):
        patch, weight, column = one
        place = (0, column, 0)
        sums = lax.dynamic_slice(strip, place, patch.shape)
        return lax.dynamic_update_slice(strip, sums + patch * weight, place), None

    return lax.scan(add_one, strip, (scores, valid, columns))[0]


def _probabilities(
    forward: Forward,
    options: InferenceOptions,
    variables: Any,
    windows: UInt8[Array, "n h w c"],
    sizes: Int[Array, "n 2"],
    head: Head,
) -> Float[Array, "n h w k"]:
    """The mean over the views of each window, of which the image fills `sizes`."""
    views = resized_views(forward, options, variables, windows, sizes)
    total = jnp.zeros(())
    for logits in views:
        total += head.probabilities(logits)
    return total / options.views


@functools.partial(jax.jit, static_argnames=("labels", "head"), donate_argnums=0)
def _finish(
    strip: Float[Array, "h w planes"], rows: int | Int[Array, ""], *, labels: bool, head: Head
):
    """The strip's labels or scores, and the strip moved down by `rows`, which are finished."""
    mean = head.weighted_mean(strip)
    result = head.decide(mean).astype(jnp.uint8) if labels else head.scores(mean)
    return result, jnp.take(
        strip, jnp.arange(strip.shape[0]) + rows, axis=0, mode="fill", fill_value=0
    )


def _write(out, top, after, band, columns, result) -> None:
    out[top:after, band.begin : band.end] = np.asarray(result)[: after - top, columns]
