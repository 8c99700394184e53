"""The loss weights of classes that a config asks for."""

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
    """The loss weights that `loss.class_weights` asks for; None = all equal.

    Raises:
      ValueError: for an unknown name or a list of the wrong length.
    """
    wanted = config["loss"]["class_weights"]
    if isinstance(wanted, str) and wanted == "none":
        return None
    if isinstance(wanted, str) and wanted == "published":
        return _published(config["data"])
    if isinstance(wanted, str) and wanted in statistics.WEIGHTINGS:
        cache = cache_dir and pathlib.Path(cache_dir) / "class_statistics.json"
        skips = config["data"]["on_unreadable"] == "skip"
        counts = statistics.class_statistics(source, cache, skip_unreadable=skips)
        weights = statistics.WEIGHTINGS[wanted](counts["class_pixels"], counts["present_pixels"])
        return tuple(float(w) for w in weights)
    try:
        weights = tuple(
            float(w) for w in (wanted.split(",") if isinstance(wanted, str) else wanted)
        )
    except (ValueError, TypeError):
        weights = ()
    if len(weights) != len(classes) or not all(0 <= w < math.inf for w in weights):
        raise ValueError(
            f"loss.class_weights={wanted!r}; use none, published, "
            f"{', '.join(statistics.WEIGHTINGS)} or {len(classes)} numbers of 0 or more, one per "
            f"class ({', '.join(classes.names)})"
        )
    return weights


def _published(data: Mapping[str, Any]) -> tuple[float, ...]:
    """The class weights that came with a data set.

    Raises:
      ValueError: if none did.
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
