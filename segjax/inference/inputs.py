"""The inputs of predict: an image, a folder, a list of paths, or a video."""

import collections
import dataclasses
import itertools
import os
import pathlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from segjax.data.depth import shallow_file
from segjax.data.files import tiff
from segjax.data.files.geo import SIDECARS, Tag, world_files
from segjax.data.files.headers import read_header
from segjax.data.files.images import (
    IMAGE_SUFFIXES,
    list_images,
    read_image,
    some,
)
from segjax.data.files.pixels import ARRAY_SUFFIX
from segjax.data.files.text_file import read_text
from segjax.data.files.values import Range
from segjax.data.files.walk import walk
from segjax.data.files.windowed import WindowedImage
from segjax.data.parallel import TIMEOUT_S, in_thread, result_of
from segjax.inference import video

LIST_SUFFIX = ".txt"
# Pixels of a TIFF from which only windows are decoded, where windows are predicted.
WINDOWED = 2**26


@dataclasses.dataclass(frozen=True)
class Input:
    """One image to predict on.

    Attributes:
      name: of its result: a relative path without suffix, unique among the inputs.
      origin: the file, and the frame of a video, as printed.
      image: uint8 [h, w, c]; None if it could not be read.
      problem: why it could not be read.
      tiff: whether pictures of it are to be TIFFs: it is a GeoTIFF, or a large TIFF.
      geo: the tags that say where its pixels lie.
      void: gives the pixels without data of some rows; None if all have data.
      world_files: beside it, see `geo.world_files`.
    """

    name: str
    origin: str
    image: UInt8[np.ndarray, "h w c"] | WindowedImage | None
    problem: str = ""
    tiff: bool = False
    geo: tuple[Tag, ...] = ()
    void: Callable[[slice], np.ndarray] | None = None
    world_files: Sequence[tuple[str, pathlib.Path]] = ()


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The images of an `--input`, read one by one.

    Attributes:
      total: number of images; None for a video that does not state it.
      frames_per_second: of a video; None for images.
      read: yields every `Input`, from the first one at each call; images are decoded in threads,
        as many ahead of their use as its argument says (0 by default).
      note: a line about the files that are left; "" if none are.
    """

    total: int | None
    frames_per_second: float | None
    read: Callable[..., Iterator[Input]]
    note: str = ""


def open_inputs(
    path: str | os.PathLike,
    channels: int = 3,
    value_range: Sequence[Range] = (),
    exif: str = "auto",
    timeout_s: float = TIMEOUT_S,
) -> Inputs:
    """Finds the images that `path` names, and reads none of them yet.

    Args:
      path: an image file; a folder, with the images in it and below; a `.txt` file with one path
        per line, relative to the file's folder (blank lines and lines that begin with # are
        ignored); or a video file.
      channels, value_range, exif: of the images, see `images.read_image`; GeoTIFFs are not turned.
      timeout_s: the longest wait for an image, after which `read` raises TimeoutError.

    Raises:
      ValueError: for any other path, a folder or list without images, a video that cannot be
        opened, or a video for a model of images other than RGB.
    """
    path = pathlib.Path(path)
    suffix = path.suffix.lower()
    if suffix in video.SUFFIXES and path.is_file():
        if channels != 3:
            raise ValueError(
                f"{path} is a video, but data.channels={channels}; use images of {channels} "
                "channels, a folder or a list of them"
            )
        total, rate = video.probe(path)
        return Inputs(total, rate, lambda ahead=0: _frames(path))
    if suffix == LIST_SUFFIX and path.is_file():
        images, root = _listed(path), path.parent
    else:
        known = (*IMAGE_SUFFIXES, ARRAY_SUFFIX)
        if path.is_file() and suffix not in known:
            raise ValueError(
                f"{path} is no image, video, folder or list; use an image "
                f"({some(known, len(known))}), a video "
                f"({some(video.SUFFIXES, len(video.SUFFIXES))}), a folder of images, or a "
                f"{LIST_SUFFIX} file with one path per line"
            )
        images, root = list_images(path, known), path if path.is_dir() else path.parent
    names = output_names(images, root)
    options = {"channels": channels, "value_range": tuple(value_range)}
    note = _left_files(path, images) if path.is_dir() else ""
    files = list(zip(images, names, strict=True))
    return Inputs(
        len(images),
        None,
        lambda ahead=0: _images(files, exif, options, timeout_s, ahead),
        note,
    )


def output_names(paths: Sequence[pathlib.Path], root: pathlib.Path) -> list[str]:
    """The names of the results: paths relative to `root`.

    The suffix is left out unless two names would be equal. A path outside of `root` gives its
    absolute path without `..`, so that no result is written outside of the output folder.
    """
    relative = []
    for path in paths:
        if not path.is_relative_to(root) or ".." in path.relative_to(root).parts:
            path = path.resolve()
            root_now = root.resolve() if path.is_relative_to(root.resolve()) else path.anchor
            relative.append(path.relative_to(root_now))
        else:
            relative.append(path.relative_to(root))
    stems = [str(path.with_suffix("")) for path in relative]
    return [
        stem if stems.count(stem) == 1 else str(path)
        for stem, path in zip(stems, relative, strict=True)
    ]


def _listed(listing: pathlib.Path) -> list[pathlib.Path]:
    text, _ = read_text(listing, "use a text file with one path per line")
    lines = [line.strip() for line in text.split("\n")]
    paths = [listing.parent / line for line in lines if line and not line.startswith("#")]
    if not paths:
        raise ValueError(f"{listing} names no image; use one path per line")
    return list(dict.fromkeys(paths))


def _left_files(folder: pathlib.Path, images: Sequence[pathlib.Path]) -> str:
    """A line about the files of a folder that are no images, nor belong to one."""
    left = {path for path in walk(folder) if path.suffix.lower() not in SIDECARS}
    types = Counter(path.suffix.lower() or "without suffix" for path in left - set(images))
    counts = ", ".join(f"{count} {suffix}" for suffix, count in types.most_common())
    return f"{types.total()} file(s) of other types were left: {counts}" if types else ""


def _images(
    files: Sequence[tuple[pathlib.Path, str]],
    exif: str,
    options: Mapping[str, Any],
    timeout_s: float,
    ahead: int,
) -> Iterator[Input]:
    rest, begun = iter(files), collections.deque()
    while True:
        for path, name in itertools.islice(rest, 1 + ahead - len(begun)):
            begun.append((path, name, in_thread(_image, path, name, exif, options)))
        if not begun:
            return
        path, name, future = begun.popleft()
        try:
            item = result_of(future, timeout_s, lambda path=path: str(path))
        except ValueError as error:
            item = Input(name, str(path), None, str(error))
        yield item


def _image(path: pathlib.Path, name: str, exif: str, options: Mapping[str, Any]) -> Input:
    more: dict[str, Any] = {"world_files": world_files(path)}
    frames = read_header(path).frames
    origin = f"{path} (the first of {frames} frames)" if frames > 1 else str(path)
    if tiff.is_tiff(path):
        windowed = WindowedImage(path, **options)
        large = windowed.shape[0] * windowed.shape[1] > WINDOWED and windowed.orientation == 1
        if windowed.readable and (windowed.geo or large):
            windowed.check_depth()
            more |= {"geo": windowed.geo, "tiff": True}
            if large:
                more["void"] = windowed.void if windowed.has_void else None
                return Input(name, origin, windowed, **more)
            if windowed.has_void:
                more["void"] = windowed.void(slice(None)).__getitem__
            image = np.asarray(windowed)
            windowed.close()
            return Input(name, origin, image, **more)
        if windowed.geo:
            exif, more["geo"], more["tiff"] = "ignore", windowed.geo, True
        windowed.close()
    image = read_image(path, exif=exif, **options)
    shallow = None if options["value_range"] else shallow_file(path, image, options["channels"])
    if shallow:
        raise shallow
    return Input(name, origin, image, **more)


def _frames(path: pathlib.Path) -> Iterator[Input]:
    for index, frame in enumerate(video.read_frames(path)):
        yield Input(f"frame_{index:06d}", f"{path} frame {index}", frame)
