"""Exports a run as an ONNX file, which other runtimes load.

The graph is made from the network's jaxpr, see `segjax.export.onnx.convert`; no other converter is
needed. The file holds:

- the input `images`, uint8 [n, H, W, c] as read from image files; n is free, H and W are the
  canvas's;
- the outputs `labels`, uint8 [n, H, W], as `segjax.load_exported` gives them, and `logits`, float32
  [n, H, W, K]; normalisation and decision are part of the graph;
- the metadata of `segjax.export.metadata`, each entry JSON: `classes`, `palette`, `preprocessing`,
  `model`, ...

Numbers are float32 whatever the run's `dtype` is: few runtimes have more than a few operations in
bfloat16. A network in bfloat16 is compared with itself in float32.
"""

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from segjax import __version__
from segjax.data.files.atomic import replacing
from segjax.data.fitted import FittedDataset
from segjax.export.metadata import describe
from segjax.export.onnx import load
from segjax.export.onnx.convert import convert
from segjax.export.onnx.graph import serialize
from segjax.export.onnx.values import NotConvertible
from segjax.export.program import COARSE_TOLERANCE, check_scores, compare, test_image
from segjax.export.program import TOLERANCE as LABELS_TOLERANCE
from segjax.inference.predictor import Predictor
from segjax.models import model_options
from segjax.training.forward import logits_fn

# Of the logits, as a share of the largest one or of 1.
TOLERANCE = 1e-4
# The share of the pixels whose logits may differ by more where a network compares numbers, as for
# unpooling: of two cells of a pooling window that are equal but for rounding, the other one may
# win, and its value lands one cell further. SegNet at 120x160 hardly has such cells and agrees
# everywhere; at 240x320 (half as wide, drawn weights) images brighter by 2e-7 changed 10 % of its
# own pixels by more, and the labels of 0.1 %.
_COMPARING_SHARE = 0.5


def write(
    path: str | pathlib.Path,
    predictor: Predictor,
    validation: FittedDataset | None,
    *,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Exports a run, checks the file against the run's network if onnxruntime is there, writes it.

    Args:
      path: of the file; ends in .onnx.
      predictor: of the run.
      validation: the validation split, with labels at the canvas's size; None skips the check of
        the scores.
      environment: further entries for the metadata, e.g. {"commit": ...}.

    Returns:
      The metadata. Its "logits" is None where onnxruntime is missing; otherwise, of a test picture,
      `differ_by`, the largest difference as a share of the largest logit or of 1, and
      `pixels_differing`, the share of the pixels with a difference above `TOLERANCE`. It must be 0,
      or at most a half where the network unpools by positions. "validation" is that of
      `segjax.export.program.compare`, or None.

    Raises:
      ValueError: for another suffix; where onnx is missing; naming the model, its options and the
        operation, if that has no form in ONNX here; if onnxruntime computes other logits than the
        network. Nothing is written then.
    """
    path = pathlib.Path(path)
    if path.suffix != load.SUFFIX:
        raise ValueError(f"--output={path}; an ONNX file's name ends in {load.SUFFIX}")
    data = predictor.config["data"]
    shape = (*data["image_size"], data["channels"])
    outputs = _outputs_fn(predictor)
    described = {
        "format": load.FORMAT,
        **describe(predictor, None, "an ONNX file is written for one size"),
        "dtype": "float32",
        **(environment or {}),
    }
    try:
        graph = convert(functools.partial(outputs, predictor.variables), (None, *shape), np.uint8)
        unnamed = serialize(graph, {}, __version__)
    except NotConvertible as error:
        raise ValueError(
            f"{_model_in_words(predictor)} cannot be written as ONNX: {error}; use "
            "--format=stablehlo"
        ) from error
    except ImportError as error:
        raise ValueError(
            f"--format=onnx needs a package that is not installed ({error}); "
            "pip install 'segjax[onnx]'"
        ) from error
    limit = _COMPARING_SHARE if any(n.op == "Equal" for n in graph.nodes.values()) else 0.0
    described |= _compared(path, unnamed, outputs, limit, validation, predictor, described)
    content = serialize(graph, {k: json.dumps(v) for k, v in described.items()}, __version__)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_bytes(content)
    return described


def _outputs_fn(predictor: Predictor):
    """The function to export: variables and uint8 images to labels and logits, in float32."""
    model = predictor.model
    if hasattr(model, "dtype"):
        model = model.clone(dtype=jnp.float32)
    forward = logits_fn(model, predictor.normalization)

    def outputs(variables, images):
        logits = forward(variables, images)
        labels = predictor.head.predict(logits).astype(jnp.uint8)
        return {"labels": labels, "logits": logits}

    return outputs


def _compared(path, content, outputs, limit, validation, predictor, described) -> dict[str, Any]:
    """Compares a file's content with the network, if onnxruntime is installed."""
    try:
        session = load.Session(content)
    except ImportError:
        return {"logits": None, "validation": None}

    compiled = jax.jit(outputs)

    def network(images):
        with jax.default_matmul_precision("highest"):
            return jax.device_get(compiled(predictor.variables, images))

    shape = (*described["size"], described["channels"])
    image = test_image(lambda images: network(images)["labels"], shape)[None]
    logits = compare_logits(network(image)["logits"], session.run(image, "logits"))
    if not logits["pixels_differing"] <= limit:
        raise ValueError(
            f"onnxruntime computes logits that differ by {logits['differ_by']:.1e} of the largest "
            f"one from the network's, and by more than {TOLERANCE:.0e} at "
            f"{logits['pixels_differing']:.2%} of the pixels (limit: {limit:.0%}). {path} is not "
            "written; use --format=stablehlo, and report the model's options and the versions of "
            "jax and onnxruntime"
        )
    scores = None
    if validation is not None:
        after = load.model(described, session)
        scores = compare(lambda images: network(images)["labels"], after, validation, predictor)
        check_scores(scores, path, COARSE_TOLERANCE if limit else LABELS_TOLERANCE)
    return {"logits": logits, "validation": scores}


def compare_logits(
    expected: Float[np.ndarray, "n h w k"], found: Float[np.ndarray, "n h w k"]
) -> dict[str, float]:
    """`differ_by` and `pixels_differing`, see `write`; NaN differs."""
    differences = np.abs(found - expected).max(-1) / max(1, np.abs(expected).max())
    share = np.mean(~(differences <= TOLERANCE))
    return {"differ_by": float(differences.max()), "pixels_differing": float(share)}


def _model_in_words(predictor: Predictor) -> str:
    """The model's name and the options that are not at their default."""
    config = dict(predictor.config["model"])
    defaults = model_options(config["name"])
    changed = [f"model.{k}={config[k]!r}" for k, v in defaults.items() if config.get(k, v) != v]
    options = f" with {', '.join(changed)}" if changed else ""
    return f"model.name={config['name']!r}{options}"
