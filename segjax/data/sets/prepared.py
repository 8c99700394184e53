"""The `prepared` data set: records of `--mode=prepare`, read by random access."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from segjax.data.classes import ClassTable, from_names
from segjax.data.errors import DataError
from segjax.data.files.reading import reading
from segjax.data.prepared import manifest as manifests
from segjax.data.prepared.array_records import from_file
from segjax.data.prepared.examples import Array, Part, Records, array_of, bytes_of
from segjax.data.prepared.manifest import Manifest
from segjax.data.source import DatasetSpec

_ARRAYS, _UINT8 = ("image", "segmentation_mask"), np.dtype(np.uint8)


@dataclasses.dataclass(frozen=True, repr=False)
class Prepared:
    """A split of a prepared data set; see `source.Source`.

    The arrays may be read-only. Each process opens the files for itself, at its first read.
    """

    manifest: Manifest
    split: str

    @property
    def classes(self) -> ClassTable:
        return self.manifest.classes

    @property
    def files(self) -> list[pathlib.Path]:
        """What the samples are read from."""
        shards = self.manifest.splits[self.split].shards
        return [
            self.manifest.folder / manifests.FILE,
            *(self.manifest.path(shard) for shard in shards),
        ]

    def __len__(self) -> int:
        return self.manifest.splits[self.split].samples

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self!r} has no sample {index}")
        channels, place = self.manifest.channels, self._records.place(index)
        with reading(place, self.manifest.remedy()):
            features = self._records[index]
            if self.manifest.encoding != "raw":
                image, mask = (from_file(bytes_of(features, name), place) for name in _ARRAYS)
                image, mask = image.reshape(*image.shape[:2], channels), mask[..., None]
            else:
                image = array_of(features, "image", Array((None, None, channels), _UINT8, "bytes"))
                mask = array_of(
                    features, "segmentation_mask", Array((None, None, 1), _UINT8, "bytes")
                )
            if image.dtype != _UINT8 or mask.dtype != _UINT8 or mask.shape != (*image.shape[:2], 1):
                raise ValueError(
                    f"image is {image.dtype} {list(image.shape)}, label {mask.dtype} "
                    f"{list(mask.shape)}"
                )
            return {
                "image": image,
                "label": mask[..., 0],
                "name": bytes_of(features, "name").decode(),
            }

    @functools.cached_property
    def _records(self) -> Records:
        shards = self.manifest.splits[self.split].shards
        return Records(
            [Part(str(self.manifest.path(s)), 0, s.samples, s.samples) for s in shards if s.samples]
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"manifest": self.manifest, "split": self.split}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        # Without the folder, which may move, and with the checksums, which bind cached counts and
        # resumed runs to the samples.
        shards = self.manifest.splits[self.split].shards
        digest = hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()
        return (
            f"Prepared({self.manifest.name} {self.manifest.version}, split={self.split!r}, "
            f"samples={len(self)}, content={digest[:16]})"
        )


def open_prepared(root: str | pathlib.Path, split: str, channels: int | None = None) -> Prepared:
    """A split of the prepared data set in `root`, or one or two folders below it.

    Raises:
      DataError: if there are none or several, its preparation has not ended, it lacks the split,
        its images have other channels, or a shard is missing or truncated.
    """
    manifest = manifests.find(root)
    if split not in manifest.splits:
        raise DataError(
            f"data split {split!r} is not in {manifest.folder}, which has "
            f"{', '.join(manifest.splits)}",
            "use one of them, or prepare it too",
        )
    if channels not in (None, manifest.channels):
        raise DataError(
            f"data.channels={channels}, but images in {manifest.folder} have {manifest.channels}",
            f"use data.channels={manifest.channels}",
        )
    manifest.check_sizes(split)
    return Prepared(manifest, split)


def _classes(data: Mapping[str, Any]) -> ClassTable:
    """The manifest's classes; without a root, `data.num_classes` nameless ones, to plan a run."""
    if not data["root"] and data["num_classes"]:
        return from_names(f"class {k}" for k in range(data["num_classes"]))
    return manifests.find(data["root"]).classes


SPEC = DatasetSpec(
    title="prepared: written by --mode=prepare",
    licence="that of the original data, in segjax.json",
    url="",
    layout=f"<name>/<version>/{manifests.FILE} and shards, or the folder of these itself",
    splits=("train", "val", "test"),
    classes=_classes,
    open=lambda data, split: open_prepared(data["root"], split, data["channels"]),
)
