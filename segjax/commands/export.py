"""The mode export: a finished run as one file."""

import pathlib
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from segjax import config as configs
from segjax import weights
from segjax.data.splits import Splits
from segjax.export.load import SUFFIX
from segjax.export.program import write as write_export
from segjax.inference.predictor import Predictor
from segjax.report.provenance import environment as describe_environment
from segjax.training.progress import print_line

FORMATS = ("stablehlo", "safetensors")


def export(
    workdir: str | pathlib.Path,
    output: str | pathlib.Path | None = None,
    format: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> pathlib.Path:
    """Writes the best checkpoint of a run as a program with its weights, or the weights alone.

    Args:
      workdir: of a training run.
      output: the file; WORKDIR/model.segjax or WORKDIR/model.safetensors by default.
      format: "stablehlo": see `segjax.export.program`, and `segjax.load_exported` to run it; its
        validation mIoU is measured before and after. "safetensors": see `segjax.weights.save`.
        By default what the output's suffix says, else stablehlo.
      overrides: of the run's config, for the data that the check reads; see
        `config.with_overrides`.

    Returns:
      The file's path.

    Raises:
      ValueError: for another format; if the exported program departs from the network.
    """
    if format not in (None, *FORMATS):
        raise ValueError(f"--format={format}; export has {', '.join(FORMATS)}")
    console, workdir = console or Console(), pathlib.Path(workdir)
    if format is None:
        named = output is not None and pathlib.Path(output).suffix == ".safetensors"
        format = "safetensors" if named else "stablehlo"
    predictor = Predictor.from_workdir(workdir)
    predictor.config = configs.with_overrides(predictor.config, overrides or {})
    if format == "stablehlo":
        return _export_program(workdir, predictor, output, console)
    output = pathlib.Path(output or workdir / "model.safetensors")
    data = predictor.config["data"]
    text = weights.save(
        output,
        predictor.model,
        predictor.variables,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        classes=predictor.classes.names,
    )
    print_line(console, text)
    return output


def _export_program(
    workdir: pathlib.Path,
    predictor: Predictor,
    output: str | pathlib.Path | None,
    console: Console,
) -> pathlib.Path:
    output = pathlib.Path(output or workdir / f"model{SUFFIX}")
    config = predictor.config
    # Labels on the canvas: that is where the program's are.
    config = {**config, "data": {**config["data"], "label_size": (0, 0)}}
    environment = describe_environment()
    written = write_export(
        output,
        predictor,
        Splits(config["data"], config["seed"]).fitted(config["data"]["val_split"]),
        environment={"commit": environment["commit"], "segjax": environment["segjax"]},
    )
    (height, width), multiple = written["size"], written["multiple"]
    shape = (
        f"H and W any multiples of {multiple}"
        if multiple
        else f"H, W = {height}, {width} only ({written['fixed_size_because']})"
    )
    checked = written["validation"]
    print_line(
        console,
        f"{output}: {output.stat().st_size / 1e6:.1f} MB, for {', '.join(written['platforms'])}\n"
        f"takes uint8 [n, H, W, {written['channels']}], n free, {shape}; gives uint8 class ids "
        "[n, H, W]\n"
        f"mIoU on {checked['split']} ({checked['images']} images) {_score(checked['miou_before'])} "
        f"before, {_score(checked['miou_after'])} after; {checked['pixels_differing']:.4%} of the "
        f"pixels differ\n{checked['protocol']}\n"
        f"run it with: segjax.load_exported({str(output)!r})(images)",
    )
    return output


def _score(miou: float | None) -> str:
    return "-" if miou is None else f"{miou:.4f}"
