"""Checks the annotations of segjax, array shapes included, at every call that tests make."""

from collections.abc import Mapping

import beartype
import jax
import jaxtyping
import ml_collections
import numpy as np
from jax import export

# A size of an array that is exported for any size is no int, but counts as one.
_SYMBOLIC = type(export.symbolic_shape("n")[0])
_CONF = beartype.BeartypeConf(
    is_pep484_tower=True,  # an int is a float too
    hint_overrides=beartype.FrozenDict({int: int | _SYMBOLIC | np.integer}),
)


# Not segjax.accelerators: it reads text in loops of a million steps, where checks made anew for
# each inner function would cost minutes.
_PACKAGES = (
    *("api", "commands", "config", "data", "export", "inference", "layers", "losses", "metrics"),
    *("models", "published", "report", "training", "transforms", "weights"),
)


def check(function):
    return beartype.beartype(conf=_CONF)(function)


def install() -> None:
    """Has the packages checked; call it before the first of them is imported."""
    # JAX's functions take NumPy's arrays too.
    jaxtyping.Array = jax.Array | np.ndarray
    # A ConfigDict has a mapping's methods but does not say so.
    Mapping.register(ml_collections.ConfigDict)
    packages = [f"segjax.{name}" for name in _PACKAGES]
    jaxtyping.install_import_hook(packages, f"{__name__}.check")
