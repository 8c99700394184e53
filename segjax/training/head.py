"""What the logits of a network mean: its loss, its decisions and what is counted of them.

`model.head` names it, and the network is the same for all. SOFTMAX: each pixel has one of K
classes, whose ids label maps hold. `Sigmoid`: each pixel has any number of K labels, and label maps
hold bits (see `ClassTable.multilabel`). Training, evaluation, prediction and export ask the head,
so that they agree.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from segjax.data.classes import ClassTable
from segjax.data.weightings import WEIGHTINGS
from segjax.losses import binary
from segjax.losses.labels import is_labelled
from segjax.losses.pixelwise import cross_entropy_sum
from segjax.metrics.confusion import ImageConfusions, confusion_matrix, mean_iou
from segjax.metrics.multilabel import LabelConfusions, label_confusion, mean_label_iou
from segjax.metrics.protocols import DEFAULT_PROTOCOL, PROTOCOLS

Sum = tuple[Float[Array, ""], Int[Array, ""]]


@dataclasses.dataclass(frozen=True)
class Softmax:
    """One of K classes per pixel: the class of the largest logit."""

    name = "softmax"
    rule = ""  # how decisions are made, where that is not the only way
    confusions = ImageConfusions  # keeps the counts of images on the host
    extra_planes = 0  # of `planes`
    protocols = tuple(PROTOCOLS)  # that can divide these counts

    def loss_sum(
        self,
        logits: Float[Array, "n h w k"],
        labels: Int[Array, "n h w"],
        class_weights: Float[Array, "k"] | None = None,
    ) -> Sum:
        """The loss summed over the labelled pixels, and their number."""
        return cross_entropy_sum(logits, labels, class_weights)

    def labelled(self, labels: Int[Array, "*shape"], num_classes: int) -> Bool[Array, "*shape"]:
        """Which pixels count."""
        return is_labelled(labels, num_classes)

    def probabilities(self, logits: Float[Array, "*shape k"]) -> Float[Array, "*shape k"]:
        """The probability of each class."""
        return jax.nn.softmax(logits)

    def scores(self, probabilities: Float[Array, "*shape k"]) -> Float[Array, "*shape k"]:
        """Logits with these probabilities."""
        return jnp.log(probabilities)

    def logarithms(self, logits: Float[Array, "*shape k"]) -> tuple[Float[Array, "*shape k"], ...]:
        """Logarithms of probabilities, whose means over several logits `mean_scores` takes."""
        return (jax.nn.log_softmax(logits),)

    def mean_scores(self, means: tuple[Float[Array, "*shape k"], ...]) -> Float[Array, "*shape k"]:
        """`scores` of mean probabilities from the logarithms of the means, see `logarithms`.

        They are finite also where a probability would round to 0 or 1, so that they can be
        interpolated and have a loss.
        """
        return means[0]

    def decide(self, probabilities: Float[Array, "*shape k"]) -> Int[Array, "*shape"]:
        """The label map, int32, of probabilities, or of any rising function of them."""
        return jnp.argmax(probabilities, -1)

    def predict(self, logits: Float[Array, "*shape k"]) -> Int[Array, "*shape"]:
        """The label map, int32, of logits."""
        return jnp.argmax(logits, -1)

    def planes(self, probabilities: Float[Array, "*shape k"]) -> Float[Array, "*shape planes"]:
        """What sliding windows add up, times their weights, for `weighted_mean`."""
        return probabilities

    def weighted_mean(self, planes: Float[Array, "*shape planes"]) -> Float[Array, "*shape k"]:
        """The mean probabilities of sums of `planes`."""
        # The probabilities of a pixel sum to 1, so its sum is the total weight.
        return planes / jnp.sum(planes, -1, keepdims=True)

    def counts_shape(self, num_classes: int) -> tuple[int, ...]:
        """The shape of `counts`."""
        return (num_classes, num_classes)

    def counts(
        self,
        labels: Integer[Array, "*shape"],
        predictions: Integer[Array, "*shape"],
        num_classes: int,
    ) -> Int[Array, "..."]:
        """Pixels by label and prediction, int32: the confusion matrix [k, k]."""
        return confusion_matrix(labels, predictions, num_classes)

    def right(self, counts: Int[Array, "..."]) -> Array:
        """The number of labelled pixels that are right."""
        return jnp.trace(counts)

    def mean_iou(self, counts: Int[np.ndarray, "..."]) -> float:
        """The mean IoU of counts; the best checkpoint has the highest."""
        return mean_iou(np.asarray(counts))[0]


SOFTMAX = Softmax()


@dataclasses.dataclass(frozen=True)
class Sigmoid:
    """Any number of K labels per pixel: those whose probability is above a threshold.

    Attributes:
      thresholds: of each label's probability.
    """

    thresholds: tuple[float, ...]

    name = "sigmoid"
    confusions = LabelConfusions
    extra_planes = 1
    protocols = (DEFAULT_PROTOCOL.name,)

    @property
    def rule(self) -> str:
        """How decisions are made, in words."""
        several = len(set(self.thresholds)) > 1
        values = ", ".join(f"{t:g}" for t in (self.thresholds if several else self.thresholds[:1]))
        return f"a label is present where its probability is above {values}"

    def loss_sum(
        self,
        logits: Float[Array, "n h w k"],
        labels: Int[Array, "n h w"],
        class_weights: Float[Array, "k"] | None = None,
    ) -> Sum:
        """As `Softmax.loss_sum`; weights are on the pixels that have the label."""
        return binary.binary_cross_entropy_sum(logits, labels, class_weights)

    def labelled(self, labels: Int[Array, "*shape"], num_classes: int) -> Bool[Array, "*shape"]:
        return binary.is_labelled(labels, num_classes)

    def probabilities(self, logits: Float[Array, "*shape k"]) -> Float[Array, "*shape k"]:
        """The probability of each label."""
        return jax.nn.sigmoid(logits)

    def scores(self, probabilities: Float[Array, "*shape k"]) -> Float[Array, "*shape k"]:
        return jnp.log(probabilities) - jnp.log1p(-probabilities)

    def logarithms(self, logits: Float[Array, "*shape k"]) -> tuple[Float[Array, "*shape k"], ...]:
        """As `Softmax.logarithms`; of the probabilities that labels are present and absent."""
        return jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)

    def mean_scores(self, means: tuple[Float[Array, "*shape k"], ...]) -> Float[Array, "*shape k"]:
        """As `Softmax.mean_scores`."""
        return means[0] - means[1]

    def decide(self, probabilities: Float[Array, "*shape k"]) -> Int[Array, "*shape"]:
        """The label map of bits, int32, of probabilities."""
        return self._bits(probabilities > jnp.array(self.thresholds, jnp.float32))

    def predict(self, logits: Float[Array, "*shape k"]) -> Int[Array, "*shape"]:
        """The label map of bits, int32, of logits."""
        logit_thresholds = [math.log(t) - math.log1p(-t) for t in self.thresholds]
        return self._bits(logits > jnp.array(logit_thresholds, jnp.float32))

    def planes(self, probabilities: Float[Array, "*shape k"]) -> Float[Array, "*shape planes"]:
        return jnp.concatenate([probabilities, jnp.ones_like(probabilities[..., :1])], -1)

    def weighted_mean(self, planes: Float[Array, "*shape planes"]) -> Float[Array, "*shape k"]:
        return planes[..., :-1] / planes[..., -1:]

    def _bits(self, present: Bool[Array, "*shape k"]) -> Int[Array, "*shape"]:
        return jnp.sum(present << jnp.arange(len(self.thresholds)), -1, dtype=jnp.int32)

    def counts_shape(self, num_classes: int) -> tuple[int, ...]:
        return (num_classes, 2, 2)

    def counts(
        self,
        labels: Integer[Array, "*shape"],
        predictions: Integer[Array, "*shape"],
        num_classes: int,
    ) -> Int[Array, "..."]:
        """Pixels of each label by presence and prediction, int32 [k, 2, 2]."""
        return label_confusion(labels, predictions, num_classes)

    def right(self, counts: Int[Array, "..."]) -> Array:
        """As `Softmax.right`; a pixel counts by the share of its labels that are right."""
        return jnp.trace(counts, axis1=-2, axis2=-1).sum() / len(self.thresholds)

    def mean_iou(self, counts: Int[np.ndarray, "..."]) -> float:
        """The mean over the labels of the IoU of their pixels."""
        return mean_label_iou(np.asarray(counts))[0]


Head = Softmax | Sigmoid
HEADS = (Softmax.name, Sigmoid.name)


def head_name(model: Mapping[str, Any]) -> str:
    """`model.head` of a config's `model` section; one without it has a softmax.

    Raises:
      ValueError: for an unknown head.
    """
    name = model.get("head", SOFTMAX.name)
    if name not in HEADS:
        raise ValueError(f"model.head={name!r} is unknown; use {', '.join(HEADS)}")
    return name


def make_head(config: Mapping[str, Any], classes: ClassTable) -> Head:
    """The head that `model.head` and `model.threshold` name, checked against the data's classes.

    Args:
      config: the whole config; one without `model.head` has a softmax.
      classes: of the data set.

    Raises:
      ValueError: for an unknown head or threshold, labels of the other kind, or class weights that
        have no meaning for the head.
    """
    model, count = config["model"], len(classes)
    name = head_name(model)
    if name == "softmax":
        if classes.multilabel:
            raise ValueError(
                "model.head='softmax' gives each pixel one class, but the masks hold any number of "
                "them (data.mask_format); use model.head=sigmoid"
            )
        if count == 1:
            raise ValueError(
                f"model.head='softmax' with one class ({classes.names[0]}): its probability is 1 "
                "everywhere, so nothing is learned; use model.head=sigmoid with "
                "data.mask_format=bits, or name the background too, "
                f"data.classes=background,{classes.names[0]}"
            )
        return SOFTMAX
    if not classes.multilabel:
        raise ValueError(
            f"model.head='sigmoid' with masks of class ids ({', '.join(classes.names)}); use "
            "data.name=folder with data.mask_format=bits or per_class and the names of the "
            "foreground classes alone in data.classes, or model.head=softmax"
        )
    option = config["loss"]["class_weights"]
    if isinstance(option, str) and option in ("published", *WEIGHTINGS):
        raise ValueError(
            f"loss.class_weights={option!r} with model.head='sigmoid'; use none or {count} numbers "
            "with commas, one factor per label on the pixels that have it (such as the pixels "
            "without the label over those with it)"
        )
    return Sigmoid(_thresholds(model.get("threshold", (0.5,)), count))


def _thresholds(option: Any, count: int) -> tuple[float, ...]:
    try:
        values = tuple(map(float, option)) if isinstance(option, list | tuple) else (float(option),)
    except (TypeError, ValueError):
        values = ()
    if len(values) not in (1, count) or not all(0 < value < 1 for value in values):
        raise ValueError(
            f"model.threshold={option!r}; use a number between 0 and 1, or {count} of them, one "
            "per class"
        )
    return values * (count if len(values) == 1 else 1)
