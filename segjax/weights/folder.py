"""Folders that `--format=huggingface` writes: config.json beside model.safetensors."""

import dataclasses
import os
import pathlib
from typing import Any

from segjax.weights.description import description, from_json
from segjax.weights.download import digest_of
from segjax.weights.files import WeightFile, read
from segjax.weights.reading import Refused, UnreadableFile, printable, reading

CONFIG, WEIGHTS = "config.json", "model.safetensors"
# What a config.json of ours says; the workdir of a run has a config.json of another kind.
MARK = {"format": "segjax model", "format_version": 1}
_LONGEST_CONFIG = 2**24  # bytes


def is_model_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder was written by `segjax.export.huggingface`, in whatever version."""
    try:
        return _read_config(pathlib.Path(path)).get("format") == MARK["format"]
    except UnreadableFile:
        return False


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / CONFIG
    with reading(path):
        if not path.is_file():
            raise Refused("there is no such file; export the run again")
        if path.stat().st_size > _LONGEST_CONFIG:
            raise Refused(f"it has more than {_LONGEST_CONFIG:,} bytes")
        config = from_json(path.read_bytes(), "content")
        if not isinstance(config, dict):
            raise Refused(f"it holds a {type(config).__name__}, not a dict; export the run again")
        return config


def read_folder(path: str | os.PathLike[str]) -> WeightFile:
    """The weights of a folder, with the model's config, head and thresholds included.

    Raises:
      ValueError: naming the folder, if it is of another version, or its weights are missing or not
        those that config.json describes.
    """
    path = pathlib.Path(path)
    config = _read_config(path)
    version = printable(str(config.get("format_version")), 20)
    if version != str(MARK["format_version"]):
        raise ValueError(
            f"{path / CONFIG} has format_version {version}; this segjax reads "
            f"{MARK['format_version']}: use the segjax that wrote the folder, or export it again"
        )
    file = read(path / WEIGHTS)
    digest, wanted = digest_of(path / WEIGHTS, "sha256"), str(config.get("weights_sha256"))
    if digest != wanted:
        raise ValueError(
            f"{path / WEIGHTS} has SHA-256 {digest[:12]}..., not the {printable(wanted[:12])}... "
            f"of {CONFIG} beside it; copy both again, or export the run again"
        )
    with reading(path / CONFIG):
        prepared = config.get("preprocessing")
        given = {"config": config.get("model"), "classes": config.get("classes")}
        if not isinstance(prepared, dict) or None in given.values():
            raise Refused("its model, classes or preprocessing are missing; export the run again")
        given |= {"mean": prepared.get("mean"), "std": prepared.get("std")}
        return dataclasses.replace(file, path=str(path), **description(given))
