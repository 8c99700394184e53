"""Layers: pure functions on channels-last arrays, and the small linen modules made of them."""

from segjax.layers.activation import relu
from segjax.layers.adaptive import adaptive_avg_pool, adaptive_avg_pools, adaptive_max_pool
from segjax.layers.context import AtrousSpatialPyramidPooling, PyramidPooling
from segjax.layers.conv import Conv, ConvNormAct, atrous_conv
from segjax.layers.depthwise import depthwise_conv, grouped_conv
from segjax.layers.enlarged import conv_of_enlarged
from segjax.layers.norm import BatchNorm
from segjax.layers.pooling import (
    max_pool,
    max_pool_2x2,
    max_pool_argmax,
    max_unpool,
    max_unpool_2x2,
    pool_padding,
    positions_to_indices,
)
from segjax.layers.resize import resize_bilinear, resize_nearest, spatial_size
from segjax.layers.separable import SeparableConvNormAct
from segjax.layers.transpose import (
    ConvTranspose,
    bilinear_conv_transpose,
    bilinear_kernel,
    conv_transpose,
)

__all__ = [
    "AtrousSpatialPyramidPooling",
    "BatchNorm",
    "Conv",
    "ConvNormAct",
    "ConvTranspose",
    "PyramidPooling",
    "SeparableConvNormAct",
    "adaptive_avg_pool",
    "adaptive_avg_pools",
    "adaptive_max_pool",
    "atrous_conv",
    "bilinear_conv_transpose",
    "bilinear_kernel",
    "conv_of_enlarged",
    "conv_transpose",
    "depthwise_conv",
    "grouped_conv",
    "max_pool",
    "max_pool_2x2",
    "max_pool_argmax",
    "max_unpool",
    "max_unpool_2x2",
    "pool_padding",
    "positions_to_indices",
    "relu",
    "resize_bilinear",
    "resize_nearest",
    "spatial_size",
]
