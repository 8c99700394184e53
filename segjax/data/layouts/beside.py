"""Images that lie beside their masks, told apart by the ends of their names."""

import pathlib
import re
from collections import Counter
from collections.abc import Sequence

from segjax.data.files.images import MASK_SUFFIXES
from segjax.data.files.patterns import Tree
from segjax.data.layouts.table import CLASS_LISTS

# The end of a mask's name where it lies beside its image.
_MASK_END = re.compile(
    r"(?:[ _.\-]*(?:masks?|labels?|gt|gtfine|seg|segm|segmentation|annotations?|anno|ann|manual|"
    r"labelids|labeltrainids|trainids|ground_?truth|target|matte|class|color_?mask|lbl)|"
    r"[ _.\-](?-i:L|l|HO))(?:[ _.\-]*\d+)?|[ _.\-]\dstHO",
    re.IGNORECASE,
)
_IMAGE_ENDS = ("_sat", "_image", "_img", "_rgb", "_photo", "_input", "-image", "_leftImg8bit")


def ends_beside(tree: Tree, folder: pathlib.Path) -> list[tuple[str, str]]:
    """The ends of names, such as (".jpg", "_mask.png"), that images and masks of a folder have."""
    files = [path for path in tree.walk(folder) if path.name.lower() not in CLASS_LISTS]
    pictures = [path for path in files if path.suffix.lower() in MASK_SUFFIXES]
    stems = {path.with_suffix("") for path in pictures}
    by_end = Counter()
    for path in pictures:
        for match in _MASK_END.finditer(path.stem):
            if match.end() != len(path.stem) or not match.start():
                continue
            end, stem = match[0], path.stem[: match.start()]
            partners = [e for e in ("", *_IMAGE_ENDS) if path.with_name(stem + e) in stems]
            by_end.update((e, end, path.suffix) for e in partners[:1])
    images_of = lambda e, m: [  # noqa: E731
        p for p in pictures if p.stem.endswith(e) and not p.stem.endswith(m)
    ]
    ends = [
        (image_end + _shared_suffix(images_of(image_end, mask_end)), mask_end + suffix)
        for (image_end, mask_end, suffix) in by_end
    ]
    if ends:
        return ends
    types = {path.suffix for path in pictures}
    shapes = [
        p for p in files if p.suffix.lower() in (".json", ".txt") and p.with_suffix("") in stems
    ]
    shapes += [p for p in files if p.suffix.lower() == ".json" and p.with_suffix("") in pictures]
    if shapes:
        return [(_shared_suffix(pictures), shapes[0].suffix)]
    masks = [t for t in (".gif", ".npy", ".png") if t in types and len(types) > 1]
    for mask in masks:
        paths = {path.with_suffix("") for path in pictures if path.suffix == mask}
        others = [path for path in pictures if path.suffix != mask]
        if paths & {path.with_suffix("") for path in others}:
            return [(_shared_suffix(others), mask)]
    return []


def _shared_suffix(paths: Sequence[pathlib.Path]) -> str:
    """The suffix that all have, else "" for any."""
    types = {path.suffix for path in paths}
    return types.pop() if len(types) == 1 else ""
