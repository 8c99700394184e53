"""DeepLab-LargeFOV: VGG16 at output stride 8, with an atrous first "fully connected" layer.

Reference: Chen, Papandreou, Kokkinos, Murphy and Yuille, "Semantic Image Segmentation with Deep
Convolutional Nets and Fully Connected CRFs", ICLR 2015 (arXiv 1412.7062): the variant that it names
DeepLab-LargeFOV, without the CRF.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from segjax.layers import Conv, max_pool, resize_bilinear
from segjax.layers.precision import at_least_float32
from segjax.models.vgg import PlainVGG, scaled_stages


class DeepLabLargeFOV(nn.Module):
    """VGG16 whose last two poolings keep the size, fc6 of 3x3 at rate 12, scores at stride 8.

    No normalisation. Poolings are 3x3; the fifth stage is atrous (rate 2) and followed by an
    average too, which divides by 9 at the border as well. The scores are resized to the image
    with aligned corners. 20,495,179 parameters at 11 classes, 82 MB (the SegNet paper's table 6:
    83). The scoring layer starts at a hundredth of a normal draw, as the authors' network.
    Without normalisation, training from He normal weights is slow: start from VGG16's weights.

    The authors train on sizes 8 k + 1, where the corners of image and scores lie on each other.
    For other sizes pooling is in ceil mode, as Caffe's, and the last row and column of scores
    stand at most 7 pixels outside the image.

    Attributes:
      num_classes: K, channels of the logits.
      rate: atrous rate of fc6 (12 in the paper).
      fc_features: channels of fc6 and fc7 (1024 in the paper).
      dropout_rate: after fc6 and fc7.
      width: multiplies the channels of VGG16's 13 convolutions.

    Raises:
      ValueError: for a rate below 1.
    """

    num_classes: int
    rate: int = 12
    fc_features: int = 1024
    dropout_rate: float = 0.5
    width: float = 1.0
    dtype: Any = jnp.float32

    def __post_init__(self):
        if self.rate < 1:
            raise ValueError(f"model.rate={self.rate}; use 1 or more (12 is the paper's)")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Float[Array, "n H W c"], *, train: bool
    ) -> dict[str, Float[Array, "n H W k"]]:
        halve, keep = (partial(max_pool_3x3, strides=strides) for strides in (2, 1))
        x = PlainVGG(
            scaled_stages(self.width),
            pools=(halve, halve, halve, keep, keep),
            rates=(1, 1, 1, 1, 2),
            dtype=self.dtype,
            name="encoder",
        )(images)[-1]
        x = nn.avg_pool(x, (3, 3), (1, 1), padding=((1, 1), (1, 1)), count_include_pad=True)
        for layer, kernel_size, rate in ((6, 3, self.rate), (7, 1, 1)):
            x = Conv(
                self.fc_features,
                kernel_size,
                rate=rate,
                use_bias=True,
                dtype=self.dtype,
                name=f"fc{layer}",
            )(x)
            x = nn.relu(x)
            x = nn.Dropout(self.dropout_rate, deterministic=not train, name=f"drop{layer}")(x)
        x = Conv(
            self.num_classes,
            1,
            use_bias=True,
            dtype=self.dtype,
            kernel_init=nn.initializers.normal(0.01),
            name="fc8",
        )(x)
        size = images.shape[1:3]
        return {"logits": resize_bilinear(at_least_float32(x), size, align_corners=True)}


def max_pool_3x3(x: Float[Array, "n H W c"], *, strides: int) -> Float[Array, "n h w c"]:
    """3x3 max pooling in Caffe's ceil mode with one row of padding: h = H // 2 + 1 at stride 2.

    That is one row more than torch's for an even H, whose last window holds the last row only.
    At stride 1 the size stays.
    """
    padding = tuple((1, 1 if strides == 1 else 2 - n % 2) for n in x.shape[1:3])
    return max_pool(x, (3, 3), (strides, strides), padding)
