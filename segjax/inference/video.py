"""Reads and writes the frames of videos with opencv, an optional requirement."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


def _opencv() -> Any:
    try:
        import cv2  # pyright: ignore[reportMissingImports]: no requirement
    except ImportError as error:
        raise ValueError(
            "opencv, which reads videos, is not installed; use `pip install "
            "opencv-python-headless`, or a folder of frames"
        ) from error
    return cv2


def _open(path: str | os.PathLike) -> Any:
    capture = _opencv().VideoCapture(str(path))
    if not capture.isOpened():
        raise ValueError(f"{path} cannot be opened as a video; use an intact file, or frames")
    return capture


def probe(path: str | os.PathLike) -> tuple[int | None, float]:
    """Number of frames and frames per second, as the video states them; else None and 25.

    Raises:
      ValueError: if it cannot be opened, or opencv is missing.
    """
    cv2, capture = _opencv(), _open(path)
    try:
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        rate = float(capture.get(cv2.CAP_PROP_FPS))
    finally:
        capture.release()
    return frames if frames > 0 else None, rate if 0 < rate < 1000 else 25.0


def read_frames(path: str | os.PathLike) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yields the frames of a video, RGB.

    Raises:
      ValueError: if it cannot be opened, has no frame, or opencv is missing.
    """
    capture, frame = _open(path), None
    try:
        while True:
            success, bgr = capture.read()
            if not success:
                break
            frame = np.ascontiguousarray(bgr[..., ::-1])
            yield frame
    finally:
        capture.release()
    if frame is None:
        raise ValueError(f"{path} holds no frame that can be decoded; use an intact video")


class VideoWriter:
    """Writes RGB frames of one size as an MP4 file, if this build of opencv can.

    Attributes:
      works: whether a file is written; valid after the first frame.
    """

    def __init__(self, path: str | os.PathLike, frames_per_second: float):
        self._path, self._rate = pathlib.Path(path), frames_per_second
        self._writer, self._size = None, None
        self.works = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._writer is not None:
            self._writer.release()

    def add(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        cv2 = _opencv()
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._size = frame.shape[:2]
            code = cv2.VideoWriter_fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._path), code, self._rate, self._size[::-1])
            self.works = bool(self._writer.isOpened())
        if self.works and frame.shape[:2] == self._size:
            self._writer.write(np.ascontiguousarray(frame[..., ::-1]))
