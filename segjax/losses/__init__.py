"""Losses on logits and label maps; ignored pixels (255) take no part in any of them."""

from segjax.losses.pixelwise import cross_entropy, cross_entropy_sum

__all__ = ["cross_entropy", "cross_entropy_sum"]
