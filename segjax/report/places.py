"""Where the report of a run lies in its workdir."""

import pathlib

from segjax import config as configs
from segjax.data import contents
from segjax.destinations import check_folder

RESULTS_FILE = "results.json"
_PICTURES = ("curves", "class_iou", "confusion_matrix")


def check_places(workdir: str | pathlib.Path, flag: str) -> None:
    """Raises ValueError if something is in the way of a run's files and its report."""
    caches = (contents.FILE, "class_presence.json")
    reports = (RESULTS_FILE, "results.md", "report.html", *(f"{name}.png" for name in _PICTURES))
    folders = ("checkpoints", "evaluations", "samples", "tensorboard", "mlruns", "wandb")
    notes = ("mlflow.json", "wandb.json")  # of the writers
    files = (*configs.RUN_FILES, *caches, *reports, *notes)
    check_folder(workdir, flag, files=files, folders=folders)
