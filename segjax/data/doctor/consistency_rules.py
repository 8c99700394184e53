"""Findings about files of a split, or splits of a data set, that are not made alike."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

from segjax.data.classes import IGNORE
from segjax.data.doctor.findings import ERROR, INFO, SHOWN, WARNING, Finding
from segjax.data.doctor.sample_rules import mixed_foreground
from segjax.data.doctor.settings import Settings
from segjax.data.doctor.split import Split

_SIDES_APART, _SIDES_FAR_APART = 4.0, 8.0  # times that sides of images differ by
_ASPECT_APART = 1.5  # times that shapes differ by from the usual one
_SHIFT = 1.0  # of the means of two splits, in standard deviations


def image_kinds(split: Split, settings: Settings) -> Iterator[Finding]:
    """Images of several depths or colour spaces."""
    kinds = _by_kind(split, lambda facts: facts.image_header)
    if len(kinds) < 2:
        return
    headers = {split.facts[places[0]].image_header for places in kinds.values()}
    deep = {header.bits for header in headers}
    cmyk = any(header.mode in ("CMYK", "LAB", "YCbCr") for header in headers)
    usual = max(kinds.values(), key=len)
    others = {
        i: str(split.facts[i].image_header) for ps in kinds.values() if ps != usual for i in ps
    }
    yield split.finding_of_files(
        "image-kinds",
        WARNING if len(deep) > 1 or cmyk else INFO,
        f"images are of another kind than most: {_counted(kinds)}",
        {i: f"{split.facts[i].image}: {kind}" for i, kind in others.items()},
        "save all images with one depth and colour space, so that equal things look equal"
        if len(deep) > 1 or cmyk
        else "look at them: grey is repeated and alpha dropped, which is right if they show what "
        "the others show",
        [split.facts[i].image for i in others],
    )


def mask_kinds(split: Split, settings: Settings) -> Iterator[Finding]:
    """Some masks hold colours, others ids."""
    usable = {i: f.mask_header for i, f in enumerate(split.facts) if not f.problems}
    known = {i: header for i, header in usable.items() if header.mode}
    colored = {i: header for i, header in known.items() if header.is_colored}
    if not 0 < len(colored) < len(known):
        return
    yield split.finding_of_files(
        "mask-kinds",
        WARNING,
        f"masks hold colours and {len(known) - len(colored)} hold ids",
        {i: f"{split.facts[i].mask}: {header}" for i, header in colored.items()},
        "look at the pictures of --mode=doctor: if the classes of the two kinds do not agree, make "
        "all masks the same way",
    )


def mixed_encodings(split: Split, settings: Settings) -> Iterator[Finding]:
    """Some masks hold 0 and 255, the others 0 and ids, and none both: 255 is a class in those."""
    mixed = mixed_foreground(split)
    if mixed:
        high = {i: f for i, f in enumerate(split.facts) if f.foreground.highs and not f.problems}
        yield split.finding_of_files(
            "mixed-encodings",
            ERROR,
            "masks hold only 0 and 255, others 1 for the foreground",
            {i: f"{f.mask}: 0 and 255, {f.counts.ignored:,} ignored" for i, f in high.items()},
            mixed.remedy,
        )
        return
    usable = {i: f.raw_ids for i, f in enumerate(split.facts) if f.raw_ids and not f.problems}
    high = [i for i, ids in usable.items() if ids - {0} == {IGNORE}]
    low = [i for i, ids in usable.items() if ids - {0} and IGNORE not in ids]
    both = any(IGNORE in ids and ids - {0, IGNORE} for ids in usable.values())
    counts = {i: split.facts[i].counts for i in high}
    # Where 255 is read as a class, or drawn around each image alone, nothing is lost.
    lost = [i for i, c in counts.items() if c is not None and 0 < c.ignored < c.pixels]
    if not lost or not low or both:
        return
    ignored = sum(split.facts[i].counts.ignored for i in lost)
    ids = sorted({id_ for i in low for id_ in usable[i]} - {0})
    listed = ", ".join(map(str, ids[:SHOWN]))
    yield split.finding_of_files(
        "mixed-encodings",
        WARNING,
        f"masks hold only 0 and 255, {len(low)} others ids ({listed}) and no 255: their "
        f"{ignored:,} pixels of 255 are ignored, which are a class if these masks are of another "
        "program",
        {i: f"{split.facts[i].mask}: ids 0 and 255" for i in lost},
        "use data.ignore_ids=() if 255 is the foreground there (two classes), or write them as the "
        "others: np.asarray(mask) // 255",
    )


def palettes(split: Split, settings: Settings) -> Iterator[Finding]:
    """The same colours at other indices in other files: each file was saved with its own order."""
    ids_of, files = defaultdict(set), defaultdict(list)
    for place, facts in enumerate(split.facts):
        for id_ in facts.raw_ids if facts.palette and not facts.problems else ():
            if len(color := _color_at(facts.palette, id_)) == 3:
                ids_of[color].add(id_)
                files[color, id_].append(place)

    def contradicts(color: bytes, ids: set[int]) -> bool:
        """Whether a file uses the colour at an id, and has another one where others use it."""
        own = {split.facts[i].palette for id_ in ids for i in files[color, id_]}
        return any(_color_at(palette, id_) != color for palette in own for id_ in ids)

    moved = [c for c, ids in sorted(ids_of.items()) if len(ids) > 1 and contradicts(c, ids)]
    if not moved:
        return
    lines = {}
    for color in moved:
        usual = max(ids_of[color], key=lambda id_: (len(files[color, id_]), -id_))
        for id_ in ids_of[color] - {usual}:
            for place in files[color, id_]:
                text = f"#{color.hex()} is id {id_}, {usual} in most files"
                lines.setdefault(place, f"{split.facts[place].mask}: {text}")
    yield split.finding_of_files(
        "palette-order",
        WARNING,
        "masks have the palette's colours in another order, and indices are what is read",
        dict(sorted(lines.items())),
        "give all colours in the class list (data.classes: `NAME r g b`) if they are right: the "
        "masks are read by them then",
    )


def _color_at(palette: bytes, id_: int) -> bytes:
    return palette[3 * id_ : 3 * id_ + 3]


def image_sizes(split: Split, settings: Settings) -> Iterator[Finding]:
    """Images whose sizes or shapes differ much from those of the others."""
    sized = {i: f.size for i, f in enumerate(split.facts) if f.size}
    if len(set(sized.values())) < 2:
        return
    sides = np.sqrt([h * w for h, w in sized.values()])
    aspects = np.log([w / h for h, w in sized.values()])
    middle, shape = np.median(sides), np.median(aspects)
    times = np.maximum(sides / middle, middle / sides)
    spread = sides.max() / sides.min()
    tilted = np.abs(aspects - shape) > np.log(_ASPECT_APART)
    far = times > np.sqrt(_SIDES_APART)
    if not (spread > _SIDES_APART or tilted.any()):
        return
    odd = [i for i, is_odd in zip(sized, far | tilted, strict=True) if is_odd]
    what = f"sides differ up to {spread:.1f} times" if spread > _SIDES_APART else "shapes differ"
    yield split.finding_of_files(
        "image-sizes",
        WARNING if spread > _SIDES_FAR_APART else INFO,
        f"images are of quite another size or shape than most: {what}",
        {i: f"{split.facts[i].image}: {sized[i][0]}x{sized[i][1]}" for i in odd},
        "all are fitted to one canvas, where things of one size differ as much: cut large images "
        "into parts, leave small ones out, or zoom more in training (--config.augment.scale)",
        [split.facts[i].image for i in odd],
    )


def splits_differ(splits: Mapping[str, Split], settings: Settings) -> Iterator[Finding]:
    """Images of another split that are not like those trained on."""
    training = splits.get(settings.train_split)
    for split in splits.values() if training else ():
        if split is training or not split.decisive or not training.decisive:
            continue
        lines = [*_differences(training, split)]
        if lines:
            yield split.finding(
                "splits-differ",
                WARNING,
                f"images are not like those of {training.name}",
                lines,
                f"make both the same way, or take both from one set: a score on {split.name} says "
                "little about a model that was trained on other images",
            )


def _differences(training: Split, split: Split) -> Iterator[str]:
    ours, theirs = (_usual_kind(s) for s in (training, split))
    if ours and theirs and ours != theirs:
        yield f"most are {theirs}, in {training.name} {ours}"
    sides = [_median_side(s) for s in (training, split)]
    if all(sides) and max(sides) > 2 * min(sides):
        yield f"sides are {sides[1]:.0f} pixels, in {training.name} {sides[0]:.0f} (median)"
    a, b = training.numbers, split.numbers
    if len(a.mean) == len(b.mean) and np.isfinite([*a.mean, *b.mean]).all():
        shift = np.abs(a.mean - b.mean) / np.maximum(np.maximum(a.std, b.std), 1 / 255)
        if shift.max() > _SHIFT:
            means = [", ".join(f"{v:.3f}" for v in numbers.mean) for numbers in (b, a)]
            yield f"their mean is {means[0]}, in {training.name} {means[1]} (of values in [0, 1])"


def _usual_kind(split: Split) -> str:
    kinds = _by_kind(split, lambda facts: facts.image_header)
    return max(kinds, key=lambda kind: len(kinds[kind]), default="")


def _median_side(split: Split) -> float:
    sides = [(f.size[0] * f.size[1]) ** 0.5 for f in split.facts if f.size]
    return float(np.median(sides)) if sides else 0.0


def _by_kind(split: Split, header_of) -> dict[str, list[int]]:
    """Places of the samples whose file has each kind of header; files that Pillow cannot open and
    samples without files have none."""
    kinds: dict[str, list[int]] = defaultdict(list)
    for place, facts in enumerate(split.facts):
        if header_of(facts).mode:
            kinds[str(header_of(facts))].append(place)
    return dict(kinds)


def _counted(kinds: Mapping[str, list[int]]) -> str:
    ordered = Counter({kind: len(places) for kind, places in kinds.items()}).most_common(SHOWN)
    return ", ".join(f"{count} {kind}" for kind, count in ordered)


RULES = (image_kinds, mask_kinds, mixed_encodings, palettes, image_sizes)
