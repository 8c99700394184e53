"""Operations on each number by itself."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from segjax.export.onnx.graph import Graph
from segjax.export.onnx.rule import Result, Rule
from segjax.export.onnx.values import DTYPES, NARROW, NotConvertible, Value, constant


def apply(graph: Graph, op: str, values: Sequence[Value], out: Result, **attributes: Any) -> Value:
    """An operation on each number by itself, in the order of its largest operand."""
    tensors = [v for v in values if v.array is None]
    order = max(tensors, key=lambda v: math.prod(v.sizes)).order
    names = [graph.tensor(v, order if v.shape else ()) for v in values]
    sizes = [max(v.sizes[d] for v in values if v.shape) for d in range(len(out.shape))]
    name = graph.emit(op, *names, **attributes)
    return Value(out.shape, out.dtype, None, name, order, tuple(sizes))


def _elementwise(op: str) -> Rule:
    return lambda graph, values, out, params: apply(graph, op, values, out)


def _arithmetic(op: str) -> Rule:
    """Of narrow integers sums that fit alone: kept as int32, others would not wrap around."""

    def rule(graph, values, out, params):
        del params
        if out.dtype in NARROW:
            highest = sum(_highest(graph, v) for v in values)
            if (
                op != "Add"
                or not np.issubdtype(out.dtype, np.unsignedinteger)
                or highest > np.iinfo(out.dtype).max
            ):
                raise NotConvertible(f"arithmetic in {out.dtype} that may overflow")
        return apply(graph, op, values, out)

    return rule


def _highest(graph: Graph, value: Value) -> int:
    """The highest number that an unsigned integer may be."""
    if value.array is not None:
        return int(value.array.max())
    choice = graph.producer(value.name, "Where")
    if choice and all(name in graph.constants for name in choice.inputs[1:]):
        return max(int(graph.constants[name].max()) for name in choice.inputs[1:])
    return int(np.iinfo(value.dtype).max)


def _max(graph, values, out, params):
    if out.dtype == np.float32 and values[1].array is not None and not values[1].array.any():
        return apply(graph, "Relu", values[:1], out)
    return apply(graph, "Max", values, out)


def _check_divisor(divisor: Value) -> None:
    """Runtimes may end the process at an integer division by 0."""
    if divisor.dtype != np.float32 and (divisor.array is None or not divisor.array.all()):
        raise NotConvertible(f"a division in {divisor.dtype} by a number that may be 0")


def _div(graph, values, out, params):
    _check_divisor(values[1])
    return _arithmetic("Div")(graph, values, out, params)


def _rem(graph, values, out, params):
    _check_divisor(values[1])
    return apply(graph, "Mod", values, out, fmod=1)


def _rsqrt(graph, values, out, params):
    return apply(graph, "Reciprocal", [apply(graph, "Sqrt", values, out)], out)


def _ne(graph, values, out, params):
    return apply(graph, "Not", [apply(graph, "Equal", values, out)], out)


def _square(graph, values, out, params):
    return _arithmetic("Mul")(graph, [values[0], values[0]], out, params)


def _integer_pow(graph, values, out, params):
    if params["y"] == 2:
        return _square(graph, values, out, params)
    return apply(graph, "Pow", [values[0], constant(np.asarray(params["y"], out.dtype))], out)


def _pow(graph, values, out, params):
    if out.dtype != np.float32:
        raise NotConvertible(f"a power in {out.dtype}")
    return apply(graph, "Pow", values, out)


def _round(graph, values, out, params):
    if int(params["rounding_method"]) != 1:  # ROUND half to EVEN
        raise NotConvertible("rounding half away from zero")
    return apply(graph, "Round", values, out)


def _clamp(graph, values, out, params):
    low, x, high = values
    return apply(graph, "Min", [apply(graph, "Max", [x, low], out), high], out)


def _shift_left(graph, values, out, params):
    x, places = values
    if places.array is None or x.dtype != np.int32:
        raise NotConvertible(f"a shift of {x.dtype} by a computed number of places")
    factor = dataclasses.replace(places, array=(1 << places.array).astype(np.int32))
    return apply(graph, "Mul", [x, factor], out)


def _logical(op: str) -> Rule:
    def rule(graph, values, out, params):
        if out.dtype != np.bool_:
            raise NotConvertible(f"the bitwise {op} of {out.dtype}")
        return apply(graph, op, values, out)

    return rule


def _select(graph, values, out, params):
    if len(values) != 3 or values[0].dtype != np.bool_:
        raise NotConvertible("a selection among more than two arrays")
    predicate, otherwise, chosen = values
    y = apply(graph, "Where", [predicate, chosen, otherwise], out)
    larger = _largest(graph, y.name) if out.dtype == np.float32 else None
    return dataclasses.replace(y, name=graph.emit("Max", *larger)) if larger else y


def _largest(graph: Graph, name: str) -> list[str] | None:
    """The operands of `where(a > b or a is NaN, a, b)`, which is the larger one."""
    choice = graph.producer(name, "Where")
    assert choice
    predicate, a, b = choice.inputs
    either = graph.producer(predicate, "Or")
    if either is None:
        return None
    greater = graph.producer(either.inputs[0], "Greater")
    is_nan = graph.producer(either.inputs[1], "Not")
    equal = graph.producer(is_nan.inputs[0], "Equal") if is_nan else None
    if greater and equal and greater.inputs == [a, b] and equal.inputs == [a, a]:
        return [a, b]
    return None


def _convert(graph, values, out, params):
    (x,) = values
    if out.dtype not in DTYPES:
        raise NotConvertible(f"numbers of type {out.dtype}")
    if x.dtype == np.bool_ and out.dtype in NARROW:
        numbers = (constant(np.asarray(n, out.dtype)) for n in (1, 0))
        return apply(graph, "Where", [x, *numbers], out)
    if x.dtype == out.dtype:
        return dataclasses.replace(x, dtype=out.dtype)
    name = graph.unwidened(x.name)
    name = graph.emit("Cast", name, to=out.dtype)
    if out.dtype in NARROW:  # wraps around, then is kept as int32
        name = graph.emit("Cast", name, to=np.dtype(np.int32))
    return dataclasses.replace(x, dtype=out.dtype, name=name)


def _function(op: str) -> Rule:
    def rule(graph, values, out, params):
        if out.dtype in NARROW:
            raise NotConvertible(f"{op} of {out.dtype}")
        return apply(graph, op, values, out)

    return rule


_FUNCTIONS = {
    "exp": "Exp",
    "log": "Log",
    "tanh": "Tanh",
    "logistic": "Sigmoid",
    "sqrt": "Sqrt",
    "erf": "Erf",
    "sin": "Sin",
    "cos": "Cos",
    "floor": "Floor",
    "ceil": "Ceil",
    "abs": "Abs",
    "neg": "Neg",
    "sign": "Sign",
}

# The operations on each number by itself: of constants JAX computes them before they are repeated.
ELEMENTWISE: dict[str, Rule] = {
    **{name: _function(op) for name, op in _FUNCTIONS.items()},
    **{name: _arithmetic(op) for name, op in (("add", "Add"), ("sub", "Sub"), ("mul", "Mul"))},
    "add_any": _arithmetic("Add"),
    "div": _div,
    "rem": _rem,
    "max": _max,
    "min": _elementwise("Min"),
    "rsqrt": _rsqrt,
    "square": _square,
    "integer_pow": _integer_pow,
    "pow": _pow,
    "round": _round,
    "clamp": _clamp,
    "shift_left": _shift_left,
    "and": _logical("And"),
    "or": _logical("Or"),
    "xor": _logical("Xor"),
    "not": _logical("Not"),
    "eq": _elementwise("Equal"),
    "ne": _ne,
    "gt": _elementwise("Greater"),
    "lt": _elementwise("Less"),
    "ge": _elementwise("GreaterOrEqual"),
    "le": _elementwise("LessOrEqual"),
    "select_n": _select,
    "convert_element_type": _convert,
}
