"""What ImageNet's weights are worth on IDD-Lite in about 20 minutes of one CPU core a run.

    python -m benchmarks.pretrained --root=DIR --runs=DIR [--share 1.0] [NETWORK ...]

`--root` is IDD-Lite's folder. Each network is trained twice with the same seed, batches and rates:
from weights that pip itself delivers, and from scratch. `RUNS/pretrained.png` shows val mIoU by
step, two curves a network. `--share` shortens all runs. A run that is finished is not trained
again; one that was stopped goes on.
"""

import argparse
import functools
import pathlib
import subprocess
import sys
from typing import NamedTuple

from matplotlib.axes import Axes

from segjax.report.figures import SERIES, Panel, save_png
from segjax.training.metrics_file import read_metrics


class Case(NamedTuple):
    """A network at full width, where its weights come from, and the steps that fit the time."""

    config: str
    weights: str
    steps: int
    options: tuple[str, ...] = ()


CASES = {
    "SegNet": Case("configs/segnet.py", "imagenet/keras_pip", 300, ("model.width=1",)),
    "NCSU SegNet": Case("configs/notebooks.py:ncsu", "imagenet/keras_pip", 300),
    "DeepLabV3+, MobileNetV2": Case(
        "configs/deeplabv3plus.py",
        "imagenet/deep_sort_pip",
        800,
        ("model.encoder=mobilenet_v2", "model.width=1", "model.zero_init_residual=False"),
    ),
}
# Views and solver are the same for all, so that the two curves differ in their start alone.
TRAINING = (
    *("data.name=idd_lite", "data.eval_splits=val", "data.image_size=96,160"),
    *("augment.crop_size=0,0", "augment.scale=0.75,1.5", "augment.flip=True"),
    *("train.batch_size=4", "train.epochs=0", "train.early_stop_patience=0"),
    *("optim.name=adamw", "optim.learning_rate=5e-4", "optim.schedule=cosine"),
    *("optim.weight_decay=1e-4", "loss.class_weights=none", "init_parts=encoder"),
)


def train(case: Case, root: pathlib.Path, workdir: pathlib.Path, weights: str, share: float):
    """Trains unless the run is finished; returns val's (steps, mIoUs)."""
    steps = max(8, round(case.steps * share))
    options = (*TRAINING, *case.options, f"data.root={root}", f"init_from={weights}")
    options += (f"train.steps={steps}", f"train.eval_every={steps // 6}")
    options += (f"optim.warmup_steps={steps // 10}",)
    if not (workdir / "results.json").is_file():
        command = [sys.executable, "launch.py", f"--config={case.config}", f"--workdir={workdir}"]
        subprocess.run([*command, *(f"--config.{o}" for o in options)], check=True)
    val = [row for row in read_metrics(workdir) if row["split"] == "val"]
    return [row["step"] for row in val], [row["miou"] for row in val]


def paint(axes: Axes, curves: dict[str, tuple[list[int], list[float]]]) -> None:
    for color, (name, (steps, mious)) in zip(SERIES, curves.items(), strict=False):
        axes.plot(steps, mious, color=color, marker="o", label=f"{name}: {mious[-1]:.3f}")
    axes.set(xlabel="step", ylabel="val mIoU", ylim=(0, None))
    axes.legend(loc="lower right")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", metavar="NETWORK", default=list(CASES))
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--runs", type=pathlib.Path, required=True)
    parser.add_argument("--share", type=float, default=1.0)
    args = parser.parse_args()
    panels = []
    for network in args.networks:
        case, curves = CASES[network], {}
        for name, weights in (("ImageNet", case.weights), ("from scratch", "")):
            workdir = args.runs / f"{network} {name}".replace(" ", "_").replace(",", "")
            curves[name] = train(case, args.root, workdir, weights, args.share)
            print(f"{network}, {name}: val mIoU {curves[name][1][-1]:.4f}", flush=True)
        panels.append(Panel(network, functools.partial(paint, curves=curves)))
        save_png(panels, args.runs / "pretrained.png", columns=len(panels))


if __name__ == "__main__":
    main()
