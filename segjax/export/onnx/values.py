"""Arrays of JAX as an ONNX graph keeps them.

JAX's arrays have one order of dimensions, channels last here; ONNX convolves and pools with
channels first. So a `Value` knows in which order its tensor is kept. A transposition in JAX, or
a convolution's dimension numbers, only rename that order: operations that work in any order take
the one they find, and `Transpose` appears where no other way is left. Nor is an array repeated
before an operation needs all of its cells.
"""

import dataclasses
from typing import Any

import numpy as np

# Stands for the free batch size in shapes: a prime larger than any fixed size, so that products of
# sizes still compare and divide as products with an unknown do.
BATCH = 1_000_000_007
# Kept as int32 inside a graph: runtimes have few operations for them.
NARROW = (np.uint8, np.int8, np.uint16, np.int16)
DTYPES = (np.float32, np.int32, np.bool_, *NARROW)


class NotConvertible(ValueError):
    """A computation that has no form in ONNX here."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A constant, or a tensor of the graph.

    Attributes:
      shape: of the array in JAX; multiples of `BATCH` are multiples of the free batch size.
      dtype: of the array in JAX.
      array: of a constant, its dimensions as in JAX; 1 where it is repeated to `shape`.
      name: of a tensor.
      order: dimension i of the tensor is the array's dimension `order[i]`.
      sizes: of the tensor, in the array's order: those of `shape`, or 1 where it is repeated.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    array: np.ndarray | None = None
    name: str = ""
    order: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()

    @property
    def repeated(self) -> tuple[int, ...]:
        """The dimensions in which it is repeated."""
        return tuple(
            d for d, (n, m) in enumerate(zip(self.shape, self.sizes, strict=True)) if n != m
        )


def constant(array: Any, shape: tuple[int, ...] | None = None) -> Value:
    """A constant, repeated to a shape if there is one."""
    array = np.asarray(array)
    order = tuple(range(array.ndim))
    return Value(shape or array.shape, array.dtype, array, "", order, array.shape)
