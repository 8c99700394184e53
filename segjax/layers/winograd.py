"""The 3x3 convolution by 16 products for four cells of the result, not by 9 for each.

A tile of 4x4 cells of the map gives 2x2 cells of the result. Tile and kernel are each taken to 16
coefficients, sums and differences of their own. There a convolution is a product, coefficient by
coefficient, and sums and differences of the 16 products are the four cells. Over all tiles and
channels that is 16 matrix products, which CPUs run at their peak rate. The sums cost passes over
the maps, so it pays where channels are many. The libraries of GPUs choose such programs by
themselves.

Reference: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016
(arXiv 1509.09308), section 4.1, F(2x2, 3x3).
"""

import functools
import math
import operator
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from segjax.layers.sharing import rows_are_shared

# The paper's B', G and A'.
_TILE = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_CELLS = ((1, 1, 1, 0), (0, 1, -1, -1))

# What it saves grows as inputs times outputs; what it costs, as inputs plus outputs for each cell,
# and once for the kernel (`python -m benchmarks.layers winograd`).
_LEAST_CHANNELS = 64  # 128 inputs and 128 outputs
_LEAST_CELLS = 512
_MOST_PADDING = 1.25


def pays(x: Float[Array, "n h w i"], kernel: Float[Array, "kh kw i o"], rate: int) -> bool:
    """Whether this form convolves x faster on a CPU. Maps of symbolic size are not looked at, nor
    maps whose rows devices share."""
    inputs, outputs = kernel.shape[2:]
    if kernel.shape[:2] != (3, 3) or x.dtype != jnp.float32 or not isinstance(x.size, int):
        return False
    if inputs * outputs < _LEAST_CHANNELS * (inputs + outputs) or rows_are_shared():
        return False
    sides = x.shape[1:3]
    cells = math.prod(sides)
    padded = math.prod(2 * rate * _tiles(side, rate) for side in sides)
    return x.shape[0] * cells >= _LEAST_CELLS and padded <= _MOST_PADDING * cells


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def winograd_conv(
    x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"], rate: int
) -> Float[Array, "n h w o"]:
    """`atrous_conv` of a 3x3 kernel at stride 1, centred: the same but for rounding.

    Reverse mode only.
    """
    return _convolved(x, kernel, rate)


def _forward(x, kernel, rate):
    return _convolved(x, kernel, rate), (x, kernel)


def _backward(rate, kept, dy):
    x, kernel = kept
    return _convolved(dy, kernel, rate, backward=True), _kernel_gradient(x, dy, rate)


winograd_conv.defvjp(_forward, _backward)


@functools.partial(jax.jit, static_argnames=("rate", "backward"), inline=True)
def _convolved(x, kernel, rate, backward=False):
    """The convolution. Backward: of the result's gradient, with the kernel turned by half a turn,
    from its outputs to its inputs."""
    own = 1 if backward else 0  # the kernel's axis of channels, of 0 and 1, that x has
    taps = [
        tap
        for row in _sums(_KERNEL, kernel[::-1, ::-1] if backward else kernel)
        for tap in _sums(_KERNEL, row)
    ]
    tiles = _along_both(_of_tiles, x, rate)
    n, down, across, _ = tiles[0].shape
    products = [
        lax.dot_general(_flat(tile), tap, (((1,), (own,)), ((), ()))).reshape(n, down, across, -1)
        for tile, tap in zip(tiles, taps, strict=True)
    ]
    rows = [
        _joined(_sums(_CELLS, products[k : k + 4]), 2, x.shape[2], rate) for k in range(0, 16, 4)
    ]
    return _joined(_sums(_CELLS, rows), 1, x.shape[1], rate)


@functools.partial(jax.jit, static_argnames=("rate",), inline=True)
def _kernel_gradient(x, dy, rate):
    """The transpose of the convolution as a function of its kernel."""
    tiles = _along_both(_of_tiles, x, rate)
    cells = _along_both(_of_cells, dy, rate)
    products = [
        lax.dot_general(_flat(tile), _flat(cell), (((0,), (0,)), ((), ())))
        for tile, cell in zip(tiles, cells, strict=True)
    ]
    transposed = tuple(zip(*_KERNEL, strict=True))
    rows = [jnp.stack(_sums(transposed, products[k : k + 4])) for k in range(0, 16, 4)]
    return jnp.stack(_sums(transposed, rows))


def _along_both(coefficients, x, rate) -> list[Array]:
    """The 16 coefficients of `_of_tiles` or `_of_cells`, each [n, rows, columns, c]."""
    return [c for row in coefficients(x, 1, rate) for c in coefficients(row, 2, rate)]


def _sums(matrix, parts: Iterable[Array]) -> list[Array]:
    """The matrix times the vector of parts."""
    parts = list(parts)
    terms = ([c * part for c, part in zip(row, parts, strict=True) if c] for row in matrix)
    return [functools.reduce(operator.add, row) for row in terms]


def _tiles(size: int, rate: int) -> int:
    """How many tiles cover a side, for each of the `rate` phases: their cells are `rate` apart."""
    return -(-size // (2 * rate))


def _of_tiles(x, axis, rate):
    """The four coefficients of tiles along an axis."""
    count = _tiles(x.shape[axis], rate)
    halves = _halves(x, axis, count + 1, rate, before=rate)
    parts = [
        lax.slice_in_dim(half, start, start + count, axis=axis)
        for start in (0, 1)
        for half in halves
    ]
    return [_merged(total, axis, 2) for total in _sums(_TILE, parts)]


def _of_cells(dy, axis, rate):
    """The four coefficients of tiles along an axis, of the gradient of their two cells."""
    halves = _halves(dy, axis, _tiles(dy.shape[axis], rate), rate, before=0)
    transposed = tuple(zip(*_CELLS, strict=True))
    return [_merged(total, axis, 2) for total in _sums(transposed, halves)]


def _halves(x, axis, count, rate, before):
    """Pads an axis to `count` times 2 * rate, which it becomes the axes (count, rate) of: the first
    `rate` of each, and the second."""
    pads = [(0, 0)] * x.ndim
    pads[axis] = (before, 2 * rate * count - before - x.shape[axis])
    x = jnp.pad(x, pads)
    x = x.reshape(*x.shape[:axis], count, 2, rate, *x.shape[axis + 1 :])
    return [lax.index_in_dim(x, half, axis + 1, keepdims=False) for half in (0, 1)]


def _joined(halves, axis, size, rate):
    """Undoes `_halves`: from (count * rate) cells in each half to `size` along the axis."""
    split = [half.reshape(*half.shape[:axis], -1, rate, *half.shape[axis + 1 :]) for half in halves]
    return lax.slice_in_dim(_merged(jnp.stack(split, axis + 1), axis, 3), 0, size, axis=axis)


def _merged(x, axis, count):
    """`count` axes, from `axis` on, as one."""
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + count :])


def _flat(x):
    """[cells, channels]: a product over the cells of a map that keeps its axes would be of
    transposed copies."""
    return x.reshape(-1, x.shape[-1])
