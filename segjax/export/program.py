"""Exports a run as StableHLO: one file that `segjax.load_exported` runs with jax alone."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import UInt8

from segjax.data.batches import eval_batches
from segjax.data.files.atomic import replacing
from segjax.data.fitted import FittedDataset
from segjax.export import load as exported
from segjax.export.metadata import describe
from segjax.inference.predictor import Predictor
from segjax.metrics.protocols import DEFAULT_PROTOCOL
from segjax.training.evaluation import eval_batch_size
from segjax.training.forward import Forward
from segjax.training.head import SOFTMAX, Head

PLATFORMS = ("cpu", "cuda", "tpu")
# Tried as divisors of free H and W: some networks take any multiple of their stride, 16 or 32.
_MULTIPLES = (16, 32)
# Shares of the pixels whose class may change. Between CPUs, and between network and program on one
# device, hardly any does. In bfloat16, and on accelerators, whose float32 products have 8 to 11
# bits, pixels with two nearly tied classes do: a SegNet in bfloat16 instead of float32 changed
# 2.4 % and 3.5 % of the pixels of two images of `test_image`.
TOLERANCE, COARSE_TOLERANCE = 0.001, 0.05
# Images from which the stored test is chosen.
_CANDIDATES = 4

Labels = Callable[[Mapping[str, Any], UInt8[Any, "n h w c"]], UInt8[Any, "n h w"]]


def write(
    path: str | pathlib.Path,
    predictor: Predictor,
    validation: FittedDataset | None,
    *,
    platforms: Sequence[str] = PLATFORMS,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Exports a run, checks the exported program against the run's network, and writes it.

    The program takes uint8 images [n, H, W, c] of the canvas's size and returns uint8 labels
    [n, H, W]. n is free; so are H and W if the network can be traced without knowing them (see
    `make_program`). Normalisation and the head's decision (argmax, or thresholds of a sigmoid head,
    whose labels are bits) are part of the program.

    Args:
      path: of the file; ends in .segjax.
      predictor: of the run.
      validation: the validation split, with labels at the canvas's size; None skips the check of
        the scores (the stored test is still checked).
      platforms: of "cpu", "cuda", "rocm", "tpu".
      environment: further entries for the metadata, e.g. {"commit": ...}.

    Returns:
      The metadata. Its "validation" holds `miou_before` of the run's network, `miou_after` of the
      exported program, and `pixels_differing`, a share; all at the canvas's size.

    Raises:
      ValueError: for another suffix, or if the exported program gives other labels than the
        network; nothing is written then.
    """
    path = pathlib.Path(path)
    if path.suffix != exported.SUFFIX:
        raise ValueError(f"--output={path}; an exported model's name ends in {exported.SUFFIX}")
    data = predictor.config["data"]
    weights = flatten(predictor.variables)
    labels = labels_fn(predictor.forward, predictor.head)
    image_shape = (*data["image_size"], data["channels"])
    program, multiple = make_program(labels, weights, image_shape, platforms)
    described = {
        "format": exported.FORMAT,
        "format_version": exported.FORMAT_VERSION,
        **describe(predictor, multiple, _why_fixed(image_shape[:2], multiple)),
        "platforms": list(platforms),
        "written_on": exported.platform(),
        "test_tolerance": test_tolerance(platforms, predictor.config["dtype"]),
        **(environment or {}),
    }
    # The serialised program is checked, which is what users will load.
    after = exported.from_program(described, program, weights)
    before = jax.jit(labels)

    def network(images):
        return np.asarray(before(weights, images))

    described["validation"] = (
        None if validation is None else compare(network, after, validation, predictor)
    )
    check_scores(described["validation"], path)
    image = test_image(network, image_shape)
    parts = {
        exported.METADATA: json.dumps(described, indent=1).encode(),
        exported.PROGRAM: program,
        exported.WEIGHTS: exported.arrays_to_npz(weights),
        exported.TEST: exported.arrays_to_npz(
            {"images": image[None], "labels": network(image[None])}, compress=True
        ),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        exported.write_parts(partial, parts)
        exported.load_exported(partial)
    return described


def flatten(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The variables of a network by their paths, such as "params/.../kernel"."""
    flat = flatten_dict(dict(variables), sep="/")
    return {name: np.asarray(value) for name, value in flat.items()}


def labels_fn(forward: Forward, head: Head = SOFTMAX) -> Labels:
    """The function to export: weights by path and uint8 images to uint8 labels.

    Args:
      forward: of `segjax.training.forward.logits_fn`.
      head: what the logits mean.
    """

    def labels(weights, images):
        logits = forward(unflatten_dict(weights, sep="/"), images)
        return head.predict(logits).astype(jnp.uint8)

    return labels


def make_program(
    labels: Labels,
    weights: Mapping[str, np.ndarray],
    image_shape: tuple[int, int, int],
    platforms: Sequence[str] = PLATFORMS,
) -> tuple[bytes, int | None]:
    """Lowers `labels` once for all platforms, with the weights as arguments.

    The batch size is free. H and W are tried as free multiples of 16, then of 32, if the canvas is
    such a multiple. Networks whose layers depend on the size (strides after padding, resizing
    matrices, adaptive pooling) cannot be traced that way, and get the canvas's size.

    Returns:
      The program, serialised by `jax.export`, and the multiple; None if it takes the canvas only.
    """
    height, width, channels = image_shape
    spec = {name: jax.ShapeDtypeStruct(w.shape, w.dtype) for name, w in weights.items()}

    def lower(shape):
        images = jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape), jnp.uint8)
        program = jax.export.export(jax.jit(labels), platforms=tuple(platforms))(spec, images)
        if program.out_avals[0].shape != images.shape[:3]:
            raise TypeError(f"labels {program.out_avals[0].shape} for images {images.shape}")
        return bytes(program.serialize())

    for multiple in _MULTIPLES:
        if height % multiple or width % multiple:
            continue
        try:
            return lower(f"b, {multiple}*h, {multiple}*w, {channels}"), multiple
        except Exception:  # operations raise different errors for an unknown size
            continue
    return lower(f"b, {height}, {width}, {channels}"), None


def test_image(
    labels: Callable[[np.ndarray], np.ndarray], shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "h w c"]:
    """An image to test an export with: smooth noise, so that the file holds nobody's photograph.

    Of the images of a few seeds it is the one with the most varied labels (by entropy): an image of
    one class would hide most errors.
    """
    best, most = None, -1.0
    for seed in range(_CANDIDATES):
        image = _noise(np.random.default_rng(seed), shape)
        share = np.bincount(labels(image[None]).reshape(-1)) / (shape[0] * shape[1])
        entropy = -np.sum(share[share > 0] * np.log(share[share > 0]))
        if best is None or entropy > most:
            best, most = image, entropy
    assert best is not None
    return best


def _noise(rng: np.random.Generator, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "h w c"]:
    """Blocks of random colours, of every size from the whole image down; large ones weigh more."""
    height, width, channels = shape
    image, side = np.zeros(shape), max(height, width)
    while side >= 2:
        rows, columns = -(-height // side), -(-width // side)
        blocks = rng.standard_normal((rows, columns, channels)) * np.sqrt(side)
        image += blocks.repeat(side, 0).repeat(side, 1)[:height, :width]
        side //= 2
    low, high = image.min(), image.max()
    return np.round(255 * (image - low) / max(high - low, 1e-9)).astype(np.uint8)


def compare(
    before: Callable[[np.ndarray], np.ndarray],
    after: Callable[[np.ndarray], np.ndarray],
    canvas: FittedDataset,
    predictor: Predictor,
) -> dict[str, Any]:
    """Scores two functions from images to labels on one pass over a split.

    Returns:
      `split`, `images`, `protocol`, `miou_before`, `miou_after` (None if nothing is labelled) and
      `pixels_differing`, the share of all pixels.
    """
    config, classes, head = predictor.config, len(predictor.classes), predictor.head
    confusions = [np.zeros(head.counts_shape(classes), np.int64) for _ in range(2)]
    differing, pixels = 0, 0
    for batch in eval_batches(canvas, eval_batch_size(config)):
        count = int(np.sum(batch["index"] >= 0))
        predictions = [predict(batch["image"])[:count] for predict in (before, after)]
        for confusion, prediction in zip(confusions, predictions, strict=True):
            labels = jnp.asarray(batch["label"][:count])
            confusion += np.asarray(head.counts(labels, jnp.asarray(prediction), classes))
        differing += int(np.sum(predictions[0] != predictions[1]))
        pixels += predictions[0].size
    scores = [head.mean_iou(confusion) for confusion in confusions]
    height, width = config["data"]["image_size"]
    protocol = DEFAULT_PROTOCOL.description
    return {
        "split": config["data"]["val_split"],
        "images": len(canvas),
        "protocol": f"{protocol}; images at {height}x{width}, scored there",
        "miou_before": None if np.isnan(scores[0]) else scores[0],
        "miou_after": None if np.isnan(scores[1]) else scores[1],
        "pixels_differing": differing / pixels,
    }


def check_scores(
    validation: Mapping[str, Any] | None, path: pathlib.Path, limit: float = TOLERANCE
) -> None:
    """Raises ValueError for a result of `compare` with a larger share of pixels that differ."""
    if validation and validation["pixels_differing"] > limit:
        raise ValueError(
            f"the exported program gives {validation['pixels_differing']:.2%} of the validation "
            f"pixels another class than the network does (limit: {limit:.2%}); mIoU "
            f"{validation['miou_before']} before, {validation['miou_after']} after. {path} is not "
            "written; use --format=safetensors, and report the model's options and jax's version"
        )


def test_tolerance(platforms: Sequence[str], dtype: str) -> dict[str, float]:
    """The share of the stored test's pixels whose class may differ, by platform."""
    exact = ("cpu",) if exported.platform() == "cpu" and dtype == "float32" else ()
    return {name: TOLERANCE if name in exact else COARSE_TOLERANCE for name in platforms}


def _why_fixed(size: tuple[int, int], multiple: int | None) -> str | None:
    """Why a program takes one size only; None if it takes others."""
    if multiple:
        return None
    fitting = [m for m in _MULTIPLES if size[0] % m == 0 and size[1] % m == 0]
    if fitting:
        return "the network's layers depend on the size, so it cannot be traced for free H and W"
    return (
        f"free H and W need a data.image_size of multiples of {_MULTIPLES[0]} or "
        f"{_MULTIPLES[-1]}, found {size[0]}x{size[1]}"
    )
