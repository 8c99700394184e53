"""What a network does not know: Monte Carlo dropout and ensembles, as running sums.

However many samples there are, memory holds one: the running mean of the probabilities and three
numbers a pixel.

References: Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016; Kendall,
Badrinarayanan and Cipolla, "Bayesian SegNet", BMVC 2017 (arXiv 1511.02680); Lakshminarayanan et
al., "Simple and scalable predictive uncertainty estimation using deep ensembles", NeurIPS 2017.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from segjax.layers import resize_bilinear
from segjax.models.registry import MODELS, model_options

MEASURES = ("entropy", "mutual_information", "variance")


@flax.struct.dataclass
class Uncertainty:
    """The mean prediction and how sure it is, pixel by pixel.

    Attributes:
      probabilities: mean of the samples' softmax, over the last axis.
      entropy: predictive entropy, that of the mean, in nats: 0 to log k. Total uncertainty.
      mutual_information: that less the mean entropy of the samples, in nats ("BALD"): how far the
        samples disagree. 0 where all say the same, however unsure.
      variance: of each class's probability over the samples (divided by their number), averaged
        over the classes: what the Bayesian SegNet authors plot.
    """

    probabilities: Float[Array, "n h w k"]
    entropy: Float[Array, "n h w"]
    mutual_information: Float[Array, "n h w"]
    variance: Float[Array, "n h w"]

    def scores(self) -> dict[str, Float[Array, "n h w"]]:
        """Each measure in [0, 1], to rank pixels by: the square root of its share of its largest
        possible value. Most pixels are nearly certain; the root tells them apart in a histogram,
        and the order is the measure's own."""
        k = self.probabilities.shape[-1]
        largest = {name: math.log(k) for name in MEASURES}
        # The variances of all classes sum to E|p|^2 - |E p|^2, which is at most 1 - 1/k.
        largest["variance"] = (1 - 1 / k) / k
        return {
            name: jnp.sqrt(getattr(self, name) / max(largest[name], 1e-30)) for name in MEASURES
        }


@flax.struct.dataclass
class Samples:
    """Sums over the samples seen so far.

    Attributes:
      count: how many.
      mean: of their probabilities.
      scatter: sum over samples and classes of the squared distance from the mean (Welford's, which
        loses nothing where all samples agree).
      entropy: sum of their entropies.
    """

    count: Float[Array, ""]
    mean: Float[Array, "n h w k"]
    scatter: Float[Array, "n h w"]
    entropy: Float[Array, "n h w"]

    @classmethod
    def none(cls, shape: tuple[int, int, int, int]) -> "Samples":
        """No sample yet, of logits of `shape`."""
        zeros = jnp.zeros(shape[:-1], jnp.float32)
        return cls(jnp.zeros((), jnp.float32), jnp.zeros(shape, jnp.float32), zeros, zeros)

    def add(self, logits: Float[Array, "n h w k"]) -> "Samples":
        """One more."""
        log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
        p = jnp.exp(log_p)
        count = self.count + 1
        before = p - self.mean
        mean = self.mean + before / count
        return Samples(
            count,
            mean,
            self.scatter + jnp.sum(before * (p - mean), -1),
            self.entropy - jnp.sum(p * log_p, -1),
        )

    def summary(self) -> Uncertainty:
        """The measures; of one sample alone mutual information and variance are 0."""
        entropy = _entropy(self.mean)
        information = jnp.maximum(entropy - self.entropy / self.count, 0)
        variance = jnp.maximum(self.scatter, 0) / self.count / self.mean.shape[-1]
        return Uncertainty(self.mean, entropy, information, variance)


def _entropy(p: Float[Array, "*shape k"]) -> Float[Array, "*shape"]:
    """In nats; 0 log 0 = 0."""
    return -jnp.sum(p * jnp.log(jnp.maximum(p, jnp.finfo(jnp.float32).tiny)), -1)


