"""FCN-32s, FCN-16s and FCN-8s on VGG16, as the authors' Caffe networks.

Reference: Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation",
CVPR 2015 (PAMI 2017 by Shelhamer et al.), sections 3.3 and 4.2, figure 3.
"""

from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from segjax.layers import Conv, ConvTranspose, bilinear_conv_transpose, spatial_size
from segjax.layers.precision import at_least_float32
from segjax.models.arrays import Images, Outputs
from segjax.models.vgg import PlainVGG, max_pool, scaled_stages

# Zeros around the image. Five poolings and the 7x7 convolution fc6 shrink any image; with so many
# zeros even a single pixel is left with one cell of scores.
PADDING = 100
# By the stride of the finest scores: the stages whose pooled maps are added, coarsest first, each
# with the row and column at which it is cropped; and where the image begins in the upsampled
# scores. They follow from PADDING, and from fc6 and the upsampling layers having no padding.
SKIPS = {32: (), 16: ((4, 5),), 8: ((4, 5), (3, 9))}
IMAGE_OFFSET = {32: 19, 16: 27, 8: 31}


class FCNVGG(nn.Module):
    """VGG16 with its fully connected layers as convolutions; scores upsampled and added.

    Scores at stride 32 are upsampled by transposed convolutions of twice the stride's size;
    FCN-16s adds scores of pool4 on the way, FCN-8s of pool3 too. 134,348,929 parameters at 11
    classes with learnt upsampling, 537 MB (the SegNet paper's table 6: 539).

    The scoring layers start at zero (section 4.3). There is no normalisation: training from He
    normal weights is slow and may fail, so start from VGG16's weights.

    Attributes:
      num_classes: K, channels of the logits.
      stride: stride of the finest scores: 32, 16 or 8.
      learn_upsampling: the transposed convolutions start bilinear and learn; otherwise they stay
        bilinear and have no parameters. The rows "FCN (learnt deconv)" and "FCN" of the SegNet
        paper.
      fc_features: channels of fc6 and fc7 (4096 in the paper).
      dropout_rate: dropout after fc6 and fc7.
      width: factor on the channels of VGG16's 13 convolutions; 1 is the paper's.
      dtype: compute dtype; parameters and logits are float32.

    Raises:
      ValueError: for another stride.
    """

    classifiers: ClassVar[tuple[str, ...]] = ("score", "score_pool3", "score_pool4")

    num_classes: int
    stride: int = 8
    learn_upsampling: bool = True
    fc_features: int = 4096
    dropout_rate: float = 0.5
    width: float = 1.0
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        if self.stride not in SKIPS:
            raise ValueError(f"model.stride={self.stride}; use 32, 16 or 8")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Outputs:
        conv = partial(Conv, use_bias=True, dtype=self.dtype)
        score = partial(conv, self.num_classes, 1, kernel_init=nn.initializers.zeros)
        maps = PlainVGG(
            scaled_stages(self.width),
            pools=(max_pool,) * 5,
            first_padding=PADDING,
            dtype=self.dtype,
            name="encoder",
        )(images)
        x = maps[4]
        for layer, kernel_size in ((6, 7), (7, 1)):
            fc = conv(self.fc_features, kernel_size, padding=((0, 0), (0, 0)), name=f"fc{layer}")
            x = nn.relu(fc(x))
            x = nn.Dropout(self.dropout_rate, deterministic=not train, name=f"drop{layer}")(x)
        scores, name = score(name="score")(x), "upscore2"
        for stage, offset in SKIPS[self.stride]:
            scores = self._upsample(scores, 2, name)
            skip = score(name=f"score_pool{stage}")(maps[stage - 1])
            scores += crop(skip, offset, spatial_size(scores))
            name = f"upscore_pool{stage}"
        scores = self._upsample(scores, self.stride, f"upscore{self.stride}")
        logits = crop(scores, IMAGE_OFFSET[self.stride], spatial_size(images))
        return {"logits": at_least_float32(logits)}

    def _upsample(self, x, factor: int, name: str):
        kernel_size = 2 * factor
        if not self.learn_upsampling:
            return bilinear_conv_transpose(x, kernel_size, strides=factor)
        return ConvTranspose(
            x.shape[-1], kernel_size, strides=factor, bilinear=True, dtype=self.dtype, name=name
        )(x)


def crop(x: Float[Array, "n H W c"], offset: int, size: tuple[int, int]) -> Float[Array, "n h w c"]:
    """`size` rows and columns of x, from `offset` on (Caffe's crop layer)."""
    return x[:, offset : offset + size[0], offset : offset + size[1]]
