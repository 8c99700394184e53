"""Findings about single files.

A rule takes a `Split` and the `Settings`, and yields findings.
"""

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from segjax.data.classes import IGNORE, ClassTable
from segjax.data.depth import shallow_split
from segjax.data.doctor import findings
from segjax.data.doctor.findings import ERROR, INFO, WARNING, Finding
from segjax.data.doctor.interpolation import looks_interpolated, total
from segjax.data.doctor.samples import NEAREST, SampleFacts
from segjax.data.doctor.settings import Settings
from segjax.data.doctor.split import Split
from segjax.data.errors import DataError
from segjax.data.files.images import some
from segjax.data.files.masks import NO_FOREGROUND, Foreground
from segjax.data.source import files_of

NEAR_CONSTANT = 2.0  # standard deviation of the grey image, of 255
_MOSTLY_VOID, _NEARLY_VOID = 0.3, 0.75  # share of ignored pixels that is worth a line, and harms
_MANY = 0.1  # share of the samples with a mark that may harm where it is one of many


_TITLES = {
    "unreadable": "samples have a file that cannot be read",
    "rgb-mask": "masks hold colours instead of class ids",
    "mask-0-255": "masks hold 0 and 255 instead of class ids",
    "unknown-ids": "masks hold ids that are no class",
    "size-mismatch": "masks are not of their image's size",
    "bad-sample": "samples cannot be used",
    "exif-orientation": "images have an EXIF orientation, and nothing tells whether the masks were "
    "drawn on turned images",
}


def problems(split: Split, settings: Settings) -> Iterator[Finding]:
    """Samples that training would refuse, by their problem."""
    for code, title in _TITLES.items():
        errors = {
            i: problem.error
            for i, facts in enumerate(split.facts)
            for problem in facts.problems
            if problem.code == code
        }
        if not errors:
            continue
        # One remedy per kind, the most frequent: most files have the same problem.
        remedies = Counter(error.remedy for error in errors.values())
        remedy = remedies.most_common(1)[0][0]
        remedy += f" ({len(remedies)} kinds; the others differ)" * (len(remedies) > 1)
        if code == "rgb-mask":
            remedy += _palette_hint(split.facts[next(iter(errors))].colours, split.classes)
        lines, files = {i: error.found for i, error in errors.items()}, []
        if code == "exif-orientation":
            files = [split.facts[i].image for i in lines]
        if code == "unreadable":  # the image or the mask, whichever the message names
            facts = [(split.facts[i], line) for i, line in lines.items()]
            files = [f.image if f.image_file in line else f.mask for f, line in facts]
        severity = ERROR
        if settings.skips and split.name == settings.train_split and split.numbers.usable:
            severity, title = WARNING, f"{title}; data.on_unreadable=skip leaves them out"
        yield split.finding_of_files(code, severity, title, lines, remedy, files)


def _palette_hint(colours: Sequence[tuple[int, int, int]], classes: ClassTable) -> str:
    """The classes that have the colours of a mask."""
    names = dict(zip(classes.palette, classes.names, strict=True))
    known = sum(colour in names for colour in colours)
    listed = (f"#{bytes(c).hex()}{f' is {names[c]}' if c in names else ''}" for c in colours)
    heading = f"Colours of the first, {known} of {len(colours)} in the class palette"
    return f". {heading}: {', '.join(listed)}"


def shallow(split: Split) -> tuple[DataError | None, list[int]]:
    """The error of `depth.shallow_split`, if there is one, and the places of 16-bit images."""
    files = files_of(split.source)
    deep = [i for i, f in enumerate(split.facts) if f.size and f.image_header.may_be_shallow]
    if files is None or not all(split.facts[i].is_dark for i in deep):
        return None, deep
    indices = [split.facts[i].index for i in deep]
    return shallow_split(split.name, files, indices, len(split.facts)), deep


def few_levels(split: Split, settings: Settings) -> Iterator[Finding]:
    """16-bit images that hold few of their levels, read without a range."""
    error, deep = shallow(split)
    if error:
        yield split.finding_of_files(
            "value-range",
            ERROR,
            "images have 16 bits, of which few are used",
            {i: split.facts[i].image if at else error.found for at, i in enumerate(deep)},
            error.remedy,
            [split.facts[i].image for i in deep],
        )


