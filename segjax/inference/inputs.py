"""The inputs of predict: an image, a folder, a list of paths, or a video."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from segjax.data.files.images import ARRAY_SUFFIX, IMAGE_SUFFIXES, list_images, read_image, some
from segjax.inference import video

LIST_SUFFIX = ".txt"


@dataclasses.dataclass(frozen=True)
class Input:
    """One image to predict on.

    Attributes:
      name: of its result: a relative path without suffix, unique among the inputs.
      origin: the file, and the frame of a video, as printed.
      image: uint8 [h, w, c]; None if it could not be read.
      problem: why it could not be read.
    """

    name: str
    origin: str
    image: UInt8[np.ndarray, "h w c"] | None
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The images of an `--input`, read one by one.

    Attributes:
      total: number of images; None for a video that does not state it.
      frames_per_second: of a video; None for images.
      read: yields every `Input`, from the first one at each call.
    """

    total: int | None
    frames_per_second: float | None
    read: Callable[[], Iterator[Input]]


def open_inputs(path: str | os.PathLike, channels: int = 3) -> Inputs:
    """Finds the images that `path` names, and reads none of them yet.

    Args:
      path: an image file; a folder, with the images in it and below; a `.txt` file with one path
        per line, relative to the file's folder (blank lines and lines that begin with # are
        ignored); or a video file.
      channels: of the images.

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
        return Inputs(total, rate, lambda: _frames(path))
    if suffix == LIST_SUFFIX and path.is_file():
        images, root = _listed(path), path.parent
    else:
        arrays = () if channels == 3 else (ARRAY_SUFFIX,)
        known = (*IMAGE_SUFFIXES, *arrays)
        if path.is_file() and suffix not in known:
            raise ValueError(
                f"{path} is no image, video, folder or list; use an image "
                f"({some(known, len(known))}), a video "
                f"({some(video.SUFFIXES, len(video.SUFFIXES))}), a folder of images, or a "
                f"{LIST_SUFFIX} file with one path per line"
            )
        images, root = list_images(path, known), path if path.is_dir() else path.parent
    names = output_names(images, root)
    return Inputs(len(images), None, lambda: _images(images, names, channels))


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
    try:
        lines = [line.strip() for line in listing.read_text().splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{listing} is not a text file; use one path per line") from error
    paths = [listing.parent / line for line in lines if line and not line.startswith("#")]
    if not paths:
        raise ValueError(f"{listing} names no image; use one path per line")
    return list(dict.fromkeys(paths))


def _images(paths, names, channels: int) -> Iterator[Input]:
    for path, name in zip(paths, names, strict=True):
        try:
            image = read_image(path, channels, exif=True)
        except ValueError as error:
            yield Input(name, str(path), None, str(error))
        else:
            yield Input(name, str(path), image)


def _frames(path: pathlib.Path) -> Iterator[Input]:
    for index, frame in enumerate(video.read_frames(path)):
        yield Input(f"frame_{index:06d}", f"{path} frame {index}", frame)
