"""Context modules: each cell learns of the rest of the scene.

`PyramidPooling` (PSPNet) pools the map over grids of a few bins; `AtrousSpatialPyramidPooling`
(DeepLabV3) looks at several distances at once. Both end in one concatenation.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from segjax.layers.adaptive import adaptive_avg_pool, adaptive_avg_pools, adaptive_max_pool
from segjax.layers.conv import ConvNormAct
from segjax.layers.resize import resize_bilinear, spatial_size
from segjax.layers.separable import SeparableConvNormAct


class PyramidPooling(nn.Module):
    """The input beside its averages over 1, 2, 3 and 6 bins a side, each projected and enlarged.

    Output channels: i + len(bins) * features, and i + len(bins) * i without `reduce`.

    Attributes:
      bins: pyramid levels, in bins a side.
      features: channels of each level; None: i // len(bins), so that the context has as many
        channels as the map.
      pooling: "mean", or "max": what stands for a bin (AVE and MAX in table 1).
      reduce: whether a level is projected to `features` channels by a 1x1 convolution (DR in table
        1); otherwise it is enlarged as it is pooled.
      align_corners: convention of the enlargement.

    Reference: Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, section 3.2, figure 3 and
    table 1.
    """

    bins: Sequence[int] = (1, 2, 3, 6)
    features: int | None = None
    pooling: str = "mean"
    reduce: bool = True
    align_corners: bool = False
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w i"], *, train: bool) -> Float[Array, "n h w o"]:
        features = self.features or x.shape[-1] // len(self.bins)
        block = partial(ConvNormAct, features, 1, momentum=self.momentum, dtype=self.dtype)
        levels = [x.astype(self.dtype)]
        sizes = [(bins, bins) for bins in self.bins]
        if self.pooling == "mean":
            grids = adaptive_avg_pools(x, sizes)
        else:
            grids = [adaptive_max_pool(x, size) for size in sizes]
        for bins, pooled in zip(self.bins, grids, strict=True):
            if self.reduce:
                pooled = block(name=f"bin{bins}")(pooled, train=train)
            enlarged = resize_bilinear(pooled, spatial_size(x), align_corners=self.align_corners)
            levels.append(enlarged.astype(self.dtype))
        return jnp.concatenate(levels, axis=-1)


class AtrousSpatialPyramidPooling(nn.Module):
    """A 1x1 convolution, 3x3 convolutions at several rates, and the map's mean, concatenated and
    projected to `features` channels.

    Rates (6, 12, 18) are for output stride 16; DeepLabV3 doubles them at stride 8. As a rate nears
    the map's size its 3x3 kernel degenerates to 1x1; the branch of the mean makes up for that.

    Attributes:
      rates: atrous rates of the 3x3 convolutions.
      features: channels of each branch and of the projection.
      image_pooling: whether there is a branch for the map's mean.
      project_kernel: side of the projection's kernel; 1 in the paper.
      separable: whether the 3x3 convolutions are depthwise separable (DeepLabV3+).
      norm_between: whether normalisation and ReLU stand inside of those, see
        `segjax.layers.SeparableConvNormAct`.
      dropout_rate: dropout after the projection.

    Reference: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation",
    arXiv 1706.05587, section 3.3 and figure 5; separable: Chen et al., arXiv 1802.02611,
    section 3.1.
    """

    rates: Sequence[int] = (6, 12, 18)
    features: int = 256
    image_pooling: bool = True
    project_kernel: int = 1
    separable: bool = False
    norm_between: bool = True
    dropout_rate: float = 0.0
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w i"], *, train: bool) -> Float[Array, "n h w o"]:
        norm: dict[str, Any] = dict(momentum=self.momentum, dtype=self.dtype)
        block = partial(ConvNormAct, self.features, **norm)
        atrous = block
        if self.separable:
            between = self.norm_between
            atrous = partial(SeparableConvNormAct, self.features, norm_between=between, **norm)
        branches = [block(1, name="conv1x1")(x, train=train)]
        # Named by place, not by rate: parameters trained at output stride 16 serve at stride 8.
        for place, rate in enumerate(self.rates, 1):
            branches.append(atrous(3, rate=rate, name=f"atrous{place}")(x, train=train))
        if self.image_pooling:
            mean = adaptive_avg_pool(x, (1, 1))
            mean = block(1, name="image_pooling")(mean, train=train)
            branches.append(jnp.broadcast_to(mean, (*x.shape[:3], self.features)))
        x = jnp.concatenate(branches, axis=-1)
        x = block(self.project_kernel, name="project")(x, train=train)
        return nn.Dropout(self.dropout_rate, deterministic=not train)(x)
