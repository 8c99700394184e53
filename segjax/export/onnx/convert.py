"""From a function of JAX to an ONNX graph, by its jaxpr."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from segjax.export.onnx.elementwise import ELEMENTWISE
from segjax.export.onnx.graph import Graph, fold_into_convolutions, remove_unused
from segjax.export.onnx.rule import Result
from segjax.export.onnx.rules import RULES
from segjax.export.onnx.values import (
    BATCH,
    DTYPES,
    NotConvertible,
    Value,
    constant,
)

# Operations that only call a function, and the parameters in which they keep it.
_CALLS = (
    *("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2", "remat"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
)
_CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_SYMBOL = "n"


def convert(
    function: Callable[[jax.Array], Mapping[str, jax.Array]],
    shape: Sequence[int | None],
    dtype: Any,
    input_name: str = "images",
) -> Graph:
    """The graph of a function of one array.

    Constants that the function closes over become constants of the graph, and whatever does not
    depend on the array is computed here. Where a computation has a form of its own per platform
    (`lax.platform_dependent`), the graph has the form of platforms without one: the plainest.

    Args:
      function: from an array to arrays by name, which become the outputs.
      shape: of the array; None for the first size, if it is free.
      dtype: of the array.

    Raises:
      NotConvertible: naming the first operation without a form in ONNX, and where it is.
    """
    free = shape[0] is None
    sizes = ", ".join(_SYMBOL if n is None else str(n) for n in shape)
    given = jax.export.symbolic_shape(sizes) if free else tuple(shape)
    closed, out = jax.make_jaxpr(function, return_shape=True)(jax.ShapeDtypeStruct(given, dtype))
    graph = Graph()
    interpreter = _Interpreter(graph, given[0] if free else None)
    first = graph.input(input_name, interpreter.sizes(given), dtype)
    results = interpreter.run(closed.jaxpr, map(constant, closed.consts), [first])
    for name, value in zip(sorted(out), results, strict=True):
        graph.output(name, value)
    remove_unused(graph)
    fold_into_convolutions(graph)
    remove_unused(graph)
    return graph


class _Interpreter:
    """Runs jaxprs on `Value`s: constants by JAX, the others by adding operations to a graph."""

    def __init__(self, graph: Graph, batch: Any):
        self.graph, self.batch = graph, batch

    def sizes(self, shape: Sequence[Any]) -> tuple[int, ...]:
        """A shape of JAX with `BATCH` for the batch size."""
        return tuple(self._size(n) for n in shape)

    def _size(self, n: Any) -> int:
        if isinstance(n, int | np.integer):
            return int(n)
        times = n // self.batch
        if isinstance(times, int) and times * self.batch == n:
            return times * BATCH
        raise NotConvertible(f"an array of {n} cells, n the batch size")

    def run(
        self, jaxpr: Any, constants: Iterable[Value], inputs: Sequence[Value], scope: str = ""
    ) -> list[Value]:
        """The results of a jaxpr; `scope` is the module that calls it."""
        values: dict[Any, Value] = dict(zip(jaxpr.constvars, constants, strict=True))
        values.update(zip(jaxpr.invars, inputs, strict=True))

        def read(variable: Any) -> Value:
            if isinstance(variable, core.Literal):
                aval: Any = variable.aval
                return constant(np.asarray(variable.val, aval.dtype))
            return values[variable]

        for equation in jaxpr.eqns:
            own = str(equation.source_info.name_stack)
            place = "/".join(filter(None, (scope, own)))
            self.graph.scope = place
            results = self._equation(equation, [read(v) for v in equation.invars], place)
            values.update(zip(equation.outvars, results, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _equation(self, equation: Any, inputs: list[Value], scope: str) -> list[Value]:
        name, params = equation.primitive.name, equation.params
        if name == "platform_index":
            return [constant(np.int32(params["platforms"].index(None)))]
        if name == "cond" and inputs[0].array is not None:
            branches = params["branches"]
            chosen = branches[int(np.clip(inputs[0].array, 0, len(branches) - 1))]
            return self._call(chosen, inputs[1:], scope)
        if name == "optimization_barrier":
            return inputs
        if name in _CALLS:
            called = next(params[key] for key in _CALLED if key in params)
            return self._call(called, inputs, scope)
        outs = [Result(self.sizes(v.aval.shape), np.dtype(v.aval.dtype)) for v in equation.outvars]
        if name != "broadcast_in_dim" and all(v.array is not None for v in inputs):
            known = self._computed(equation, inputs, outs)
            if known:
                return known
            # One is repeated over the batch.
            inputs = [v if v.shape == v.sizes else self.graph.as_tensor(v) for v in inputs]
        try:
            if name not in RULES:
                raise NotConvertible("it has no form in ONNX here")
            for array in (*inputs, *outs):
                if array.dtype not in DTYPES:
                    raise NotConvertible(f"numbers of type {array.dtype}")
                if 0 in array.shape:
                    raise NotConvertible("an array without cells")
            result: Any = RULES[name](self.graph, inputs, outs[0], params)
        except NotConvertible as error:
            where = f" in {scope}" if scope else ""
            raise NotConvertible(f"{name}{where}: {error}") from None
        results = result if isinstance(result, list) else [result]
        for value, out in zip(results, outs, strict=True):
            assert (value.shape, value.dtype) == out, (name, value, out)
        return results

    def _call(self, called: Any, inputs: Sequence[Value], scope: str) -> list[Value]:
        closed = hasattr(called, "consts")
        constants = map(constant, called.consts) if closed else ()
        return self.run(called.jaxpr if closed else called, constants, inputs, scope)

    def _computed(
        self, equation: Any, inputs: list[Value], outs: list[Result]
    ) -> list[Value] | None:
        """The results of constants, by JAX; None if their shapes are not known."""
        arrays = [np.asarray(v.array) for v in inputs]
        if equation.primitive.name in ELEMENTWISE:
            shape = np.broadcast_shapes(*(a.shape for a in arrays))
            arrays = [np.broadcast_to(a, shape) if a.shape else a for a in arrays]
        elif all(n % BATCH for value in (*inputs, *outs) for n in value.shape):
            pairs = zip(arrays, inputs, strict=True)
            arrays = [np.broadcast_to(a, value.shape) for a, value in pairs]
        else:
            return None
        results = equation.primitive.bind(*arrays, **equation.params)
        results = results if equation.primitive.multiple_results else [results]
        return [constant(np.asarray(r), out.shape) for r, out in zip(results, outs, strict=True)]