def lost_foreground(split: Split) -> DataError | None:
    """The error for masks of 0 and 255 whose foreground is all ignored, if they are: of two
    classes only the first occurs, or of labels as bits none, beside pixels of id 255."""
    names, counts = split.classes.names, split.usable_counts
    pixels = counts.class_pixels
    lost = not pixels.any() if split.classes.multilabel else len(names) == 2 and not pixels[1]
    if not lost or not counts.ignored_pixels or not any(IGNORE in f.raw_ids for f in split.facts):
        return None
    missing = (
        f"any class ({', '.join(names)})" if split.classes.multilabel else f"class 1 ({names[1]!r})"
    )
    return DataError(
        f"data split {split.name!r}: no pixel of {missing} in {counts.counted} masks, but "
        f"{counts.ignored_pixels} ignored ones: 255 means ignore, so a 0/255 mask loses its "
        "foreground",
        "use data.ignore_ids=() if 255 is the foreground (folder), or ids 0 and 1 "
        "(np.asarray(mask) // 255)",
    )


def mixed_foreground(split: Split) -> DataError | None:
    """The error for masks of 0 and 255 beside masks of 0 and 1 where 255 is ignored: the foreground
    of the former would be lost. If a mask has both 1 and 255, 255 is void, and none is lost."""
    facts = [f for f in split.facts if not f.problems]
    files = functools.reduce(Foreground.plus, (f.foreground for f in facts), NO_FOREGROUND)
    if not files.highs or not files.ones or files.voids:
        return None
    high = [f.mask for f in facts if f.foreground.highs]
    return DataError(
        f"data split {split.name!r}: {len(high)} of {len(facts)} masks hold only 0 and 255, "
        f"{files.ones} hold 1 for the foreground ({some(high, 3)}): 255 means ignore, so the "
        "foreground of the former would be lost",
        'use --config.data.ignore_ids="()" if 255 is the foreground there (both kinds are read '
        "then); if it is void, a class list (data.classes=FILE) with a line `255 void ignore`",
    )


def lost_foregrounds(split: Split, settings: Settings) -> Iterator[Finding]:
    """Masks of 0 and 255 where 255 is ignored: nothing is learned from their foreground."""
    facts, numbers = split.facts, split.numbers
    usable = [i for i, f in enumerate(facts) if f.raw_ids and not f.problems]
    binary = [i for i in usable if facts[i].raw_ids <= {0, 255}]
    both = [i for i in binary if facts[i].raw_ids == {0, 255}]
    lost = lost_foreground(split)
    if both and numbers.ignored_pixels and (lost or len(binary) >= numbers.usable):
        yield split.finding_of_files(
            "mask-0-255",
            ERROR if lost else WARNING,
            "masks hold 0 and 255 only, and 255 means ignore: "
            f"{numbers.ignored_pixels:,} pixels of id 255 are ignored",
            {i: f"{facts[i].mask}: ids 0 and 255" for i in both},
            lost.remedy if lost else "check what 255 stands for, and --config.data.ignore_ids",
        )


def interpolated(split: Split, settings: Settings) -> Iterator[Finding]:
    """Masks whose classes are joined by ramps of other ids."""
    changes = [facts.transitions for facts in split.facts]
    bad = [i for i, change in enumerate(changes) if looks_interpolated(change)]
    if not bad and looks_interpolated(total(changes)):  # each has too few boundaries by itself
        bad = [i for i, change in enumerate(changes) if change.ramps > 0]
    if not bad:
        return
    ramps = Counter(total(changes[i] for i in bad).ramp_ids)
    ids = ", ".join(f"id {i} ({n:,} pixels)" for i, n in ramps.most_common(findings.SHOWN))
    lines = {
        i: f"{split.facts[i].mask}: {changes[i].ramps:,} pixels of such lines, "
        f"{changes[i].clean:,} clean steps between ids that are 2 or more apart"
        for i in bad
    }
    yield split.finding_of_files(
        "interpolated-mask",
        WARNING,
        f"masks look as if they were resized with interpolation: thin lines of {ids} run between "
        "classes with a lower and a higher id",
        lines,
        f"{NEAREST}; if a class is a border drawn on purpose, all is well",
    )


def void_share(split: Split, settings: Settings) -> Iterator[Finding]:
    """Much of the split is ignored."""
    share = split.numbers.void_share
    if share > _MOSTLY_VOID:
        yield split.finding(
            "void-share",
            WARNING if share > _NEARLY_VOID else INFO,
            f"{100 * share:.1f}% of the pixels are ignored",
            [f"{split.numbers.ignored_pixels:,} pixels"],
            "check --config.data.ignore_ids and the masks if you expected more labels",
        )


