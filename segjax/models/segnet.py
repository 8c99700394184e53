"""SegNet: a decoder that unpools with the encoder's max-pooling indices.

The decoder has nothing to learn about where to put a value back: the encoder remembers, in one
byte per pooled value. The sparse map that results is made dense by trainable convolutions.

Reference: Badrinarayanan, Kendall and Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder
Architecture for Image Segmentation", PAMI 2017 (arXiv 1511.00561).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from segjax.layers import Conv, ConvNormAct, max_unpool_2x2
from segjax.layers.checkpoint_names import block_output
from segjax.layers.precision import at_least_float32
from segjax.models.vgg import VGGEncoder, mirrored, scaled_stages


class SegNet(nn.Module):
    """VGG16's 13 convolutions, mirrored by a decoder of 13; section 3.1 and figure 2.

    Every convolution but the last has a bias, batch normalisation and ReLU. 29,449,355 parameters
    at 11 classes, as the authors' network. 360x480 pools to 12x15 and comes back exactly: pooling
    is in ceil mode, and unpooling goes to the size that was pooled.

    With `dropout_rate=0.5` it is Bayesian SegNet: dropout after the pooling of encoder stages 3, 4
    and 5 and at the end of decoder stages 5, 4 and 3, the same parameters. Reference: Kendall,
    Badrinarayanan and Cipolla, "Bayesian SegNet: Model Uncertainty in Deep Convolutional
    Encoder-Decoder Architectures for Scene Understanding", BMVC 2017 (arXiv 1511.02680); the
    places are those of the authors' published network.

    Attributes:
      num_classes: K, channels of the logits.
      width: multiplies every channel count (1 is the paper's).
      dropout_rate: of Bayesian SegNet (0.5 in its paper); 0 is SegNet.
    """

    num_classes: int
    width: float = 1.0
    use_bias: bool = True
    dropout_rate: float = 0.0
    momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "n H W c"], *, train: bool
    ) -> dict[str, Float[Array, "n H W k"]]:
        options = dict(use_bias=self.use_bias, momentum=self.momentum, dtype=self.dtype)
        stages = scaled_stages(self.width)
        x, pools = VGGEncoder(stages, dropout_rate=self.dropout_rate, name="encoder", **options)(
            images, train=train
        )
        for s in range(len(stages), 0, -1):
            x = max_unpool_2x2(x, pools[s - 1].positions, pools[s - 1].size)
            # The first stage's last convolution is the classifier.
            outputs = mirrored(stages, s) if s > 1 else mirrored(stages, s)[:-1]
            for i, features in zip(range(len(stages[s - 1]), 0, -1), outputs, strict=False):
                x = ConvNormAct(features, name=f"decoder{s}_{i}", **options)(x, train=train)
            if s > 1:
                x = block_output(x)
            if s >= 3:
                x = nn.Dropout(self.dropout_rate, deterministic=not train, name=f"decdrop{s}")(x)
        x = Conv(self.num_classes, use_bias=True, dtype=self.dtype, name="classifier")(x)
        return {"logits": at_least_float32(x)}
