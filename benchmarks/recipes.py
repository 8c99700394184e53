"""What losses, class weights and the heads' rate are worth on IDD-Lite with a small network.

    python -m benchmarks.recipes --root=DIR --runs=DIR [--steps 800] [--seeds 3]

`--root` is IDD-Lite's folder. Each recipe adds one thing to the one before. Each is trained with
every seed, for the same steps: a quarter-width PSPNet with ResNet-18 from random weights at
128x256. The checkpoint that was best on val is scored on val, so compare recipes, not papers. A run
that is finished is not trained again; one that was stopped goes on.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np

LOVASZ = "--config.loss.terms=cross_entropy + 0.5 * lovasz"
WEIGHTS = "--config.loss.class_weights=median_present"
HEADS = "--config.optim.lr_scale=head=4,aux=4"
RECIPES = {
    "cross-entropy": (),
    "+ 0.5 Lovasz": (LOVASZ,),
    "+ class weights": (LOVASZ, WEIGHTS),
    "+ heads x4": (LOVASZ, WEIGHTS, HEADS),
}


def train(root: pathlib.Path, workdir: pathlib.Path, steps: int, seed: int, recipe) -> dict:
    """Trains if there is no result yet; returns val's results."""
    results = workdir / "results.json"
    if not results.is_file():
        command = [
            *(sys.executable, "launch.py", "--config=configs/pspnet.py:idd_lite_small"),
            f"--workdir={workdir}",
            f"--config.data.root={root}",
            f"--config.train.steps={steps}",
            f"--config.train.eval_every={max(1, steps // 4)}",
            f"--config.seed={seed}",
            *recipe,
        ]
        subprocess.run(command, check=True)
    return json.loads(results.read_text())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--runs", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    scores = {name: [] for name in RECIPES}
    for seed in range(args.seeds):  # seed by seed: a table of fewer seeds is there early
        for place, (name, recipe) in enumerate(RECIPES.items()):
            workdir = args.runs / f"recipe{place}_seed{seed}"
            scores[name].append(train(args.root, workdir, args.steps, seed, recipe))
        print(table(scores), flush=True)


def table(scores: dict[str, list[dict]]) -> str:
    """Mean and standard deviation over the seeds, in percent: mIoU, pixel accuracy and each
    class's IoU."""
    classes = next(iter(scores.values()))[0]["classes"]
    lines = [
        f"| recipe | mIoU | accuracy | {' | '.join(classes)} |",
        "|---" * (3 + len(classes)) + "|",
    ]
    for name, runs in scores.items():
        val = [run["results"]["val"] for run in runs]
        columns = [[v["miou"], v["global_accuracy"], *v["iou"]] for v in val]
        numbers = 100 * np.array(columns, float)  # [seeds, columns]
        spread = numbers.std(0, ddof=1) if len(runs) > 1 else np.full(numbers.shape[1], np.nan)
        cells = [f"{m:.1f} ± {s:.1f}" for m, s in zip(numbers.mean(0), spread, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
