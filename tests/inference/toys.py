"""Stand-in models with known answers, and the config that they are used with."""

import flax.linen as nn
import jax.numpy as jnp

from configs import base
from segjax.data.classes import from_names
from segjax.inference.options import InferenceOptions
from segjax.inference.predictor import Predictor


class BrightestThird(nn.Module):
    """Class 0, 1 or 2 by which colour channel is the largest."""

    def apply(self, variables, images, *, train):
        assert not train
        return {"logits": images * variables}


class SeesItsPlace(nn.Module):
    """Adds to the colours what depends on the place in the window: a poor border, as networks
    have one. Not symmetric, so that a mirrored view differs."""

    def apply(self, variables, images, *, train):
        assert not train
        rows = jnp.linspace(0, 1, images.shape[1])[:, None]
        columns = jnp.linspace(-1, 1, images.shape[2])
        place = jnp.stack([rows + 0 * columns, 3 * columns + 0 * rows, 1 - rows * columns], -1)
        return {"logits": images * variables + place}


def toy_predictor(model, scale=1.0, **options):
    config = base.get_config()
    config.data.image_size = (24, 32)
    config.data.mean, config.data.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    classes = from_names(["red", "green", "blue"])
    return Predictor(model, scale, classes, config, InferenceOptions(**options))
