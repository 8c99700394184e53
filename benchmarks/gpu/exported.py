"""A run exported as StableHLO: its labels in a new process, beside the run's own predictions."""

import pathlib
from typing import Any

from benchmarks.gpu.launch import launch
from benchmarks.gpu.repeat import flags

# Of pixels that may differ: two programs round differently, and two classes may be almost equal.
ALLOWED = 1e-3


def run(folder: pathlib.Path, seconds: float, config: str, steps: int) -> dict[str, Any]:
    workdir = folder / "run"
    launch(*flags(config, workdir, steps))
    launch("--mode=export", f"--workdir={workdir}")
    return compare(workdir)


def compare(workdir: pathlib.Path) -> dict[str, Any]:
    """Labels of the validation images."""
    import jax
    import numpy as np

    import segjax
    from segjax.data.splits import Splits

    file = workdir / "model.segjax"
    exported, predictor = segjax.load_exported(file), segjax.Predictor.from_workdir(workdir)
    images = Splits.of_run(predictor.config).on_canvas("val")
    images = np.stack([images[k]["image"] for k in range(len(images))])
    labels = exported(images)
    own = np.stack([predictor.predict(image) for image in images])
    share = float((labels != own).mean())
    return {
        "good": share <= ALLOWED,
        "text": f"on {jax.default_backend()}: {share:.4%} of {labels.size:,} pixels differ, "
        f"{len(np.unique(own))} classes, {file.stat().st_size / 2**20:.1f} MiB",
        "share": share,
    }
