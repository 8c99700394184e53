"""Two runs with `--deterministic`, compiled apart, bit by bit."""

import concurrent.futures
import pathlib
from typing import Any

from benchmarks.gpu.launch import launch


def flags(config: str, workdir: pathlib.Path, steps: int) -> list[str]:
    """Of a short run on drawn scenes."""
    return [
        f"--config={config}",
        f"--workdir={workdir}",
        f"--config.train.steps={steps}",
        f"--config.train.eval_every={steps}",
        "--config.train.log_every=1",
        f"--config.data.train_images={4 * steps}",
        "--config.data.eval_images=8",
        "--config.report.samples=1",
        "--config.report.measures=()",
    ]


def run(folder: pathlib.Path, seconds: float, config: str, steps: int) -> dict[str, Any]:
    def train(name: str) -> pathlib.Path:
        workdir = folder / name
        cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / f"cache_{name}")}
        launch("--deterministic", *flags(config, workdir, steps), environment=cache)
        return workdir

    with concurrent.futures.ThreadPoolExecutor() as pool:
        first, second = pool.map(train, ("first", "second"))
    return compare(first, second)


def compare(first: pathlib.Path, second: pathlib.Path) -> dict[str, Any]:
    """Losses of all steps, and the arrays of the checkpoints."""
    import jax
    import numpy as np

    from segjax.inference.predictor import Predictor

    ours, theirs = losses(first), losses(second)
    steps = [t for t, (a, b) in enumerate(zip(ours, theirs, strict=True), 1) if a != b]
    one, other = (
        jax.tree.leaves(Predictor.from_workdir(workdir).variables) for workdir in (first, second)
    )
    arrays = sum(
        np.asarray(a).tobytes() != np.asarray(b).tobytes() for a, b in zip(one, other, strict=True)
    )
    text = f"{len(ours)} losses and {len(one)} arrays have the same bits"
    if steps or arrays:
        at = f", the first of step {steps[0]}" if steps else ""
        text = f"{len(steps)} of {len(ours)} losses{at}, and {arrays} of {len(one)} arrays differ"
    return {"good": bool(ours) and not steps and not arrays, "text": text}


def losses(workdir: pathlib.Path) -> list[float]:
    """Those of the training steps."""
    from segjax.training.metrics_file import read_metrics

    return [row["loss"] for row in read_metrics(workdir) if row["split"] == "train"]
