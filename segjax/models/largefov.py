"""DeepLab-LargeFOV: VGG16 at output stride 8, with an atrous first "fully connected" layer.

Reference: Chen, Papandreou, Kokkinos, Murphy and Yuille, "Semantic Image Segmentation with Deep
Convolutional Nets and Fully Connected CRFs", ICLR 2015 (arXiv 1412.7062): the variant that it names
DeepLab-LargeFOV, without the CRF.
"""

from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from segjax.layers import Conv, max_pool, resize_bilinear, spatial_size
from segjax.layers.precision import at_least_float32
from segjax.models.arrays import Images, Outputs
from segjax.models.vgg import PlainVGG, scaled_stages


class DeepLabLargeFOV(nn.Module):
    """VGG16 whose last two poolings keep the size, fc6 of 3x3 at rate 12, scores at stride 8.

    Poolings are 3x3; the fifth stage is atrous (rate 2), and a 3x3 average that divides by 9 at the
    border as well follows its pooling. The scores are resized to the image with aligned corners.
    20,495,179 parameters at 11 classes, 82 MB (the SegNet paper's table 6: 83). The scoring layer
    starts at a hundredth of a normal draw, as in the authors' network. There is no normalisation:
    training from He normal weights is slow, so start from VGG16's weights.

    The authors train on sizes of 8k + 1, where the corners of image and scores lie on each other.
    For other sizes pooling is in ceil mode, as Caffe's, and the last row and column of scores
    stand at most 7 pixels outside the image.

    Attributes:
      num_classes: K, channels of the logits.
      rate: atrous rate of fc6 (12 in the paper).
      fc_features: channels of fc6 and fc7 (1024 in the paper).
      dropout_rate: dropout after fc6 and fc7.
      width: factor on the channels of VGG16's 13 convolutions; 1 is the paper's.
      dtype: compute dtype; parameters and logits are float32.

    Raises:
      ValueError: for a rate below 1.
    """

    classifiers: ClassVar[tuple[str, ...]] = ("fc8",)

    num_classes: int
    rate: int = 12
    fc_features: int = 1024
    dropout_rate: float = 0.5
    width: float = 1.0
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        if self.rate < 1:
            raise ValueError(f"model.rate={self.rate}; use 1 or more (12 is the paper's)")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Outputs:
        conv = partial(Conv, use_bias=True, dtype=self.dtype)
        halve, keep = (partial(max_pool_3x3, strides=strides) for strides in (2, 1))
        x = PlainVGG(
            scaled_stages(self.width),
            pools=(halve, halve, halve, keep, keep),
            rates=(1, 1, 1, 1, 2),
            dtype=self.dtype,
            name="encoder",
        )(images)[-1]
        x = nn.avg_pool(x, (3, 3), (1, 1), padding="SAME", count_include_pad=True)
        for layer, kernel_size, rate in ((6, 3, self.rate), (7, 1, 1)):
            x = nn.relu(conv(self.fc_features, kernel_size, rate=rate, name=f"fc{layer}")(x))
            x = nn.Dropout(self.dropout_rate, deterministic=not train, name=f"drop{layer}")(x)
        x = conv(self.num_classes, 1, kernel_init=nn.initializers.normal(0.01), name="fc8")(x)
        size = spatial_size(images)
        return {"logits": resize_bilinear(at_least_float32(x), size, align_corners=True)}


def max_pool_3x3(x: Float[Array, "n H W c"], *, strides: int) -> Float[Array, "n h w c"]:
    """3x3 max pooling in Caffe's ceil mode with one row of padding: h = H // 2 + 1 at stride 2.

    For an even H that is one row more than torch's; its window holds the last row only. At stride 1
    the size stays.
    """
    rows, columns = ((1, 1 if strides == 1 else 2 - n % 2) for n in spatial_size(x))
    return max_pool(x, (3, 3), (strides, strides), (rows, columns))
