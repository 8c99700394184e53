"""Rematerialisation: what the backward pass computes again instead of keeping it in memory.

The loss function is cut into parts at the marks of `layers.checkpoint_names`. What crosses a cut is
kept; all else inside a part is computed again when the backward pass comes to it. Numbers stay the
same, and the last part, whose backward pass follows at once, is not computed twice.

Reference: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016 (arXiv 1604.06174),
section 4.1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var, jaxpr_as_fun

from segjax.layers.checkpoint_names import BLOCK, CONV

# Per policy, the marks to cut at. "convs" keeps what convolutions computed; normalisation,
# activation, pooling and resizing are cheap to compute again. "blocks" keeps the blocks' outputs,
# and computes about a third more.
CUTS = {"convs": (CONV, BLOCK), "blocks": (BLOCK,)}


def rematerialised(function: Callable[..., Any], policy: str) -> Callable[..., Any]:
    """A loss function whose gradient needs less memory; the same values and gradients.

    jax.checkpoint with a policy of names would make the whole backward pass one piece. Nothing
    would tell the compiler to compute a block again only when its turn comes: XLA's CPU backend
    does so right after computing it first, and needs more memory than without.

    Args:
      function: `(params, *inputs) -> outputs`, pytrees of arrays, pure; differentiated in reverse
        mode. It may be traced inside jit, pmap and scan.
      policy: "none" (the function itself), "convs" or "blocks".

    Raises:
      ValueError: for an unknown policy.
    """
    if policy == "none":
        return function
    if policy not in CUTS:
        raise ValueError(f"train.remat={policy!r}; use none, {', '.join(CUTS)}")

    def in_parts(params, *inputs):
        arguments = (params, *inputs)
        closed, outputs = jax.make_jaxpr(function, return_shape=True)(*arguments)
        jaxpr = closed.jaxpr
        values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        values |= zip(jaxpr.invars, jax.tree.leaves(arguments), strict=True)
        # Parameters and constants are in memory anyway.
        at_hand = {*jaxpr.constvars, *jaxpr.invars[: len(jax.tree.leaves(params))]}
        *parts, last = _parts(jaxpr, CUTS[policy])
        functions = [_recomputed(part, [v not in at_hand for v in part.invars]) for part in parts]
        for part, run in zip((*parts, last), (*functions, _function(last)), strict=True):
            results = run(*(values[v] for v in part.invars))
            values |= zip(part.outvars, results, strict=True)
        leaves = [v.val if isinstance(v, Literal) else values[v] for v in jaxpr.outvars]
        return jax.tree.unflatten(jax.tree.structure(outputs), leaves)

    return in_parts


def _parts(jaxpr: Jaxpr, marks: Sequence[str]) -> list[Jaxpr]:
    """The program cut after each mark, in its order: a part takes what it reads of the parts before
    it, and returns what those after it, or the program, read of it."""
    parts = [[]]
    for eqn in jaxpr.eqns:
        parts[-1].append(eqn)
        if eqn.primitive.name == "name" and eqn.params["name"] in marks:
            parts.append([])
    cut = []
    wanted = {v for v in jaxpr.outvars if isinstance(v, Var)}
    for eqns in reversed(parts):
        made = {v for eqn in eqns for v in eqn.outvars}
        read = {v: None for eqn in eqns for v in eqn.invars if isinstance(v, Var)}  # in order
        read = [v for v in read if v not in made]
        returned = [v for eqn in eqns for v in eqn.outvars if v in wanted]
        cut.append(jaxpr.replace(constvars=[], invars=read, outvars=returned, eqns=eqns))
        wanted = (wanted - made).union(read)
    return cut[::-1]


def _function(part: Jaxpr) -> Callable[..., list[jax.Array]]:
    return jaxpr_as_fun(ClosedJaxpr(part, ()))


def _recomputed(part: Jaxpr, kept: list[bool]) -> Callable[..., list[jax.Array]]:
    """A part whose backward pass starts from its inputs, of which some are `kept` for it alone."""
    forward = _function(part)

    @jax.custom_vjp
    def run(*inputs):
        return forward(*inputs)

    def run_and_keep(*inputs):
        return forward(*inputs), inputs

    def backward(inputs, cotangents):
        inputs = [
            _after(cotangents, x) if late and _is_float(x) else x
            for x, late in zip(inputs, kept, strict=True)
        ]
        return jax.vjp(forward, *inputs)[1](cotangents)

    run.defvjp(run_and_keep, backward)
    return run


def _is_float(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _after(cotangents: Sequence[jax.Array], x: jax.Array) -> jax.Array:
    """x, but not before the cotangents are there: x plus zeros that are computed from them.

    An optimisation barrier, which jax.checkpoint relies on, is not enough: XLA's CPU backend
    removes barriers before it schedules, and its TPU backend needed 9.2 GB with them where it needs
    7.2 GB so (SegNet, "blocks", 12 images of 360x480, compiled for a v5e; 15.6 GB with "none").

    No number is both below and above itself, and NaN is neither, so these are zeros whatever the
    cotangents are. They look at one column and channel of a map, and at example i for example i:
    few numbers, which lie on the same device where the batch is shared.
    """
    never = jnp.zeros(x.shape[:1], bool)
    for c in cotangents:
        if x.ndim and c.shape[:1] == x.shape[:1] and _is_float(c):
            c = c[(..., *(0,) * max(0, c.ndim - 2))]
            never |= jnp.any((c < c) & (c > c), axis=range(1, c.ndim))
    return x + jnp.expand_dims(never, range(1, x.ndim)).astype(x.dtype)
