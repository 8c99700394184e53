"""The doctor's notes on one sample, from a single decode of its files."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Integer, Shaped, UInt8
from PIL import Image

from segjax.data.counts import LabelCounts, label_counts
from segjax.data.depth import DARK
from segjax.data.doctor.interpolation import (
    NO_TRANSITIONS,
    Transitions,
    looks_interpolated,
    transitions,
)
from segjax.data.doctor.jpeg_ends import end_of_jpeg
from segjax.data.errors import DataError, as_data_error
from segjax.data.files.headers import NO_HEADER, Header, read_header
from segjax.data.files.ids import IdMap, class_ids, count_ids
from segjax.data.files.images import count_colors, rgb_view
from segjax.data.files.masks import NO_FOREGROUND, Foreground
from segjax.data.files.orientation import UnclearOrientation
from segjax.data.files.paired import PairedFiles
from segjax.data.files.pixels import opened
from segjax.data.polygons.formats import left_out_of
from segjax.data.source import Source, checked_arrays, files_of, read_sample

THUMBNAIL = 48  # pixels a side; near copies are found on these
NEAREST = (
    "resize masks by nearest neighbour, from the originals (PIL: Image.resize(size, "
    "Image.Resampling.NEAREST); OpenCV: interpolation=cv2.INTER_NEAREST)"
)


class Problem(NamedTuple):
    """The code of a finding, and why a sample cannot be used."""

    code: str
    error: DataError


@dataclasses.dataclass(frozen=True)
class SampleFacts:
    """The facts from one decode; a part that could not be read, or was left out, keeps its
    default."""

    name: str  # in its split
    index: int = 0  # in its split
    image_file: str = ""  # a path, "" where the source has no files; and so the mask's
    mask_file: str = ""
    image_header: Header = NO_HEADER
    mask_header: Header = NO_HEADER
    problems: tuple[Problem, ...] = ()  # why the sample cannot be used
    size: tuple[int, int] | None = None  # of the image, (height, width)
    values: tuple[int, int] = (0, 255)  # the smallest and the largest of the image
    # At most the standard deviation of the grey image, in 0..255; exactly that with a thumbnail
    contrast: float = 0.0
    # Of the image in [0, 1]: per channel the sum and the sum of squares
    pixel_sums: Float64[np.ndarray, "2 c"] | None = None
    thumbnail: UInt8[np.ndarray, "s s"] | None = None  # the grey image, shrunk
    image_hash: str = ""  # of the decoded pixels
    mask_hash: str = ""
    turned: bool = False  # whether the image was turned by its EXIF orientation
    cut: str = ""  # what a JPEG file lacks at its end, in words
    counts: LabelCounts | None = None  # the pixels of the label; None without one
    raw_ids: frozenset[int] = frozenset()  # the ids that occur in the file
    transitions: Transitions = NO_TRANSITIONS  # of the raw ids
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)  # shapes, by the reason
    palette: bytes = b""  # RGB bytes of a palette file whose indices are the raw ids
    foreground: Foreground = NO_FOREGROUND  # how the mask's files give it
    # Of a mask that holds colours, the most frequent first
    colours: tuple[tuple[int, int, int], ...] = ()

    @property
    def is_dark(self) -> bool:
        """Whether the image, if it is of a 16-bit file, is of 14 bits or fewer."""
        return self.values[1] <= DARK

    @property
    def image(self) -> str:
        """The image file, or the sample's name where it has none."""
        return self.image_file or self.name

    @property
    def mask(self) -> str:
        """The mask file, or the sample's name where it has none."""
        return self.mask_file or self.name


def examine(source: Source, index: int, *, thorough: bool = True) -> SampleFacts:
    """Decodes a sample and notes its facts and its problems.

    Where the source is one of files, its raw ids are read, so that all problems of a file are
    found, and not only the first one that its reader refuses.

    Args:
      source: the split.
      index: of the sample.
      thorough: note also `pixel_sums`, `thumbnail`, hashes and `transitions`, which take about a
        third of the time of decoding.
    """
    files = files_of(source)
    if files:
        facts = _from_files(source, files, index, thorough)
    else:
        facts = _from_sample(source, index, thorough)
    return SampleFacts(index=index, **facts)


