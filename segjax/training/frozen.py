"""What a training step leaves as it is: frozen parameters, and batch norms that keep their
statistics."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Frozen:
    """The frozen part of a model, by paths in its tree of parameters.

    Attributes:
      params: the parameters, such as "encoder/stem/conv/kernel".
      norms: the modules of batch normalisation, such as "encoder/stem/norm", that normalise by
        their running statistics in training too, and keep them.
    """

    params: frozenset[str] = frozenset()
    norms: frozenset[str] = frozenset()

    def split(self, params: Any) -> tuple[Any, Any]:
        """The trained parameters and the frozen ones, each with None in place of the others.

        A loss is differentiated by the first of them, so that nothing of the backward pass that
        only frozen parameters need is ever made.
        """
        trained = map_by_path(lambda path, x: None if path in self.params else x, params)
        return trained, map_by_path(lambda path, x: x if path in self.params else None, params)

    def keep(self, new: Any, old: Any) -> Any:
        """New variables {"params", "batch_stats"}, with the old arrays of what is frozen."""

        def params(path, x_new, x_old):
            return x_old if path in self.params else x_new

        def statistics(path, x_new, x_old):
            return x_old if path.rpartition("/")[0] in self.norms else x_new

        return {
            "params": map_by_path(params, new["params"], old["params"]),
            "batch_stats": map_by_path(statistics, new["batch_stats"], old["batch_stats"]),
        }


NOTHING = Frozen()


def joined(trained: Any, frozen: Any) -> Any:
    """The parameters of which `Frozen.split` made two trees."""
    return jax.tree.map(lambda a, b: b if a is None else a, trained, frozen, is_leaf=_is_none)


def _is_none(x: Any) -> bool:
    return x is None


def map_by_path(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Maps `function(path, leaf, ...)` over a tree; a path is "encoder/stem/conv/kernel"."""

    def named(path, *leaves):
        return function(jax.tree_util.keystr(path, simple=True, separator="/"), *leaves)

    return jax.tree_util.tree_map_with_path(named, tree, *rest)
