"""SegNet: a decoder that unpools with the encoder's max-pooling indices.

The decoder learns nothing about where to put a value back: the encoder remembers, in one byte per
pooled value. Trainable convolutions make the sparse map that results dense.

Reference: Badrinarayanan, Kendall and Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder
Architecture for Image Segmentation", PAMI 2017 (arXiv 1511.00561).
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from segjax.layers import Conv, ConvNormAct, max_unpool_2x2
from segjax.layers.checkpoint_names import block_output
from segjax.layers.precision import at_least_float32
from segjax.models.arrays import Images, Outputs
from segjax.models.vgg import VGGEncoder, mirrored, scaled_stages


class SegNet(nn.Module):
    """VGG16's 13 convolutions, mirrored by a decoder of 13; section 3.1 and figure 2.

    Every convolution but the last has a bias, batch normalisation and ReLU. 29,449,355 parameters
    at 11 classes, as the authors' network. 360x480 pools to 12x15 and comes back exactly: pooling
    is in ceil mode, and unpooling goes to the size that was pooled.

    With `dropout_rate=0.5` it is Bayesian SegNet: dropout after the pooling of encoder stages 3, 4
    and 5 and at the end of decoder stages 5, 4 and 3, as in the authors' published network; the
    same parameters. Reference: Kendall, Badrinarayanan and Cipolla, "Bayesian SegNet: Model
    Uncertainty in Deep Convolutional Encoder-Decoder Architectures for Scene Understanding",
    BMVC 2017 (arXiv 1511.02680).

    Attributes:
      num_classes: K, channels of the logits.
      width: factor on every channel count; 1 is the paper's.
      use_bias: whether convolutions before a normalisation have a bias.
      dropout_rate: Bayesian SegNet's dropout (0.5 in its paper); 0 is SegNet.
      momentum: share of the old statistics that batch normalisation keeps at each step.
      dtype: compute dtype; parameters, statistics and logits are float32.
    """

    num_classes: int
    width: float = 1.0
    use_bias: bool = True
    dropout_rate: float = 0.0
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Outputs:
        norm: dict[str, Any] = dict(momentum=self.momentum, dtype=self.dtype)
        block = partial(ConvNormAct, use_bias=self.use_bias, **norm)
        stages = scaled_stages(self.width)
        encoder = VGGEncoder(stages, self.use_bias, self.dropout_rate, **norm, name="encoder")
        x, pools = encoder(images, train=train)
        for s in range(len(stages), 0, -1):
            x = max_unpool_2x2(x, pools[s - 1].positions, pools[s - 1].size)
            # The first stage's last convolution is the classifier.
            outputs = mirrored(stages, s) if s > 1 else mirrored(stages, s)[:-1]
            for i, features in zip(range(len(stages[s - 1]), 0, -1), outputs, strict=False):
                x = block(features, name=f"decoder{s}_{i}")(x, train=train)
            if s > 1:
                x = block_output(x)
            if s >= 3:
                x = nn.Dropout(self.dropout_rate, deterministic=not train, name=f"decdrop{s}")(x)
        x = Conv(self.num_classes, use_bias=True, dtype=self.dtype, name="classifier")(x)
        return {"logits": at_least_float32(x)}
