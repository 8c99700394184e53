"""Bilinear upsampling and argmax in one, so that full-size logits are never kept."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8

from segjax.inference.folding import FoldedModel
from segjax.layers import resize_bilinear
from segjax.layers.resize import source_positions
from segjax.models.deeplab import DeepLabV3
from segjax.models.fcn import FCN
from segjax.models.largefov import DeepLabLargeFOV
from segjax.models.pspnet import PSPNet
from segjax.models.smp import SMPPSPNet

# Rows of the result that exist as logits at a time.
ROWS = 16
# Models whose last operation is `resize_bilinear` to the image's size: the module that makes the
# logits before it, and its convention (None: as the model's `align_corners` says).
_CLASSIFIERS: dict[type[nn.Module], tuple[tuple[str, ...], bool | None]] = {
    FCN: (("head", "classifier"), None),
    PSPNet: (("head", "classifier"), None),
    DeepLabV3: (("classifier",), None),
    SMPPSPNet: (("classifier",), None),
    DeepLabLargeFOV: (("fc8",), True),
}


def argmax_resized(
    logits: Float[Array, "n h w k"], size: tuple[int, int], *, align_corners: bool = False
) -> UInt8[Array, "n H W"]:
    """The best class of every pixel of `resize_bilinear(logits, size)`, strip by strip of rows.

    Of the enlarged logits only `ROWS` rows exist at a time; n * H * W bytes and the input are all
    that is kept. Rows are interpolated before columns, always, so a sum may differ from
    `resize_bilinear`'s in its last bit: labels differ only between classes that tie within that.

    Args:
      logits: any float dtype, summed in float32; at most 255 classes.
      size: (H, W), larger or smaller.
      align_corners: convention, as `resize_bilinear`'s.
    """
    height, width = size
    strips = -(-height // ROWS)
    position = source_positions(logits.shape[1], height, align_corners)
    position = np.pad(position, (0, strips * ROWS - height), mode="edge").reshape(strips, ROWS)
    low = np.minimum(position.astype(int), logits.shape[1] - 1)
    high = np.minimum(low + 1, logits.shape[1] - 1)
    weights = np.stack([1 - (position - low), position - low], 1).astype(np.float32)
    logits = logits.astype(jnp.float32)

    def strip(rows):
        low, high, weights = rows
        top, bottom = (jnp.take(logits, row, axis=1) for row in (low, high))
        between = top * weights[0, :, None, None] + bottom * weights[1, :, None, None]
        enlarged = resize_bilinear(between, (ROWS, width), align_corners=align_corners)
        return jnp.argmax(enlarged, -1).astype(jnp.uint8)

    labels = lax.map(strip, (jnp.asarray(low), jnp.asarray(high), jnp.asarray(weights)))
    labels = labels.transpose(1, 0, 2, 3).reshape(logits.shape[0], strips * ROWS, width)
    return labels[:, :height]


def predict_labels(
    model: nn.Module | FoldedModel, variables: Mapping[str, Any], images: Float[Array, "n H W c"]
) -> UInt8[Array, "n H W"]:
    """argmax of the model's logits, without keeping them at full size where the model allows it.

    Models that end in a bilinear enlargement (PSPNet, DeepLabV3, FCN, DeepLab-LargeFOV and SMP's
    PSPNet) are left before it, and `argmax_resized` does the rest. The others compute their logits
    at full size: the SegNets and the notebooks' networks by convolution, FCN-8s by transposed
    convolution. Jittable.
    """
    network = model.model if isinstance(model, FoldedModel) else model
    if type(network) not in _CLASSIFIERS:
        logits = model.apply(variables, images, train=False)["logits"]
        return jnp.argmax(logits, -1).astype(jnp.uint8)
    path, align_corners = _CLASSIFIERS[type(network)]
    coarse = []

    def capture(next_function, args, kwargs, context):
        out = next_function(*args, **kwargs)
        if context.method_name == "__call__" and context.module.path == path:
            coarse.append(out)
        return out

    with nn.intercept_methods(capture):
        model.apply(variables, images, train=False)  # what follows the capture is dead code
    if align_corners is None:
        align_corners = network.align_corners
    return argmax_resized(coarse[0], images.shape[1:3], align_corners=align_corners)
