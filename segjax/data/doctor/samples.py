"""What the doctor notes of one sample, from a single decode of its files."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Integer, UInt8
from PIL import Image

from segjax.data.checks import check_protocol
from segjax.data.classes import IGNORE
from segjax.data.doctor.interpolation import (
    NO_TRANSITIONS,
    Transitions,
    looks_interpolated,
    transitions,
)
from segjax.data.files.ids import class_ids
from segjax.data.files.images import rgb_view

THUMBNAIL = 48  # pixels a side; what is nearly the same is decided on these
NEAREST = (
    "resize masks by nearest neighbour, from the originals (PIL: Image.resize(size, "
    "Image.Resampling.NEAREST); OpenCV: interpolation=cv2.INTER_NEAREST)"
)
_ORIENTATION = 0x0112  # the EXIF tag


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why a sample cannot be used: a finding's code, what was found, what to do."""

    code: str
    found: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class SampleFacts:
    """What one decode tells; a part that could not be read keeps its default.

    Attributes:
      name: in its split.
      image_file, mask_file: paths, "" where the source has no files.
      problems: why the sample cannot be used.
      size: of the image, (height, width).
      pixel_sums: of the image in [0, 1]: per channel the sum and the sum of squares.
      contrast: standard deviation of the grey image, in 0..255.
      thumbnail: the grey image, shrunk.
      image_hash, mask_hash: of the decoded pixels.
      orientation: the image's EXIF tag; 1 = upright.
      jpeg_mask: whether the mask file is JPEG.
      class_pixels: per class; None where there is no label.
      ignored_pixels: of the label.
      unknown: raw id without a label to its pixels.
      raw_ids: the ids that occur in the file.
      transitions: of the raw ids.
      colours: of a mask that holds colours, the most frequent first.
    """

    name: str
    image_file: str = ""
    mask_file: str = ""
    problems: tuple[Problem, ...] = ()
    size: tuple[int, int] | None = None
    pixel_sums: Float64[np.ndarray, "2 c"] | None = None
    contrast: float = 0.0
    thumbnail: UInt8[np.ndarray, "s s"] | None = None
    image_hash: str = ""
    mask_hash: str = ""
    orientation: int = 1
    jpeg_mask: bool = False
    class_pixels: Int64[np.ndarray, "k"] | None = None
    ignored_pixels: int = 0
    unknown: Mapping[int, int] = dataclasses.field(default_factory=dict)
    raw_ids: frozenset[int] = frozenset()
    transitions: Transitions = NO_TRANSITIONS
    colours: tuple[tuple[int, int, int], ...] = ()


def files_of(source: Any) -> Any | None:
    """The source whose samples are files (see `pairs.PairedFiles`), perhaps inside others.

    None if there is none, or its samples are not those of `source`, one for one.
    """
    inner = source
    while not hasattr(inner, "image_paths") and hasattr(inner, "source"):
        inner = inner.source
    needed = ("image_paths", "mask_paths", "image", "ids", "id_map", "names")
    same = all(hasattr(inner, name) for name in needed) and len(inner) == len(source)
    return inner if same else None


def examine(source: Any, index: int) -> SampleFacts:
    """Decodes a sample and notes what there is and what is wrong.

    Where the source is one of files, its raw ids are read, so that all that is wrong with a file
    is found, and not only the first thing that its reader refuses.
    """
    files = files_of(source)
    facts = _from_files(source, files, index) if files else _from_sample(source, index)
    return SampleFacts(**facts)


def _from_files(source, files, index: int) -> dict[str, Any]:
    image_path, mask_path = files.image_paths[index], files.mask_paths[index]
    facts = {
        "name": str(files.names[index]),
        "image_file": str(image_path),
        "mask_file": str(mask_path),
        "orientation": _header(image_path)[1],
        "jpeg_mask": _header(mask_path)[0] == "JPEG",
    }
    problems, image, ids = [], None, None
    try:
        image = files.image(index)
    except (ValueError, OSError) as error:
        problems.append(_problem("unreadable", error))
    try:
        ids = files.ids(index)
    except (ValueError, OSError) as error:
        facts["colours"] = _colours(mask_path)
        problems.append(_problem("rgb-mask" if facts["colours"] else "unreadable", error))
    if image is not None:
        facts |= image_facts(image)
    if ids is not None:
        counts = _count(ids)
        facts |= {"raw_ids": frozenset(counts), "transitions": transitions(ids)}
        facts |= {"mask_hash": _hash(ids)} | _label_counts(counts, files.id_map.labels, files)
        if facts["unknown"]:
            problems.append(_unknown_ids(files.id_map, ids, mask_path, facts))
    if image is not None and ids is not None and image.shape[:2] != ids.shape:
        problems.append(_refusal(files, index, "size-mismatch"))
    elif not problems and source is not files:  # the outer source has labels of its own
        try:
            label = source[index]["label"]
            facts |= _label_counts(_count(label), class_ids(len(source.classes)).labels, source)
        except (ValueError, OSError) as error:
            problems.append(_problem("bad-sample", error))
    return facts | {"problems": tuple(problems)}


