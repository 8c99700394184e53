"""Losses on logits and label maps; ignored pixels (255) take no part in any of them."""

from segjax.losses.binary import (
    binary_cross_entropy,
    binary_dice,
    binary_focal,
    binary_jaccard,
)
from segjax.losses.boundary import boundary_cross_entropy
from segjax.losses.focal import focal
from segjax.losses.lovasz import lovasz_softmax
from segjax.losses.ohem import ohem
from segjax.losses.overlap import dice, jaccard, tversky
from segjax.losses.pixelwise import cross_entropy, cross_entropy_sum

__all__ = [
    "binary_cross_entropy",
    "binary_dice",
    "binary_focal",
    "binary_jaccard",
    "boundary_cross_entropy",
    "cross_entropy",
    "cross_entropy_sum",
    "dice",
    "focal",
    "jaccard",
    "lovasz_softmax",
    "ohem",
    "tversky",
]
