"""The front door: a model by name, with weights or without, and the network of a weight file."""

import functools
import logging
import os
from typing import Any

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from segjax.models import build
from segjax.training.compiler_options import for_one_run
from segjax.weights import Pretrained, from_file, hub, load
from segjax.weights.files import WeightFile
from segjax.weights.transfer import abstract_variables, init_variables

logger = logging.getLogger("segjax")


def create_model(
    name: str,
    *,
    num_classes: int,
    weights: str | os.PathLike[str] | None = None,
    parts: str = "all",
    encoder: str | None = None,
    output_stride: int | None = None,
    width: float | None = None,
    dropout_rate: float | None = None,
    aux: bool | None = None,
    align_corners: bool | None = None,
    dtype: str = "float32",
    in_channels: int = 3,
    seed: int = 0,
    **options: Any,
) -> tuple[nn.Module, dict[str, Any]]:
    """Makes a model and its variables.

    >>> model, variables = create_model("pspnet", encoder="resnet50", num_classes=7)
    >>> outputs = model.apply(variables, images, train=False)["logits"]

    `images` are normalised, float [n, H, W, in_channels]; logits are float32 [n, H, W, K].

    Args:
      name: a model in `segjax.models.MODELS`.
      num_classes: K, channels of the logits.
      weights: a name ("imagenet", "coco_voc/torchvision"; docs/weights.md), whose file is fetched
        once into a cache; a weight file (.pth, .safetensors, .onnx, .h5, .keras, .whl) of any
        project that `segjax.weights` reads; an exported folder; or the workdir of a run, whose best
        checkpoint is taken; None: all values are drawn. A classifier for another number of classes
        stays fresh, and so does all but the encoder for a file with an encoder alone; the log says
        so.
      parts: "all", or "encoder" to take the encoder alone from `weights`.
      encoder, output_stride, width, dropout_rate, aux, align_corners: the model's options, where it
        has them; None: its default.
      dtype: compute dtype, "float32" or "bfloat16"; parameters, statistics and logits are float32.
      in_channels: channels of the images.
      seed: decides the values that are drawn.
      options: the model's other options: the fields of its class.

    Returns:
      The module, and its variables: {"params": ..., "batch_stats": ...}; networks without batch
      normalisation have no "batch_stats".

    Raises:
      ValueError: for an unknown model, option or value, and for weights that cannot be read or do
        not fit; the message lists what is known.
      OSError: if named weights cannot be fetched; the message says which file to put where.
    """
    named = {
        "encoder": encoder,
        "output_stride": output_stride,
        "width": width,
        "dropout_rate": dropout_rate,
        "aux": aux,
        "align_corners": align_corners,
    }
    options |= {option: value for option, value in named.items() if value is not None}
    model = build({"name": name, **options}, num_classes, dtype)
    if in_channels < 1:
        raise ValueError(f"in_channels={in_channels}; images have 1 channel or more")
    if weights is None:
        return model, _drawn(model, in_channels, seed)
    # On shapes first: a file that does not fit is refused before anything is compiled.
    file = _opened(weights, model)
    variables, report = load(file, model, abstract_variables(model, in_channels), parts)
    logger.log(logging.WARNING if report.fresh or report.notes else logging.INFO, "%s", report)
    if report.fresh:
        flat = flatten_dict(variables, sep="/")
        drawn = flatten_dict(_drawn(model, in_channels, seed), sep="/")
        flat |= {leaf: drawn[leaf] for leaf in report.fresh}
        variables = unflatten_dict(flat, sep="/")
    return model, variables


def load_pretrained(source: str | os.PathLike[str]) -> Pretrained:
    """The network of a weight file or of a run, with its weights and its preprocessing.

    >>> net = load_pretrained("deeplabv3_resnet50_coco-cd0a2569.pth")
    >>> images = (rgb - net.mean) / net.std
    >>> logits = net.model.apply(net.variables, images, train=False)["logits"]

    Args:
      source: a file of a segmentation network that `segjax.weights` knows, its name with the
        network ("coco_voc/torchvision/deeplabv3_resnet50"), a folder that `--mode=export
        --format=huggingface` wrote, or a run's workdir.

    Returns:
      `model`, `variables`; `mean` and `std` of the RGB images in [0, 1] and the `classes`' names,
      each None where the file does not say; the `head` and its `threshold`; and the `report` of the
      load.

    Raises:
      ValueError: naming the file, if it cannot be read, is incomplete, or holds an encoder alone.
      OSError: if named weights cannot be fetched; the message says which file to put where.
    """
    return from_file(_opened(source))


def _drawn(model: nn.Module, channels: int, seed: int) -> dict[str, Any]:
    """A model's initial variables."""
    draw = functools.partial(init_variables, model, channels)
    options = for_one_run(jax.default_backend())
    return jax.jit(draw, compiler_options=options)(jax.random.key(seed))


def _opened(source: str | os.PathLike[str], model: nn.Module | None = None) -> WeightFile:
    """The weights of a name, of a file, or of a run's best checkpoint."""
    if not hub.reads(source):
        from segjax.training.pretrained import open_weights  # loads the libraries of training

        return open_weights(source)
    return hub.open_weights(source, model)