def _from_files(source: Source, files: PairedFiles, index: int, thorough: bool) -> dict[str, Any]:
    image_path, mask_path = files.image_paths[index], files.mask_paths[index]
    problems: list[Problem] = []

    def attempt(code: str, call: Callable[..., Any], *args: Any) -> Any:
        """The call's result, or None and a problem."""
        try:
            return call(*args)
        except UnclearOrientation as error:
            problems.append(Problem("exif-orientation", error))
        except (ValueError, OSError) as error:
            problems.append(Problem(code, as_data_error(error)))

    header = read_header(pathlib.Path(image_path))
    facts = {
        "name": str(files.names[index]),
        "image_file": str(image_path),
        "mask_file": str(mask_path),
        "image_header": header,
        "mask_header": read_header(pathlib.Path(mask_path)),
    }
    read = attempt("unreadable", files.mask, index)
    if read is None:
        facts["colours"] = _colours(mask_path)
        if facts["colours"]:
            problems[-1] = problems[-1]._replace(code="rgb-mask")
    image = attempt("unreadable", files.image, index, None if read is None else read.ids.shape)
    if image is not None:
        facts |= image_facts(image, thorough=thorough)
        facts["turned"] = read is not None and files.turns(header, read.ids.shape)
        if thorough and header.format in ("JPEG", "MPO"):
            facts["cut"] = end_of_jpeg(image_path, image)
    if read is not None:
        if files.drawn:
            options = getattr(files.read_ids, "keywords", {})
            facts["left_out"] = left_out_of(mask_path, image_path, **options)
        mask, unknown = _mask_facts(read.ids, files.id_map, files, mask_path, thorough)
        facts |= {**mask, "palette": read.palette, "foreground": read.foreground}
        problems += unknown
    if image is not None and read is not None:
        attempt("size-mismatch", files.check_sizes, index, image, read.ids)
        if not problems and source is not files:  # the outer source has labels of its own
            sample = attempt("bad-sample", read_sample, source, index)
            if sample is not None:
                pixels, labels = count_ids(sample[1]), class_ids(len(source.classes.values)).labels
                facts["counts"] = label_counts(sample[1].shape, pixels, labels, source.classes)
    return facts | {"problems": tuple(problems)}


def _from_sample(source: Source, index: int, thorough: bool) -> dict[str, Any]:
    code = "unreadable"
    try:
        sample = source[index]
        code = "bad-sample"
        image, label, name = checked_arrays(sample, index)
    except (ValueError, OSError) as error:
        return {"name": f"sample {index}", "problems": (Problem(code, as_data_error(error)),)}
    id_map = class_ids(len(source.classes.values))
    facts, problems = _mask_facts(label, id_map, source, name, thorough)
    return {
        "name": name,
        "problems": tuple(problems),
        **image_facts(image, thorough=thorough),
        **facts,
    }


def image_facts(image: UInt8[np.ndarray, "h w c"], *, thorough: bool = True) -> dict[str, Any]:
    """The `SampleFacts` that come from the image's pixels."""
    low, high = int(image.min()), int(image.max())
    facts = {
        "size": image.shape[:2],
        "values": (low, high),
        "contrast": (high - low) / 2,
    }
    if not thorough:
        return facts
    values, rgb = np.arange(256) / 255, Image.fromarray(rgb_view(image))
    bands = (
        [rgb] if image.shape[2] == 3 else [Image.fromarray(b) for b in np.moveaxis(image, -1, 0)]
    )
    counts = np.concatenate([band.histogram() for band in bands]).reshape(-1, 256)
    grey = rgb.convert("L")
    levels = np.array(grey.histogram()) / (grey.width * grey.height)
    mean = levels @ np.arange(256)
    # A triangle filter: with PIL's BOX, a copy of another size would get another thumbnail.
    small = grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    return facts | {
        "pixel_sums": np.array([counts @ values, counts @ values**2]),
        "contrast": float(np.sqrt(levels @ (np.arange(256) - mean) ** 2)),
        "thumbnail": np.asarray(small),
        "image_hash": _hash(image),
    }


def _mask_facts(
    ids: Integer[np.ndarray, "h w"], id_map: IdMap, source: Source, file: Any, thorough: bool
) -> tuple[dict[str, Any], list[Problem]]:
    """The `SampleFacts` that come from the ids of a mask, and the problem with unknown ids."""
    pixels = count_ids(ids)
    counts = label_counts(ids.shape, pixels, id_map.labels, source.classes)
    facts = {"counts": counts, "raw_ids": frozenset(pixels)}
    if thorough:
        facts |= {"transitions": transitions(ids), "mask_hash": _hash(ids)}
    if not counts.unknown:
        return facts, []
    error = id_map.unknown_ids(pixels, file)
    changes = facts["transitions"] if thorough else transitions(ids)
    if "mask_threshold" not in error.remedy and looks_interpolated(changes):
        remedy = f"{NEAREST}: these ids are blends along the boundaries of others"
        error = DataError(error.found, remedy)
    code = "mask-0-255" if facts["raw_ids"] == {0, 255} else "unknown-ids"
    return facts, [Problem(code, error)]


def _colours(path: pathlib.Path) -> tuple[tuple[int, int, int], ...]:
    """The most frequent colours of an intact picture in colours; () for any other file."""
    try:
        with opened(path) as image:
            if image.mode not in ("RGB", "RGBA"):
                return ()
            rgb = np.asarray(image)
    except Exception:  # its decoders raise many kinds; whoever reads the file reports them
        return ()
    return tuple(color for color, _ in count_colors(rgb, shown=8)[1])


def _hash(array: Shaped[np.ndarray, "..."]) -> str:
    digest = hashlib.blake2b(str((array.shape, array.dtype)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()
