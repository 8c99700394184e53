"""Validates options before anything is built."""

import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import jax

from segjax.config import flatten
from segjax.data import sampling
from segjax.data.errors import in_a_line
from segjax.data.scored import label_size
from segjax.ranges import check_numbers
from segjax.training.class_weights import check_loss
from segjax.training.head import head_name
from segjax.training.remat import POLICIES
from segjax.training.tracking.writer import OPTION, WRITERS
from segjax.transforms import normalize

# What is measured of a softmax beside the counts of pixels: scores near borders, of objects by size
# and distance, and of the probabilities.
MEASURES = ("boundary", "objects", "calibration")
# Of a canvas: 16 times an image of 4K. The first map of 64 channels has 68 GB.
_MOST_PIXELS = 2**28


def check_options(config: Mapping[str, Any]) -> None:
    """Checks the options of a run that need neither data nor a model.

    Raises:
      ValueError: naming the first option that is out of range, or that contradicts another one.
    """
    check_sizes(config)
    data, train = config["data"], config["train"]
    sampling.check(data)
    check_loss(config["loss"], head_name(config["model"]))
    if not train["steps"] and not train["epochs"] and not config["init_from"]:
        raise ValueError(
            "train.steps=0 and train.epochs=0; set one of them, or init_from to evaluate weights "
            "as they are"
        )
    if train["steps"] and train["epochs"]:
        raise ValueError(
            f"train.steps={train['steps']} and train.epochs={train['epochs']} are both set; "
            "set one of them to 0"
        )
    if config["data"].get("masks") in ("ids", "bits", "per_class"):
        raise ValueError(
            f"data.masks={config['data']['masks']!r} is now data.mask_format="
            f"{config['data']['masks']}; data.masks is a pattern of mask files"
        )
    if "decay_biases_and_norms" in config["optim"]:
        raise ValueError(
            'optim.decay_biases_and_norms is now optim.decay_scale: "" in place of True, '
            '"bias=0,norm=0" (the default) in place of False'
        )
    if train["batch_size"] % train["accumulate"]:
        raise ValueError(
            f"train.accumulate={train['accumulate']} does not divide "
            f"train.batch_size={train['batch_size']}"
        )
    for name, value, known in (
        ("train.remat", train["remat"], POLICIES),
        ("train.on_nonfinite", train["on_nonfinite"], ("stop", "skip", "rollback")),
        ("data.on_unreadable", data["on_unreadable"], ("stop", "skip")),
        ("data.on_changed", data.get("on_changed", "stop"), ("stop", "accept")),
    ):
        if value not in known:
            raise ValueError(f"{name}={value!r}; use {', '.join(known)}")


def check_sizes(config: Mapping[str, Any]) -> None:
    """Checks numbers and sizes, also of the config of a finished run, which may be damaged.

    Raises:
      ValueError: naming the first option that is out of range.
    """
    check_numbers(flatten(config))
    data = config["data"]
    image_size = tuple(data["image_size"])
    for name, size in (
        ("data.image_size", image_size),
        ("augment.crop_size", tuple(config["augment"]["crop_size"])),
    ):
        unset = name != "data.image_size" and size == (0, 0)
        whole = all(isinstance(side, int) for side in size)
        if len(size) != 2 or not whole or (min(size) < 16 and not unset):
            raise ValueError(f"{name}={size}; use (height, width), whole numbers of 16 or more")
        if size[0] * size[1] > _MOST_PIXELS:
            raise ValueError(
                f"{name}={size}: {size[0] * size[1]:,} pixels; use {_MOST_PIXELS:,} at most"
            )
    for name, texts in (
        ("data.eval_splits", data["eval_splits"]),
        ("train.freeze", config["train"]["freeze"]),
    ):
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{name}={texts}; use names")
    label_size(data)  # raises
    measures_of(config["report"])  # raises
    writers_of(config["report"])  # raises
    normalize.check_window(data["local_contrast"], image_size)
    channels, lengths = data["channels"], (len(data["mean"]), len(data["std"]))
    if lengths not in ((0, 0), (channels, channels)) or min(data["std"], default=1) <= 0:
        raise ValueError(
            f"data.mean and data.std have {lengths[0]} and {lengths[1]} numbers; use {channels} "
            "each, data.std above 0, or none for those of init_from's network or of ImageNet"
        )


def measures_of(report: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in `report.measures`, of `MEASURES`; all, of a run of a version without the option.

    Raises:
      ValueError: for another name.
    """
    return _names_in("report.measures", report.get("measures", MEASURES), MEASURES)


def writers_of(report: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in `report.writers`, of `WRITERS`, each once; that of TensorBoard, of a run of a
    version without the option.

    Raises:
      ValueError: for another name.
    """
    names = _names_in(OPTION, report.get("writers", "tensorboard"), WRITERS)
    return tuple(dict.fromkeys(names))


def _names_in(option: str, given: Any, known: Collection[str]) -> tuple[str, ...]:
    """The names that an option holds; ValueError for one that is not among the known ones."""
    texts = given if isinstance(given, tuple | list) else (given,)
    # The command line makes one text of "boundary,calibration".
    names = tuple(name for text in texts for name in str(text).split(",") if name)
    for name in names:
        if name not in known:
            raise ValueError(f"{option}={name!r}; use {', '.join(known)}, several of them, or ()")
    return names


def check_run(config: Mapping[str, Any], workdir: str | pathlib.Path) -> None:
    """`check_sizes` of a finished run, perhaps with other options."""
    try:
        check_sizes(config)
    except ValueError as error:
        text = in_a_line(str(error), 800)  # the names of options are of the file
        raise ValueError(f"{workdir}/config.json with the options given: {text}") from error


def check_memory(config: Mapping[str, Any]) -> None:
    """Raises ValueError if a batch of images, as bytes, does not fit the memory of this machine."""
    data, train = config["data"], config["train"]
    height, width = data["image_size"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for option in ("batch_size", "eval_batch_size"):
        # A process holds its own rows.
        needed = train[option] * height * width * (data["channels"] + 1) / jax.process_count()
        if needed > memory:
            raise ValueError(
                f"train.{option}={train[option]}: a batch of images of {height}x{width} has "
                f"{needed / 1e9:,.0f} GB, and this machine {memory / 1e9:,.0f} GB of memory; use "
                "fewer images, or smaller ones"
            )
