"""The folder of an exported model (`--format=huggingface`), as what a predictor is made of."""

import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import ml_collections

from segjax import config as configs
from segjax import config_files
from segjax.data.classes import ClassTable, from_rows
from segjax.data.files.json_file import need_form
from segjax.data.image_options import ranges_of
from segjax.models import build
from segjax.weights.folder import CONFIG, read_config, read_folder
from segjax.weights.transfer import from_file

_FORM = {
    "dtype": str,
    "palette": [[int]],
    "ids": [int],
    "preprocessing": {
        "image_size": [int],
        "channels": int,
        "local_contrast": int,
        "value_range": [[float]],
    },
}


class Exported(NamedTuple):
    """What `inference.Predictor` takes.

    Attributes:
      model, variables: the network and its weights.
      classes: names, colours and ids.
      config: as of a run; options that the folder does not say have their defaults.
    """

    model: nn.Module
    variables: dict[str, Any]
    classes: ClassTable
    config: ml_collections.ConfigDict


def open_exported(folder: str | pathlib.Path) -> Exported:
    """Reads a folder that `segjax.export.huggingface.write` wrote.

    Raises:
      ValueError: naming the file, for whatever is wrong with it.
    """
    folder = pathlib.Path(folder)
    network = from_file(read_folder(folder))
    described = read_config(folder)
    try:
        need_form(described, _FORM, "")
        names = network.classes or ()
        rows = zip(described["ids"], names, described["palette"], strict=True)
        classes = from_rows(
            [{"id": id_, "name": name, "color": color} for id_, name, color in rows],
            network.head == "sigmoid",
        )
        config: Any = configs.checked(_values(described))
        ranges_of(config["data"])
        model = build(config["model"], len(classes), config["dtype"])
    except ValueError as error:
        raise ValueError(
            f"{folder / CONFIG} is not the config of an exported model: {error}; copy the folder "
            "again, or export the run again"
        ) from error
    return Exported(model, network.variables, classes, config)


def _values(described: dict[str, Any]) -> dict[str, Any]:
    """The values of a run's config.json."""
    values, prepared = configs.plain(config_files.base()), described["preprocessing"]
    values["model"] = {k: v for k, v in described["model"].items() if k != "num_classes"}
    values["dtype"] = described["dtype"]
    names = ("image_size", "channels", "local_contrast", "value_range", "mean", "std")
    values["data"] |= {"name": "folder", **{name: prepared[name] for name in names}}
    return values
