"""Stand-in models with known results, and a predictor that runs them."""

import flax.linen as nn
import jax.numpy as jnp

from configs import base
from segjax.data.classes import from_names
from segjax.inference.options import InferenceOptions
from segjax.inference.predictor import Predictor


class BrightestThird(nn.Module):
    """Predicts class 0, 1 or 2 by the largest colour channel."""

    def apply(self, variables, images, *, train):
        assert not train
        return {"logits": images * variables}


class SeesItsPlace(nn.Module):
    """Adds a function of the place in the window to the colours: like networks it errs near the
    border. The function is not symmetric, so a mirrored view differs."""

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