def sample_logits(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: Float[Array, "n H W c"],
    key: jax.Array,
    ids: Int[Array, "n"],
) -> Float[Array, "n H W k"]:
    """The logits with dropout on and batch normalisation by its running statistics.

    The masks of an image depend on `key` and its id alone, not on the rest of the batch.

    Args:
      model, variables, images: as for `model.apply(..., train=False)`.
      key: of this sample.
      ids: one number per image, its index in the data set.
    """

    def drop(next_function, args, kwargs, context):
        module = context.module
        if not isinstance(module, nn.Dropout) or context.method_name != "__call__":
            return next_function(*args, **kwargs)
        (x,) = args
        if module.rate == 0:
            return x
        keys = jax.vmap(jax.random.fold_in, (None, 0))(module.make_rng("dropout"), ids)
        shape = [1 if axis in module.broadcast_dims else n for axis, n in enumerate(x.shape)]
        keep = 1 - module.rate
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, keep, shape[1:]))(keys)
        return jnp.where(kept, x / keep, 0).astype(x.dtype)

    with nn.intercept_methods(drop):
        return model.apply(variables, images, train=False, rngs={"dropout": key})["logits"]


def mc_dropout(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: Float[Array, "n H W c"],
    key: jax.Array,
    samples: int = 50,
    *,
    ids: Int[Array, "n"] | None = None,
    size: tuple[int, int] | None = None,
) -> Uncertainty:
    """Monte Carlo dropout: the mean over forward passes that each drop other units. Jittable.

    Batch normalisation keeps its running statistics. What comes before the first dropout does not
    change from sample to sample, and XLA moves it out of the loop: 50 samples of PSPNet, whose one
    dropout is before the classifier, take as long as 8 forward passes on the CPU (Bayesian SegNet's
    take as long as 50). There the maps of mutual information and variance show the grid of the
    network's output stride: between its cells, interpolation averages independent samples.

    Args:
      model, variables, images: as for `model.apply(..., train=False)`.
      key: sample t draws from fold_in(key, t).
      samples: 50 in Bayesian SegNet's paper.
      ids: see `sample_logits`; 0..n-1 by default.
      size: (h, w) of the result: the logits are resized; the model's own by default.
    """
    ids = jnp.arange(images.shape[0]) if ids is None else ids

    def logits_of(t):
        logits = sample_logits(model, variables, images, jax.random.fold_in(key, t), ids)
        return resize_bilinear(logits, size or logits.shape[1:3])

    shape = jax.eval_shape(logits_of, 0).shape
    add = lambda sums, t: (sums.add(logits_of(t)), None)  # noqa: E731
    sums, _ = jax.lax.scan(add, Samples.none(shape), jnp.arange(samples))
    return sums.summary()


def dropout_layers(
    model: nn.Module, variables: Mapping[str, Any], channels: int = 3
) -> dict[str, float]:
    """{path: rate} of the dropouts above 0 that the logits pass through (the auxiliary head's are
    no part of that). Nothing is computed."""
    found = {}

    def watch(next_function, args, kwargs, context):
        module = context.module
        if isinstance(module, nn.Dropout) and module.rate > 0 and module.path[0] != "aux_head":
            found["/".join(module.path)] = module.rate
        return next_function(*args, **kwargs)

    def forward(variables, images):
        with nn.intercept_methods(watch):
            return model.apply(variables, images, train=False)

    jax.eval_shape(forward, dict(variables), jnp.zeros((1, 64, 64, channels)))
    return found


def check_dropout(model: nn.Module, variables: Mapping[str, Any], channels: int = 3) -> None:
    """Raises ValueError, naming the models that have it, for a model without dropout."""
    if dropout_layers(model, variables, channels):
        return
    name = next(
        (name for name, kind in MODELS.items() if kind is type(model)), type(model).__name__
    )
    models = [name for name in MODELS if "dropout_rate" in model_options(name)]
    rate = f" (model.dropout_rate={model.dropout_rate:g})" if name in models else ""
    raise ValueError(
        f"{name} has no dropout before its logits{rate}, so its samples would all be the same; use "
        "a run of configs/segnet.py:bayesian or configs/segnet_basic.py:bayesian, or one with "
        f"model.dropout_rate above 0 of {', '.join(models)}; or give several workdirs, for an "
        "ensemble"
    )
