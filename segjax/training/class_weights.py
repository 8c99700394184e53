"""The options of the loss, and its weights of the classes."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int64

from segjax.data import statistics
from segjax.data.datasets import spec_of
from segjax.data.splits import Splits
from segjax.data.weightings import WEIGHTINGS
from segjax.losses.table import LOSSES
from segjax.losses.terms import parse_aux_terms, parse_terms

_LARGEST = 1e9  # weight, of which sums over pixels stay finite


def check_loss(loss: Mapping[str, Any], head: str = "softmax") -> None:
    """Checks the terms of `config.loss`, and whether class weights would change any.

    Class weights apply to the losses that take them. They are refused where no loss does.

    Raises:
      ValueError: naming the option that is wrong.
    """
    terms = parse_terms(loss["terms"], head=head) + parse_aux_terms(loss["aux_terms"], head=head)
    weights = loss["class_weights"]
    if isinstance(weights, str) and weights == "none":
        return
    if not any(LOSSES[term.name].takes_class_weights for term in terms):
        taking = ", ".join(
            name for name, row in LOSSES.items() if row.takes_class_weights and row.head == head
        )
        raise ValueError(
            f"loss.class_weights={weights!r} with loss.terms={loss['terms']!r}, none of which "
            f"takes class weights; use loss.class_weights=none, or add one of {taking}"
        )


def class_weights(
    config: Mapping[str, Any], splits: Splits, cache_dir: str | pathlib.Path | None
) -> tuple[float, ...] | None:
    """The weights that `loss.class_weights` names or lists, one per class; None if all are equal.

    Args:
      config: the whole config.
      splits: of the data set; the training labels are counted for weights that depend on class
        frequencies.
      cache_dir: folder that keeps the counts of a large training split; None keeps nothing.

    Raises:
      ValueError: for an unknown name or a list of the wrong length.
    """
    option, classes = config["loss"]["class_weights"], splits.classes
    if isinstance(option, str) and option == "none":
        return None
    if isinstance(option, str) and option == "published":
        return _published(config["data"])
    if isinstance(option, str) and option in WEIGHTINGS:
        weights = WEIGHTINGS[option](*_training_pixels(config["data"], splits, cache_dir))
        return tuple(float(w) for w in weights)
    try:
        weights = tuple(
            float(w) for w in (option.split(",") if isinstance(option, str) else option)
        )
    except (ValueError, TypeError):
        weights = ()
    valid = all(0 <= w < _LARGEST for w in weights) and any(weights)
    if len(weights) != len(classes) or not valid:
        raise ValueError(
            f"loss.class_weights={option!r}; use none, published, "
            f"{', '.join(WEIGHTINGS)} or {len(classes)} numbers of 0 or more, one per "
            f"class, not all 0 ({', '.join(classes.names)})"
        )
    return weights


def _training_pixels(
    data: Mapping[str, Any], splits: Splits, cache_dir: str | pathlib.Path | None
) -> tuple[Int64[np.ndarray, "k"], Int64[np.ndarray, "k"]]:
    """The training pixels of each class, and all pixels of the images that it occurs in."""
    split = data["train_split"]
    counts = splits.counts(split)
    if counts:
        return counts.class_pixels, counts.present_pixels
    cached = statistics.class_statistics(
        splits.source(split),
        cache_dir and pathlib.Path(cache_dir) / "class_statistics.json",
        skip_unreadable=data["on_unreadable"] == "skip",
        timeout_s=data["timeout_s"],
    )
    return cached["class_pixels"], cached["present_pixels"]


def _published(data: Mapping[str, Any]) -> tuple[float, ...]:
    """The class weights that were published with a data set.

    Raises:
      ValueError: if there are none.
    """
    spec = spec_of(data)
    weights = spec.weights.get(data["variant"] or next(iter(spec.variants), ""))
    if weights is None or data["class_map"]:
        of = f"the classes of {data['class_map']}" if data["class_map"] else data["name"]
        raise ValueError(
            f"loss.class_weights='published', but no weights were published for {of}; "
            f"use {', '.join(WEIGHTINGS)} or numbers"
        )
    return weights
