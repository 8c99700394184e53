"""The files at the end of a run: results.json, pictures, report.html."""

import datetime
import hashlib
import importlib.metadata
import json
import math
import pathlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from segjax import config as configs
from segjax.data.classes import ClassTable
from segjax.data.files.images import rgb_view
from segjax.data.source import files_of
from segjax.data.splits import Splits
from segjax.data.statistics import fingerprint_of
from segjax.inference.predictor import Predictor
from segjax.report import html, plots, tables
from segjax.training.evaluation import Evaluation
from segjax.training.writers import read_metrics

RUN_FILE = "run.json"
RESULTS_FILE = "results.json"


def save_run(
    workdir: pathlib.Path,
    base: Mapping[str, Any] | None,
    config: Mapping[str, Any],
    data: Splits,
) -> None:
    """Notes how a run was started: command, versions, device, what differs from the base config,
    and the state of its data (see `data_state`)."""
    changes = configs.difference(base, config) if base else {}
    run = {
        "environment": environment(),
        "changes": {name: {"base": old, "run": new} for name, (old, new) in changes.items()},
        "data": data_state(data, data.used),
    }
    (workdir / RUN_FILE).write_text(json.dumps(run, indent=2) + "\n")


def environment() -> dict[str, Any]:
    """What numbers depend on besides the config."""
    packages = ("segjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed" if package != "segjax" else _own_version()
    devices = jax.devices()
    return {
        "command": shlex.join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": _commit(),
        "device": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **versions,
    }


def data_state(data: Splits, splits: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Number of images and a fingerprint of each split, the same for every copy of the data.

    The fingerprint is the start of the SHA-256 over names and sizes of the files (see
    `statistics.fingerprint_of`), or, of a split that is not files, over three of its samples.
    """
    state = {}
    for split in splits:
        source = data.source(split)
        files = files_of(source)
        by_name = fingerprint_of(files, times=False) if files else None
        fingerprint = by_name or _of_samples(source)
        state[split] = {"images": len(source), "fingerprint": fingerprint[:16]}
    return state


def _of_samples(source: Any) -> str:
    digest = hashlib.sha256(repr(len(source)).encode())
    for index in evenly_spaced(len(source), 3):
        sample = source[index]
        for array in (sample["image"], sample["label"]):
            digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _own_version() -> str:
    import segjax

    return segjax.__version__


def _commit() -> str:
    """The git commit of the source tree, with + if it has changes; "" outside a checkout."""

    def git(*arguments):
        folder = pathlib.Path(__file__).parent
        out = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
        return out.stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def evenly_spaced(length: int, count: int) -> list[int]:
    """Up to `count` indices spread over 0..length-1."""
    count = min(length, count)
    return [round((i + 0.5) * length / count - 0.5) for i in range(count)]


def predicted_samples(predictor: Predictor, source: Any, indices: Iterable[int]) -> list[dict]:
    """Samples with their prediction, at the image's own size, as the sample pictures want them."""
    samples = []
    for index in indices:
        sample = source[int(index)]
        prediction = predictor.predict(sample["image"])
        image = rgb_view(sample["image"])
        samples.append({**sample, "image": image, "prediction": prediction, "miou": math.nan})
    return samples


def panels(sample: Mapping[str, Any], classes: ClassTable) -> np.ndarray:
    """Image, truth, prediction and errors of one sample side by side, uint8 [h, 4w, 3]."""
    return np.concatenate(plots.sample_panels(sample, classes), axis=1)


def choose_samples(image_miou: np.ndarray, count: int) -> dict[str, list[int]]:
    """Indices of the best, the middle and the worst images by their own mIoU, `count` in all."""
    order = np.argsort(-np.nan_to_num(image_miou, nan=-1.0), kind="stable")
    order = order[np.isfinite(image_miou[order])]
    count = min(count, len(order))
    ends = count // 3
    middle = count - 2 * ends
    start = (len(order) - middle) // 2
    return {
        "best": order[:ends].tolist(),
        "median": order[start : start + middle].tolist(),
        "worst": order[len(order) - ends :].tolist(),
    }


def write(
    workdir: pathlib.Path,
    predictor: Predictor,
    evaluations: Mapping[str, Evaluation],
    protocol: str,
    seconds: float | None,
    data: Splits,
) -> pathlib.Path:
    """Writes results.json, results.md, curves.png, confusion_matrix.png, class_iou.png,
    samples/grid.png and report.html.

    Args:
      evaluations: per split; all of their `summary()` is in results.json. Pictures are of
        `data.val_split`, or of the first one.
      protocol: how the numbers were measured.
      seconds: of the training; None: as an earlier call said.
      data: the splits of the run's data set.

    Returns:
      The path of the report.
    """
    config, classes = predictor.config, predictor.classes
    results = {split: evaluation.summary() for split, evaluation in evaluations.items()}
    split = config["data"]["val_split"]
    split = split if split in evaluations else next(iter(evaluations))
    history = read_metrics(workdir)
    saved = {"protocol": protocol, "classes": list(classes.names), "results": no_nan(results)}
    (workdir / RESULTS_FILE).write_text(json.dumps(saved, indent=2) + "\n")

    (workdir / "results.md").write_text(tables.results_markdown(results, classes, protocol))
    plots.plot_curves(history, workdir / "curves.png")
    plots.plot_confusion(evaluations[split].confusion, classes, workdir / "confusion_matrix.png")
    plots.plot_class_iou(results[split], classes, workdir / "class_iou.png")
    samples = _sample_pictures(workdir, predictor, data.source(split), evaluations[split])

    run = json.loads((workdir / RUN_FILE).read_text())
    if seconds is not None:
        run["seconds"] = seconds
        (workdir / RUN_FILE).write_text(json.dumps(run, indent=2) + "\n")
    trained_on, state = run.get("data", {}), data_state(data, evaluations)
    notes = [f"Best checkpoint by val mIoU; pictures of images from the {split} split."]
    notes += [
        f"The {name} split has changed since the training: {trained_on[name]['images']:,} images "
        f"then, {now['images']:,} now, and another fingerprint."
        for name, now in state.items()
        if trained_on.get(name, now) != now
    ]
    parameters = sum(p.size for p in jax.tree.leaves(predictor.variables["params"]))
    path = workdir / "report.html"
    html.write_report(
        path,
        title=f"{config['model']['name']} on {config['data']['name']}",
        config=configs.plain(config),
        config_diff=run["changes"],
        environment={**run["environment"], "parameters": parameters},
        history=history,
        results=results,
        confusion={s: e.confusion for s, e in evaluations.items()},
        classes=classes,
        samples=samples,
        protocol=protocol,
        seconds=run.get("seconds"),
        notes=notes,
        data={**trained_on, **state},
    )
    return path


def _sample_pictures(
    workdir: pathlib.Path, predictor: Predictor, source: Any, evaluation: Evaluation
) -> dict[str, list[dict]]:
    """Writes samples/ and returns the samples by kind: best, median, worst."""
    config, classes = predictor.config, predictor.classes
    chosen = choose_samples(evaluation.image_miou, config["report"]["samples"])
    samples = {kind: predicted_samples(predictor, source, chosen[kind]) for kind in chosen}
    for kind, indices in chosen.items():
        for sample, index in zip(samples[kind], indices, strict=True):
            sample["miou"] = float(evaluation.image_miou[index])
    folder = workdir / "samples"
    folder.mkdir(exist_ok=True)
    everything: Sequence[dict] = [sample for kind in samples.values() for sample in kind]
    if everything:
        plots.sample_grid(everything, classes, folder / "grid.png")
    return {kind: rows for kind, rows in samples.items() if rows}


def no_nan(value: Any) -> Any:
    """NaN as null: JSON has none."""
    if isinstance(value, Mapping):
        return {k: no_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [no_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
