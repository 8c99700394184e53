"""Predictive uncertainty: Monte Carlo dropout and ensembles, as running sums.

Memory does not grow with the number of samples: it holds the running mean of the probabilities and
two numbers per pixel.

References: Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016; Kendall,
Badrinarayanan and Cipolla, "Bayesian SegNet", BMVC 2017 (arXiv 1511.02680); Lakshminarayanan et
al., "Simple and scalable predictive uncertainty estimation using deep ensembles", NeurIPS 2017.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from segjax.layers.dropout import dropout_by_example
from segjax.models.registry import MODELS, model_options
from segjax.training.forward import Forward

MEASURES = ("entropy", "mutual_information", "variance")


@flax.struct.dataclass
class Uncertainty:
    """The mean prediction and its uncertainty at each pixel.

    Attributes:
      probabilities: mean over the samples of their softmax over the last axis.
      entropy: predictive entropy, that of the mean, in nats: 0 to log k. Total uncertainty.
      mutual_information: the predictive entropy minus the samples' mean entropy, in nats ("BALD"):
        how far the samples disagree. 0 where they all agree, however unsure they are.
      variance: of each class's probability over the samples (divided by their number), averaged
        over the classes, as the Bayesian SegNet authors plot it.
    """

    probabilities: Float[Array, "n h w k"]
    entropy: Float[Array, "n h w"]
    mutual_information: Float[Array, "n h w"]
    variance: Float[Array, "n h w"]

    def scores(self) -> dict[str, Float[Array, "n h w"]]:
        """Each measure in [0, 1], to rank pixels by.

        It is the square root of the share of the largest possible value. The root keeps the order,
        and separates the nearly certain pixels, which are most, in a histogram.
        """
        k = self.probabilities.shape[-1]
        largest = {name: math.log(k) for name in MEASURES}
        # The variances of all classes sum to E|p|^2 - |E p|^2, which is at most 1 - 1/k.
        largest["variance"] = (1 - 1 / k) / k
        return {
            name: jnp.sqrt(getattr(self, name) / max(largest[name], 1e-30)) for name in MEASURES
        }


@flax.struct.dataclass
class Samples:
    """Sums over the samples added so far.

    Attributes:
      count: of samples.
      mean: of their probabilities.
      scatter: sum over samples and classes of the squared distance from the mean (Welford's
        algorithm, which stays exact where all samples agree).
      entropy: sum of their entropies.
    """

    count: Float[Array, ""]
    mean: Float[Array, "n h w k"]
    scatter: Float[Array, "n h w"]
    entropy: Float[Array, "n h w"]

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> "Samples":
        """The sums over no sample, for logits of `shape`."""
        zeros = jnp.zeros(shape[:-1], jnp.float32)
        return cls(jnp.zeros((), jnp.float32), jnp.zeros(shape, jnp.float32), zeros, zeros)

    def add(self, logits: Float[Array, "n h w k"]) -> "Samples":
        """The sums with one more sample."""
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
        """The measures; mutual information and variance of a single sample are 0."""
        entropy = _entropy(self.mean)
        information = jnp.maximum(entropy - self.entropy / self.count, 0)
        variance = jnp.maximum(self.scatter, 0) / self.count / self.mean.shape[-1]
        return Uncertainty(self.mean, entropy, information, variance)


def _entropy(p: Float[Array, "*shape k"]) -> Float[Array, "*shape"]:
    """In nats; 0 log 0 = 0."""
    return -jnp.sum(p * jnp.log(jnp.maximum(p, jnp.finfo(jnp.float32).tiny)), -1)


def sample_logits(
    forward: Forward,
    variables: Any,
    images: Shaped[Array, "n H W c"],
    key: jax.Array,
    index: Int[Array, "n"],
) -> Float[Array, "n H W k"]:
    """The logits with dropout on, and batch normalisation by its running statistics.

    The dropout masks of an image depend on `key` and its index alone, not on the rest of the batch.

    Args:
      forward, variables, images: see `segjax.training.forward.logits_fn`, with train=False.
      key: of this sample.
      index: of each image in the data set.
    """

    def drop(next_function, args, kwargs, context):
        if isinstance(context.module, nn.Dropout) and context.method_name == "__call__":
            return dropout_by_example(context.module, args[0], index)
        return next_function(*args, **kwargs)

    with nn.intercept_methods(drop):
        return forward(variables, images, rngs={"dropout": key})


def mc_dropout(
    forward: Forward,
    variables: Any,
    images: Shaped[Array, "n H W c"],
    key: jax.Array,
    samples: int = 50,
    *,
    index: Int[Array, "n"] | None = None,
    resize: Callable[[Array], Array] = lambda logits: logits,
) -> Uncertainty:
    """Monte Carlo dropout: the mean over forward passes with different dropout masks. Jittable.

    Batch normalisation uses its running statistics. XLA moves the layers before the first dropout
    out of the loop, as they give the same for all samples: on a CPU 50 samples of PSPNet, whose one
    dropout is before the classifier, take as long as 8 forward passes, those of Bayesian SegNet as
    long as 50. PSPNet's maps of mutual information and variance show the grid of its output stride,
    since interpolation averages independent samples between the grid's cells.

    Args:
      forward, variables, images: see `segjax.training.forward.logits_fn`, with train=False.
      key: sample t draws from fold_in(key, t).
      samples: 50 in Bayesian SegNet's paper.
      index: see `sample_logits`; 0..n-1 by default.
      resize: brings logits [n, H, W, k] to the size that is measured, [n, h, w, k].
    """
    index = jnp.arange(images.shape[0]) if index is None else index

    def logits_of(t):
        logits = sample_logits(forward, variables, images, jax.random.fold_in(key, t), index)
        return resize(logits)

    def add(sums, t):
        return sums.add(logits_of(t)), None

    shape = jax.eval_shape(logits_of, 0).shape
    sums, _ = jax.lax.scan(add, Samples.none(shape), jnp.arange(samples))
    return sums.summary()


def dropout_layers(
    model: nn.Module, variables: Mapping[str, Any], channels: int = 3
) -> dict[str, float]:
    """{path: rate} of the dropout layers before the logits whose rate is above 0.

    The auxiliary head's are left out. Traces the model, computes nothing.
    """
    rates = {}

    def watch(next_function, args, kwargs, context):
        module = context.module
        if isinstance(module, nn.Dropout) and module.rate > 0 and module.path[0] != "aux_head":
            rates["/".join(module.path)] = module.rate
        return next_function(*args, **kwargs)

    def forward(variables, images):
        with nn.intercept_methods(watch):
            return model.apply(variables, images, train=False)

    jax.eval_shape(forward, dict(variables), jnp.zeros((1, 64, 64, channels)))
    return rates


def check_dropout(model: nn.Module, variables: Mapping[str, Any], channels: int = 3) -> None:
    """Raises ValueError for a model without dropout, naming the models that have it."""
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
