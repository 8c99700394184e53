"""DeconvNet: VGG16 with its fully connected layers, and all of it mirrored.

Reference: Noh, Hong and Han, "Learning Deconvolution Network for Semantic Segmentation", ICCV 2015
(arXiv 1505.04366), section 3; normalisation: section 4.1.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from segjax.layers import Conv, ConvNormAct, ConvTranspose, max_unpool_2x2
from segjax.layers.checkpoint_names import block_output
from segjax.layers.conv import batch_norm, he_normal
from segjax.layers.precision import at_least_float32
from segjax.models.arrays import Images, Outputs
from segjax.models.vgg import VGGEncoder, mirrored, scaled_stages


class DeconvNet(nn.Module):
    """SegNet's encoder and unpooling decoder, with a bottleneck between: fc6, fc7, deconv_fc6.

    fc6 is a convolution over the whole bottom map and deconv_fc6 the transposed one back to it;
    every layer but the 1x1 classifier has a bias, batch normalisation and ReLU. The decoder's 3x3
    transposed convolutions of stride 1, padding 1 are written as convolutions: they compute the
    same functions, the kernel turned by 180 degrees.

    The authors' network has 4096 `fc_features` and a 7x7 bottom map (224x224 images). The SegNet
    paper compares "DeconvNet (fc=1024)" of 877 MB: `fc_features=1024` and `fc_kernel=(12, 15)`,
    the bottom map of 360x480 images, make 219,259,595 weights and biases at 11 classes, 4 bytes
    each, normalisation aside.

    A bottom map smaller than `fc_kernel` is framed with zeros, evenly, and cropped afterwards;
    over a larger one the kernel slides.

    Attributes:
      num_classes: K, channels of the logits.
      fc_features: channels of fc6 and fc7.
      fc_kernel: rows and columns of fc6 and deconv_fc6.
      width: factor on the channels of VGG16's 13 convolutions and of the decoder's; 1 is the
        paper's.
      momentum: share of the old statistics that batch normalisation keeps at each step.
      dtype: compute dtype; parameters, statistics and logits are float32.

    Raises:
      ValueError: for an `fc_kernel` that is not two sizes.
    """

    num_classes: int
    fc_features: int = 4096
    fc_kernel: tuple[int, ...] = (7, 7)
    width: float = 1.0
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        if len(self.fc_kernel) != 2 or min(self.fc_kernel) < 1:
            raise ValueError(
                f"model.fc_kernel={self.fc_kernel}; use (rows, columns), each 1 or more"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Outputs:
        norm: dict[str, Any] = dict(momentum=self.momentum, dtype=self.dtype)
        stages = scaled_stages(self.width)
        x, pools = VGGEncoder(stages, name="encoder", **norm)(images, train=train)
        x = self._bottleneck(x, train=train, **norm)
        for s in range(len(stages), 0, -1):
            x = max_unpool_2x2(x, pools[s - 1].positions, pools[s - 1].size)
            outputs = mirrored(stages, s)
            for i, features in zip(range(len(outputs), 0, -1), outputs, strict=True):
                block = ConvNormAct(features, use_bias=True, name=f"decoder{s}_{i}", **norm)
                x = block(x, train=train)
            if s > 1:
                x = block_output(x)
        x = Conv(self.num_classes, 1, use_bias=True, dtype=self.dtype, name="classifier")(x)
        return {"logits": at_least_float32(x)}

    def _bottleneck(self, x, *, train: bool, **norm):
        """The bottom map through fc6 and fc7 and back to its size and channels."""
        _, height, width, channels = x.shape
        missing = [max(0, k - n) for k, n in zip(self.fc_kernel, (height, width), strict=True)]
        (top, bottom), (left, right) = ((m // 2, m - m // 2) for m in missing)
        x = jnp.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
        fc: dict[str, Any] = dict(kernel_size=(self.fc_kernel[0], self.fc_kernel[1]), **norm)
        x = FullMapBlock(self.fc_features, name="fc6", **fc)(x, train=train)
        x = ConvNormAct(self.fc_features, 1, use_bias=True, name="fc7", **norm)(x, train=train)
        x = FullMapBlock(channels, transposed=True, name="deconv_fc6", **fc)(x, train=train)
        return x[:, top : top + height, left : left + width]


class FullMapBlock(nn.Module):
    """Unpadded convolution or its transpose, batch normalisation, ReLU.

    The parameters have the names of a `ConvNormAct`.

    Attributes:
      features: output channels.
      kernel_size: (rows, columns), the map's size; over larger maps the kernel slides.
      transposed: from one cell to the map instead of from the map to one cell.
    """

    features: int
    kernel_size: tuple[int, int]
    transposed: bool = False
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w i"], *, train: bool) -> Float[Array, "n H W o"]:
        if self.transposed:
            conv = ConvTranspose(
                self.features, self.kernel_size, use_bias=True, dtype=self.dtype, name="conv"
            )
        else:
            conv = nn.Conv(
                self.features,
                self.kernel_size,
                padding="VALID",
                kernel_init=he_normal,
                dtype=self.dtype,
                name="conv",
            )
        x = conv(x)
        return batch_norm(x, nn.relu, train=train, momentum=self.momentum, dtype=self.dtype)