def _is_void(facts: SampleFacts) -> bool:
    counts = facts.counts
    return counts is not None and 0 < counts.ignored == counts.pixels and not facts.problems


def _listed(ids: Iterable[int], shown: int = 12) -> str:
    words = [str(i) for i in sorted(ids)]
    return ", ".join(words[:shown] + ["..."] * (len(words) > shown))


# Code, severity, title, a condition on a sample's facts, the file, what follows it, the remedy.
_MARKS = (
    (
        "jpeg-mask",
        WARNING,
        "masks are JPEG files, which do not keep ids",
        lambda f: f.mask_header.format == "JPEG",
        lambda f: f.mask,
        lambda f: f"ids {_listed(f.raw_ids)}",
        "make PNG masks from the original annotation (saving these as PNG does not mend them); if "
        "they are black and white, --config.data.mask_threshold=128 reads them as they are",
    ),
    (
        "exif-turned",
        INFO,
        "images have an EXIF orientation, which is applied where masks were drawn on turned images",
        lambda f: f.image_header.orientation != 1 and f.counts is not None and not f.problems,
        lambda f: f.image,
        lambda f: (
            f"EXIF orientation {f.image_header.orientation}, {'' if f.turned else 'not '}turned"
        ),
        "look at the pictures of the report; --config.data.exif=apply or ignore where they do not "
        "match",
    ),
    (
        "cut-jpeg",
        WARNING,
        "JPEG files were cut, and the rest of each image is grey or coarse",
        lambda f: f.cut,
        lambda f: f.image,
        lambda f: f.cut,
        "use an intact copy of them, or leave them out (move image and mask away)",
    ),
    (
        "frames",
        INFO,
        "images have several frames or pages, of which the first is read",
        lambda f: f.image_header.frames > 1,
        lambda f: f.image,
        lambda f: f"{f.image_header.frames} frames or pages",
        "save the others as files of their own if they have masks",
    ),
    (
        "constant-image",
        INFO,
        "images are of nearly one colour",
        # 16-bit files of few bits look so, and are another finding.
        lambda f: (
            f.size
            and f.contrast < NEAR_CONSTANT
            and not (f.is_dark and f.image_header.may_be_shallow)
        ),
        lambda f: f.image,
        lambda f: f"standard deviation {f.contrast:.2f} of 255",
        "look at them, and leave them out (move image and mask away) if they are failures",
    ),
    (
        "all-void",
        INFO,
        "masks are all ignored, so nothing is learned from their images",
        _is_void,
        lambda f: f.mask,
        lambda f: f"{f.counts.ignored:,} pixels, all ignored",
        "check these masks and --config.data.ignore_ids; leave them out if they are right",
    ),
)


def marks(split: Split, settings: Settings) -> Iterator[Finding]:
    """JPEG masks, EXIF orientations, images of one colour, masks that are all ignored."""
    for code, severity, title, holds, file, line, remedy in _MARKS:
        marked = {i: facts for i, facts in enumerate(split.facts) if holds(facts)}
        if marked:
            lines = {i: f"{file(facts)}: {line(facts)}" for i, facts in marked.items()}
            files = [file(facts) for facts in marked.values()]
            if severity == INFO and len(marked) > max(2, _MANY * len(split.facts)):
                severity = WARNING
            if code == "jpeg-mask" and settings.mends_masks:
                severity, title = INFO, "masks are JPEG files, which the options for masks mend"
                remedy = "look at the outlines in the pictures of the report"
            yield split.finding_of_files(code, severity, title, lines, remedy, files)


def left_out(split: Split, settings: Settings) -> Iterator[Finding]:
    """Shapes that are not drawn, which are background in the masks."""
    lines = {
        index: f"{facts.mask}, {facts.name}: "
        + ", ".join(f"{count} {reason}" for reason, count in sorted(facts.left_out.items()))
        for index, facts in enumerate(split.facts)
        if facts.left_out
    }
    if lines:
        yield split.finding_of_files(
            "left-out-shapes",
            INFO,
            "annotations have shapes that are not drawn",
            lines,
            "draw areas (polygons, boxes, circles, masks) where they should be in the masks",
        )


RULES = (problems, few_levels, lost_foregrounds, interpolated, marks, void_share, left_out)
