"""Predicting label maps with a trained run."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from segjax import config as configs
from segjax.data.classes import ClassTable
from segjax.data.normalize import normalize
from segjax.data.pipeline import fit_image, fitted_size
from segjax.layers import resize_bilinear
from segjax.models import build
from segjax.training.checkpoint import CheckpointStore


class Predictor:
    """A model with its variables, classes and preprocessing; label maps at the images' own size.

    Images are fitted to the canvas that the model was trained and evaluated on
    (`data.image_size`); the logits, not the labels, are resized back. One program is compiled for
    the canvas, whatever sizes come.

    Args:
      model, variables: as trained.
      classes: names and colours.
      config: the run's config.
    """

    def __init__(
        self, model: nn.Module, variables: Any, classes: ClassTable, config: Mapping[str, Any]
    ):
        self.model, self.classes, self.config = model, classes, config
        self._canvas = tuple(config["data"]["image_size"])
        self.variables = variables
        mean, std = tuple(config["data"]["mean"]), tuple(config["data"]["std"])
        local_contrast = config["data"].get("local_contrast", 0)  # older runs have no such option

        @jax.jit
        def forward(variables, image):
            images = normalize(image[None].astype(jnp.float32) / 255, mean, std, local_contrast)
            return model.apply(variables, images, train=False)["logits"]

        self._forward = forward

    @classmethod
    def from_workdir(cls, workdir: str | pathlib.Path, step: int | None = None) -> "Predictor":
        """Loads the best checkpoint of a run, or that of `step`.

        Raises:
          ValueError: if the folder holds no run, no checkpoint, or not that step.
        """
        config = configs.load(workdir)
        classes = configs.load_classes(config, workdir)
        model = build(config["model"], len(classes), config["dtype"])
        with CheckpointStore(workdir, read_only=True) as store:
            variables = store.restore_variables(step)
        return cls(model, variables, classes, config)

    def predict(self, image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w"]:
        """The label map of one image of any size, ids 0..K-1; it has `data.channels` channels."""
        image, channels = np.asarray(image), self.config["data"]["channels"]
        if image.ndim != 3 or image.shape[2] != channels or image.dtype != np.uint8:
            raise ValueError(
                f"predict wants a uint8 image [h, w, {channels}], found {image.dtype} {image.shape}"
            )
        size = image.shape[:2]
        logits = self._forward(self.variables, fit_image(image, self._canvas))
        return np.asarray(_labels_at(logits, fitted_size(size, self._canvas), size))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _labels_at(logits, fitted, size):
    """The best class of every pixel of an image of `size`, whose logits fill `fitted` top left."""
    logits = resize_bilinear(logits[:, : fitted[0], : fitted[1]], size)
    return jnp.argmax(logits[0], -1).astype(jnp.uint8)
