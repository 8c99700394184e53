"""The command export: a finished run as one file."""

import pathlib
from collections.abc import Mapping
from typing import Any

from segjax import weights
from segjax.console import Console
from segjax.data.fitted import FittedDataset
from segjax.data.splits import Splits
from segjax.destinations import check_file, check_folder
from segjax.export import huggingface
from segjax.export.load import SUFFIX
from segjax.export.onnx.write import TOLERANCE as ONNX_TOLERANCE
from segjax.export.onnx.write import write as write_onnx
from segjax.export.program import write as write_export
from segjax.inference.predictor import Predictor
from segjax.report.model_card import UNKNOWN_LICENSE, model_card
from segjax.report.numbers import format_number
from segjax.report.provenance import environment
from segjax.training.progress import print_line

_DEFAULT_NAMES = {
    "stablehlo": f"model{SUFFIX}",
    "onnx": "model.onnx",
    "safetensors": "model.safetensors",
    "huggingface": "huggingface",
}
FORMATS = tuple(_DEFAULT_NAMES)
_KEPT = ("data.mean", "data.std")  # with weights


def export(
    workdir: str | pathlib.Path,
    output: str | pathlib.Path | None = None,
    format: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    console: Console | None = None,
    license: str = UNKNOWN_LICENSE,
    half: bool = False,
) -> pathlib.Path:
    """Writes the best checkpoint of a run as a program with its weights, or the weights alone.

    Args:
      workdir: of a training run.
      output: the file, or the folder of "huggingface"; by default WORKDIR/model.segjax, model.onnx,
        model.safetensors or huggingface.
      format: "stablehlo": see `segjax.export.program`, and `segjax.load_exported` to run it; its
        validation mIoU is measured before and after. "onnx": see `segjax.export.onnx.write`;
        measured so too if onnxruntime is installed. "safetensors": see `segjax.weights.save`.
        "huggingface": a folder with a model card, see `segjax.export.huggingface`. By default what
        the output's suffix says, else stablehlo.
      overrides: of the run's config, for the data that the check reads; see
        `config.with_overrides`.

      half: whether "safetensors" and "huggingface" hold kernels in float16, see `weights.save`.
      license: of the model, for its card: an identifier of the hub, such as "mit".

    Returns:
      The path of the file or folder.

    Raises:
      ValueError: for another format, or a folder that holds something else; if the exported
        program departs from the network, or has no form in ONNX.
    """
    if format not in (None, *FORMATS):
        raise ValueError(f"--format={format}; export has {', '.join(FORMATS)}")
    console, workdir = console or Console(), pathlib.Path(workdir)
    if format is None:
        suffix = pathlib.Path(output or "").suffix
        format = {".onnx": "onnx", ".safetensors": "safetensors"}.get(suffix, "stablehlo")
    output = pathlib.Path(output or workdir / _DEFAULT_NAMES[format])
    if license != UNKNOWN_LICENSE and format != "huggingface":
        raise ValueError(f"--license={license} with --format={format}; use --format=huggingface")
    if half and format not in ("safetensors", "huggingface"):
        raise ValueError(f"--half with --format={format}; use safetensors or huggingface")
    unread = [f"--config.{name}" for name in overrides or () if name not in _KEPT]
    if unread and format == "safetensors":
        raise ValueError(
            f"{', '.join(unread)} changes nothing in --format=safetensors, which holds weights; "
            "leave it out"
        )
    (check_folder if format == "huggingface" else check_file)(output, "--output")
    predictor = Predictor.from_workdir(workdir, overrides=overrides)
    if format == "stablehlo":
        text = _export_program(predictor, output)
    elif format == "onnx":
        text = _export_onnx(predictor, output)
    elif format == "huggingface":
        card = model_card(predictor, workdir, license)
        text = huggingface.write(output, predictor, card, half)
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
            half=half,
        )
    print_line(console, text)
    return output


def _export_program(predictor: Predictor, output: pathlib.Path) -> str:
    """Writes and checks the program; returns what it takes, and its scores, in words."""
    written = write_export(output, predictor, _validation(predictor), environment=_versions())
    (height, width), multiple = written["size"], written["multiple"]
    shape = (
        f"H and W any multiples of {multiple}"
        if multiple
        else f"H, W = {height}, {width} only ({written['fixed_size_because']})"
    )
    size = output.stat().st_size
    return "\n".join(
        [
            f"{output}: {size / 1e6:.1f} MB, for {', '.join(written['platforms'])}",
            f"takes uint8 [n, H, W, {written['channels']}], n free, {shape}",
            f"gives uint8 [n, H, W], {written['output']['values']}",
            *_scores(written["validation"]),
            f"run it with: segjax.load_exported({str(output)!r})(images)",
        ]
    )


def _export_onnx(predictor: Predictor, output: pathlib.Path) -> str:
    """Writes and checks the ONNX file; returns what it takes, and its scores, in words."""
    written = write_onnx(output, predictor, _validation(predictor), environment=_versions())
    (height, width), logits = written["size"], written["logits"]
    checked = ["not checked, as onnxruntime is not installed: pip install onnxruntime"]
    if logits is not None:
        checked = [
            f"logits of a test picture differ by {logits['differ_by']:.1e} of the largest, and by "
            f"more than {ONNX_TOLERANCE:.0e} at {logits['pixels_differing']:.2%} of the pixels",
            *_scores(written["validation"]),
        ]
    return "\n".join(
        [
            f"{output}: {output.stat().st_size / 1e6:.1f} MB, float32",
            f"takes images, uint8 [n, {height}, {width}, {written['channels']}], n free",
            f"gives labels, uint8 [n, {height}, {width}], {written['output']['values']}, and "
            f"logits, float32 [n, {height}, {width}, {len(predictor.classes)}]",
            *checked,
            f"run it with onnxruntime, or by segjax.load_exported({str(output)!r})(images)",
        ]
    )


def _validation(predictor: Predictor) -> FittedDataset:
    """The validation split, with labels on the canvas as the program gives them."""
    config = predictor.config
    return Splits.of_run(config).on_canvas(config["data"]["val_split"])


def _versions() -> dict[str, str]:
    return {name: environment()[name] for name in ("commit", "segjax")}


def _scores(scores: Mapping[str, Any]) -> list[str]:
    before, after = (format_number(scores[key]) for key in ("miou_before", "miou_after"))
    return [
        f"mIoU on {scores['split']} ({scores['images']} images) {before} before, {after} after; "
        f"{scores['pixels_differing']:.4%} of the pixels differ",
        scores["protocol"],
    ]
