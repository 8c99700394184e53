"""The command doctor: what is wrong with a data set, before anything is trained on it."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from segjax.console import Console
from segjax.data.datasets import classes_in_words
from segjax.data.doctor import ERROR, Diagnosis, diagnose_config
from segjax.data.source import notes_of
from segjax.destinations import check_folder
from segjax.report import doctor as doctor_report
from segjax.training.progress import print_line, progress_bar


def doctor(
    config: Mapping[str, Any],
    workdir: str | pathlib.Path,
    splits: Sequence[str] = (),
    console: Console | None = None,
) -> Diagnosis:
    """Decodes the data as training would; prints what is wrong, writes doctor.html and doctor.json.

    Args:
      config: see configs/base.py.
      workdir: made if it does not exist.
      splits: by default those that the config trains and evaluates on.

    Raises:
      ValueError: if a finding stops training; all findings are printed and written before.
    """
    console, workdir = console or Console(), pathlib.Path(workdir)
    check_folder(workdir, "--workdir", files=(doctor_report.JSON_FILE, doctor_report.HTML_FILE))
    with progress_bar(console, "reading") as progress:
        diagnosis = diagnose_config(config, splits, progress=progress)
    print_line(console, classes_in_words(config["data"]))
    for note in notes_of(diagnosis.sources.values()):
        print_line(console, note)
    workdir.mkdir(parents=True, exist_ok=True)
    doctor_report.print_findings(diagnosis, console)
    page = doctor_report.write_report(diagnosis, workdir)
    print_line(console, f"report: {page}")
    worst = diagnosis.of(ERROR)
    if worst:
        raise ValueError(f"{len(worst)} finding(s) stop training; see above, or {page}")
    return diagnosis
