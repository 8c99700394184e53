"""run.json: how a run was started, on which data, and what was said about them."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from segjax.data.errors import DataError
from segjax.data.files.atomic import replacing
from segjax.data.files.json_file import need_form, read_json

RUN_FILE = "run.json"
_WHAT = "the record of a run"
_REMEDY = "restore it, or remove it: the run goes on without, and its report says less of its start"
# What is read of it. Earlier versions lack some, and a copy of a run (--mode=recalibrate) most.
_EMPTY = {"environment": {}, "changes": {}, "data": {}, "findings": [], "data_changes": []}
_FORM = {
    "environment": {str: (str, int, float, bool, type(None))},
    "changes": {str: {"base": object, "run": object}},
    "data": {str: {"images": int, "fingerprint": str}},
    "findings": [{"title": str, "severity": str, "remedy": str}],
    "data_changes": [{"step": int, "found": [str]}],
}


def load_record(workdir: pathlib.Path) -> dict[str, Any]:
    """What run.json holds, empty where it or a part of it is missing.

    Raises:
      DataError: if it is damaged, or holds something else.
    """
    path = workdir / RUN_FILE
    if not path.exists():
        return {name: type(value)() for name, value in _EMPTY.items()}
    run = {**_EMPTY, **read_json(path, _WHAT, _REMEDY)}
    try:
        for name, form in _FORM.items():
            need_form(run[name], form, name)
        need_form(run.get("seconds"), (int, float, type(None)), "seconds")
        need_form(run.get("skipped_steps"), (str, type(None)), "skipped_steps")
    except ValueError as error:
        raise DataError(f"{path} is not {_WHAT}: {error}", _REMEDY) from error
    return run


def save_record(workdir: pathlib.Path, run: Mapping[str, Any]) -> None:
    """Writes run.json, completely or not at all."""
    with replacing(workdir / RUN_FILE) as partial:
        partial.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
