"""A run as a folder for the Hugging Face hub, which `segjax.load_pretrained` reads.

- `model.safetensors`: the weights, see `segjax.weights.save`;
- `config.json`: the model, its classes and colours, its preprocessing, and the SHA-256 of the
  weights, see `segjax.weights.folder`;
- `README.md`: the model card.
"""

import importlib.metadata
import json
import pathlib
import shutil
import tempfile
from typing import Any

from segjax import weights
from segjax.data.image_options import ranges_of
from segjax.inference.predictor import Predictor
from segjax.training.head import Sigmoid
from segjax.weights import folder as folders
from segjax.weights.download import digest_of

CARD = "README.md"


def write(folder: str | pathlib.Path, predictor: Predictor, card: str, half: bool = False) -> str:
    """Writes the three files of a folder.

    A new folder appears complete or not at all. In a folder that this function wrote before, these
    files are replaced one by one, and others (`.git`, say) are left as they are.

    Args:
      folder: a new or empty one, or one that was written here.
      predictor: of the run.
      card: the text of README.md.
      half: as of `segjax.weights.save`.

    Returns:
      A message: the folder and what is in it.

    Raises:
      ValueError: for a folder that holds something else; nothing is written then.
    """
    folder = pathlib.Path(folder)
    _check_target(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as partial:
        new = pathlib.Path(partial) / folder.name
        data = predictor.config["data"]
        text = weights.save(
            new / folders.WEIGHTS,
            predictor.model,
            predictor.variables,
            mean=data["mean"],
            std=data["std"],
            classes=predictor.classes.names,
            half=half,
        )
        config = _config(predictor, digest_of(new / folders.WEIGHTS, "sha256"))
        config = json.dumps(config, indent=1) + "\n"
        (new / folders.CONFIG).write_text(config, encoding="utf-8")
        (new / CARD).write_text(card, encoding="utf-8")
        if folder.is_dir() and any(folder.iterdir()):
            for name in (CARD, folders.WEIGHTS, folders.CONFIG):
                (new / name).replace(folder / name)
        else:
            if folder.is_dir():
                folder.rmdir()
            shutil.move(new, folder)
    return text.replace(str(new), str(folder))


def _check_target(folder: pathlib.Path) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_dir() and (not any(folder.iterdir()) or folders.is_model_folder(folder)):
        return
    raise ValueError(
        f"--output={folder} exists and is no folder that this export wrote; give a new or an empty "
        "folder"
    )


def _config(predictor: Predictor, digest: str) -> dict[str, Any]:
    """The content of config.json."""
    config, classes = predictor.config, predictor.classes
    height, width = config["data"]["image_size"]
    model = {**weights.model_config(predictor.model), "head": predictor.head.name}
    if isinstance(predictor.head, Sigmoid):
        model["threshold"] = list(predictor.head.thresholds)
    return {
        "library_name": "segjax",
        **folders.MARK,
        "model": model,
        "dtype": config["dtype"],
        "classes": list(classes.names),
        "palette": [list(map(int, color)) for color in classes.palette],
        "ids": list(classes.raw_ids),
        "preprocessing": {
            "mean": list(predictor.normalization.mean),
            "std": list(predictor.normalization.std),
            "local_contrast": predictor.normalization.local_contrast,
            "image_size": [height, width],
            "channels": config["data"]["channels"],
            "value_range": [list(pair) for pair in ranges_of(config["data"])],
            "rule": "x / 255, then (x - mean) / std per channel, or local contrast normalisation "
            "in windows of that side where it is not 0",
        },
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "flax")},
        "weights_sha256": digest,
    }
