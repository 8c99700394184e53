"""From a weight file to a model's variables: recognise, convert, check, merge, report."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float

from segjax.models import build
from segjax.weights import keras_networks, torch_networks
from segjax.weights.files import WeightFile, read
from segjax.weights.layout import Layout, role_of
from segjax.weights.merge import Merge
from segjax.weights.reading import Refused, reading
from segjax.weights.report import Report

PARTS = ("all", "encoder")
# Files of segjax name their arrays as our trees do.
OWN = Layout(
    "segjax export", "segjax", lambda _: True, lambda _: {}, lambda *_: {}, mean=None, std=None
)


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """The network of a weight file: `model.apply(variables, images, train=False)["logits"]`.

    `images` are `(rgb - mean) / std`, with rgb float [n, H, W, 3] in [0, 1].

    Attributes:
      model, variables: the network and its weights.
      mean, std: float32, one value a channel; None: the file does not say.
      classes: names in id order; None: the file does not say.
      report: what was loaded, from where.
      head: what the logits mean: "softmax", one class a pixel, or "sigmoid", any number of labels.
      threshold: of a sigmoid head, on the probability of each label, or one for all.
    """

    model: nn.Module
    variables: dict[str, Any]
    mean: Float[np.ndarray, "c"] | None
    std: Float[np.ndarray, "c"] | None
    classes: tuple[str, ...] | None
    report: Report
    head: str = "softmax"
    threshold: tuple[float, ...] | None = None


def layout_of(file: WeightFile) -> Layout:
    """The family that a file's names belong to; see `recognised` for names with a prefix.

    Raises:
      ValueError: naming the file, what it holds and the families that are known.
    """
    return recognised(file)[1]


def recognised(file: WeightFile) -> tuple[WeightFile, Layout]:
    """The file, and the family that its names belong to.

    Where they belong to none as they are, but to one without a prefix that the names of all kernels
    share (Lightning's "model."), the file that is returned is without it.

    Raises:
      ValueError: naming the file, what it holds and the families that are known.
    """
    if file.kind == "segjax":
        return file, OWN
    layouts = torch_networks.LAYOUTS + keras_networks.LAYOUTS
    known = [layout for layout in layouts if layout.kind == file.kind]
    prefixes = _kernels_prefixes(file.arrays) if file.kind == "torch" else []
    for prefix in ["", *prefixes]:
        stripped = file.without_prefix(prefix) if prefix else file
        for layout in known:
            if layout.recognises(stripped.arrays):
                return stripped, layout
    sample = ", ".join(list(file.arrays)[:4])
    relative = torch_networks.relative(file.arrays)
    looks = f": it looks like {relative}" if relative else ""
    raise ValueError(
        f"weight file {file.path} holds {len(file.arrays)} arrays ({sample}, ...) of no network "
        f"that is known{looks}; known are: {'; '.join(layout.title for layout in known)}"
    )


def _kernels_prefixes(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """The leading parts that the names of all kernels share, the shortest first: "model.",
    "model.net."."""
    names = [name.split(".") for name, array in arrays.items() if array.ndim > 1]
    shared = []
    for parts in zip(*names, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return [".".join(shared[:n]) + "." for n in range(1, len(shared) + 1)]


def from_file(source: str | pathlib.Path | WeightFile) -> Pretrained:
    """Builds the network that a file was made with, with the file's weights.

    Raises:
      ValueError: naming the file, if it cannot be read, is incomplete, or holds a classifier, which
        is no segmentation network: `load` puts it into a model's encoder.
    """
    opened = _opened(source)
    with reading(opened.path):
        return _from_file(opened)


def _from_file(opened: WeightFile) -> Pretrained:
    file, layout = recognised(opened)
    config = dict(file.config or layout.describe(file.arrays))
    if "name" not in config:
        raise ValueError(
            f"{file.path} looks like {layout.title}, a classifier; load(path, model, variables) "
            "takes it into a model's encoder"
        )
    try:
        model = build(config, config.pop("num_classes"))
    except Exception as error:  # options of any type and value
        raise Refused(
            f"its model cannot be built ({error}); use the segjax that wrote the file, or export "
            "the run again"
        ) from error
    channels = len(file.mean or layout.mean or "RGB")
    variables, report = load(file, model, abstract_variables(model, channels))
    if report.fresh:
        raise ValueError(f"{file.path} lacks a part of the network: {', '.join(report.fresh)}")
    mean, std = (
        None if v is None else np.asarray(v, np.float32) for v in (report.mean, report.std)
    )
    head = config.get("head", "softmax")
    threshold = config.get("threshold") if head == "sigmoid" else None
    return Pretrained(model, variables, mean, std, file.classes, report, head, threshold)


def abstract_variables(model: nn.Module, channels: int = 3) -> dict[str, Any]:
    """The shapes of a model's variables, for images of so many channels."""
    return dict(jax.eval_shape(functools.partial(init_variables, model, channels), abstract_key()))


def init_variables(model: nn.Module, channels: int, key: jax.Array) -> dict[str, Any]:
    """A model's first variables, which depend on the channels of its images and on no size."""
    return dict(model.init(key, jnp.zeros((1, 64, 64, channels)), train=False))


def abstract_key() -> Any:
    """The form of a random key, which is not made."""
    return jax.eval_shape(lambda: jax.random.key(0))


def preprocessing(
    source: str | pathlib.Path | WeightFile,
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std of the RGB images in [0, 1] that a file's network reads; None if unknown."""
    file, layout = recognised(_opened(source))
    mean, std = file.mean or layout.mean, file.std or layout.std
    return None if mean is None or std is None else (mean, std)


def load(
    source: str | pathlib.Path | WeightFile,
    model: nn.Module,
    variables: Mapping[str, Any],
    parts: str = "all",
) -> tuple[dict[str, Any], Report]:
    """Puts a file's weights into a model's variables.

    Classification layers of another class count, auxiliary heads that the file lacks and, for a
    classifier's file, everything but the encoder keep their values from `variables`; a first
    convolution for another number of image channels is adapted. The report says so.

    Args:
      source: a weight file (see `segjax.weights.files.read`).
      model: from `segjax.models.build`.
      variables: the model's, arrays or shapes; left unchanged.
      parts: "all", or "encoder" to leave the rest of the model and of the file alone.

    Returns:
      The new variables, and the report.

    Raises:
      ValueError: naming the file, for all arrays at once that are missing, misfit or not finite.
    """
    if parts not in PARTS:
        raise ValueError(f"init_parts={parts!r}; use {' or '.join(PARTS)}")
    opened = _opened(source)
    # Arrays of a known network's names may have any shape.
    with reading(opened.path):
        file, layout = recognised(opened)
        described = dict(file.config or layout.describe(file.arrays))
        flat = flatten_dict(dict(variables), sep="/")
        merge = Merge(file, layout, described, model, parts, {role_of(leaf) for leaf in flat})
        for leaf, value in flat.items():
            flat[leaf] = merge.take(leaf, value)
        merge.account_for_the_rest()
        merge.raise_problems()
        return unflatten_dict(flat, sep="/"), merge.report


def _opened(source: str | pathlib.Path | WeightFile) -> WeightFile:
    return source if isinstance(source, WeightFile) else read(source)
