"""The classes of polygons, from a class list or from the files themselves."""

import pathlib
from collections import Counter

from segjax.data import class_lists
from segjax.data.class_lists import ClassList
from segjax.data.class_rows import whole
from segjax.data.classes import IGNORE, ClassTable, default_palette
from segjax.data.errors import DataError
from segjax.data.files.text_file import read_text
from segjax.data.layouts.samples import Place
from segjax.data.polygons.formats import BACKGROUND_NAMES, annotation_of, annotations_of

_NUMBERED = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")  # of YOLO


def found_classes(place: Place) -> ClassList | None:
    """The class list of a folder: a file that is found in it, else the names in its polygons.

    Raises:
      DataError: if the list cannot be read; or labels are named by no list, which may come in any
        order: the message names those of the first files.
    """
    path, kind = place.class_list, place.kind
    if path is not None:
        return class_lists.read_class_list(path)
    if not kind:
        return None
    files = place.first_shapes()
    if not files:
        return None
    if kind == "many":
        names = annotations_of(files[0]).names
        return _with_ids([id_ for id_, _ in names], [name for _, name in names]) if names else None
    names = [] if files[0].suffix.lower() == ".txt" else labels_of(place)[0]
    raise DataError(
        f"data.classes is empty, and no file of data.root={place.root} names the classes of its "
        f"polygons; the first {len(files)} files have the labels {', '.join(names) or 'by number'}",
        f"use data.classes={','.join(['background', *(names or ['NAME', '...'])])} (a label of "
        "each class), or a class list",
    )


def labels_of(place: Place) -> tuple[list[str], int]:
    """The labels of polygons in the first files of a folder, without the background's, and the
    number of these files. Files that number them have "class 0" and so on."""
    files, labels, numbers = place.first_shapes(), Counter(), Counter()
    for file in files:
        if file.suffix.lower() == ".txt":
            words = (line.split(maxsplit=1) for line in read_text(file)[0].split("\n"))
            numbers.update(k for w in words if w and (k := whole(w[0])) is not None and k >= 0)
        else:
            labels.update(shape.label for shape in annotation_of(file, (1, 1)).shapes)
    if max(numbers, default=0) >= IGNORE:
        raise DataError(
            f"{files[0].parent}: polygons of class {max(numbers)}",
            f"use class numbers below {IGNORE}, or write a class list (data.classes)",
        )
    numbered = [f"class {k}" for k in range(max(numbers, default=-1) + 1)]
    return numbered + sorted(labels.keys() - {"__ignore__", *BACKGROUND_NAMES}), len(files)


def _with_ids(ids: list[int | None], names: list[str]) -> ClassList:
    """Classes with the ids that their file gives, as COCO does."""
    unique = dict(zip(names, ids, strict=True))
    own = tuple(id_ for id_ in unique.values() if id_ is not None)
    count = len(unique)
    if len(set(own)) != count or min(own) < 0:
        own = tuple(range(count))
    table = ClassTable(
        tuple(unique),
        default_palette(count),
        ids=() if own == tuple(range(count)) else own,
    )
    return ClassList(table, own, tuple(range(count)), table.names, (None,) * count)


def number_names(
    root: pathlib.Path, shapes: pathlib.Path, listed: ClassList, background: int
) -> tuple[str, ...]:
    """The name of each class number in YOLO's files: those of a data.yaml or classes.txt in the
    root or beside the files, else those of the class list but the background; () for files that
    have names."""
    if shapes.suffix.lower() != ".txt":
        return ()
    for folder in (root, *(p for p in shapes.parents if p.is_relative_to(root))):
        for name in _NUMBERED:
            if (folder / name).is_file():
                numbers = class_lists.read_class_list(folder / name)
                names = dict(zip(numbers.ids, numbers.names, strict=True))
                return tuple(names.get(k, "") for k in range(max(names) + 1))
    return tuple(
        name for name, id_ in zip(listed.names, listed.ids, strict=True) if id_ != background
    )
