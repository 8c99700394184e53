"""The data sets by name: from `config.data` to a source of samples.

A source has a length, `[i] -> {"image": uint8 [h, w, 3], "label": uint8 [h, w], "name": str}`, and
`classes`. One of files has `image(i)` and `ids(i)` too; see `pairs.PairedFiles`.
"""

from collections.abc import Mapping
from typing import Any

from segjax.data.classes import IDD_LEVEL1, ClassTable
from segjax.data.sets import camvid, folder
from segjax.data.spec import DatasetSpec
from segjax.data.streets import Streets

STREETS = DatasetSpec(
    title="streets: procedural street scenes, drawn from (seed, index)",
    licence="none is needed: there are no files",
    url="",
    layout="no files",
    splits=("train", "val", "test"),
    classes=lambda data: IDD_LEVEL1,
    open=lambda data, split: Streets(
        split,
        tuple(data["image_size"]),
        length=data["train_images" if split == data["train_split"] else "eval_images"],
        seed=data["seed"],
    ),
    reads_files=False,
)

DATASETS: Mapping[str, DatasetSpec] = {
    "streets": STREETS,
    "camvid": camvid.SPEC,
    "folder": folder.SPEC,
}


def spec_of(config: Mapping[str, Any]) -> DatasetSpec:
    """What is known of the data set that `config.data` names.

    Raises:
      ValueError: for an unknown name or variant, listing the known ones.
    """
    name, variant = config["name"], config["variant"]
    if name not in DATASETS:
        raise ValueError(f"data.name={name!r} is unknown; known data sets: {', '.join(DATASETS)}")
    spec = DATASETS[name]
    if variant and variant not in spec.variants:
        known = ", ".join(spec.variants) or "none: leave it empty"
        raise ValueError(f"data.variant={variant!r} is unknown; {name} has {known}")
    return spec


def make_source(config: Mapping[str, Any], split: str, seed: int = 0) -> Any:
    """Opens a split of the data set that `config.data` names; decodes nothing yet.

    Args:
      config: `config.data`.
      split: "train", "val", "test", or what the data set has.
      seed: of the procedural scenes, and of splits that are drawn.

    Raises:
      ValueError: naming the option or folder, what was found and what to do.
    """
    spec = spec_of(config)
    class_table(config)
    if spec.reads_files and not config["root"]:
        raise ValueError(
            f"data.root is empty; {config['name']} reads files: --config.data.root=FOLDER with "
            f"{spec.layout}"
        )
    return spec.open(_resolved(config, spec, seed), split)


def class_table(config: Mapping[str, Any]) -> ClassTable:
    """The classes of the data set that `config.data` names.

    Raises:
      ValueError: for an unknown data set, a missing class list, or one whose length is not
        `data.num_classes`.
    """
    spec, wanted = spec_of(config), config["num_classes"]
    table = spec.classes(_resolved(config, spec))
    if wanted and wanted != len(table):
        raise ValueError(
            f"data.num_classes={wanted} but {config['name']} has {len(table)} classes "
            f"({', '.join(table.names)}); leave it 0 to take them as they are"
        )
    return table


def _resolved(config: Mapping[str, Any], spec: DatasetSpec, seed: int = 0) -> dict[str, Any]:
    """`config.data` with a variant where there are some, and the seed."""
    variant = config["variant"] or next(iter(spec.variants), "")
    return {**config, "variant": variant, "seed": seed}
