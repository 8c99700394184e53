"""Operations that add many cells up, or choose among them: products, convolutions, reductions."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from segjax.export.onnx.elementwise import apply
from segjax.export.onnx.rule import Rule
from segjax.export.onnx.values import NARROW, NotConvertible, Value, constant


def _reduce(op: str) -> Rule:
    def rule(graph, values, out, params):
        axes = sorted(params["axes"])
        return _reduced(graph, op, values[0], axes, out)

    return rule


def _reduced(graph, op, x, axes, out, **attributes):
    x = graph.expanded(x, axes)
    if x.dtype in NARROW:
        raise NotConvertible(f"{op} in {x.dtype}")
    places = sorted(x.order.index(d) for d in axes)
    if op == "ReduceSum":
        name = graph.emit(op, x.name, graph.integers(places), keepdims=0)
    elif op in ("ArgMax", "ArgMin"):
        name = graph.emit(op, x.name, axis=places[0], keepdims=0)
        name = graph.emit("Cast", name, to=np.dtype(np.int32))
    else:
        name = graph.emit(op, x.name, axes=places, keepdims=0)
    kept = [d for d in range(len(x.shape)) if d not in axes]
    order = tuple(kept.index(d) for d in x.order if d in kept)
    return Value(out.shape, out.dtype, None, name, order, tuple(x.sizes[d] for d in kept))


def _reduce_bool(op: str) -> Rule:
    def rule(graph, values, out, params):
        (x,) = values
        if x.dtype != np.bool_:
            raise NotConvertible(f"a bitwise reduction of {x.dtype}")
        number = dataclasses.replace(
            x, dtype=np.dtype(np.int32), name=graph.emit("Cast", x.name, to=np.dtype(np.int32))
        )
        y = _reduced(graph, op, number, sorted(params["axes"]), out)
        return dataclasses.replace(y, name=graph.emit("Cast", y.name, to=np.dtype(np.bool_)))

    return rule


def _dot_general(graph, values, out, params):
    (lhs_sum, rhs_sum), (lhs_batch, rhs_batch) = params["dimension_numbers"]
    lhs, rhs = values
    if out.dtype != np.float32:
        raise NotConvertible(f"a matrix product in {out.dtype}")
    sides = _Side(lhs, lhs_sum, lhs_batch), _Side(rhs, rhs_sum, rhs_batch)
    for matrix, x in (sides, sides[::-1]):
        weights = matrix.value.array
        if weights is None or x.value.array is not None:
            continue
        repeated = all(weights.shape[d] == 1 for d in matrix.batch)
        if repeated and len(matrix.summed) == len(matrix.own) == 1:
            return _times_matrix(graph, x, matrix, out, own_first=matrix is sides[0])
    return _product(graph, *sides, out)


class _Side(NamedTuple):
    """A factor of a product, and its dimensions: summed, or counting products."""

    value: Value
    summed: Sequence[int]
    batch: Sequence[int]

    @property
    def own(self) -> list[int]:
        """The dimensions that the other factor has not."""
        return [d for d in range(len(self.value.shape)) if d not in (*self.summed, *self.batch)]


def _times_matrix(graph, x, matrix, out, own_first):
    """x with one dimension multiplied by a constant matrix, where the dimension lies.

    Dimensions of the result: those of the batch, then the left factor's own, then the right's;
    `own_first`: the matrix is the left one.
    """
    (summed,), (matrix_summed,), (matrix_own,) = x.summed, matrix.summed, matrix.own
    array = np.transpose(matrix.value.array, [*matrix.batch, matrix_summed, matrix_own])
    terms, outputs = (matrix.value.shape[d] for d in (matrix_summed, matrix_own))
    array = np.broadcast_to(array.reshape(array.shape[-2:]), (terms, outputs))
    value = graph.expanded(x.value, [summed])
    order = list(value.order)
    if summed not in order[-2:]:
        order.remove(summed)
        order.append(summed)
    name = graph.tensor(value, order)
    if order[-1] == summed:
        name = graph.emit("MatMul", name, graph.constant(array))
    else:
        name = graph.emit("MatMul", graph.constant(array.T), name)
    batch = len(x.batch)
    new = batch if own_first else batch + len(x.own)
    first = batch + 1 if own_first else batch
    places = {
        summed: new,
        **{d: i for i, d in enumerate(x.batch)},
        **{d: first + i for i, d in enumerate(x.own)},
    }
    sizes = [1] * len(out.shape)
    for d, place in places.items():
        sizes[place] = outputs if d == summed else value.sizes[d]
    return Value(out.shape, out.dtype, None, name, tuple(places[d] for d in order), tuple(sizes))


def _product(graph, lhs, rhs, out):
    """A product of two stacks of matrices."""
    stacks = []
    for side, first, last in ((lhs, lhs.own, lhs.summed), (rhs, rhs.summed, rhs.own)):
        value = graph.expanded(side.value, [*first, *last])
        name, sizes = graph.tensor(value, [*side.batch, *first, *last]), value.sizes
        stack = [sizes[d] for d in side.batch]
        if (len(first), len(last)) != (1, 1):
            rows_columns = [math.prod(sizes[d] for d in dims) for dims in (first, last)]
            name = graph.reshaped(name, [*stack, *rows_columns])
        stacks.append((name, stack))
    (left, left_sizes), (right, right_sizes) = stacks
    sizes = (*map(max, left_sizes, right_sizes), *out.shape[len(lhs.batch) :])
    name = graph.emit("MatMul", left, right)
    if (len(lhs.own), len(rhs.own)) != (1, 1):
        name = graph.reshaped(name, sizes)
    return Value(out.shape, out.dtype, None, name, tuple(range(len(sizes))), sizes)


def _conv(graph, values, out, params):
    x, kernel = values
    x_order, kernel_order, out_order = params["dimension_numbers"]
    padding, rates = params["padding"], params["rhs_dilation"]
    if params["batch_group_count"] != 1:
        raise NotConvertible("a convolution in groups of the batch")
    if min(min(pair) for pair in padding) < 0:
        raise NotConvertible("a convolution with negative padding")
    x = graph.expanded(x, [d for d in x_order if d != x_order[0]])
    attributes = {
        "strides": list(params["window_strides"]),
        "dilations": list(rates),
        "group": params["feature_group_count"],
    }
    kernel = graph.expanded(kernel)
    sides = [kernel.shape[d] for d in kernel_order[2:]]
    weights = graph.tensor(kernel, kernel_order)
    op, steps = "Conv", params["lhs_dilation"]
    if any(step != 1 for step in steps):
        op, padding = "ConvTranspose", _transposed_padding(sides, padding, rates)
        if kernel.array is None or attributes["group"] != 1 or {*params["window_strides"]} != {1}:
            raise NotConvertible("a transposed convolution in groups, or of computed weights")
        flipped = np.flip(np.transpose(kernel.array, kernel_order), tuple(range(2, 2 + len(sides))))
        weights = graph.constant(np.swapaxes(flipped, 0, 1))
        attributes["strides"] = list(steps)
    attributes["pads"] = [pair[side] for side in (0, 1) for pair in padding]
    name = graph.emit(op, graph.tensor(x, x_order), weights, kernel_shape=sides, **attributes)
    sizes = list(out.shape)
    sizes[out_order[0]] = x.sizes[x_order[0]]
    return Value(out.shape, out.dtype, None, name, tuple(out_order), tuple(sizes))


def _transposed_padding(sides, padding, rates):
    """The padding that a transposed convolution cuts off, for the padding of x between zeros."""
    reach = [(k - 1) * rate for k, rate in zip(sides, rates, strict=True)]
    pads = [(r - low, r - high) for r, (low, high) in zip(reach, padding, strict=True)]
    if min(map(min, pads)) < 0:
        raise NotConvertible("a transposed convolution padded beyond its kernel")
    return pads


def _reduce_window(op: str) -> Rule:
    def rule(graph, values, out, params):
        (x,) = values
        windows, strides = params["window_dimensions"], params["window_strides"]
        if {*params["base_dilation"], *params["window_dilation"]} != {1} or x.dtype != np.float32:
            raise NotConvertible(f"a window with dilation, or of {x.dtype}")
        wide = [
            d
            for d, (window, step, pads) in enumerate(
                zip(windows, strides, params["padding"], strict=True)
            )
            if window > 1 or step > 1 or any(pads)
        ]
        if len(x.shape) < 3 or len(wide) > len(x.shape) - 2:
            raise NotConvertible(f"windows over {len(wide)} of {len(x.shape)} dimensions")
        others = [d for d in x.order if d not in wide]
        while len(others) > 2:  # windows of one cell
            wide.append(others.pop())
        wide.sort(key=x.order.index)
        x = graph.expanded(x, wide)
        order = (*others, *wide)
        cells = [windows[d] for d in wide]
        attributes: dict[str, Any] = {
            "kernel_shape": cells,
            "strides": [strides[d] for d in wide],
            "pads": [params["padding"][d][side] for side in (0, 1) for d in wide],
        }
        if op == "AveragePool":
            attributes["count_include_pad"] = 1
        name = graph.emit(op, graph.tensor(x, order), **attributes)
        sizes = tuple(x.sizes[d] if d in others else n for d, n in enumerate(out.shape))
        y = Value(out.shape, out.dtype, None, name, order, sizes)
        if op == "AveragePool":
            y = apply(graph, "Mul", [y, constant(np.float32(math.prod(cells)))], out)
        return y

    return rule


SUMS: dict[str, Rule] = {
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_prod": _reduce("ReduceProd"),
    "reduce_or": _reduce_bool("ReduceMax"),
    "reduce_and": _reduce_bool("ReduceMin"),
    "argmax": _reduce("ArgMax"),
    "argmin": _reduce("ArgMin"),
    "dot_general": _dot_general,
    "conv_general_dilated": _conv,
    "reduce_window_max": _reduce_window("MaxPool"),
    "reduce_window_sum": _reduce_window("AveragePool"),
}
