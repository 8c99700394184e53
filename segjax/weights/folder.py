"""Folders that `--format=huggingface` writes: config.json beside model.safetensors."""

import dataclasses
import os
import pathlib
from typing import Any

from segjax.data.errors import in_a_line
from segjax.data.files.json_file import read_json
from segjax.weights.description import description
from segjax.weights.download import digest_of
from segjax.weights.files import WeightFile, read
from segjax.weights.reading import Refused, reading

CONFIG, WEIGHTS = "config.json", "model.safetensors"
# What a config.json of ours says; the workdir of a run has a config.json of another kind.
MARK = {"format": "segjax model", "format_version": 1}


def is_model_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder was written by `segjax.export.huggingface`, in whatever version."""
    try:
        return read_config(pathlib.Path(path)).get("format") == MARK["format"]
    except ValueError:
        return False


def read_config(folder: pathlib.Path) -> dict[str, Any]:
    """The content of config.json; ValueError, naming the file, if it is none of ours or damaged."""
    remedy = "copy the folder again, or export the run again"
    return read_json(folder / CONFIG, "the config of an exported model", remedy)


def read_folder(path: str | os.PathLike[str]) -> WeightFile:
    """The weights of a folder, with the model's config, head and thresholds included.

    Raises:
      ValueError: naming the folder, if it is of another version, or its weights are missing or not
        those that config.json describes.
    """
    path = pathlib.Path(path)
    config = read_config(path)
    version = in_a_line(str(config.get("format_version")), 20)
    if version != str(MARK["format_version"]):
        raise ValueError(
            f"{path / CONFIG} has format_version {version}; this segjax reads "
            f"{MARK['format_version']}: use the segjax that wrote the folder, or export it again"
        )
    file = read(path / WEIGHTS)
    digest, wanted = digest_of(path / WEIGHTS, "sha256"), str(config.get("weights_sha256"))
    if digest != wanted:
        raise ValueError(
            f"{path / WEIGHTS} has SHA-256 {digest[:12]}..., not the "
            f"{in_a_line(wanted[:12], 12)}... of {CONFIG} beside it; copy both again, or export "
            "the run again"
        )
    with reading(path / CONFIG):
        prepared = config.get("preprocessing")
        given = {"config": config.get("model"), "classes": config.get("classes")}
        if not isinstance(prepared, dict) or None in given.values():
            raise Refused("its model, classes or preprocessing are missing; export the run again")
        given |= {"mean": prepared.get("mean"), "std": prepared.get("std")}
        return dataclasses.replace(file, path=str(path), **description(given))
