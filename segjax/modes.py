"""What launch.py runs: one function per mode. Each prints what it does and where it wrote."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from PIL import Image
from rich.console import Console

from segjax import config as configs
from segjax import weights
from segjax.data.classes import ClassTable
from segjax.data.images import list_images, read_image
from segjax.inference.predictor import Predictor
from segjax.reporting import run_report, tables
from segjax.reporting.plots import overlay
from segjax.training import loop
from segjax.training.evaluation import evaluate as evaluate_split
from segjax.training.parallel import make_mesh
from segjax.training.setup import Setup, make_canvas, prepare, protocol
from segjax.training.step import make_eval_step


def train(
    config: Mapping[str, Any],
    workdir: str | pathlib.Path,
    base: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> dict[str, dict]:
    """Trains (or resumes) the run in `workdir`, evaluates its best checkpoint, writes its report.

    Args:
      config: see configs/base.py.
      workdir: made if it does not exist.
      base: the config that the report lists differences from.

    Returns:
      The results of `evaluate`.

    Raises:
      ValueError: for a config, data set or workdir that does not fit, before any compilation.
    """
    console, workdir = console or Console(), pathlib.Path(workdir)
    configs.check_same_run(config, workdir)
    setup = prepare(config, workdir)
    config = setup.config
    workdir.mkdir(parents=True, exist_ok=True)
    configs.save(config, workdir)
    configs.save_classes(setup.classes, workdir)
    run_report.save_run(workdir, base, config)
    console.print(
        f"{config['model']['name']} on {config['data']['name']}: {len(setup.train)} images, "
        f"{len(setup.classes)} classes, {setup.total_steps} steps of "
        f"{config['train']['batch_size']}, {setup.mesh.size} {jax.devices()[0].platform} "
        f"device(s), workdir {workdir}",
        highlight=False,
    )
    if setup.initial:
        console.print(str(setup.initial.report), highlight=False, soft_wrap=True, markup=False)
    progress = loop.train(setup, workdir, console, preview=_preview(setup))
    if progress.stopped:
        console.print(f"stopped early: {progress.stopped}", highlight=False)
    return evaluate(workdir, console=console, seconds=progress.seconds)


def _preview(setup: Setup):
    """Pictures of a few validation images, as TensorBoard shows them after each evaluation."""
    source = setup.validation.source
    chosen = run_report.evenly_spaced(len(source), setup.config["report"]["samples"])
    predictor = Predictor(setup.model, None, setup.classes, setup.config)

    def preview(variables) -> dict[str, np.ndarray]:
        predictor.variables = variables
        return {
            f"val/{sample['name']}": run_report.panels(sample, setup.classes)
            for sample in run_report.predicted_samples(predictor, source, chosen)
        }

    return preview


def evaluate(
    workdir: str | pathlib.Path,
    splits: Sequence[str] = (),
    console: Console | None = None,
    seconds: float | None = None,
) -> dict[str, dict]:
    """Evaluates the best checkpoint of a run; prints the table, writes pictures and report.

    Args:
      workdir: of a training run; nothing else is needed.
      splits: `data.eval_splits` by default.

    Returns:
      Per split what `metrics.summarize` gives, with `loss` and `images`; also in results.json.
    """
    console, workdir = console or Console(), pathlib.Path(workdir)
    predictor = Predictor.from_workdir(workdir)
    config, classes = predictor.config, predictor.classes
    batch_size = config["train"]["eval_batch_size"] or config["train"]["batch_size"]
    mesh = make_mesh(config["parallel"], batch_size)
    data = config["data"]
    step = jax.jit(make_eval_step(predictor.model, tuple(data["mean"]), tuple(data["std"])))
    evaluations = {}
    for split in splits or data["eval_splits"]:
        canvas = make_canvas(config, split)
        evaluations[split] = evaluate_split(step, predictor.variables, canvas, batch_size, mesh)
    results = {split: evaluation.summary() for split, evaluation in evaluations.items()}
    tables.print_results(results, classes, console, protocol(config))
    report = run_report.write(workdir, predictor, evaluations, protocol(config), seconds)
    console.print(f"report: {report}", highlight=False, soft_wrap=True)
    return results


def predict(
    workdir: str | pathlib.Path,
    input: str | pathlib.Path,
    output: str | pathlib.Path | None = None,
    console: Console | None = None,
) -> list[pathlib.Path]:
    """Predicts an image or every image of a folder, at its own size.

    Writes into `output` (WORKDIR/predictions by default), under each image's name: `NAME.png` in
    `masks/` (class ids), in `colors/` (the palette) and in `overlays/` (palette over image).

    Returns:
      The paths of the index masks.
    """
    console = console or Console()
    output = pathlib.Path(output or pathlib.Path(workdir) / "predictions")
    images = list_images(input)
    predictor = Predictor.from_workdir(workdir)
    names = _output_names(images, pathlib.Path(input))
    masks = []
    for path, name in zip(images, names, strict=True):
        image = read_image(path, exif=True)
        label = predictor.predict(image)
        pictures = {
            "masks": label,
            "colors": predictor.classes.colorize(label),
            "overlays": overlay(image, label, predictor.classes),
        }
        for kind, picture in pictures.items():
            file = output / kind / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(file)
        masks.append(output / "masks" / f"{name}.png")
        console.print(_shares(path, label, predictor.classes), highlight=False, soft_wrap=True)
    console.print(f"{len(masks)} image(s): masks, colors and overlays in {output}", highlight=False)
    return masks


def _output_names(images: Sequence[pathlib.Path], root: pathlib.Path) -> list[str]:
    """Each image's path under `root` without its suffix; with it where two would collide."""
    paths = [p.relative_to(root) if root.is_dir() else pathlib.Path(p.name) for p in images]
    stems = [str(p.with_suffix("")) for p in paths]
    return [s if stems.count(s) == 1 else str(p) for s, p in zip(stems, paths, strict=True)]


