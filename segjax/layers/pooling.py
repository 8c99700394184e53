"""Max pooling that keeps the position of each maximum, and unpooling that puts values back there.

Two forms give the same arrays:

- `max_pool_argmax` / `max_unpool`: any window, stride and padding. Indices are flat positions
  `h * W + w` in the input, per channel, as torch's `return_indices`; unpooling is a scatter.
- `max_pool_2x2` / `max_unpool_2x2`: the 2x2, stride 2, ceil-mode case that SegNet uses. The
  position inside the window fits one byte, and unpooling is a comparison instead of a scatter, so
  that XLA fuses it with its neighbours. The models run this form.

Reference: Badrinarayanan et al., "SegNet", PAMI 2017, section 3 (arXiv 1511.00561).
"""

import functools
import operator
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Shaped, UInt8

from segjax.layers.dilated import Pads

Padding = str | Pads


def pool_padding(
    input_size: tuple[int, int],
    window: tuple[int, int] = (2, 2),
    strides: tuple[int, int] | None = None,
    padding: Padding = "VALID",
) -> Pads:
    """Resolves a padding to explicit (before, after) pairs for height and width.

    Args:
      input_size: (H, W).
      window, strides: as `max_pool_argmax`.
      padding: "VALID" (no padding, the remainder is dropped), "SAME" (ceil(size / stride)
        windows, padding split evenly), "CEIL" (no padding before; a last, partial window where a
        remainder is left, as Caffe pools and torch with `ceil_mode=True`), or the pairs.

    Raises:
      ValueError: for an unknown padding, or one as large as the window, which could then hold
        padding only.
    """
    strides = strides or window
    if not isinstance(padding, str):
        pairs = tuple((int(before), int(after)) for before, after in padding)
    elif padding == "VALID":
        pairs = ((0, 0), (0, 0))
    elif padding == "CEIL":
        pairs = tuple(
            (0, _ceil_remainder(n, k, s))
            for n, k, s in zip(input_size, window, strides, strict=True)
        )
    elif padding == "SAME":
        totals = [
            max(0, (-(-n // s) - 1) * s + k - n)
            for n, k, s in zip(input_size, window, strides, strict=True)
        ]
        pairs = tuple((t // 2, t - t // 2) for t in totals)
    else:
        raise ValueError(
            f'padding={padding!r}; use "VALID", "SAME", "CEIL" or ((top, bottom), (left, right))'
        )
    for pair, k in zip(pairs, window, strict=True):
        if min(pair) < 0 or max(pair) >= k:
            raise ValueError(
                f"padding={pairs} with window={tuple(window)}: each side must be at least 0 and "
                "smaller than the window, or a window would hold padding only"
            )
    return cast(Pads, pairs)


def _ceil_remainder(size: int, window: int, stride: int) -> int:
    """Padding after the end so that ceil((size - window) / stride) + 1 windows fit.

    A window must start inside the input, as in torch: a stride past the end adds none.
    """
    windows = -(-max(size - window, 0) // stride) + 1
    if (windows - 1) * stride >= size:
        windows -= 1
    return max(0, (windows - 1) * stride + window - size)


def _lowest(dtype):
    return -jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min


def _better(candidate, best):
    """Whether to replace `best`: only a larger value, so that the first of equals stays; or NaN."""
    return (candidate > best) | (candidate != candidate)


def _largest_of_windows(x, window, strides, pads, mark):
    """The largest of each window, and `mark(place, size)` of its place, by a running maximum over
    the window's places, row by row; `size` is (h, w) of the result."""
    size = [
        (n + sum(pad) - k) // s + 1
        for n, pad, k, s in zip(x.shape[1:3], pads, window, strides, strict=True)
    ]
    lowest = jnp.asarray(_lowest(x.dtype), x.dtype)

    def at(place):
        # Every window's cell lies in the map of each `stride`-th cell, a few places further on.
        # Such maps have the windows' own size: devices that share the rows send a row or two, where
        # for steps through a padded map XLA would move all of it.
        further, first = np.transpose(
            [divmod(p - pad[0], s) for p, pad, s in zip(place, pads, strides, strict=True)]
        )
        cells = x[:, first[0] :: strides[0], first[1] :: strides[1]]
        edges = [
            (-f, f + n - m, 0) for f, n, m in zip(further, size, cells.shape[1:3], strict=True)
        ]
        return lax.pad(cells, lowest, [(0, 0, 0), *edges, (0, 0, 0)])

    first, *others = np.ndindex(*window)
    values = at(first)
    marks = jnp.broadcast_to(mark(first, size), values.shape)
    for place in others:
        candidate = at(place)
        better = _better(candidate, values)
        values = jnp.where(better, candidate, values)
        marks = jnp.where(better, mark(place, size), marks)
    return values, marks


def _argmax_windows(x, window, strides, pads):
    """The largest of each window, and its flat input index."""
    _, height, width, _ = x.shape
    (top, _), (left, _) = pads

    def index(place, size):
        # Clipping matters only where all values so far are -inf, as the padding: the clipped
        # position is then the window's first one that lies inside the input.
        y = jnp.clip(jnp.arange(size[0]) * strides[0] - top + place[0], 0, height - 1)
        x_ = jnp.clip(jnp.arange(size[1]) * strides[1] - left + place[1], 0, width - 1)
        return (y[:, None] * width + x_).astype(jnp.int32)[None, :, :, None]

    return _largest_of_windows(x, window, strides, pads, index)


def _gather(x, indices):
    """Reads x [n, H, W, c] at flat per-channel positions [n, h, w, c]."""
    n, _, _, c = x.shape
    flat = jnp.take_along_axis(x.reshape(n, -1, c), indices.reshape(n, -1, c), axis=1)
    return flat.reshape(indices.shape)


def max_pool_argmax(
    x: Shaped[Array, "n H W c"],
    window: tuple[int, int] = (2, 2),
    strides: tuple[int, int] | None = None,
    padding: Padding = "VALID",
) -> tuple[Shaped[Array, "n h w c"], Int[Array, "n h w c"]]:
    """Max pooling with the position of each maximum.

    Args:
      x: any real dtype.
      window: (rows, columns).
      strides: (rows, columns); None: the window.
      padding: see `pool_padding`; padding never wins.

    Returns:
      The maxima, in x's dtype, and int32 indices `row * W + column` of the unpadded input, per
      channel. The first position (row by row) wins a tie; NaN wins over everything.

    The derivative reads and writes at the stored indices; no window is searched again.

    Raises:
      ValueError: for a padding that does not fit, or an input smaller than the window.
    """
    strides = strides or window
    pads = pool_padding((x.shape[1], x.shape[2]), window, strides, padding)
    padded = [n + sum(p) for n, p in zip(x.shape[1:3], pads, strict=True)]
    if padded[0] < window[0] or padded[1] < window[1]:
        raise ValueError(
            f"max_pool_argmax: input {x.shape[1:3]} with padding {pads} is smaller than the "
            f'window {tuple(window)}; use padding="SAME" or "CEIL"'
        )

    def derivative(primals, tangents) -> Any:
        values, indices = pool(*primals)
        no_tangent = np.zeros(indices.shape, jax.dtypes.float0)
        return (values, indices), (_gather(tangents[0], indices), no_tangent)

    pool = jax.custom_jvp(lambda x: _argmax_windows(x, window, strides, pads))
    pool.defjvp(derivative)
    return pool(x)


def max_unpool(
    values: Shaped[Array, "n h w c"],
    indices: Int[Array, "n h w c"],
    output_size: tuple[int, int],
) -> Shaped[Array, "n H W c"]:
    """Puts pooled values back at their positions, zeros elsewhere.

    Args:
      values, indices: of one shape, as `max_pool_argmax` returns them.
      output_size: (H, W) of the result, which is the size that was pooled: `indices` count in its
        width. Indices outside are dropped.

    The derivative reads at the indices, as pooling does. Where windows overlap and an index occurs
    more than once, its values are the same maximum and one of them gets the derivative: unpooling
    after pooling passes each cotangent once (in torch, once for each occurrence).
    """
    n, _, _, c = values.shape
    height, width = output_size
    batch, channel = jnp.ogrid[:n, :c]
    flat = jnp.zeros((n, height * width, c), values.dtype)
    flat = flat.at[batch[:, None], indices.reshape(n, -1, c), channel[:, None]].set(
        values.reshape(n, -1, c), mode="drop"
    )
    return flat.reshape(n, height, width, c)


def _pad_to_even(x, fill):
    """Pads the end of odd heights and widths by one row or column."""
    odd = ((0, x.shape[1] % 2), (0, x.shape[2] % 2))
    return jnp.pad(x, ((0, 0), *odd, (0, 0)), constant_values=fill) if any(map(any, odd)) else x


def _pick(positions, x):
    """Reads the chosen cell of each 2x2 window of x."""
    x = _pad_to_even(x, 0)
    upper = jnp.where(positions == 0, x[:, ::2, ::2], x[:, ::2, 1::2])
    lower = jnp.where(positions == 2, x[:, 1::2, ::2], x[:, 1::2, 1::2])
    return jnp.where(positions < 2, upper, lower)


def _place(positions, values, size):
    """Writes the chosen cell of each 2x2 window, zeros elsewhere: the transpose of `_pick`."""
    n, h, w, c = values.shape
    cell = jnp.arange(4, dtype=jnp.uint8).reshape(1, 1, 2, 1, 2, 1)
    chosen = positions[:, :, None, :, None, :] == cell
    placed = jnp.where(chosen, values[:, :, None, :, None, :], 0)
    return placed.reshape(n, 2 * h, 2 * w, c)[:, : size[0], : size[1]]


def max_pool_2x2(
    x: Shaped[Array, "n H W c"],
) -> tuple[Shaped[Array, "n h w c"], UInt8[Array, "n h w c"]]:
    """2x2 max pooling, stride 2, ceil mode: h = ceil(H / 2), so 45 rows go to 23.

    Returns:
      The maxima, and the position inside the window: 0 1 in the upper row, 2 3 in the lower.
      The first position wins a tie; NaN wins over everything.

    The backward pass, which is `max_unpool_2x2`, needs the positions alone. Reverse mode only; for
    forward-mode derivatives use `max_pool_argmax`.
    """
    return _pool_2x2(x, (x.shape[1], x.shape[2]))


def _largest_of_2x2(x, size):
    del size  # for the backward pass, as odd and even sizes pool to the same
    x = _pad_to_even(x, _lowest(x.dtype))
    a, b = x[:, ::2, ::2], x[:, ::2, 1::2]
    c, d = x[:, 1::2, ::2], x[:, 1::2, 1::2]
    right_above, right_below = _better(b, a), _better(d, c)
    above, below = jnp.where(right_above, b, a), jnp.where(right_below, d, c)
    lower = _better(below, above)
    positions = jnp.where(lower, 2 + right_below.astype(jnp.uint8), right_above.astype(jnp.uint8))
    return jnp.where(lower, below, above), positions


def _pool_2x2_forward(x, size):
    values, positions = _largest_of_2x2(x, size)
    return (values, positions), positions


def _pool_2x2_backward(size, positions, cotangents):
    return (_unpool_2x2(positions, cotangents[0], size),)


_pool_2x2 = jax.custom_vjp(_largest_of_2x2, nondiff_argnums=(1,))
_pool_2x2.defvjp(_pool_2x2_forward, _pool_2x2_backward)


def max_unpool_2x2(
    values: Shaped[Array, "n h w c"],
    positions: UInt8[Array, "n h w c"],
    output_size: tuple[int, int],
) -> Shaped[Array, "n H W c"]:
    """Undoes `max_pool_2x2`: each value at its position in its window, zeros elsewhere.

    Args:
      values, positions: of one shape, as `max_pool_2x2` returns them.
      output_size: (H, W) that was pooled; ceil(H / 2), ceil(W / 2) must be (h, w).

    Raises:
      ValueError: if the output size does not fit.
    """
    _, h, w, _ = values.shape
    height, width = output_size
    if (-(-height // 2), -(-width // 2)) != (h, w):
        raise ValueError(
            f"max_unpool_2x2: output_size={tuple(output_size)} does not pool to {(h, w)}; "
            f"heights {2 * h - 1} or {2 * h} and widths {2 * w - 1} or {2 * w} do"
        )
    return _unpool_2x2(positions, values, (height, width))


def _unpool_2x2_forward(positions, values, size):
    return _place(positions, values, size), positions


def _unpool_2x2_backward(size, positions, cotangent):
    del size
    no_tangent = np.zeros(positions.shape, jax.dtypes.float0)
    return no_tangent, _pick(positions, cotangent)


_unpool_2x2 = jax.custom_vjp(_place, nondiff_argnums=(2,))
_unpool_2x2.defvjp(_unpool_2x2_forward, _unpool_2x2_backward)


def max_pool(
    x: Shaped[Array, "n H W c"],
    window: tuple[int, int] = (2, 2),
    strides: tuple[int, int] | None = None,
    padding: Padding = "VALID",
) -> Shaped[Array, "n h w c"]:
    """Max pooling without the positions, for windows that overlap or are padded.

    Args:
      x, window, strides, padding: see `max_pool_argmax`; windows of up to 255 cells.

    The first position (row by row) wins a tie; NaN wins over everything. The backward pass needs
    one byte per window, compares and adds: no scatter, and none of the four int32 maps that XLA's
    GPU backend makes for a pooling window and its derivative. Reverse mode only.
    """
    strides = strides or window
    pads = pool_padding((x.shape[1], x.shape[2]), window, strides, padding)

    def forward(x):
        def position(place, size):
            del size
            return jnp.uint8(place[0] * window[1] + place[1])

        return _largest_of_windows(x, window, strides, pads, position)

    def backward(positions, dy):
        terms = []
        for k, place in enumerate(np.ndindex(*window)):
            edges = []
            for n, pad, d, p, stride in zip(
                x.shape[1:3], pads, dy.shape[1:3], place, strides, strict=True
            ):
                # Into the padded map, and cut later: XLA's partitioner aborts at negative padding.
                edges.append((p, n + sum(pad) - p - (d - 1) * stride - 1, stride - 1))
            term = jnp.where(positions == k, dy, 0)
            terms.append(lax.pad(term, jnp.zeros((), dy.dtype), [(0, 0, 0), *edges, (0, 0, 0)]))
        total = functools.reduce(operator.add, terms)
        (top, _), (left, _) = pads
        total = total[:, top : top + x.shape[1], left : left + x.shape[2]]
        return (total,)

    pool = jax.custom_vjp(lambda x: forward(x)[0])
    pool.defvjp(forward, backward)
    return pool(x)


def positions_to_indices(
    positions: UInt8[Array, "n h w c"], input_size: tuple[int, int]
) -> Int[Array, "n h w c"]:
    """From the window positions of `max_pool_2x2` to the flat indices of `max_pool_argmax`."""
    _, h, w, _ = positions.shape
    row = 2 * jnp.arange(h)[:, None, None] + positions // 2
    column = 2 * jnp.arange(w)[:, None] + positions % 2
    return (row * input_size[1] + column).astype(jnp.int32)
