"""Losses on logits and label maps; ignored pixels (255) take no part in any of them."""

from segjax.losses.binary import (
    binary_cross_entropy,
    binary_cross_entropy_sum,
    binary_dice,
    binary_jaccard,
)
from segjax.losses.pixelwise import cross_entropy, cross_entropy_sum

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_sum",
    "binary_dice",
    "binary_jaccard",
    "cross_entropy",
    "cross_entropy_sum",
]
