"""The forward pass that evaluation, prediction, uncertainty and export share."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

from segjax.transforms.normalize import Normalization

# forward(variables, images, rngs=None, inside=None) -> logits, see `logits_fn`.
Forward = Callable[..., Float[Array, "n H W k"]]


def logits_fn(model: nn.Module, normalization: Normalization, train: bool = False) -> Forward:
    """Returns `forward(variables, images, rngs=None, inside=None)`: images in, logits out.

    Arguments of `forward`, which is pure and can be jitted:
      variables: {"params", "batch_stats"} of the model.
      images: uint8 [n, H, W, c]; `forward` normalises them.
      rngs: random keys for the model, such as {"dropout": key}.
      inside: bool [n, H, W], the pixels that belong to each image; the others become 0 after
        normalisation. All by default.

    It returns the main head's float32 logits [n, H, W, K].

    Args:
      train: whether batch normalisation uses the statistics of the batch, and dropout drops; the
        updated running statistics are discarded.
    """

    def forward(
        variables: Any,
        images: UInt8[Array, "n H W c"],
        rngs: Mapping[str, jax.Array] | None = None,
        inside: Bool[Array, "n H W"] | None = None,
    ) -> Float[Array, "n H W k"]:
        images = normalization(images.astype(jnp.float32) / 255, inside)
        apply = model.apply if rngs is None else functools.partial(model.apply, rngs=rngs)
        options: dict[str, Any] = {"mutable": ["batch_stats"]} if train else {}
        try:
            outputs = apply(variables, images, train=train, **options)
        except flax.errors.FlaxError as error:  # at the first call alone
            raise ValueError(
                f"the weights are not those of this network ({str(error).splitlines()[0]}); use "
                "the config.json and classes.json that training wrote with the checkpoints"
            ) from error
        return (outputs[0] if train else outputs)["logits"]

    return forward
