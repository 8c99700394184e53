"""Files of polygons, told apart by their content, and drawn as masks."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer

from segjax.data.class_lists import ClassList
from segjax.data.classes import IGNORE, ClassTable
from segjax.data.errors import DataError
from segjax.data.files.headers import read_header
from segjax.data.files.images import read_image, some
from segjax.data.files.json_file import parse_json
from segjax.data.files.reading import reading
from segjax.data.files.regular import read_bytes
from segjax.data.files.text_file import read_text
from segjax.data.polygons import per_image, per_split
from segjax.data.polygons.paint import Annotation, paint
from segjax.data.polygons.per_split import ByImage

# Names of a class for the pixels that no shape covers.
BACKGROUND_NAMES = (
    "background",
    "_background_",
    "__background__",
    "bg",
    "unlabeled",
    "unlabelled",
    "void",
)
_VOID = "__ignore__"  # labelme's label of void areas
_BYTES = {False: 256_000_000, True: 2_000_000_000}  # of a file, by whether it is of many images


class _Format(NamedTuple):
    name: str
    fits: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any]], Any]


_OF_ONE = (
    _Format("labelme", lambda c: "shapes" in c, per_image.labelme),
    _Format("Supervisely", lambda c: "objects" in c and "size" in c, per_image.supervisely),
    _Format("Cityscapes", lambda c: "objects" in c and "imgHeight" in c, per_image.cityscapes),
)
_OF_MANY = (
    _Format("COCO", lambda c: {"images", "annotations", "categories"} <= c.keys(), per_split.coco),
    _Format(
        "VIA",
        lambda c: (
            "_via_img_metadata" in c
            or all(isinstance(v, dict) and "regions" in v for v in c.values())
        ),
        per_split.via,
    ),
)
_KNOWN = (
    "polygons as labelme, Supervisely, Cityscapes, YOLO (.txt), COCO, CVAT for images 1.1 (.xml) "
    "or VGG VIA write them"
)


def annotation_of(
    path: pathlib.Path, size: tuple[int, int], names: tuple[str, ...] = ()
) -> Annotation:
    """The shapes of a file of one image.

    Args:
      path: JSON of labelme, Supervisely or Cityscapes, or YOLO's text.
      size: (height, width) of the image.
      names: of YOLO's classes.

    Raises:
      DataError: naming the file, if it cannot be read or is of no known format.
    """
    with reading(path, f"use {_KNOWN}", "cannot be drawn"):
        if path.suffix.lower() == ".txt":
            return per_image.yolo(_text(path, False), size, names)
        return _of_json(path, _OF_ONE, False)


def annotations_of(path: pathlib.Path) -> ByImage:
    """The shapes of a file of many images, read once a process until it changes; DataError as
    `annotation_of`."""
    with reading(path, f"use {_KNOWN}", "cannot be drawn"):
        stat = os.stat(path)
    return _annotations(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=8)
def _annotations(path: pathlib.Path, time: int, size: int) -> ByImage:
    suffix = path.suffix.lower()
    with reading(path, f"use {_KNOWN}", "cannot be drawn"):
        if suffix == ".xml":
            return ByImage(*per_split.cvat(_bytes(path, True)))
        if suffix == ".csv":
            return ByImage(*per_split.via_csv(_text(path, True)))
        return ByImage(*_of_json(path, _OF_MANY, True))


def _of_json(path: pathlib.Path, formats: tuple[_Format, ...], many: bool) -> Any:
    content = parse_json(_bytes(path, many), strict=False)
    if not isinstance(content, dict):
        raise ValueError(f"a list or value, and no object of {_KNOWN}")
    for form in formats:
        if form.fits(content):
            return form.read(content)
    raise ValueError(f"no known format: it has {some(content, 6)}")


def _bytes(path: pathlib.Path, many: bool) -> bytes:
    return read_bytes(path, f"use {_KNOWN}", _BYTES[many])


def _text(path: pathlib.Path, many: bool) -> str:
    return read_text(path, f"use {_KNOWN}", most_bytes=_BYTES[many])[0]


def read_shapes(
    path: pathlib.Path,
    image: pathlib.Path,
    *,
    listed: ClassList,
    background: int,
    many: bool,
    names: tuple[str, ...] = (),
) -> Integer[np.ndarray, "h w"]:
    """Draws the shapes of an image as the ids of a class list.

    The mask has the size that the file gives, or that of the image as its EXIF orientation turns
    it. Shapes are drawn in the file's order (CVAT: by z_order), or, where that means nothing (COCO,
    YOLO, VIA), with small ones on top. labelme's `__ignore__` is 255.

    Args:
      path: the file of polygons.
      image: the image file, for its name and size.
      listed: the class list; its names are the labels.
      background: id of the pixels that no shape covers.
      many: whether the file is of many images.
      names: of YOLO's classes.

    Raises:
      DataError: if a file cannot be read, the annotated image had another size, or a label is not
        in the list.
    """
    size, upright = image_sizes(image)
    found = _annotation(path, image, upright, many, names)
    if found.size not in (None, size, upright):
        remedy = "use the image that was annotated, at its size"
        if found.size in (size[::-1], upright[::-1]):
            remedy = "use files turned alike"
        raise DataError(
            f"{path} has polygons of an image of {found.size[0]}x{found.size[1]}, but {image} is "
            f"{size[0]}x{size[1]} (height x width)",
            remedy,
        )
    ids = dict(zip(listed.names, listed.ids, strict=True))
    given = {_VOID: IGNORE, **dict.fromkeys(BACKGROUND_NAMES[:3], background), **ids}
    labels = {shape.label for shape in found.shapes}
    if "" in labels and "" not in given:
        classes = [id_ for name, id_ in ids.items() if id_ != background]
        if len(classes) == 1:  # a tool without labels, for one class
            given[""] = classes[0]
    unknown = labels - given.keys()
    if unknown:
        raise DataError(
            f"{path}: label {some(map(repr, unknown))} of {image.name} is not in data.classes, "
            f"which has {', '.join(listed.names)}",
            "use these names, or a class list (data.classes) with a line for it, which ends with "
            "`ignore` if it is void",
        )
    return paint(found.size or upright, found.shapes, given, background)


def left_out_of(
    path: pathlib.Path, image: pathlib.Path, *, many: bool, names: tuple[str, ...] = (), **_: Any
) -> Mapping[str, int]:
    """The shapes of an image that are not drawn, by the reason; arguments as for `read_shapes`."""
    return _annotation(path, image, image_sizes(image)[1], many, names).left_out


def _annotation(
    path: pathlib.Path,
    image: pathlib.Path,
    size: tuple[int, int],
    many: bool,
    names: tuple[str, ...],
) -> Annotation:
    if not many:
        return annotation_of(path, size, names)
    files = annotations_of(path)
    name = files.name_of(image)
    if name is None:
        raise DataError(f"{path} has no annotation of {image}", "annotate it, or take it out")
    return files.annotations[name]


def image_sizes(path: pathlib.Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of an image as it is in its file, and as its EXIF orientation turns it, which
    is what labelling tools show."""
    header = read_header(path)
    size = header.shape if all(header.shape) else read_image(path).shape[:2]
    return size, size[::-1] if header.orientation >= 5 else size


def with_background(listed: ClassList) -> tuple[ClassList, int]:
    """The list, and the id of the pixels that no shape covers.

    That is the id of the row named background, _background_, unlabeled or void, also of one that
    is ignored; a list without such a row gets the class background in front, with id 0.
    """
    lower = [name.lower() for name in listed.names]
    for name in BACKGROUND_NAMES:
        if name in lower:
            return listed, listed.ids[lower.index(name)]
    classes = listed.classes
    ids = listed.ids if 0 not in listed.ids else tuple(range(1, len(listed.ids) + 1))
    kept = {label: id_ for label, id_ in zip(listed.labels, ids, strict=True) if label != IGNORE}
    raw = (0, *(kept[k] for k in range(len(classes))))
    table = ClassTable(
        ("background", *classes.names),
        ((0, 0, 0), *classes.palette),
        multilabel=classes.multilabel,
        ids=() if raw == tuple(range(len(raw))) else raw,
    )
    labels = (label if label == IGNORE else label + 1 for label in listed.labels)
    more = dict(names=("background", *listed.names), colors=(None, *listed.colors))
    return dataclasses.replace(listed, classes=table, ids=(0, *ids), labels=(0, *labels), **more), 0
