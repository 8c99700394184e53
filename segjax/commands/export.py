"""The command export: a finished run as one file."""

import pathlib
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from segjax import weights
from segjax.data.splits import Splits
from segjax.export import huggingface
from segjax.export.load import SUFFIX
from segjax.export.program import write as write_export
from segjax.inference.predictor import Predictor
from segjax.report.model_card import UNKNOWN_LICENSE, model_card
from segjax.report.numbers import format_number
from segjax.report.provenance import environment
from segjax.training.progress import print_line

_DEFAULT_NAMES = {
    "stablehlo": f"model{SUFFIX}",
    "safetensors": "model.safetensors",
    "huggingface": "huggingface",
}
FORMATS = tuple(_DEFAULT_NAMES)


def export(
    workdir: str | pathlib.Path,
    output: str | pathlib.Path | None = None,
    format: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    console: Console | None = None,
    license: str = UNKNOWN_LICENSE,
) -> pathlib.Path:
    """Writes the best checkpoint of a run as a program with its weights, or the weights alone.

    Args:
      workdir: of a training run.
      output: the file, or the folder of "huggingface"; by default WORKDIR/model.segjax,
        WORKDIR/model.safetensors or WORKDIR/huggingface.
      format: "stablehlo": see `segjax.export.program`, and `segjax.load_exported` to run it; its
        validation mIoU is measured before and after. "safetensors": see `segjax.weights.save`.
        "huggingface": a folder with a model card, see `segjax.export.huggingface`.
        By default what the output's suffix says, else stablehlo.
      overrides: of the run's config, for the data that the check reads; see
        `config.with_overrides`.

      license: of the model, for its card: an identifier of the hub, such as "mit".

    Returns:
      The path of the file or folder.

    Raises:
      ValueError: for another format, or a folder that holds something else; if the exported
        program departs from the network.
    """
    if format not in (None, *FORMATS):
        raise ValueError(f"--format={format}; export has {', '.join(FORMATS)}")
    console, workdir = console or Console(), pathlib.Path(workdir)
    if format is None:
        is_weights = output is not None and pathlib.Path(output).suffix == ".safetensors"
        format = "safetensors" if is_weights else "stablehlo"
    output = pathlib.Path(output or workdir / _DEFAULT_NAMES[format])
    predictor = Predictor.from_workdir(workdir, overrides=overrides)
    if format == "stablehlo":
        text = _export_program(predictor, output)
    elif format == "huggingface":
        card = model_card(predictor, workdir, license)
        text = huggingface.write(output, predictor, card)
        text += f"\nload it with: segjax.load_pretrained({str(output)!r})"
    else:
        mean, std = (tuple(predictor.config["data"][key]) for key in ("mean", "std"))
        text = weights.save(
            output,
            predictor.model,
            predictor.variables,
            mean=mean,
            std=std,
            classes=predictor.classes.names,
        )
    print_line(console, text)
    return output


def _export_program(predictor: Predictor, output: pathlib.Path) -> str:
    """Writes and checks the program; returns what it takes, and its scores, in words."""
    config = predictor.config
    # Labels on the canvas, as the program gives them.
    config = {**config, "data": {**config["data"], "label_size": (0, 0)}}
    validation = Splits.of_run(config).fitted(config["data"]["val_split"])
    versions = {name: environment()[name] for name in ("commit", "segjax")}
    written = write_export(output, predictor, validation, environment=versions)
    (height, width), multiple = written["size"], written["multiple"]
    shape = (
        f"H and W any multiples of {multiple}"
        if multiple
        else f"H, W = {height}, {width} only ({written['fixed_size_because']})"
    )
    size, scores = output.stat().st_size, written["validation"]
    before, after = (format_number(scores[key]) for key in ("miou_before", "miou_after"))
    return "\n".join(
        [
            f"{output}: {size / 1e6:.1f} MB, for {', '.join(written['platforms'])}",
            f"takes uint8 [n, H, W, {written['channels']}], n free, {shape}",
            f"gives uint8 [n, H, W], {written['output']['values']}",
            f"mIoU on {scores['split']} ({scores['images']} images) {before} before, {after} "
            f"after; {scores['pixels_differing']:.4%} of the pixels differ",
            scores["protocol"],
            f"run it with: segjax.load_exported({str(output)!r})(images)",
        ]
    )
