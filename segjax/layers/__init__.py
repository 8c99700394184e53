"""Layers: pure functions on channels-last arrays, and the small linen modules made of them."""

from segjax.layers.adaptive import adaptive_avg_pool
from segjax.layers.context import AtrousSpatialPyramidPooling, PyramidPooling
from segjax.layers.conv import Conv, ConvNormAct, atrous_conv
from segjax.layers.pooling import (
    max_pool_2x2,
    max_pool_argmax,
    max_unpool,
    max_unpool_2x2,
    pool_padding,
    positions_to_indices,
)
from segjax.layers.resize import resize_bilinear, resize_nearest

__all__ = [
    "AtrousSpatialPyramidPooling",
    "Conv",
    "ConvNormAct",
    "PyramidPooling",
    "adaptive_avg_pool",
    "atrous_conv",
    "max_pool_2x2",
    "max_pool_argmax",
    "max_unpool",
    "max_unpool_2x2",
    "pool_padding",
    "positions_to_indices",
    "resize_bilinear",
    "resize_nearest",
]
