"""Folders that `--format=huggingface` writes: config.json beside model.safetensors."""

import dataclasses
import json
import os
import pathlib

from segjax.weights.download import digest_of
from segjax.weights.files import WeightFile, read

CONFIG, WEIGHTS = "config.json", "model.safetensors"
# What a config.json of ours says; the workdir of a run has a config.json of another kind.
MARK = {"format": "segjax model", "format_version": 1}


def is_model_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder was written by `segjax.export.huggingface`, in whatever version."""
    try:
        config = json.loads((pathlib.Path(path) / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("format") == MARK["format"]


def read_folder(path: str | os.PathLike[str]) -> WeightFile:
    """The weights of a folder, with the model's config, head and thresholds included.

    Raises:
      ValueError: naming the folder, if it is of another version, or its weights are missing or not
        those that config.json describes.
    """
    path = pathlib.Path(path)
    config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    if config.get("format_version") != MARK["format_version"]:
        raise ValueError(
            f"{path / CONFIG} has format_version {config.get('format_version')}; this segjax reads "
            f"{MARK['format_version']}: use the segjax that wrote the folder, or export it again"
        )
    file = read(path / WEIGHTS)
    digest, wanted = digest_of(path / WEIGHTS, "sha256"), config["weights_sha256"]
    if digest != wanted:
        raise ValueError(
            f"{path / WEIGHTS} has SHA-256 {digest[:12]}..., not the {wanted[:12]}... of {CONFIG} "
            "beside it; copy both again, or export the run again"
        )
    model = {k: tuple(v) if isinstance(v, list) else v for k, v in config["model"].items()}
    prepared = config["preprocessing"]
    return dataclasses.replace(
        file,
        path=str(path),
        config=model,
        mean=tuple(prepared["mean"]),
        std=tuple(prepared["std"]),
        classes=tuple(config["classes"]),
    )
