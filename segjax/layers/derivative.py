"""`jax.custom_vjp` as a decorator that keeps the type of what a function returns."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

Result = TypeVar("Result")


def custom_vjp(
    nondiff_argnums: tuple[int, ...],
) -> Callable[[Callable[..., Result]], jax.custom_vjp[Result]]:
    """A decorator: the arguments at these positions are constants of the derivative."""
    decorator: Any = functools.partial(jax.custom_vjp, nondiff_argnums=nondiff_argnums)
    return decorator
