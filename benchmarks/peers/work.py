"""What a worker measures: the interface of a framework's side, and the data that all get."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.peers.rows import Row

# Of the images that the peers get normalised; ours normalises uint8 images in its step.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SGD = dict(learning_rate=0.01, momentum=0.9)
ADAM = dict(learning_rate=1e-4, epsilon=1e-7)


@dataclasses.dataclass(frozen=True)
class Request:
    """What a worker is asked to run.

    Attributes:
      row: see `rows.Row`.
      work: "train" (steps) or "infer" (label maps of a batch).
      device: "cpu" or "gpu".
      dtype: "float32" or "bfloat16" (parameters stay float32).
      cores: that the framework's threads may use.
      compiled: torch.compile for torch, XLA for Keras; ours always is.
    """

    row: Row
    work: str
    device: str = "cpu"
    dtype: str = "float32"
    cores: int = 1
    compiled: bool = False


@dataclasses.dataclass(frozen=True)
class Work:
    """A network that is ready to run.

    Attributes:
      run: runs n steps and waits for the last one; returns its loss, or for inference the number of
        pixels labelled 0.
      parameters: that are trained.
      logits: shape of the network's output in NHWC order.
      about: versions, threads and device, for the table's notes.
      peak: the device's peak memory in bytes so far, of a GPU; None on a CPU, where the process's
        memory is read instead.
    """

    run: Callable[[int], float]
    parameters: int
    logits: tuple[int, ...]
    about: Mapping[str, Any]
    peak: Callable[[], int] | None = None


def batch(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Noise: uint8 images [n, H, W, 3], and labels [n, H, W] below `row.classes`."""
    rng = np.random.default_rng(0)
    shape = (row.images, *row.size)
    images = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    return images, rng.integers(0, row.classes, shape, dtype=np.uint8)


def normalised(images: np.ndarray) -> np.ndarray:
    """float32 images as a network takes them."""
    return ((images / 255 - MEAN) / STD).astype(np.float32)
