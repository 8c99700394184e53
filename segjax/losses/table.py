"""The losses by the names that `loss.terms` uses: one row each.

A loss is a function `(logits, labels, class_weights, *, options) -> scalar`; one that takes no
class weights lacks that argument. Its options, with their defaults, are its keyword-only arguments.
It checks them first and raises ValueError.

A loss with a `divisor` is a sum over pixels, each of which depends on its image alone, over a
number that the labels alone determine. It has an option `divide_by`, whose value "none" gives the
sum. The training step adds up such sums over micro-batches and devices. All other losses are given
the logits of the whole batch.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from segjax.losses.boundary import boundary_cross_entropy
from segjax.losses.divisors import divisor
from segjax.losses.focal import focal
from segjax.losses.lovasz import lovasz_softmax
from segjax.losses.ohem import ohem
from segjax.losses.overlap import dice, jaccard, tversky
from segjax.losses.pixelwise import cross_entropy


class Loss(NamedTuple):
    """A row of `LOSSES`.

    Attributes:
      function: see the module.
      divisor: `(labels, num_classes, class_weights, divide_by) -> number`, see `losses.divisors`.
        Losses with the same divisor and `divide_by` share it. None = needs the whole batch.
    """

    function: Callable[..., jax.Array]
    divisor: Callable[..., jax.Array] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options and their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @property
    def takes_class_weights(self) -> bool:
        return "class_weights" in inspect.signature(self.function).parameters


LOSSES = {
    "cross_entropy": Loss(cross_entropy, divisor),
    "focal": Loss(focal, divisor),
    "boundary_cross_entropy": Loss(boundary_cross_entropy, divisor),
    "dice": Loss(dice),
    "jaccard": Loss(jaccard),
    "tversky": Loss(tversky),
    "lovasz_softmax": Loss(lovasz_softmax),
    "ohem": Loss(ohem),
}
ALIASES = {"lovasz": "lovasz_softmax"}
