"""Findings about a complete split, and about splits beside each other."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from segjax.data import statistics
from segjax.data.checks import too_few_images
from segjax.data.doctor.duplicates import Duplicate, duplicates
from segjax.data.doctor.findings import (
    ERROR,
    INFO,
    WARNING,
    Finding,
    normalization_options,
    weight_option,
)
from segjax.data.doctor.sample_rules import Split

_SHOWN, _PICTURED = 5, 8
# The meaning of data.mean=() and data.std=().
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_RARE = 0.01  # share of the labelled pixels


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options that data are judged by; None where they are not known.

    Attributes:
      train_split: the split that is trained on.
      batch_size: of training.
      image_size: (height, width) of the canvas.
      mean, std: of the normalisation of images.
    """

    train_split: str = "train"
    batch_size: int = 1
    image_size: tuple[int, int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


def settings_of(config: Mapping[str, Any]) -> Settings:
    """The settings of a complete config (see configs/base.py)."""
    data = config["data"]
    # Weights of init_from bring the numbers that they were trained with.
    default = (None, None) if config["init_from"] or data["channels"] != 3 else _IMAGENET
    return Settings(
        data["train_split"],
        config["train"]["batch_size"],
        tuple(data["image_size"]),
        tuple(data["mean"]) or default[0],
        tuple(data["std"]) or default[1],
    )


def too_few(splits: Mapping[str, Split], settings: Settings) -> Iterator[Finding]:
    """Empty splits, and a training split that is smaller than a batch."""
    for name, split in splits.items():
        needed = settings.batch_size if name == settings.train_split else 1
        if split.numbers.images < max(1, needed):
            error = too_few_images(name, split.numbers.images, needed)
            code = "too-few-images" if split.numbers.images else "empty-split"
            title = f"{name}: {'fewer images than a batch' if split.numbers.images else 'empty'}"
            yield Finding(code, ERROR, title, (error.found,), error.remedy, name)


def unseen_classes(splits: Mapping[str, Split], settings: Settings) -> Iterator[Finding]:
    """Classes without a pixel in a split."""
    for name, split in splits.items():
        numbers, names = split.numbers, split.classes.names
        missing = [n for n, p in zip(names, numbers.class_pixels, strict=True) if p == 0]
        if not missing or not numbers.usable:
            continue
        training = name == settings.train_split
        yield Finding(
            "unseen-class",
            WARNING if training else INFO,
            f"{name}: {len(missing)} of {len(names)} classes never occur",
            (", ".join(missing),),
            "add images that show them, check the ids of the masks, or merge or drop the classes "
            "with --config.data.class_map=FILE; the model cannot learn them"
            if training
            else "their IoU is left out of this split's mean, so means of other splits do not "
            "compare; add images that show them, or split anew",
            name,
        )


def repeated(splits: Mapping[str, Split], settings: Settings) -> Iterator[Finding]:
    """Images that occur again: across splits (leakage) and within one."""
    pairs = duplicates({name: split.facts for name, split in splits.items()})
    across = [pair for pair in pairs if pair.first[0] != pair.second[0]]
    if across:
        between = Counter((pair.first[0], pair.second[0]) for pair in across)
        counts = ", ".join(f"{n} of {a} in {b}" for (a, b), n in between.items())
        yield _repetition(
            "duplicates-across-splits",
            WARNING,
            f"images occur in several splits: {counts}",
            across,
            splits,
            "take them out of all splits but one (out of training, to keep results comparable): "
            "a model must not be tested on images that it was trained on",
        )
    for name in splits:
        within = [pair for pair in pairs if pair.first[0] == pair.second[0] == name]
        if within:
            others = sum(not pair.same_mask for pair in within)
            title = f"{name}: {len(within)} images are copies of others"
            yield _repetition(
                "duplicates",
                INFO,
                f"{title}, {others} of them with another mask" if others else title,
                within,
                splits,
                "leave one of each; copies count twice"
                + (", and with two masks they contradict each other" if others else ""),
                name,
            )


def _repetition(code, severity, title, pairs: Sequence[Duplicate], splits, remedy, name=""):
    def path(place):
        facts = splits[place[0]].facts[place[1]]
        return facts.image_file or f"{place[0]}: {facts.name}"

    lines = []
    for pair in pairs[:_SHOWN]:
        likeness = "the same pixels" if pair.exact else "nearly the same picture"
        likeness += "" if pair.same_mask else ", another mask"
        lines.append(f"{path(pair.first)} = {path(pair.second)} ({likeness})")
    if len(pairs) > _SHOWN:
        lines.append(f"and {len(pairs) - _SHOWN} more")
    places = [place for pair in pairs for place in (pair.first, pair.second)]
    files = tuple(dict.fromkeys(path(place) for place in places))
    shown = tuple(places[:_PICTURED])
    return Finding(code, severity, title, tuple(lines), remedy, name, files, shown)


def sizes(splits: Mapping[str, Split], settings: Settings) -> Iterator[Finding]:
    """Images that the fixed canvas shrinks, enlarges or pads much."""
    if settings.image_size is None:
        return
    for name, split in splits.items():
        counted = split.numbers.sizes
        if not counted:
            continue
        height, width = settings.image_size
        zoom = {size: min(height / size[0], width / size[1]) for size in counted}
        images = sum(counted.values())
        middle = float(np.median([zoom[size] for size, n in counted.items() for _ in range(n)]))
        used = sum(zoom[s] ** 2 * s[0] * s[1] * n for s, n in counted.items()) / images
        padding = 1 - used / (height * width)
        listed = ", ".join(
            f"{h}x{w} ({n})" for (h, w), n in sorted(counted.items(), key=lambda i: -i[1])[:_SHOWN]
        )
        size = max(counted, key=counted.get)
        canvas = f"data.image_size={height}x{width}"
        lines = [f"sizes (height x width): {listed}{', ...' * (len(counted) > _SHOWN)}"]
        if middle < 0.5:
            lines.append(
                f"{canvas} shrinks them to {middle:.2f} of their height and width (median): "
                f"anything thinner than {math.ceil(1 / middle)} pixels may vanish"
            )
        if middle > 2:
            lines.append(f"{canvas} enlarges them {middle:.1f} times (median), which adds nothing")
        if padding > 0.2:
            lines.append(f"{100 * padding:.0f}% of the canvas is padding: their shape is another")
        if len(lines) == 1:
            continue
        advice = tuple(size) if max(size) <= 2048 else tuple(round(n / 4) for n in size)
        yield Finding(
            "canvas-size",
            INFO,
            f"{name}: data.image_size and the images differ much",
            tuple(lines),
            f"if memory allows, '--config.data.image_size={advice}' or a canvas of that shape",
            name,
        )


def normalization(splits: Mapping[str, Split], settings: Settings) -> Iterator[Finding]:
    """A mean and standard deviation of the training images that are far from those used."""
    split = splits.get(settings.train_split)
    if split is None or settings.mean is None or settings.std is None:
        return
    mean, std = split.numbers.mean, split.numbers.std
    if not np.isfinite(mean).all() or len(mean) != len(settings.mean):
        return
    used_mean, used_std = np.array(settings.mean), np.array(settings.std)
    shift, ratio = np.abs(mean - used_mean) / used_std, std / used_std
    # In units of the normalised image: up to half of one, or a factor of 1.5, makes no difference.
    if shift.max() <= 0.5 and ratio.min() >= 1 / 1.5 and ratio.max() <= 1.5:
        return
    yield Finding(
        "normalization",
        INFO,
        f"{split.name}: images are not distributed as data.mean and data.std say",
        (
            f"mean {_numbers(mean)}, standard deviation {_numbers(std)}",
            f"used: mean {_numbers(used_mean)}, standard deviation {_numbers(used_std)}",
        ),
        f"{normalization_options(mean.tolist(), std.tolist())}, unless the weights of init_from "
        "need their own",
        split.name,
    )


def imbalance(splits: Mapping[str, Split], settings: Settings) -> Iterator[Finding]:
    """Classes that are rare in the training split, and loss weights against it."""
    split = splits.get(settings.train_split)
    if split is None or not split.numbers.class_pixels.any():
        return
    pixels, names = split.numbers.class_pixels, split.classes.names
    share = pixels / pixels.sum()
    rare = [k for k in np.argsort(share, kind="stable") if 0 < share[k] < _RARE]
    if not rare:
        return
    images = split.numbers.class_images
    lines = [f"{names[k]}: {100 * share[k]:.3g}% of the pixels, {images[k]} images" for k in rare]
    weights = weight_option(class_weights(split)["median_present"])
    yield Finding(
        "class-imbalance",
        INFO,
        f"{split.name}: {len(rare)} of {len(names)} classes have less than {_RARE:.0%} of the "
        "pixels each",
        tuple(lines[:_SHOWN]) + ((f"and {len(rare) - _SHOWN} more",) * (len(rare) > _SHOWN)),
        f"--config.loss.class_weights=median_present, which is {weights}; others in the report; "
        "or --config.data.sampling=repeat_factor",
        split.name,
    )


def class_weights(split: Split) -> dict[str, tuple[float, ...]]:
    """The loss weights of each kind; empty if no class occurs."""
    pixels, present = split.numbers.class_pixels, split.numbers.present_pixels
    if not pixels.any():
        return {}
    return {
        name: tuple(float(w) for w in weighting(pixels, present))
        for name, weighting in statistics.WEIGHTINGS.items()
    }


def _numbers(values) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


RULES = (too_few, unseen_classes, repeated, sizes, normalization, imbalance)
