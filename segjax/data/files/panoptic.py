"""Panoptic masks in COCO's form: PNGs of segment ids, and a JSON file with the class of each.

Reference: Kirillov et al., "Panoptic Segmentation", CVPR 2019; https://cocodataset.org/#format-data
"""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from segjax.data.class_lists import ClassList
from segjax.data.errors import DataError
from segjax.data.files.images import some
from segjax.data.files.json_file import parse_json
from segjax.data.files.mask_files import read_stored
from segjax.data.files.masks import VOID, Mask
from segjax.data.files.reading import reading
from segjax.data.files.regular import read_bytes

_INTACT = "use an intact JSON file of COCO's panoptic form"
_LARGEST = 2 * 10**9  # bytes of a JSON file; COCO's is 0.4


def find_annotations(root: pathlib.Path, split: str, masks: Sequence[pathlib.Path]) -> pathlib.Path:
    """The JSON file of a split's masks.

    It has the name of their folder and is beside it (`panoptic_val2017.json`), or is
    `panoptic_<split>.json` in `root`, in `root/annotations` or beside the folder.

    Raises:
      DataError: listing these places, if there is none.
    """
    folder = masks[0].parent
    places = [folder.parent, root, root / "annotations"]
    tried = [folder.with_name(f"{folder.name}.json")]
    tried += [place / f"panoptic_{split}.json" for place in places]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        raise DataError(
            f"data.mask_format=panoptic: no JSON file of data split {split!r}; looked for "
            f"{', '.join(map(str, dict.fromkeys(tried)))}",
            "use the file with `annotations` and their `segments_info` that belongs to the masks",
        )
    return found


def read_panoptic(path: pathlib.Path, annotations: pathlib.Path, *, listed: ClassList) -> Mask:
    """Decodes a mask of segment ids, R + 256 G + 65536 B, to the ids of a class list.

    Pixels of segment 0 are `VOID`. Categories are found in the list by their names.

    Args:
      path: the mask.
      annotations: the JSON file.
      listed: the class list.

    Raises:
      DataError: if a file cannot be read, the JSON has no such file or segment, or a category that
        occurs is not in the list.
    """
    segments, categories = load_annotations(annotations)
    values = read_stored(pathlib.Path(path)).values.astype(np.int32)
    ids = values if values.ndim == 2 else values @ np.array([1, 256, 65536], np.int32)
    rows = segments.get(pathlib.Path(path).name)
    if rows is None:
        raise DataError(
            f"{path} is not in {annotations}, which has {some(segments)}",
            "use the JSON file that belongs to the masks",
        )
    occurring, places = np.unique(ids, return_inverse=True)
    category = dict(rows.tolist())
    strange = [i for i in occurring.tolist() if i and i not in category]
    if strange:
        raise DataError(
            f"{path}: segments {some(strange)} are not in {annotations}",
            "use the JSON file that belongs to the masks, and masks as they are in the archive",
        )
    by_name = dict(zip(listed.names, listed.ids, strict=True))
    used = {categories.get(category[i], str(category[i])) for i in occurring.tolist() if i}
    unknown = used - by_name.keys()
    if unknown:
        raise DataError(
            f"{path}: categories {some(unknown)} are not in data.classes",
            f"use data.classes={annotations}, or a list with a line for each category, which ends "
            "with `ignore` if it is void",
        )
    table = [by_name[categories[category[i]]] if i else VOID for i in occurring.tolist()]
    return Mask(np.array(table, np.int32)[places].reshape(ids.shape))


@functools.lru_cache(maxsize=4)  # a file per split
def load_annotations(
    path: pathlib.Path,
) -> tuple[dict[str, Int32[np.ndarray, "n 2"]], dict[int, str]]:
    """(segment, category) ids by the name of a mask's file, and the names of categories; DataError
    if the file cannot be read or has another form."""
    with reading(path, _INTACT):
        content: Any = parse_json(read_bytes(path, _INTACT, _LARGEST), strict=False)
        categories = {int(c["id"]): str(c["name"]) for c in content["categories"]}
        segments = {
            pathlib.PurePosixPath(entry["file_name"]).name: np.array(
                [[s["id"], s["category_id"]] for s in entry["segments_info"]], np.int32
            ).reshape(-1, 2)
            for entry in content["annotations"]
        }
    return segments, categories
