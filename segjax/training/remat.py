"""Rematerialisation: the backward pass computes activations again instead of keeping them.

The loss function is traced to a jaxpr, JAX's list of equations, and cut into parts after each mark
of `layers.checkpoint_names`. Only values that cross a cut are kept. The backward pass goes through
the parts from the last to the first; it runs the forward equations of a part again, from the kept
inputs, just before it differentiates them. The numbers stay the same. The last part is not run
twice, because its backward pass follows at once.

`jax.checkpoint` with a policy of names does not fit: it makes the complete backward pass one piece,
and nothing tells the compiler to delay the second run of a block. XLA's CPU backend does it right
after the first run, and needs more memory than without rematerialisation.

Reference: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016 (arXiv 1604.06174),
section 4.1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var, jaxpr_as_fun

from segjax.layers.checkpoint_names import BLOCK, CONV

# The marks that each policy cuts at. "convs" keeps the outputs of convolutions: normalisation,
# activation, pooling and resizing are cheap to run again. "blocks" keeps the outputs of blocks, and
# computes about a third more.
CUTS = {"convs": (CONV, BLOCK), "blocks": (BLOCK,)}
# The values of `train.remat`; each keeps less than the one before.
POLICIES = ("none", *CUTS)


def rematerialised(function: Callable[..., Any], policy: str) -> Callable[..., Any]:
    """A loss function with the same values and gradients, whose gradient needs less memory.

    Args:
      function: pure `(params, *inputs) -> outputs` on pytrees of arrays, to be differentiated in
        reverse mode. It may be traced inside jit, pmap and scan.
      policy: "none" (returns the function itself), "convs" or "blocks".

    Raises:
      ValueError: for an unknown policy.
    """
    if policy == "none":
        return function
    if policy not in CUTS:
        raise ValueError(f"train.remat={policy!r}; use {', '.join(POLICIES)}")

    def in_parts(params, *inputs):
        arguments = (params, *inputs)
        closed, outputs = jax.make_jaxpr(function, return_shape=True)(*arguments)
        jaxpr = closed.jaxpr
        values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        values |= zip(jaxpr.invars, jax.tree.leaves(arguments), strict=True)
        # Parameters and constants stay in memory anyway.
        permanent = {*jaxpr.constvars, *jaxpr.invars[: len(jax.tree.leaves(params))]}
        *parts, last = _split(jaxpr, CUTS[policy])
        functions = [_recomputed(part, [v not in permanent for v in part.invars]) for part in parts]
        for part, run in zip((*parts, last), (*functions, _function(last)), strict=True):
            results = run(*(values[v] for v in part.invars))
            values |= zip(part.outvars, results, strict=True)
        leaves = [v.val if isinstance(v, Literal) else values[v] for v in jaxpr.outvars]
        return jax.tree.unflatten(jax.tree.structure(outputs), leaves)

    return in_parts


def _split(jaxpr: Jaxpr, marks: Sequence[str]) -> list[Jaxpr]:
    """Cuts a jaxpr after each mark, into parts that run one after the other.

    The inputs of a part are the variables that it reads and does not compute; its outputs are those
    of its variables that a later part reads or the jaxpr returns.
    """
    groups = [[]]
    for eqn in jaxpr.eqns:
        groups[-1].append(eqn)
        if eqn.primitive.name == "name" and eqn.params["name"] in marks:
            groups.append([])
    parts = []
    live = {v for v in jaxpr.outvars if isinstance(v, Var)}  # read after the part
    for eqns in reversed(groups):
        # Dicts, unlike sets, keep the order, so that equal functions compile to equal programs.
        computed = {v: None for eqn in eqns for v in eqn.outvars}
        read = {v: None for eqn in eqns for v in eqn.invars if isinstance(v, Var)}
        inputs = [v for v in read if v not in computed]
        outputs = [v for v in computed if v in live]
        parts.append(jaxpr.replace(constvars=[], invars=inputs, outvars=outputs, eqns=eqns))
        live = live.difference(computed).union(inputs)
    return parts[::-1]


def _function(part: Jaxpr) -> Callable[..., list[jax.Array]]:
    return jaxpr_as_fun(ClosedJaxpr(part, ()))


def _recomputed(part: Jaxpr, delayed: Sequence[bool]) -> Callable[..., list[jax.Array]]:
    """A part whose backward pass runs its forward equations again.

    Args:
      part: the equations.
      delayed: per input, whether it is kept for this part only. The second run waits for these.
    """
    forward = _function(part)

    @jax.custom_vjp
    def run(*inputs):
        return forward(*inputs)

    def run_and_keep_inputs(*inputs):
        return forward(*inputs), inputs

    def backward(inputs, cotangents):
        inputs = [
            _after(cotangents, x) if wait and _is_float(x) else x
            for x, wait in zip(inputs, delayed, strict=True)
        ]
        return jax.vjp(forward, *inputs)[1](cotangents)

    run.defvjp(run_and_keep_inputs, backward)
    return run


def _is_float(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _after(cotangents: Sequence[jax.Array], x: jax.Array) -> jax.Array:
    """Returns x, but makes it depend on the cotangents: x plus zeros that are computed from them.

    Without the dependence the compiler may run a part again long before its cotangents exist. An
    optimisation barrier, as in jax.checkpoint, is not enough. XLA's CPU backend removes barriers
    before it schedules, and its TPU backend needs 9.2 GB with barriers and 7.2 GB with this
    addition (SegNet, "blocks", 12 images of 360x480, compiled for a v5e; 15.6 GB with "none").

    The zeros come from (c < c) & (c > c), which is false for every number and for NaN, and which
    the compiler does not simplify. They read one column and one channel of each cotangent, and
    example i of it for example i of x: little work, and no communication where the batch is
    sharded.
    """
    never = jnp.zeros(x.shape[:1], bool)
    for c in cotangents:
        if x.ndim and c.shape[:1] == x.shape[:1] and _is_float(c):
            c = c[(..., *(0,) * max(0, c.ndim - 2))]
            never |= jnp.any((c < c) & (c > c), axis=range(1, c.ndim))
    return x + jnp.expand_dims(never, range(1, x.ndim)).astype(x.dtype)
