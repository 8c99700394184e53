"""Seconds an image of --mode=predict on a folder, beside its parts by themselves."""

import argparse
import pathlib
import time
from typing import Any

from benchmarks.loop.files import config_of, write
from segjax.commands import predict as command
from segjax.console import Console
from segjax.data.files.images import list_images, read_image
from segjax.inference.inputs import Input, open_inputs
from segjax.inference.options import InferenceOptions
from segjax.inference.predictor import Predictor
from segjax.training.runtime import keep_freed_memory
from segjax.training.setup import setup_run

_ROUNDS = 3  # of which the fastest counts


def measure(folder: pathlib.Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for the command on PNG and on JPEG files."""
    keep_freed_memory()
    rows = []
    for form in ("PNG", "JPEG"):
        config = config_of(options.tiny)
        config.data.update(write(folder, form, options.images, options.tiny))
        setup = setup_run(config)
        variables = setup.init_state().eval_variables()
        predictor = Predictor(
            setup.model, variables, setup.classes, setup.config, InferenceOptions(batch_size=4)
        )
        rows.append({"files": form, **_row(predictor, config.data.root, folder / "out")})
    return rows


def _row(predictor: Predictor, root: str, output: pathlib.Path) -> dict[str, float]:
    paths = list_images(pathlib.Path(root) / "images" / "val")
    images = [read_image(path) for path in paths]
    labels = [predictor.predict(image) for image in images]
    pictures = command.Pictures(output, predictor.classes, predictor.classes, None)

    def command_itself() -> None:
        inputs = open_inputs(paths[0].parent)
        command.write_predictions(predictor, inputs, pictures, Console(quiet=True))

    def decoded() -> None:
        for path in paths:
            read_image(path)

    def network() -> None:
        for start in range(0, len(images), 4):
            predictor.predict_batch(images[start : start + 4])

    def written() -> None:
        for path, image, label in zip(paths, images, labels, strict=True):
            pictures.write(Input(path.stem, str(path), image), label)

    seconds = {
        call.__name__: min(_seconds(call) for _ in range(_ROUNDS + 1))
        for call in (decoded, network, written, command_itself)
    }
    parts = seconds["decoded"] + seconds["network"]
    return {
        "decoding": seconds["decoded"] / len(paths),
        "network": seconds["network"] / len(paths),
        "pictures": seconds["written"] / len(paths),
        "the command": seconds["command_itself"] / len(paths),
        "to decoding and network": seconds["command_itself"] / parts,
        "to all three": seconds["command_itself"] / (parts + seconds["written"]),
    }


def _seconds(call) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
