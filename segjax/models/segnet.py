"""SegNet and SegNet-Basic: decoders that unpool with the encoder's max-pooling indices.

The decoder has nothing to learn about where to put a value back: the encoder remembers, in one
byte per pooled value. The sparse map that results is made dense by trainable convolutions.

Reference: Badrinarayanan, Kendall and Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder
Architecture for Image Segmentation", PAMI 2017 (arXiv 1511.00561).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from segjax.layers import Conv, ConvNormAct, max_pool_2x2, max_unpool_2x2
from segjax.models.vgg import VGG16_STAGES, Pooled, VGGEncoder


class SegNet(nn.Module):
    """VGG16's 13 convolutions, mirrored by a decoder of 13; section 3.1 and figure 2.

    Every convolution but the last has a bias, batch normalisation and ReLU. 29,449,355 parameters
    at 11 classes, as the authors' network. 360x480 pools to 12x15 and comes back exactly: pooling
    is in ceil mode, and unpooling goes to the size that was pooled.

    Attributes:
      num_classes: K, channels of the logits.
      width: multiplies every channel count (1 is the paper's).
    """

    num_classes: int
    width: float = 1.0
    use_bias: bool = True
    momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "n H W c"], *, train: bool
    ) -> dict[str, Float[Array, "n H W k"]]:
        stages = tuple(tuple(round(c * self.width) for c in stage) for stage in VGG16_STAGES)
        x, pools = VGGEncoder(stages, self.use_bias, self.momentum, self.dtype, name="encoder")(
            images, train=train
        )
        for s in range(len(stages), 0, -1):
            x = max_unpool_2x2(x, pools[s - 1].positions, pools[s - 1].size)
            # A stage is its encoder's mirror image: it ends in the channels that stage began with,
            # so that the next indices fit.
            outputs = stages[s - 1][1:][::-1] + ((stages[s - 2][-1],) if s > 1 else ())
            for i, features in zip(range(len(stages[s - 1]), 0, -1), outputs, strict=False):
                x = ConvNormAct(
                    features,
                    use_bias=self.use_bias,
                    momentum=self.momentum,
                    dtype=self.dtype,
                    name=f"decoder{s}_{i}",
                )(x, train=train)
        x = Conv(self.num_classes, use_bias=True, dtype=self.dtype, name="classifier")(x)
        return {"logits": x.astype(jnp.float32)}


class SegNetBasic(nn.Module):
    """Four 7x7 encoder stages and four decoder stages of 64 channels; section 3.2 and table 1.

    No ReLU in the decoder, and a 1x1 classifier. 1,416,587 parameters at 11 classes (the paper's
    table 1 rounds to 1.425 M).

    Attributes:
      num_classes: K, channels of the logits.
      features: channels of every stage (64 in the paper).
      input_lrn: local response normalisation of the input, as the authors' published network.
    """

    num_classes: int
    features: int = 64
    input_lrn: bool = False
    momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "n H W c"], *, train: bool
    ) -> dict[str, Float[Array, "n H W k"]]:
        block = lambda name, activation: ConvNormAct(  # noqa: E731
            self.features,
            kernel_size=7,
            use_bias=True,
            activation=activation,
            momentum=self.momentum,
            dtype=self.dtype,
            name=name,
        )
        x = local_response_norm(images) if self.input_lrn else images
        pools = []
        for s in range(1, 5):
            x = block(f"encoder{s}", nn.relu)(x, train=train)
            size = x.shape[1:3]
            x, positions = max_pool_2x2(x)
            pools.append(Pooled(positions, size))
        for s in range(4, 0, -1):
            x = max_unpool_2x2(x, pools[s - 1].positions, pools[s - 1].size)
            x = block(f"decoder{s}", None)(x, train=train)
        x = Conv(self.num_classes, 1, use_bias=True, dtype=self.dtype, name="classifier")(x)
        return {"logits": x.astype(jnp.float32)}


def local_response_norm(
    x: Float[Array, "n h w c"], *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75
) -> Float[Array, "n h w c"]:
    """Divides by (1 + alpha / size * sum of squares over `size` neighbouring channels) ** beta.

    The defaults are the published SegNet-Basic's. Reference: Krizhevsky et al., "ImageNet
    Classification with Deep Convolutional Neural Networks", NIPS 2012, section 3.3, in Caffe's
    form (alpha over size, k = 1), which is torch's `local_response_norm` too.
    """
    squares = jax.lax.reduce_window(
        jnp.square(x.astype(jnp.float32)),
        0.0,
        jax.lax.add,
        window_dimensions=(1, 1, 1, size),
        window_strides=(1, 1, 1, 1),
        padding=((0, 0), (0, 0), (0, 0), (size // 2, (size - 1) // 2)),
    )
    return (x / (1 + alpha / size * squares) ** beta).astype(x.dtype)
