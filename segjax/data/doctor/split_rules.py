"""Findings about a complete split, and about splits beside each other.

A rule takes a `Split` and the `Settings`, and yields findings.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from segjax.data.doctor import findings
from segjax.data.doctor.duplicates import Duplicate, duplicates
from segjax.data.doctor.findings import ERROR, INFO, WARNING, Finding, first_lines
from segjax.data.doctor.sample_rules import NEAR_CONSTANT, lost_foreground
from segjax.data.doctor.settings import Settings
from segjax.data.doctor.split import Split
from segjax.data.errors import DataError
from segjax.data.weightings import WEIGHTINGS

_RARE = 0.01  # share of the labelled pixels
_SHRINKS_MUCH = 0.25  # factor on the sides of images
_FEW_PIXELS = 16  # of a class in an image: less than a network of output stride 4 tells apart
_FAR_SHIFT, _FAR_RATIO = 2.0, 3.0  # of a mean, in standard deviations, and of these


def too_few_images(split: str, images: int, needed: int) -> DataError:
    """The error for a split with fewer images than `needed`."""
    if images == 0:
        return DataError(f"data split {split!r} has no images", "use a split that has some")
    return DataError(
        f"data split {split!r} has {images} images but train.batch_size={needed}",
        f"use train.batch_size<={images} or more images",
    )


def too_few(split: Split, settings: Settings) -> Iterator[Finding]:
    """An empty split, or a training split that is smaller than a batch."""
    images = split.numbers.images
    needed = settings.batch_size if split.name == settings.train_split else 1
    if images < max(1, needed):
        error = too_few_images(split.name, images, needed)
        code = "too-few-images" if images else "empty-split"
        title = "fewer images than a batch" if images else "empty"
        yield split.finding(code, ERROR, title, [error.found], error.remedy)


def unseen_classes(split: Split, settings: Settings) -> Iterator[Finding]:
    """Classes without a pixel in a split."""
    names, pixels = split.classes.names, split.numbers.class_pixels
    missing = [n for n, p in zip(names, pixels, strict=True) if p == 0]
    if not missing or not split.numbers.usable or not split.decisive:
        return
    training = split.name == settings.train_split
    yield split.finding(
        "unseen-class",
        WARNING if training else INFO,
        f"{len(missing)} of {len(names)} classes never occur{split.looked_at}: "
        f"{', '.join(missing[: findings.SHOWN])}{', ...' * (len(missing) > findings.SHOWN)}",
        [", ".join(missing)],
        "if they are in the masks, the class list (data.classes) and the ids do not agree: look at "
        "the names above and at the pictures of --mode=doctor; else add images that show them, or "
        "drop them with --config.data.class_map=FILE; the model cannot learn them"
        if training
        else "their IoU is left out of this split's mean, so means of other splits do not "
        "compare; add images that show them, or split anew",
    )


def labels(split: Split, settings: Settings) -> Iterator[Finding]:
    """No label at all, or labels of one class only: nothing to learn, and nothing to measure."""
    counts, names = split.usable_counts, split.classes.names
    shown = np.flatnonzero(counts.class_pixels)
    if not split.decisive or not counts.pixels or len(shown) > 1:
        return
    if lost_foreground(split):
        return  # which says more
    training = split.name == settings.train_split
    val_split = settings.config["data"]["val_split"] if settings.config else "val"
    may_go = split.name not in (settings.train_split, val_split)
    used_otherwise = f", or leave it out: --config.data.eval_splits={val_split}" * may_go
    look = "check the ids in the masks, the class list, data.ignore_ids and data.class_map"
    if not len(shown):
        yield split.finding(
            "no-labels",
            ERROR if training or not counts.labelled_pixels else WARNING,
            f"no pixel has a class{split.looked_at}",
            [f"{counts.ignored_pixels:,} of {counts.pixels:,} pixels are ignored"],
            look + used_otherwise,
        )
    elif len(names) > 1 and not split.classes.multilabel:
        only = names[shown[0]]
        yield split.finding(
            "one-class-labels",
            ERROR if training else WARNING,
            f"all labelled pixels are of one class, {only}{split.looked_at}",
            [f"{only}: {counts.labelled_pixels:,} pixels, {counts.ignored_pixels:,} are ignored"],
            f"{look}; with one class there is nothing to {'learn' if training else 'measure'}"
            + used_otherwise,
        )


def one_picture(split: Split, settings: Settings) -> Iterator[Finding]:
    """Images that all are of one colour, or all the same."""
    seen = [f for f in split.facts if f.size]
    if not split.decisive or not seen or any(f.image_header.bits == 16 for f in seen):
        return
    training = split.name == settings.train_split
    if all(f.contrast < NEAR_CONSTANT for f in seen):
        yield split.finding(
            "constant-images",
            ERROR if training else WARNING,
            f"all images are of nearly one colour{split.looked_at}",
            first_lines([f"{f.image}: values from {f.values[0]} to {f.values[1]}" for f in seen]),
            "look at them: most often the export wrote masks or empty pictures in place of images",
        )
        return
    hashed = [f for f in seen if f.image_hash]
    if len(hashed) > 1 and len({f.image_hash for f in hashed}) == 1:
        masks = len({f.mask_hash for f in hashed})
        yield split.finding(
            "one-image",
            ERROR if training and masks > 1 else WARNING,
            "all images are the same picture"
            + (f", with {masks} different masks" if masks > 1 else "")
            + (split.looked_at and f" in {len(hashed)} of {split.numbers.images} samples"),
            first_lines([f"{f.image} with {f.mask}" for f in hashed]),
            "look at the files: most often a script saved one image again and again",
        )


def median_zoom(split: Split, settings: Settings) -> float:
    """The factor on the sides of the median image when it is fitted to the canvas."""
    counted = Counter(split.numbers.sizes)
    zoom = [zoom_of(size, settings) for size in counted.elements()]
    return float(np.median(zoom)) if zoom else 1.0


def zoom_of(size: tuple[int, int], settings: Settings) -> float:
    height, width = settings.image_size or size
    return min(height / size[0], width / size[1])


def advised_canvas(size: tuple[int, int]) -> tuple[int, int]:
    """A canvas for images of a size: their own, a quarter of the sides of large ones."""
    height, width = size if max(size) <= 2048 else (round(side / 4) for side in size)
    return int(height), int(width)


def sizes(split: Split, settings: Settings) -> Iterator[Finding]:
    """Images that the fixed canvas shrinks, enlarges or pads much."""
    counted = Counter(split.numbers.sizes)
    if settings.image_size is None or not counted:
        return
    height, width = settings.image_size
    middle = median_zoom(split, settings)
    used = sum(zoom_of(s, settings) ** 2 * s[0] * s[1] * n for s, n in counted.items())
    padding = 1 - used / counted.total() / (height * width)
    canvas, lines = f"data.image_size={height}x{width}", []
    lost = _vanishing(split, settings) if split.name == settings.train_split else []
    if middle < 0.5:
        lines.append(
            f"{canvas} shrinks them to {middle:.2f} of their height and width (median): "
            f"anything thinner than {math.ceil(1 / middle)} pixels may vanish"
        )
    if middle > 2:
        lines.append(f"{canvas} enlarges them {middle:.1f} times (median), which adds nothing")
    if padding > 0.2:
        lines.append(f"{100 * padding:.0f}% of the canvas is padding: their shape is another")
    if not lines and not lost:
        return
    most = counted.most_common(findings.SHOWN)
    listed = ", ".join(f"{h}x{w} ({n})" for (h, w), n in most)
    listed += ", ..." * (len(counted) > len(most))
    harms = lost or (split.name == settings.train_split and middle < _SHRINKS_MUCH)
    yield split.finding(
        "canvas-size",
        WARNING if harms else INFO,
        f"{canvas} shrinks {len(lost)} classes to a few pixels"
        if lost
        else "data.image_size and the images differ much",
        [f"sizes (height x width): {listed}", *lines, *lost],
        f"if memory allows, '--config.data.image_size={advised_canvas(most[0][0])}' or a canvas of "
        "that shape" + ", or cut the images into parts" * bool(lost),
    )


def _vanishing(split: Split, settings: Settings) -> list[str]:
    """A line for each class of which a few pixels are left on the canvas."""
    usable = [f for f in split.facts if f.counts is not None and f.size and not f.problems]
    if not usable:
        return []
    zoom = np.array([zoom_of(f.size, settings) for f in usable])[:, None]
    pixels = np.stack([f.counts.class_pixels for f in usable])
    lines = []
    for name, own, left in zip(split.classes.names, pixels.T, (pixels * zoom**2).T, strict=True):
        shown = own > 0
        if not shown.any():
            continue
        own, left = np.median(own[shown]), np.median(left[shown])
        if left < _FEW_PIXELS and own >= 4 * _FEW_PIXELS:
            lines.append(f"{name}: {own:,.0f} pixels an image, {left:.0f} on the canvas (median)")
    return list(first_lines(lines))


def normalization(split: Split, settings: Settings) -> Iterator[Finding]:
    """A mean and standard deviation of the training images that are far from those used."""
    mean, std = split.numbers.mean, split.numbers.std
    if split.name != settings.train_split or settings.mean is None or settings.std is None:
        return
    if not np.isfinite(mean).all() or len(mean) != len(settings.mean):
        return
    used_mean, used_std = np.array(settings.mean), np.array(settings.std)
    shift, ratio = np.abs(mean - used_mean) / used_std, std / used_std
    # In units of the normalised image: up to half of one, or a factor of 1.5, makes no difference.
    if shift.max() <= 0.5 and ratio.min() >= 1 / 1.5 and ratio.max() <= 1.5:
        return
    far = shift.max() > _FAR_SHIFT or ratio.min() < 1 / _FAR_RATIO or ratio.max() > _FAR_RATIO
    yield split.finding(
        "normalization",
        WARNING if far else INFO,
        "images are not distributed as data.mean and data.std say",
        (
            f"mean {_numbers(mean)}, standard deviation {_numbers(std)}",
            f"used: mean {_numbers(used_mean)}, standard deviation {_numbers(used_std)}",
        ),
        f"{findings.normalization_options(mean, std)}, unless the weights of init_from need "
        "their own",
    )


def _numbers(values) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def imbalance(split: Split, settings: Settings) -> Iterator[Finding]:
    """Classes that are rare in the training split, and loss weights against it."""
    pixels, names = split.numbers.class_pixels, split.classes.names
    if split.name != settings.train_split or not pixels.any():
        return
    share, images = pixels / split.numbers.labelled_pixels, split.numbers.class_images
    rare = [k for k in np.argsort(share, kind="stable") if 0 < share[k] < _RARE]
    if not rare:
        return
    lines = [f"{names[k]}: {100 * share[k]:.3g}% of the pixels, {images[k]} images" for k in rare]
    if split.classes.multilabel:
        remedy = "--config.loss.class_weights with a factor per class on the pixels that have it"
    else:
        weights = findings.weight_option(class_weights(split)["median_present"])
        remedy = (
            f"--config.loss.class_weights=median_present, which is {weights}; others in the report"
        )
    yield split.finding(
        "class-imbalance",
        INFO,
        f"{len(rare)} of {len(names)} classes have less than {_RARE:.0%} of the pixels each",
        first_lines(lines),
        f"{remedy}; or --config.data.sampling=repeat_factor",
    )


def class_weights(split: Split) -> dict[str, tuple[float, ...]]:
    """The loss weights of each kind; empty if no class occurs, and for labels as bits, whose
    pixels are not divided among the classes."""
    pixels, present = split.numbers.class_pixels, split.numbers.present_pixels
    kinds = WEIGHTINGS if pixels.any() and not split.classes.multilabel else {}
    return {name: tuple(kind(pixels, present).tolist()) for name, kind in kinds.items()}


RULES = (too_few, labels, one_picture, unseen_classes, sizes, normalization, imbalance)


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
            "take them out of all splits but one (out of training, to keep results comparable): "
            "a model must not be tested on images that it was trained on",
            across,
            splits,
        )
    for name in splits:
        within = [pair for pair in pairs if pair.first[0] == pair.second[0] == name]
        if within:
            title = f"{name}: {len(within)} images are copies of others"
            remedy = "leave one of each; copies count twice"
            others = sum(not pair.same_mask for pair in within)
            if others:
                title += f", {others} of them with another mask"
                remedy += ", and with two masks they contradict each other"
            yield _repetition("duplicates", INFO, title, remedy, within, splits, name)


def _repetition(
    code: str,
    severity: str,
    title: str,
    remedy: str,
    pairs: Sequence[Duplicate],
    splits: Mapping[str, Split],
    name: str = "",
) -> Finding:
    def path(place):
        facts = splits[place[0]].facts[place[1]]
        return facts.image_file or f"{place[0]}: {facts.name}"

    lines, places = [], []
    for pair in pairs:
        likeness = "the same pixels" if pair.exact else "nearly the same picture"
        likeness += "" if pair.same_mask else ", another mask"
        lines.append(f"{path(pair.first)} = {path(pair.second)} ({likeness})")
        places += [pair.first, pair.second]
    files = tuple(dict.fromkeys(map(path, places)))
    shown = tuple((s, splits[s].facts[i].index) for s, i in places[: findings.PICTURED])
    return Finding(code, severity, title, first_lines(lines), remedy, name, files, shown)
