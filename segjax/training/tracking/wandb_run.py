"""Weights & Biases: a run as one of its runs, online or offline."""

import json
import os
import pathlib
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np

from segjax.data.files.json_file import read_json
from segjax.training.tracking.writer import OPTION, End, Rows, need_package, write_note

NOTE = "wandb.json"  # in the workdir: which run it is
_EXIT_CODE: Mapping[End, int] = {"finished": 0, "stopped": 75, "failed": 1}


class WandbRun:
    """A `Writer` of W&B: options are its config, numbers its history, results its summary.

    All of W&B's variables hold: WANDB_MODE (`offline` needs no account), WANDB_ENTITY, WANDB_NAME
    and the rest. Without WANDB_PROJECT the project is "segjax", without WANDB_DIR the folder is
    WORKDIR/wandb, without WANDB_RUN_ID the id is kept in WORKDIR/wandb.json.

    A resumed run has the same id and repeats the steps since its last checkpoint. Online, W&B says
    which steps it has; these are not sent again, and later ones are, of earlier starts too. Offline
    each start has a folder of its own with the numbers of the whole run so far, so `wandb sync` of
    the newest one is enough. W&B's history only grows: where a run goes back to a checkpoint with a
    lower rate (train.on_nonfinite=rollback) it keeps the numbers of the attempt before, up to the
    step which that had reached.
    """

    def __init__(self, workdir: pathlib.Path, options: Mapping[str, Any]):
        wandb = need_package("wandb", "wandb")
        self._image = wandb.Image
        default = {
            "WANDB_PROJECT": {"project": "segjax"},
            "WANDB_DIR": {"dir": str(workdir)},
            "WANDB_NAME": {"name": workdir.resolve().name},
            "WANDB_RUN_ID": {"id": _id_in(workdir)},
            "WANDB_RESUME": {"resume": "allow"},
        }
        chosen = [value for name, value in default.items() if not os.environ.get(name)]
        # What a command prints is its own; the progress bar would be thousands of lines.
        quiet = {"WANDB_CONSOLE": {"console": "off"}, "WANDB_SILENT": {"silent": True}}
        settings = [value for name, value in quiet.items() if not os.environ.get(name)]
        self._run = wandb.init(
            config=dict(options),
            allow_val_change=True,
            settings=wandb.Settings(**{k: v for each in settings for k, v in each.items()}),
            **{k: v for each in chosen for k, v in each.items()},
        )
        settings = self._run.settings
        place = f"{settings.mode}, in {settings.sync_dir}" if self._run.offline else self._run.url
        self.place = f"run {self._run.id}, {place}"

    @staticmethod
    def check() -> None:
        """Raises ValueError without W&B, or where it is online and nobody is logged in: it would
        ask for a key in the middle of the run."""
        wandb = need_package("wandb", "wandb")
        mode = wandb.setup().settings.mode
        if mode not in ("offline", "disabled", "dryrun") and not wandb.login(
            prompt=False, verify=False
        ):
            raise ValueError(
                f"{OPTION} has 'wandb', and nobody is logged in to W&B; run `wandb login`, or set "
                "WANDB_API_KEY, or WANDB_MODE=offline, which needs no account"
            )

    def begin(self, step: int, earlier: Rows) -> None:
        """Adds earlier numbers that are further than the history: all of them offline."""
        for earlier_step, values in earlier:
            self.scalars(earlier_step, values)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the numbers to the history, unless that is further."""
        if step >= self._run.step:
            self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Adds a picture to the history, unless that is further."""
        if step >= self._run.step:
            self._run.log({name: self._image(image)}, step=step)

    def results(self, step: int, values: Mapping[str, float]) -> None:
        """Puts the numbers into the summary as results/SPLIT/NAME."""
        named = {f"results/{name}": value for name, value in values.items()}
        self._run.summary.update({**named, "results/step": step})

    def close(self, end: End) -> None:
        """Sends what is left, and says how the run ended."""
        self._run.finish(exit_code=_EXIT_CODE[end])


def _id_in(workdir: pathlib.Path) -> str:
    """The id of the run in a workdir, which the first call makes."""
    path, what = workdir / NOTE, "the note which run of W&B this is"
    if path.exists():
        remedy = "remove it, and a new run is begun there"
        return read_json(path, what, remedy, fields={"run": str})["run"]
    new = uuid.uuid4().hex[:12]
    write_note(path, json.dumps({"run": new}) + "\n")
    return new
