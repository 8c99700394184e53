"""Logits on the canvas, measured at the pixels of labels of any size, in one program.

The labels of a batch are flat (`data.scored.ScoredDataset`), and their sizes are numbers of the
batch, not shapes of the program. So one program serves labels of all sizes, no label is padded with
pixels that are computed, and no more than a piece of the logits exists at the labels' size.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Int32, UInt8

# Logits that exist at the labels' size at a time, over the batch.
_LOGITS = 1 << 21

Sums = Any  # a tree of arrays that are added up


def measure_pixels(
    measure: Callable[[Array, Array], tuple[Sums, dict[str, Array]]],
    logits: Float[Array, "n H W k"],
    labels: UInt8[Array, "n length"],
    sizes: Int32[Array, "n 6"],
) -> tuple[Sums, dict[str, Array]]:
    """`measure` of all pixels, piece by piece. Jittable.

    Args:
      measure: `measure(logits [n, 1, p, k], labels [n, 1, p]) -> (sums, maps)` of p pixels of each
        image: sums are added up over the pieces, maps are arrays [n, 1, p].
      logits: of the canvas.
      labels, sizes: of a batch of `ScoredDataset`; a length is a power of two.

    Returns:
      The sums, and the maps [n, length], 0 in pieces beyond the last label.
    """
    count, length = labels.shape
    piece = min(length, max(1 << 10, 1 << (_LOGITS // (count * logits.shape[-1])).bit_length()))

    def part(i):
        pixels = i * piece + jnp.arange(piece, dtype=jnp.int32)
        here = lax.dynamic_slice_in_dim(labels, i * piece, piece, 1)
        at_labels = jax.vmap(logits_at, (0, 0, None))(logits, sizes, pixels)
        sums, maps = measure(at_labels[:, None], here[:, None].astype(jnp.int32))
        return sums, {name: values[:, 0] for name, values in maps.items()}

    def add(i, carry):
        sums, maps = carry
        more, here = part(i)
        maps = {
            name: lax.dynamic_update_slice_in_dim(values, here[name], i * piece, 1)
            for name, values in maps.items()
        }
        return jax.tree.map(jnp.add, sums, more), maps

    sums, maps = jax.eval_shape(part, 0)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), sums)
    maps = {name: jnp.zeros((count, length), x.dtype) for name, x in maps.items()}
    pieces = -(-jnp.max(sizes[:, 0] * sizes[:, 1]) // piece)
    return lax.fori_loop(0, pieces, add, (zeros, maps))


def logits_at_all(
    logits: Float[Array, "n H W k"], sizes: Int32[Array, "n 6"], length: int
) -> Float[Array, "n 1 length k"]:
    """`logits_at` of the first `length` pixels of each label."""
    pixels = jnp.arange(length, dtype=jnp.int32)
    return jax.vmap(logits_at, (0, 0, None))(logits, sizes, pixels)[:, None]


def logits_at(
    logits: Float[Array, "H W k"], sizes: Int32[Array, "6"], pixels: Int[Array, "p"]
) -> Float[Array, "p k"]:
    """The logits of one image at pixels of its label, which are counted row by row.

    They are those of the label's own size, interpolated bilinearly by half-pixel centres between
    the pixels of the canvas that the image fills, as torch does with align_corners=False; at a
    stated size, those of the nearest pixel of the label's own size.
    """
    height, width, own_height, own_width, filled_height, filled_width = sizes
    row = _nearest(pixels // width, height, own_height)
    column = _nearest(pixels % width, width, own_width)
    top, bottom, down = _between(row, own_height, filled_height)
    left, right, along = _between(column, own_width, filled_width)
    down, along = down[:, None], along[:, None]
    flat, columns = logits.reshape(-1, logits.shape[-1]), logits.shape[1]

    def between_rows(x):
        above, below = (
            flat.at[y * columns + x].get(mode="promise_in_bounds", wrap_negative_indices=False)
            for y in (top, bottom)
        )
        return above * (1 - down) + below * down

    return between_rows(left) * (1 - along) + between_rows(right) * along


def _nearest(i: Int[Array, "p"], size: Array, own: Array) -> Int[Array, "p"]:
    """The pixel of `own` ones at the place of pixel i of `size`, as `scored.resize_label`."""
    return (2 * i + 1) * own // (2 * size)


def _between(
    i: Int[Array, "p"], own: Array, filled: Array
) -> tuple[Int[Array, "p"], Int[Array, "p"], Float[Array, "p"]]:
    """The pixels of the canvas around pixel i of the label, and the weight of the second one, from
    the position (i + 1/2) * filled / own - 1/2 in whole numbers of 1 / (2 own)."""
    position = jnp.clip((2 * i + 1) * filled - own, 0, 2 * own * (filled - 1))
    low = position // (2 * own)
    weight = (position - low * 2 * own).astype(jnp.float32) / (2 * own).astype(jnp.float32)
    return low, jnp.minimum(low + 1, filled - 1), weight
