"""Whether devices share the rows of maps, which some forms of a layer would gather."""

import jax


def rows_are_shared() -> bool:
    """Whether the mesh that JAX traces for (`jax.set_mesh`) divides rows, over an axis "space"."""
    return jax.sharding.get_abstract_mesh().shape.get("space", 1) > 1
