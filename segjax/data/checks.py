"""Checks that stop training on bad data before anything is compiled.

JAX does not complain about a class id out of range: one-hot gives zeros and indexing clamps, so a
bad mask would train into a bad model without a word.
"""

from collections.abc import Callable, Collection, Mapping

import numpy as np

from segjax.data.classes import ClassTable
from segjax.data.counts import LabelCounts, SplitCounts, label_counts, split_counts
from segjax.data.depth import is_dark, shallow_split
from segjax.data.errors import DataError, as_data_error, joined
from segjax.data.files.ids import class_ids, count_ids
from segjax.data.parallel import in_threads
from segjax.data.source import Source, checked_arrays, files_of

# Samples that are decoded before training: enough files to find what is wrong with many; scenes
# that a program draws are all alike.
_QUICK_FILES, _QUICK_DRAWN = 1000, 4


def check_source(
    source: Source,
    split: str,
    *,
    min_images: int = 1,
    limit: int | None = None,
    skip_unreadable: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SplitCounts:
    """Decodes samples in threads, and counts their pixels or reports what is wrong.

    Args:
      source: the split.
      split: its name in messages.
      min_images: the fewest samples that a split needs: the training batch size.
      limit: check this many samples, evenly spaced, instead of all.
      skip_unreadable: leaves out samples that the source cannot read, as long as it can read one.
      progress: called after each sample with (samples done, samples to do).

    Raises:
      DataError: if the split has fewer than `min_images` samples; one error for all bad samples
        (unreadable, sizes that differ, colour masks, bad ids), the first 10 of them named; if
        16-bit images hold few levels, see `depth.shallow_split`; or if masks of 0 and 255 lose
        their foreground, see `lost_foreground`.
    """
    images, classes = len(source), source.classes
    if images < max(1, min_images):
        raise too_few_images(split, images, min_images)
    if limit is not None and limit < 1:
        raise DataError(f"limit={limit} samples to check", "use 1 or more, or None for all")
    places = np.linspace(0, images - 1, min(limit or images, images))
    indices = np.unique(places.round().astype(int)).tolist()
    id_map, unreadable = class_ids(len(classes.values)), []
    files, dark = files_of(source), {}

    def check(index: int) -> LabelCounts | DataError | None:
        try:
            sample = source[index]
        except (ValueError, OSError) as error:
            unreadable.append(as_data_error(error))
            return None if skip_unreadable else unreadable[-1]
        try:
            image, label, name = checked_arrays(sample, index)
            id_map.labels_of(label, name)
        except DataError as error:
            return error
        if files is not None:
            dark[index] = is_dark(image)
        return label_counts(label.shape, count_ids(label), id_map.labels, classes)

    counts, problems = [], []
    for done, result in enumerate(in_threads(check, indices), 1):
        if result is not None:
            (problems if isinstance(result, DataError) else counts).append(result)
        if progress is not None:
            progress(done, len(indices))
    if len(unreadable) == len(indices):
        problems = unreadable
    if problems:
        heading = f"data split {split!r}: {len(problems)} of {len(indices)} samples are bad:"
        raise joined(problems, heading)
    shallow = shallow_split(split, files, dark) if files is not None else None
    if shallow:
        raise shallow
    total = split_counts(counts, images, len(classes))
    lost = lost_foreground(split, classes, total)
    if lost:
        raise lost
    return total


def quick_check(
    sources: Mapping[str, Source],
    *,
    min_images: Mapping[str, int] | None = None,
    skip_unreadable: Collection[str] = (),
) -> dict[str, SplitCounts]:
    """`check_source` on up to 1000 files of each split, or 4 samples of one without files.

    Args:
      sources: by split.
      min_images: the fewest samples that a split needs; 1 for a split that is not in it.
      skip_unreadable: the splits whose unreadable samples are left out.

    Raises:
      DataError: as `check_source`, one error for all splits.
    """
    counts, problems = {}, []
    for split, source in sources.items():
        try:
            counts[split] = check_source(
                source,
                split,
                min_images=(min_images or {}).get(split, 1),
                limit=_QUICK_FILES if files_of(source) else _QUICK_DRAWN,
                skip_unreadable=split in skip_unreadable,
            )
        except DataError as error:
            problems.append(error)
    if problems:
        raise joined(problems)
    return counts


def too_few_images(split: str, images: int, needed: int) -> DataError:
    """The error for a split with fewer images than `needed`."""
    if images == 0:
        return DataError(f"data split {split!r} has no images", "use a split that has some")
    return DataError(
        f"data split {split!r} has {images} images but train.batch_size={needed}",
        f"use train.batch_size<={images} or more images",
    )


def lost_foreground(split: str, classes: ClassTable, counts: SplitCounts) -> DataError | None:
    """The error for masks of 0 and 255 whose foreground is all ignored, if they are: of two
    classes only the first occurs, or of labels as bits none, beside ignored pixels."""
    names, pixels = classes.names, counts.class_pixels
    lost = not pixels.any() if classes.multilabel else len(names) == 2 and not pixels[1]
    if not lost or not counts.ignored_pixels:
        return None
    missing = f"any class ({', '.join(names)})" if classes.multilabel else f"class 1 ({names[1]!r})"
    return DataError(
        f"data split {split!r}: no pixel of {missing} in {counts.counted} masks, but "
        f"{counts.ignored_pixels} ignored ones: 255 means ignore, so a 0/255 mask loses its "
        "foreground",
        "use data.ignore_ids=() if 255 is the foreground (folder), or ids 0 and 1 "
        "(np.asarray(mask) // 255)",
    )