def _shares(path: pathlib.Path, label: np.ndarray, classes: ClassTable) -> str:
    """One line: the file, its size and its most frequent classes."""
    counts = np.bincount(label.reshape(-1), minlength=len(classes))
    top = np.argsort(-counts)[:3]
    shares = ", ".join(f"{classes.names[k]} {counts[k] / label.size:.0%}" for k in top if counts[k])
    return f"{path} ({label.shape[0]}x{label.shape[1]}): {shares}"


def export(
    workdir: str | pathlib.Path,
    output: str | pathlib.Path | None = None,
    console: Console | None = None,
) -> pathlib.Path:
    """Writes the best checkpoint of a run as a safetensors file; see `segjax.weights.save`.

    Args:
      workdir: of a training run.
      output: the file; WORKDIR/model.safetensors by default.

    Returns:
      The file's path.
    """
    console, predictor = console or Console(), Predictor.from_workdir(workdir)
    output = pathlib.Path(output or pathlib.Path(workdir) / "model.safetensors")
    data = predictor.config["data"]
    text = weights.save(
        output,
        predictor.model,
        predictor.variables,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )
    console.print(text, highlight=False, soft_wrap=True, markup=False)
    return output


def plan(config: Mapping[str, Any], console: Console | None = None) -> dict[str, float]:
    """Prints the parameter table, and the FLOPs and compiled memory of a training step.

    Nothing is trained and no parameter is drawn; the step is compiled for this machine's devices.

    Returns:
      `parameters`, `flops` (per step), and bytes per device: `arguments`, `temporaries`,
      `outputs`, `peak` (their sum, less what is updated in place).
    """
    console = console or Console()
    setup = prepare(config)
    state = setup.abstract_state()
    table = parameter_overview.get_parameter_overview(state.params, include_stats=False)
    print(table, file=console.file)
    n, size = config["train"]["batch_size"], tuple(config["data"]["image_size"])
    batch = {
        "image": jax.ShapeDtypeStruct((n, *size, 3), np.uint8),
        "label": jax.ShapeDtypeStruct((n, *size), np.uint8),
        "index": jax.ShapeDtypeStruct((n,), np.int32),
    }
    compiled = setup.train_step().lower(state, batch).compile()
    flops = float((compiled.cost_analysis() or {}).get("flops", float("nan")))
    memory = compiled.memory_analysis()
    sizes = {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "peak": memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes,
    }
    parameters = sum(p.size for p in jax.tree.leaves(state.params))
    crop = "x".join(map(str, setup.crop_size))
    console.print(
        f"{config['model']['name']}: {parameters:,} parameters; {setup.total_steps} steps\n"
        f"one training step, batch {n}, crop {crop}, {config['dtype']}, "
        f"{jax.devices()[0].device_kind}:\n"
        f"  {flops / 1e9:,.1f} GFLOP\n"
        + "\n".join(f"  {bytes_ / 2**20:,.0f} MiB {name}" for name, bytes_ in sizes.items()),
        highlight=False,
    )
    return {"parameters": parameters, "flops": flops, **sizes}
