"""Models of a few channels, a batch and a state, for tests of the steps."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from segjax.layers import Conv, ConvNormAct, resize_bilinear
from segjax.training.state import create_state
from segjax.training.step import Objective
from segjax.transforms.augment import Augmentation
from segjax.transforms.normalize import Normalization

K, N, SIZE, CROP = 3, 4, (10, 12), (8, 8)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
RATE, KEY = 0.1, jax.random.key(7)
WEIGHTS = (0.5, 2.0, 1.0)


class Plain(nn.Module):
    """One convolution for the logits, one for the auxiliary head; no statistics."""

    num_classes: int = K
    aux: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images, *, train):
        outputs = {"logits": nn.Conv(K, (3, 3), dtype=self.dtype, name="main")(images)}
        if self.aux:
            outputs["aux"] = nn.Conv(K, (1, 1), dtype=self.dtype, name="aux")(images)
        return {name: x.astype(jnp.float32) for name, x in outputs.items()}


class Normalised(nn.Module):
    num_classes: int = K

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(4, (3, 3), use_bias=False)(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.Dropout(0.1)(x, deterministic=not train)
        return {"logits": nn.Conv(K, (1, 1))(x)}


class Fragile(nn.Module):
    """Returns NaN for images of one colour."""

    num_classes: int = K

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(K, (1, 1))(
            images * jnp.where(jnp.std(images, (0, 1, 2)).max() < 1e-4, jnp.nan, 1.0)
        )
        return {"logits": nn.BatchNorm(use_running_average=not train)(x)}


class Toy(nn.Module):
    """What a run needs of a network, at a fraction of its compile time; by name: conftest's `toy`.

    Two layers with their norms, dropout between them, and a classifier.
    """

    num_classes: int = K
    features: int = 4
    dropout_rate: float = 0.3
    momentum: float = 0.9
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images, *, train):
        options = dict(momentum=self.momentum, dtype=self.dtype)
        x = ConvNormAct(self.features, strides=2, name="encoder", **options)(images, train=train)
        x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        x = ConvNormAct(self.features, name="decoder", **options)(x, train=train)
        x = Conv(self.num_classes, 1, use_bias=True, dtype=self.dtype, name="classifier")(x)
        return {"logits": resize_bilinear(x.astype(jnp.float32), images.shape[1:3])}


VIEWS = Augmentation(crop_size=CROP, scale=(0.8, 1.5), brightness=0.2)
STILL = Augmentation(crop_size=SIZE, scale=(1.0, 1.0), flip=False)
NORMALIZATION = Normalization(MEAN, STD)
MOVING = Objective(VIEWS, NORMALIZATION)
FIXED = Objective(STILL, NORMALIZATION)


def make_batch(seed=0, ignored=(0.0, 0.9, 0.5, 0.2)):
    """Four samples; `ignored` has the share of each one's pixels that are ignored."""
    random = np.random.default_rng(seed)
    label = random.integers(0, K, (N, *SIZE))
    for row, share in zip(label, ignored, strict=True):
        row[random.random(SIZE) < share] = 255
    return {
        "image": jnp.array(random.integers(0, 256, (N, *SIZE, 3), np.uint8)),
        "label": jnp.array(label.astype(np.uint8)),
        "index": jnp.arange(N, dtype=jnp.int32) + 10,
    }


@functools.cache
def new_state(model, *, ema=False):
    make = functools.partial(create_state, model, optax.sgd(RATE, 0.9), (*SIZE, 3), ema=ema)
    return jax.jit(make)(jax.random.key(1))


def numpy_confusion(labels, predictions):
    counts = np.zeros((K, K), np.int64)
    np.add.at(counts, (labels[labels < K], predictions[labels < K]), 1)
    return counts
