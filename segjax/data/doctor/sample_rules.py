"""Findings about single files. Each rule takes a `Split` and yields findings."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from segjax.data.checks import lost_foreground
from segjax.data.classes import ClassTable
from segjax.data.doctor.findings import ERROR, INFO, WARNING, Finding, SplitNumbers
from segjax.data.doctor.interpolation import looks_interpolated, total
from segjax.data.doctor.samples import NEAREST, SampleFacts
from segjax.data.source import Source

_SHOWN = 5  # lines of a finding; the report lists all files
_PICTURED = 8  # samples that are kept for pictures
_NEAR_CONSTANT = 2.0  # standard deviation of the grey image, of 255
_MOSTLY_VOID = 0.3  # share of ignored pixels that is worth a line


@dataclasses.dataclass(frozen=True)
class Split:
    """A split's name, source, facts and numbers."""

    name: str
    source: Source
    facts: Sequence[SampleFacts]
    numbers: SplitNumbers

    @property
    def classes(self) -> ClassTable:
        return self.source.classes

    def finding(
        self,
        code: str,
        severity: str,
        title: str,
        concerned: Sequence[int],
        line: Callable[[SampleFacts], str],
        remedy: str,
        attribute: str = "mask_file",
    ) -> Finding:
        """A finding about samples of this split, the first of them with a line each."""
        lines = [line(self.facts[i]) for i in concerned[:_SHOWN]]
        if len(concerned) > _SHOWN:
            lines.append(f"and {len(concerned) - _SHOWN} more")
        files = (getattr(self.facts[i], attribute) or self.facts[i].name for i in concerned)
        return Finding(
            code=code,
            severity=severity,
            title=f"{self.name}: {len(concerned)} of {self.numbers.images} {title}",
            found=tuple(lines),
            remedy=remedy,
            split=self.name,
            files=tuple(files),
            samples=tuple((self.name, i) for i in concerned[:_PICTURED]),
        )

    def where(self, condition: Callable[[SampleFacts], Any]) -> list[int]:
        """The samples for which a condition holds."""
        return [i for i, facts in enumerate(self.facts) if condition(facts)]


_TITLES = {
    "unreadable": "samples have a file that cannot be read",
    "rgb-mask": "masks hold colours instead of class ids",
    "mask-0-255": "masks hold 0 and 255 instead of class ids",
    "unknown-ids": "masks hold ids that are no class",
    "size-mismatch": "masks are not of their image's size",
    "bad-sample": "samples cannot be used",
}


def problems(split: Split) -> Iterator[Finding]:
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
        lines = {id(split.facts[i]): error.found for i, error in errors.items()}
        # One remedy per kind, the most frequent: most files have the same problem.
        remedies = Counter(error.remedy for error in errors.values())
        remedy = remedies.most_common(1)[0][0]
        more = f" ({len(remedies)} kinds; the others differ)" if len(remedies) > 1 else ""
        image_is_bad = code == "unreadable"
        finding = split.finding(
            code,
            ERROR,
            title,
            list(errors),
            lambda facts, lines=lines: lines[id(facts)],
            remedy + more + _palette_hint(code, split, list(errors)),
            "image_file" if image_is_bad else "mask_file",
        )
        if image_is_bad:  # it may be the mask that is broken: name the file that is
            files = tuple(_bad_file(split.facts[i]) for i in errors)
            finding = dataclasses.replace(finding, files=files)
        yield finding


def _bad_file(facts: SampleFacts) -> str:
    texts = [p.error.found for p in facts.problems if p.code == "unreadable"]
    return facts.image_file if facts.image_file in texts[0] else facts.mask_file


def _palette_hint(code: str, split: Split, concerned: Sequence[int]) -> str:
    """For colour masks: the classes that have the colours of a mask."""
    if code != "rgb-mask":
        return ""
    colours = split.facts[concerned[0]].colours
    names = {tuple(c): n for n, c in zip(split.classes.names, split.classes.palette, strict=True)}
    meanings = (f" is {names[colour]}" if colour in names else "" for colour in colours)
    listed = ", ".join(f"#{bytes(c).hex()}{m}" for c, m in zip(colours, meanings, strict=True))
    known = sum(colour in names for colour in colours)
    return f". Colours of the first, {known} of {len(colours)} in the class palette: {listed}"


