"""What translates one operation of JAX."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from segjax.export.onnx.graph import Graph
from segjax.export.onnx.values import Value


class Result(NamedTuple):
    """What JAX says of an operation's result; `shape` as `Value` has it."""

    shape: tuple[int, ...]
    dtype: np.dtype


# From the operands, of which at least one is a tensor, and the operation's parameters. An operation
# with several results gives a list; its `Result` is that of the first.
Rule = Callable[[Graph, Sequence[Value], Result, Mapping[str, Any]], Value | list[Value]]
