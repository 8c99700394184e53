"""Pictures of uncertainty: the image, what is seen in it, and maps of how sure that is."""

import math
import os
from collections.abc import Mapping
from typing import IO

import numpy as np
from matplotlib.figure import Figure

from segjax.data.classes import ClassTable
from segjax.report.plots import error_map

# (key of a sample, title, unit); in the order of the pictures.
MAPS = (
    ("entropy", "Predictive entropy", "nats"),
    ("mutual_information", "Mutual information", "nats"),
    ("variance", "Variance, mean over classes", ""),
)
_INK = "#24292f"


def plot_uncertainty(
    sample: Mapping,
    classes: ClassTable,
    path: str | os.PathLike | IO[bytes],
    limits: Mapping[str, float] | None = None,
) -> None:
    """Image, prediction and errors above; the three maps below, each with its scale.

    Args:
      sample: name, image uint8 [h, w, 3], label and prediction uint8 [h, w], and float [h, w] under
        the keys of `MAPS`.
      classes: the class table.
      path: PNG file to write.
      limits: the upper end of each map's scale, so that pictures can be compared; by default log k
        for the entropy and the map's own largest value for the others.
    """
    height, width = sample["label"].shape
    column = 4.2
    size = (3 * column + 1.2, 2 * (column * height / width + 0.6) + 0.3)
    figure = Figure(size, dpi=110, layout="constrained", facecolor="white")
    axes = figure.subplots(2, 3)
    errors = error_map(sample["image"], sample["label"], sample["prediction"])
    pictures = (sample["image"], classes.colorize(sample["prediction"]), errors)
    for where, title, picture in zip(
        axes[0], ("Image", "Prediction", "Errors"), pictures, strict=True
    ):
        where.imshow(picture, interpolation="nearest")
        where.set_title(title, fontsize=10, loc="left", color=_INK)
    ends = {"entropy": math.log(len(classes)), **(limits or {})}
    for where, (key, title, unit) in zip(axes[1], MAPS, strict=True):
        end = ends.get(key, float(np.max(sample[key])))
        shown = where.imshow(
            sample[key], cmap="magma", vmin=0, vmax=max(end, 1e-9), interpolation="nearest"
        )
        where.set_title(title, fontsize=10, loc="left", color=_INK)
        scale = figure.colorbar(shown, ax=where, shrink=0.8, pad=0.02)
        scale.outline.set_visible(False)
        scale.ax.tick_params(labelsize=7, length=0)
        scale.set_label(unit, fontsize=8)
    for where in axes.flat:
        where.set_axis_off()
    figure.suptitle(sample["name"], fontsize=11, color=_INK, x=0.01, ha="left", parse_math=False)
    figure.savefig(path, format="png")
