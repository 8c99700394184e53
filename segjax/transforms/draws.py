"""The random numbers of a view: one key per kind of change, derived from the name of the change."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, PRNGKeyArray


def key_of(key: PRNGKeyArray, change: str) -> PRNGKeyArray:
    """The key of a change. A new one has a new name, and leaves the draws of all others alone."""
    return jax.random.fold_in(key, zlib.crc32(change.encode()))


def happens(key: PRNGKeyArray, change: str, probability: float) -> Bool[Array, ""] | bool:
    """Whether a change is made; True without a draw where it always is."""
    if probability == 1:
        return True
    return jax.random.bernoulli(key_of(key, change), probability)


def where(condition: Bool[Array, "..."] | bool, changed: ArrayLike, unchanged: ArrayLike) -> Any:
    """`jnp.where`, and `changed` itself where the condition is the constant True: so a change that
    is always made compiles to what it was before changes had probabilities, bit for bit."""
    return changed if condition is True else jnp.where(condition, changed, unchanged)
