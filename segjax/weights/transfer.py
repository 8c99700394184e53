"""From a weight file to a model's variables: recognise, convert, check, merge, report."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from segjax.models import build
from segjax.weights import keras, torch
from segjax.weights.files import WeightFile, read
from segjax.weights.layout import Layout, role_of
from segjax.weights.merge import Merge
from segjax.weights.report import Report

PARTS = ("all", "encoder")
# A network that was exported from here names its arrays as our trees do.
OWN = Layout(
    "segjax export", "segjax", lambda _: True, lambda _: {}, lambda *_: {}, mean=None, std=None
)


class Loaded(NamedTuple):
    """A file's own network: `model.apply(variables, images, train=False)` on RGB images in [0, 1]
    from which `mean` was taken and that were divided by `std` (None: the file does not say)."""

    model: nn.Module
    variables: dict[str, Any]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    report: Report


def layout_of(file: WeightFile) -> Layout:
    """The family that a file's names belong to.

    Raises:
      ValueError: naming the file, what it holds and the families that are known.
    """
    if file.kind == "segjax":
        return OWN
    known = torch.LAYOUTS + keras.LAYOUTS
    for layout in known:
        if layout.kind == file.kind and layout.recognises(file.arrays):
            return layout
    sample = ", ".join(list(file.arrays)[:4])
    titles = "; ".join(layout.title for layout in known if layout.kind == file.kind)
    raise ValueError(
        f"weight file {file.path} holds {len(file.arrays)} arrays ({sample}, ...) of no network "
        f"that is known; known are: {titles}"
    )


def from_file(path: str | pathlib.Path) -> Loaded:
    """Builds the network that a file was made with, holding the file's weights.

    Raises:
      ValueError: if the file cannot be read or is incomplete, or holds a classifier, which is no
        segmentation network: `load` puts it into a model's encoder.
    """
    file = read(path)
    layout = layout_of(file)
    config = dict(file.config or layout.describe(file.arrays))
    if "name" not in config:
        raise ValueError(
            f"{path} looks like {layout.title}, a classifier; load(path, model, variables) takes "
            "it into a model's encoder"
        )
    model = build(config, config.pop("num_classes"))
    channels = len(file.mean or layout.mean or "RGB")
    variables, report = load(file, model, abstract_variables(model, channels))
    if report.fresh:
        raise ValueError(f"{path} does not hold the whole network: {', '.join(report.fresh)}")
    return Loaded(model, variables, report.mean, report.std, report)


def abstract_variables(model: nn.Module, channels: int = 3) -> dict[str, Any]:
    """The shapes of a model's variables, for images of so many channels."""
    images = jnp.zeros((1, 64, 64, channels))
    init = lambda key: model.init(key, images, train=False)  # noqa: E731
    return dict(jax.eval_shape(init, jax.random.key(0)))


def preprocessing(path: str | pathlib.Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std of the RGB images in [0, 1] that a file's network reads; None if not known."""
    file = read(path)
    layout = layout_of(file)
    mean, std = file.mean or layout.mean, file.std or layout.std
    return None if mean is None else (mean, std)


def load(
    path: str | pathlib.Path | WeightFile,
    model: nn.Module,
    variables: Mapping[str, Any],
    parts: str = "all",
) -> tuple[dict[str, Any], Report]:
    """Puts a file's weights into a model's variables.

    Classification layers of another class count, auxiliary heads that the file lacks and, from a
    classifier's file, everything but the encoder keep their values from `variables`; a first
    convolution for another number of image channels is adapted. The report says so.

    Args:
      path: a weight file (see `segjax.weights.files.read`).
      model: from `segjax.models.build`.
      variables: of that model, arrays or shapes; left unchanged.
      parts: "all", or "encoder" to leave the rest of the model and of the file alone.

    Returns:
      The new variables, and the report.

    Raises:
      ValueError: naming the file, for all arrays at once that are missing, misfit or not finite.
    """
    if parts not in PARTS:
        raise ValueError(f"init_parts={parts!r}; use {' or '.join(PARTS)}")
    file = path if isinstance(path, WeightFile) else read(path)
    layout = layout_of(file)
    described = dict(file.config or layout.describe(file.arrays))
    flat = flax.traverse_util.flatten_dict(dict(variables), sep="/")
    merge = Merge(file, layout, described, model, parts, {role_of(leaf) for leaf in flat})
    for leaf, value in flat.items():
        flat[leaf] = merge.take(leaf, value)
    merge.account_for_the_rest()
    merge.raise_problems()
    return flax.traverse_util.unflatten_dict(flat, sep="/"), merge.report
