"""Context modules: what a cell knows of the rest of the scene.

`PyramidPooling` (PSPNet) averages the map over grids of a few bins; `AtrousSpatialPyramidPooling`
(DeepLabV3) looks at several distances at once. Both end in one concatenation.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from segjax.layers.adaptive import adaptive_avg_pool, adaptive_avg_pools
from segjax.layers.conv import ConvNormAct
from segjax.layers.resize import resize_bilinear


class PyramidPooling(nn.Module):
    """The input beside its averages over 1, 2, 3 and 6 bins a side, each projected and enlarged.

    Output channels: i + len(bins) * features; `features` defaults to i // len(bins), so that the
    global context weighs as much as the map itself.

    Reference: Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, section 3.2 and figure 3.
    """

    bins: Sequence[int] = (1, 2, 3, 6)
    features: int | None = None
    align_corners: bool = False
    momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w i"], *, train: bool) -> Float[Array, "n h w o"]:
        features = self.features or x.shape[-1] // len(self.bins)
        block = partial(ConvNormAct, features, 1, momentum=self.momentum, dtype=self.dtype)
        levels = [x.astype(self.dtype)]
        means = adaptive_avg_pools(x, [(bins, bins) for bins in self.bins])
        for bins, pooled in zip(self.bins, means, strict=True):
            pooled = block(name=f"bin{bins}")(pooled, train=train)
            levels.append(resize_bilinear(pooled, x.shape[1:3], align_corners=self.align_corners))
        return jnp.concatenate(levels, axis=-1)


class AtrousSpatialPyramidPooling(nn.Module):
    """A 1x1 convolution, 3x3 convolutions at several rates, and the image's mean, concatenated
    and projected to `features` channels.

    Rates (6, 12, 18) are for output stride 16; DeepLabV3 doubles them at stride 8. As a rate nears
    the map's size its 3x3 kernel degenerates to 1x1, which is what the image branch makes up for.

    Reference: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation",
    arXiv 1706.05587, section 3.3 and figure 5.
    """

    rates: Sequence[int] = (6, 12, 18)
    features: int = 256
    image_pooling: bool = True
    dropout_rate: float = 0.0
    momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w i"], *, train: bool) -> Float[Array, "n h w o"]:
        block = partial(ConvNormAct, self.features, momentum=self.momentum, dtype=self.dtype)
        branches = [block(1, name="conv1x1")(x, train=train)]
        # Named by place, not by rate: parameters trained at output stride 16 serve at stride 8.
        for place, rate in enumerate(self.rates, 1):
            branches.append(block(3, rate=rate, name=f"atrous{place}")(x, train=train))
        if self.image_pooling:
            mean = adaptive_avg_pool(x, (1, 1))
            mean = block(1, name="image_pooling")(mean, train=train)
            branches.append(jnp.broadcast_to(mean, (*x.shape[:3], self.features)))
        x = block(1, name="project")(jnp.concatenate(branches, axis=-1), train=train)
        return nn.Dropout(self.dropout_rate, deterministic=not train)(x)
