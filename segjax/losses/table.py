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

from segjax.losses.binary import (
    binary_cross_entropy,
    binary_dice,
    binary_divisor,
    binary_focal,
    binary_jaccard,
)
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
      head: of the networks that it trains: "softmax", for label maps of ids, or "sigmoid", for
        label maps of bits.
    """

    function: Callable[..., jax.Array]
    divisor: Callable[..., jax.Array] | None = None
    head: str = "softmax"

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
    "binary_cross_entropy": Loss(binary_cross_entropy, binary_divisor, "sigmoid"),
    "binary_focal": Loss(binary_focal, binary_divisor, "sigmoid"),
    "binary_dice": Loss(binary_dice, head="sigmoid"),
    "binary_jaccard": Loss(binary_jaccard, head="sigmoid"),
}
# Further names by the head. A name without "binary_" suits both heads.
ALIASES = {
    "softmax": {"lovasz": "lovasz_softmax"},
    "sigmoid": {n.removeprefix("binary_"): n for n, row in LOSSES.items() if row.head == "sigmoid"},
}
