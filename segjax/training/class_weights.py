"""Loss weights of the classes."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from segjax.data import statistics
from segjax.data.classes import ClassTable
from segjax.data.datasets import spec_of


def class_weights(
    config: Mapping[str, Any],
    source: Any,
    classes: ClassTable,
    cache_dir: str | pathlib.Path | None,
) -> tuple[float, ...] | None:
    """The weights that `loss.class_weights` names or lists, one per class; None if all are equal.

    Args:
      config: the whole config.
      source: the training images and labels, read for weights that depend on class frequencies.
      classes: the classes of the labels.
      cache_dir: folder that keeps the class frequencies; None keeps nothing.

    Raises:
      ValueError: for an unknown name or a list of the wrong length.
    """
    option = config["loss"]["class_weights"]
    if isinstance(option, str) and option == "none":
        return None
    if isinstance(option, str) and option == "published":
        return _published(config["data"])
    if isinstance(option, str) and option in statistics.WEIGHTINGS:
        cache = cache_dir and pathlib.Path(cache_dir) / "class_statistics.json"
        skips = config["data"]["on_unreadable"] == "skip"
        counts = statistics.class_statistics(source, cache, skip_unreadable=skips)
        weights = statistics.WEIGHTINGS[option](counts["class_pixels"], counts["present_pixels"])
        return tuple(float(w) for w in weights)
    try:
        weights = tuple(
            float(w) for w in (option.split(",") if isinstance(option, str) else option)
        )
    except (ValueError, TypeError):
        weights = ()
    if len(weights) != len(classes) or not all(0 <= w < math.inf for w in weights):
        raise ValueError(
            f"loss.class_weights={option!r}; use none, published, "
            f"{', '.join(statistics.WEIGHTINGS)} or {len(classes)} numbers of 0 or more, one per "
            f"class ({', '.join(classes.names)})"
        )
    return weights


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
            f"use {', '.join(statistics.WEIGHTINGS)} or numbers"
        )
    return weights
