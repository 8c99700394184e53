"""SegNet-Basic, and the seven other decoders that the SegNet paper compares on its encoder.

Reference: Badrinarayanan, Kendall and Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder
Architecture for Image Segmentation", PAMI 2017 (arXiv 1511.00561), section 3.2 and table 1.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from segjax.layers import (
    Conv,
    ConvNormAct,
    ConvTranspose,
    max_pool_2x2,
    max_unpool_2x2,
    resize_bilinear,
    spatial_size,
)
from segjax.layers.checkpoint_names import block_output
from segjax.layers.precision import at_least_float32
from segjax.models.arrays import Images, Outputs
from segjax.models.vgg import Pooled

UPSAMPLING = ("indices", "bilinear", "deconv")

# The rows of table 1, in its order, as options of SegNetBasic.
TABLE1 = {
    "bilinear_interpolation": dict(upsampling="bilinear", reduction=True),
    "segnet_basic": dict(),
    "encoder_addition": dict(addition=True),
    "single_channel_decoder": dict(single_channel=True),
    "fcn_basic": dict(upsampling="deconv", addition=True, reduction=True),
    "fcn_basic_no_addition": dict(upsampling="deconv", reduction=True),
    "fcn_basic_no_dim_reduction": dict(upsampling="deconv", addition=True),
    "fcn_basic_no_addition_no_dim_reduction": dict(upsampling="deconv"),
}


class SegNetBasic(nn.Module):
    """Four 7x7 encoder stages and four decoder stages of 64 channels; section 3.2 and table 1.

    The defaults are SegNet-Basic: decoders unpool with the indices and convolve, without ReLU; a
    1x1 classifier. 1,416,587 parameters at 11 classes (table 1 rounds to 1.425 M). `TABLE1` has the
    options of the other rows, all on the same encoder.

    With `dropout_rate=0.5` it is Bayesian SegNet-Basic (arXiv 1511.02680): dropout after the
    pooling of stages 3 and 4 and at the end of decoder stages 4 and 3, the same parameters.

    The paper leaves four things open:
      - Which encoder map is added. Figure 3 calls it the output of the encoder's max pooling, and
        the largest that section 3.2 counts is 180x240 for a 360x480 image. So a decoder adds the
        pooled map of its output's resolution, and the last decoder, whose output has the image's,
        adds none. (In a Bayesian variant dropout acts on the map that is passed down and on the
        same map when it is added.)
      - Where deconvolution starts. The paper says bilinear weights for 8x8 kernels at stride 2:
        here the FCN authors' filter of that size, scaled so that a constant map stays constant
        (unscaled, four decoders would multiply the scores by 256).
      - Where the rows with K channels classify. Here the 1x1 convolution that reduces 64 channels
        to K is the classifier; no other follows. Bilinear-Interpolation is read as such a row too:
        interpolating after a 1x1 convolution equals interpolating before it, and table 1 gives both
        24.2 ms.
      - How bilinear interpolation doubles the size: here with half-pixel centres. Where a stage
        pooled an odd size, the last row or column is cut off, after deconvolution too.

    Attributes:
      num_classes: K, channels of the logits.
      features: channels of every stage (64 in the paper).
      input_lrn: local response normalisation of the input, as in the authors' published network.
      upsampling: "indices" (unpool, convolve 7x7, normalise), "deconv" (8x8 transposed
        convolution, stride 2) or "bilinear" (nothing to learn).
      addition: decoders add the encoder's map of the same resolution.
      single_channel: each decoder filter sees its own channel only; for "indices".
      reduction: 1x1 convolutions reduce encoder maps to K channels before they are upsampled or
        added; not for "indices", which belong to all channels.
      dropout_rate: Bayesian SegNet-Basic's dropout (0.5 in its paper); 0 is SegNet-Basic.
      momentum: share of the old statistics that batch normalisation keeps at each step.
      dtype: compute dtype; parameters, statistics and logits are float32.

    Raises:
      ValueError: naming the option, for an unknown upsampling or options that exclude each other.
    """

    num_classes: int
    features: int = 64
    input_lrn: bool = False
    upsampling: str = "indices"
    addition: bool = False
    single_channel: bool = False
    reduction: bool = False
    dropout_rate: float = 0.0
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        if self.upsampling not in UPSAMPLING:
            raise ValueError(f"model.upsampling={self.upsampling!r}; use {', '.join(UPSAMPLING)}")
        if self.single_channel and self.upsampling != "indices":
            raise ValueError(
                f"model.single_channel=True; model.upsampling={self.upsampling!r} has no decoder "
                "filters, use it with 'indices'"
            )
        if self.reduction and self.upsampling == "indices":
            raise ValueError(
                "model.reduction=True; model.upsampling='indices' needs all channels, use it with "
                "'deconv' or 'bilinear'"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Outputs:
        block = partial(
            ConvNormAct,
            self.features,
            kernel_size=7,
            use_bias=True,
            momentum=self.momentum,
            dtype=self.dtype,
        )
        x = local_response_norm(images) if self.input_lrn else images
        pools, maps = [], []
        for s in range(1, 5):
            x = block(name=f"encoder{s}")(x, train=train)
            size = spatial_size(x)
            x, positions = max_pool_2x2(x)
            x = block_output(x)
            pools.append(Pooled(positions, size))
            if s >= 3:
                x = nn.Dropout(self.dropout_rate, deterministic=not train, name=f"encdrop{s}")(x)
            maps.append(x)
        x = self._reduced(maps, 4)
        for s in range(4, 0, -1):
            x = self._upsampled(x, pools[s - 1], s, block, train=train)
            if self.addition and s > 1:
                x = x + self._reduced(maps, s - 1)
            if s > 1:
                x = block_output(x)
            if s >= 3:
                x = nn.Dropout(self.dropout_rate, deterministic=not train, name=f"decdrop{s}")(x)
        if not self.reduction:
            x = Conv(self.num_classes, 1, use_bias=True, dtype=self.dtype, name="classifier")(x)
        return {"logits": at_least_float32(x)}

    def _reduced(self, maps, s: int):
        """Stage s's pooled map, reduced to K channels in the variants with `reduction`."""
        if not self.reduction:
            return maps[s - 1]
        conv = Conv(self.num_classes, 1, use_bias=True, dtype=self.dtype, name=f"reduce{s}")
        return conv(maps[s - 1])

    def _upsampled(self, x, pool: Pooled, s: int, block, *, train: bool):
        """Decoder s without the addition: from the pooled size to the size that was pooled."""
        height, width = pool.size
        name = f"decoder{s}"
        if self.upsampling == "bilinear":
            x = resize_bilinear(x, (2 * x.shape[1], 2 * x.shape[2]))
        elif self.upsampling == "deconv":
            deconv = ConvTranspose(
                x.shape[-1], 8, strides=2, padding=3, bilinear=True, dtype=self.dtype, name=name
            )
            x = deconv(x)
        else:
            x = max_unpool_2x2(x, pool.positions, pool.size)
            groups = x.shape[-1] if self.single_channel else 1
            x = block(activation=None, groups=groups, name=name)(x, train=train)
        return x[:, :height, :width]


def local_response_norm(
    x: Float[Array, "n h w c"], *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75
) -> Float[Array, "n h w c"]:
    """Divides by (1 + alpha / size * sum of squares over `size` neighbouring channels) ** beta.

    The defaults are the published SegNet-Basic's. Reference: Krizhevsky et al., "ImageNet
    Classification with Deep Convolutional Neural Networks", NIPS 2012, section 3.3, in Caffe's
    form (alpha over size, k = 1), which is torch's `local_response_norm` too.
    """
    squares = jax.lax.reduce_window(
        jnp.square(at_least_float32(x)),
        0.0,
        jax.lax.add,
        window_dimensions=(1, 1, 1, size),
        window_strides=(1, 1, 1, 1),
        padding=((0, 0), (0, 0), (0, 0), (size // 2, (size - 1) // 2)),
    )
    return (x / (1 + alpha / size * squares) ** beta).astype(x.dtype)
