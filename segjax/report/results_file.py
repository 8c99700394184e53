"""results.json: the numbers of an evaluated run, read without what draws them."""

import pathlib
from collections.abc import Sequence
from typing import Any

from segjax.data.errors import DataError
from segjax.data.files.json_file import need_form, read_json
from segjax.report.places import RESULTS_FILE


def read_results(workdir: str | pathlib.Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What results.json has for each split; {} without such a file.

    Args:
      workdir: of a run.
      names: of what is a number or None where it is there.

    Raises:
      DataError: if it is damaged or holds something else.
    """
    path = pathlib.Path(workdir) / RESULTS_FILE
    if not path.exists():
        return {}
    what, remedy = (
        "the results of a run",
        f"write it again with --mode=evaluate --workdir={workdir}",
    )
    results = read_json(path, what, remedy, fields={"results": {str: dict}})["results"]
    try:
        for split, numbers in results.items():
            values = [numbers.get(name) for name in names]
            need_form(values, [(int, float, type(None))], f"the numbers of {split!r}")
    except ValueError as error:
        raise DataError(f"{path} is not {what}: {error}", remedy) from error
    return results