def lost_foregrounds(split: Split) -> Iterator[Finding]:
    """Masks of 0 and 255 where 255 is ignored: nothing is learned from their foreground."""
    binary = split.where(lambda f: f.raw_ids and f.raw_ids <= {0, 255} and not f.problems)
    occurring = [i for i in binary if split.facts[i].raw_ids == {0, 255}]
    numbers = split.numbers
    lost = lost_foreground(split.name, split.classes.names, numbers)
    if not occurring or (not lost and len(binary) < numbers.usable):
        return
    ignored = f"{numbers.ignored_pixels:,} pixels of id 255 are ignored"
    yield split.finding(
        "mask-0-255",
        ERROR if lost else WARNING,
        f"masks hold 0 and 255 only, and 255 means ignore: {ignored}",
        occurring,
        lambda facts: f"{facts.mask_file or facts.name}: ids 0 and 255",
        lost.remedy if lost else "check what 255 stands for, and --config.data.ignore_ids",
    )


def interpolated(split: Split) -> Iterator[Finding]:
    """Masks whose classes are joined by ramps of other ids."""
    all_masks = total(facts.transitions for facts in split.facts)
    bad = split.where(lambda f: looks_interpolated(f.transitions))
    if not bad and looks_interpolated(all_masks):  # each has too few boundaries by itself
        bad = split.where(lambda f: f.transitions.ramps > 0)
    if not bad:
        return
    ramps = total(split.facts[i].transitions for i in bad).ramp_ids
    most = sorted(ramps, key=ramps.get, reverse=True)[:_SHOWN]
    ids = ", ".join(f"id {i} ({ramps[i]:,} pixels)" for i in most)
    yield split.finding(
        "interpolated-mask",
        WARNING,
        f"masks look as if they were resized with interpolation: thin lines of {ids} run between "
        "classes with a lower and a higher id",
        bad,
        lambda f: (
            f"{f.mask_file or f.name}: {f.transitions.ramps:,} pixels of such lines, "
            f"{f.transitions.clean:,} clean steps between ids that are 2 or more apart"
        ),
        f"{NEAREST}; if a class is a border drawn on purpose, all is well",
    )


def void_share(split: Split) -> Iterator[Finding]:
    """Much of the split is ignored."""
    share = split.numbers.void_share
    if share > _MOSTLY_VOID:
        yield Finding(
            "void-share",
            INFO,
            f"{split.name}: {100 * share:.1f}% of the pixels are ignored",
            (f"{split.numbers.ignored_pixels:,} pixels",),
            "check --config.data.ignore_ids and the masks if you expected more labels",
            split.name,
        )


def _is_void(facts: SampleFacts) -> bool:
    counts = facts.counts
    return counts is not None and 0 < counts.ignored == counts.pixels and not facts.problems


def _listed(ids, shown: int = 12) -> str:
    words = [str(i) for i in sorted(ids)]
    return ", ".join(words[:shown] + ["..."] * (len(words) > shown))


class _Mark(NamedTuple):
    """A finding about the samples for which a condition on their facts holds."""

    code: str
    severity: str
    title: str
    holds: Callable[[SampleFacts], Any]
    line: Callable[[SampleFacts], str]
    remedy: str
    attribute: str = "mask_file"


_MARKS = (
    _Mark(
        "jpeg-mask",
        WARNING,
        "masks are JPEG files, which do not keep ids",
        lambda f: f.jpeg_mask,
        lambda f: f"{f.mask_file}: ids {_listed(f.raw_ids)}",
        "make PNG masks from the original annotation; saving these as PNG does not mend them",
    ),
    _Mark(  # viewers and annotation tools turn these images, training does not
        "exif-orientation",
        WARNING,
        "images have an EXIF orientation, which their masks lack",
        lambda f: f.orientation != 1,
        lambda f: f"{f.image_file}: EXIF orientation {f.orientation}",
        "look at the pictures of the report; if image and mask do not match, turn the pixels "
        "(PIL.ImageOps.exif_transpose) and save without the tag; else remove the tag "
        "(exiftool -Orientation= FILE), so that all programs agree",
        "image_file",
    ),
    _Mark(
        "constant-image",
        INFO,
        "images are of nearly one colour",
        lambda f: f.size and f.contrast < _NEAR_CONSTANT,
        lambda f: f"{f.image_file or f.name}: standard deviation {f.contrast:.2f} of 255",
        "look at them, and leave them out (move image and mask away) if they are failures",
        "image_file",
    ),
    _Mark(
        "all-void",
        INFO,
        "masks are all ignored, so nothing is learned from their images",
        _is_void,
        lambda f: f"{f.mask_file or f.name}: {f.counts.ignored:,} pixels, all ignored",
        "check these masks and --config.data.ignore_ids; leave them out if they are right",
    ),
)


def marks(split: Split) -> Iterator[Finding]:
    """JPEG masks, EXIF orientations, images of one colour, masks that are all ignored."""
    for mark in _MARKS:
        concerned = split.where(mark.holds)
        if concerned:
            yield split.finding(mark.code, mark.severity, mark.title, concerned, *mark[4:])


RULES = (problems, lost_foregrounds, interpolated, marks, void_share)