def _from_sample(source, index: int) -> dict[str, Any]:
    try:
        sample = source[index]
    except (ValueError, OSError) as error:
        return {"name": f"sample {index}", "problems": (_problem("bad-sample", error),)}
    name = str(sample["name"])
    image, label = np.asarray(sample["image"]), np.asarray(sample["label"])
    try:
        check_protocol(image, label, name)
    except ValueError as error:
        return {"name": name, "problems": (_problem("bad-sample", error),)}
    id_map, counts = class_ids(len(source.classes)), _count(label)
    facts = {"name": name, "raw_ids": frozenset(counts), "transitions": transitions(label)}
    facts |= image_facts(image) | {"mask_hash": _hash(label)}
    facts |= _label_counts(counts, id_map.labels, source)
    if facts["unknown"]:
        facts["problems"] = (_unknown_ids(id_map, label, name, facts),)
    return facts


def image_facts(image: UInt8[np.ndarray, "h w c"]) -> dict[str, Any]:
    """Those of `SampleFacts` that come from the image's pixels."""
    values = np.arange(256) / 255
    counts = [Image.fromarray(image[..., k]).histogram() for k in range(image.shape[2])]
    grey = Image.fromarray(rgb_view(image)).convert("L")
    levels = np.array(grey.histogram()) / (grey.width * grey.height)
    mean = levels @ np.arange(256)
    # A triangle filter: with PIL's BOX, a copy of another size would get another thumbnail.
    small = grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    return {
        "size": image.shape[:2],
        "pixel_sums": np.array([np.array(counts) @ values, np.array(counts) @ values**2]),
        "contrast": float(np.sqrt(levels @ (np.arange(256) - mean) ** 2)),
        "thumbnail": np.asarray(small),
        "image_hash": _hash(image),
    }


def _label_counts(counts: Mapping[int, int], labels: Mapping[int, int], source) -> dict[str, Any]:
    pixels, ignored, unknown = np.zeros(len(source.classes), np.int64), 0, {}
    for id_, count in counts.items():
        label = labels.get(id_)
        if label is None:
            unknown[id_] = count
        elif label == IGNORE:
            ignored += count
        else:
            pixels[label] += count
    return {"class_pixels": pixels, "ignored_pixels": ignored, "unknown": unknown}


def _unknown_ids(id_map, ids, where, facts: Mapping[str, Any]) -> Problem:
    code = "mask-0-255" if facts["raw_ids"] == {0, 255} else "unknown-ids"
    try:
        id_map.labels_of(ids, where)
        raise AssertionError(f"{where}: ids {facts['unknown']} have a label after all")
    except ValueError as error:
        found, _, remedy = str(error).partition(f"; allowed are {id_map.allowed}; ")
    if looks_interpolated(facts["transitions"]):
        remedy = f"{NEAREST}: these ids are blends along the boundaries of others"
    return Problem(code, f"{found}; allowed are {id_map.allowed}", remedy)


def _refusal(source, index: int, code: str) -> Problem:
    """What a source says about a sample that it refuses."""
    try:
        source[index]
    except (ValueError, OSError) as error:
        return _problem(code, error)
    return Problem(code, f"{source.names[index]}: image and mask differ in size", "use one size")


def _problem(code: str, error: Exception) -> Problem:
    found, _, remedy = str(error).rpartition("; use ")
    return Problem(code, found or str(error), f"use {remedy}" if found else "")


def _header(path: pathlib.Path) -> tuple[str, int]:
    """Format and EXIF orientation, ("", 1) of what Pillow cannot open. It turns TIFFs itself."""
    try:
        with Image.open(path) as image:
            turned = image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1)
            return image.format or "", int(turned or 1)
    except Exception:  # its decoders raise many kinds; the reader of the file will say which
        return "", 1


def _colours(path: pathlib.Path, shown: int = 8) -> tuple[tuple[int, int, int], ...]:
    """The most frequent colours of an intact picture in colours; () of any other file."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("RGB", "RGBA"):
                return ()
            rgb = np.asarray(image)[..., :3].astype(np.int32)
    except Exception:  # see above
        return ()
    colours, counts = np.unique(rgb @ [1 << 16, 1 << 8, 1], return_counts=True)
    most = colours[np.argsort(-counts, kind="stable")][:shown]
    return tuple(tuple(int(c).to_bytes(3)) for c in most)


def _count(ids: Integer[np.ndarray, "h w"]) -> dict[int, int]:
    if ids.size and ids.min() >= 0 and ids.max() < 65536:
        counts = np.bincount(ids.ravel())
        return {int(i): int(counts[i]) for i in np.flatnonzero(counts)}
    values, counts = np.unique(ids, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _hash(array: np.ndarray) -> str:
    digest = hashlib.blake2b(str((array.shape, array.dtype)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()
