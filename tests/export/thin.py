"""Predictors of thin networks with drawn weights, to export."""

import flax.linen as nn
import jax
import numpy as np

from configs import base
from segjax.data.classes import from_names
from segjax.inference.predictor import Predictor
from segjax.models import build, model_options

K = 7
SIZE = (32, 48)


def small_config(name, size=SIZE, **data):
    config = base.get_config()
    config.model.name = name
    thin = {"width": 0.0625, "features": 2, "encoder": "shallow", "fc_features": 4}
    for option in thin.keys() & model_options(name).keys():
        config.model[option] = thin[option]
    config.data.image_size = size
    config.data.eval_images = 3
    config.train.batch_size = 2
    # With other values a network of random weights gives one class everywhere.
    config.data.mean, config.data.std = (0.4, 0.4, 0.4), (0.1, 0.1, 0.1)
    config.data.update(data)
    return config.unlock()


def small_predictor(config, dtype="float32"):
    """Weights drawn with a spread that makes all layers matter; statistics that are not 0 and 1."""
    model = build(config["model"], K, dtype)
    abstract = jax.eval_shape(
        lambda key: model.init(key, np.zeros((1, *SIZE, 3), np.float32), train=False),
        jax.random.key(0),
    )
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            spread = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return (spread * rng.standard_normal(leaf.shape)).astype(np.float32)
        low, high = (0.5, 1.5) if name in ("scale", "var") else (-0.1, 0.1)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, abstract)
    return Predictor(model, variables, from_names(list("abcdefg")), config)


class Pixelwise(nn.Module):
    """A stand-in for a network: a matrix product at each pixel. Compiles at once."""

    @nn.compact
    def __call__(self, images, *, train):
        assert not train
        kernel = self.param("kernel", nn.initializers.zeros, (images.shape[-1], K))
        return {"logits": images @ kernel}


def pixelwise_predictor(config):
    kernel = np.random.default_rng(0).standard_normal((3, K)).astype(np.float32)
    variables = {"params": {"kernel": kernel}}
    return Predictor(Pixelwise(), variables, from_names(list("abcdefg")), config)


def balance(predictor, image):
    """Shifts the logits to mean 0 per class: random weights often have one class everywhere."""
    mean = predictor.logits(image).mean((0, 1))

    def shift(path, leaf):
        last = path[-1].key == "bias" and leaf.shape == (K,)
        return leaf - mean if last else leaf

    predictor.variables = jax.tree_util.tree_map_with_path(shift, predictor.variables)
