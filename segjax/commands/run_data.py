"""The data set of a finished run, which may have moved since the training."""

import pathlib
from collections.abc import Mapping
from typing import Any

from segjax.data.splits import Splits


def open_data(config: Mapping[str, Any]) -> Splits:
    """The splits of a run's data set.

    Args:
      config: of the run, with overrides.

    Raises:
      ValueError: if the folder of the data is gone.
    """
    data = config["data"]
    is_folder = data["root"] and not data["name"].startswith("tfds:")  # TFDS makes its folder
    if is_folder and not pathlib.Path(data["root"]).exists():
        raise ValueError(
            f"the data of the run are not in data.root={data['root']} any more; say where they are "
            "with --config.data.root=FOLDER"
        )
    return Splits(data, config["seed"])
