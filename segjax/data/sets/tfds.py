"""Prepared data sets of TensorFlow Datasets, read without TensorFlow.

Only a data set's metadata and ArrayRecord files are read, see `tfds_files`: no code that made them,
or that they name, is imported, and nothing is ever downloaded.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8

from segjax.data import class_lists
from segjax.data.class_lists import ClassList
from segjax.data.classes import IGNORE, ClassTable, from_names
from segjax.data.errors import DataError
from segjax.data.files.ids import IdMap, listed_ids
from segjax.data.files.masks import mask_ids
from segjax.data.files.pixels import open_image
from segjax.data.files.reading import reading
from segjax.data.prepared.examples import Encoded, Records, array_of, bytes_of
from segjax.data.sets.tfds_files import Feature, TfdsFiles, find_files
from segjax.data.source import DatasetSpec

_NAME = re.compile(r"tfds:(\w+(/[\w.-]+)?(:[\d.*]+)?)")


def spec_of(name: str) -> DatasetSpec:
    """The data set `tfds:NAME`, `tfds:NAME/CONFIG` or either with `:VERSION`.

    Options: data.root is TFDS's data_dir ("" = TFDS's own choice); data.image_feature and
    data.label_feature name the features, `a/b` for b within a; splits may be TFDS's slices, such
    as `train[:90%]`. The classes are data.classes, else data.num_classes, else the label
    feature's.

    Raises:
      DataError: for a name of another form.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(
            f"data.name={name!r} names no TFDS data set",
            "use tfds:NAME, such as tfds:oxford_iiit_pet, tfds:NAME/CONFIG or tfds:NAME:VERSION",
        )
    return DatasetSpec(
        title=f"{match[1]} of TensorFlow Datasets",
        licence="see the data set's own",
        url=f"https://www.tensorflow.org/datasets/catalog/{match[1].split('/')[0].split(':')[0]}",
        layout="what TFDS prepared, as ArrayRecord",
        splits=("train", "validation", "test"),
        classes=lambda data: _classes(match[1], data).classes,
        open=functools.partial(_open_configured, match[1]),
        reads_files=False,
    )


@dataclasses.dataclass(frozen=True, repr=False)
class TfdsSplit:
    """A split of a prepared TFDS data set; see `source.Source`.

    Each process opens the files for itself.

    Raises:
      DataError: on reading, if an image cannot be read, sizes differ, or an id has no label.
    """

    name: str  # TFDS's name of the data set, with its version
    folder: str  # of the files of this version
    split: str  # in TFDS's words, as the features
    image_feature: str
    label_feature: str
    classes: ClassTable  # the K classes
    id_map: IdMap  # from the ids in a mask to labels
    length: int  # number of samples

    @property
    def files(self) -> list[pathlib.Path]:
        """What the samples of all splits are read from."""
        return [path for path in pathlib.Path(self.folder).iterdir() if path.is_file()]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} of {self.length} samples")
        name = f"{self.name.replace('/', '_')}_{self.split}_{index:06d}"
        records, image_feature, label_feature = self._opened
        with reading(records.place(index), "use the files that TFDS wrote"):
            features = records[index]
            image = _to_rgb(_value(features, self.image_feature, image_feature), name)
            ids = _to_ids(_value(features, self.label_feature, label_feature), name)
        if image.shape[:2] != ids.shape:
            raise DataError(
                f"{name}: {self.image_feature} is {image.shape[0]}x{image.shape[1]} but "
                f"{self.label_feature} is {ids.shape[0]}x{ids.shape[1]} (height x width)",
                "use features of one size",
            )
        return {"image": image, "label": self.id_map.labels_of(ids, name), "name": name}

    def __repr__(self) -> str:
        # Without the folder: grain compares this text on resume, and the data may have moved.
        return (
            f"TFDS(name={self.name!r}, split={self.split!r}, image={self.image_feature!r}, "
            f"label={self.label_feature!r}, samples={len(self)})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)

    @functools.cached_property
    def _opened(self) -> tuple[Records, Feature, Feature]:
        """The records, and their two features that are read."""
        files = TfdsFiles(self.name, pathlib.Path(self.folder))
        features = [files.feature(path, "") for path in (self.image_feature, self.label_feature)]
        return Records(files.parts(self.split)), *features


def open_tfds(
    name: str,
    data_dir: str,
    split: str,
    classes: ClassTable | ClassList,
    *,
    image_feature: str = "image",
    label_feature: str = "segmentation_mask",
    ignore_ids=(IGNORE,),
) -> TfdsSplit:
    """A split of the TFDS data set `name`, prepared in `data_dir`; decodes nothing yet.

    Raises:
      DataError: if it is not prepared, is not ArrayRecord, has no such split or feature, or a
        feature is no image or no integer mask.
    """
    listed = classes if isinstance(classes, ClassList) else class_lists.listed(classes)
    files = find_files(name, data_dir)
    check_features(files, image_feature, label_feature)
    length = sum(part.take for part in files.parts(split))
    remedy = (
        "use data.ignore_ids for void ids; where ids count from 1, "
        f"data.num_classes={len(listed.classes) + 1} and data.ignore_ids=(0, {IGNORE})"
    )
    return TfdsSplit(
        files.name,
        str(files.folder),
        split,
        image_feature,
        label_feature,
        listed.classes,
        dataclasses.replace(listed_ids(listed, ignore_ids), remedy=remedy),
        length,
    )


def _open_configured(name: str, data: Mapping[str, Any], split: str) -> TfdsSplit:
    return open_tfds(
        name,
        data["root"],
        split,
        _classes(name, data),
        image_feature=data["image_feature"],
        label_feature=data["label_feature"],
        ignore_ids=tuple(data["ignore_ids"]),
    )


def _classes(name: str, data: Mapping[str, Any]) -> ClassList:
    if data["classes"] or data["num_classes"]:
        return class_lists.given_list(data["classes"], data["num_classes"])
    path = data["label_feature"]
    files = find_files(name, data["root"])
    files.feature(path, "data.label_feature")
    names = files.class_names(path)
    if not names:
        raise DataError(
            f"tfds:{name}: feature {path!r} names no classes",
            'use data.classes, a file or names ("road,car,sky"), or at least data.num_classes',
        )
    return class_lists.listed(from_names(names))


def _value(features: Mapping[str, Any], path: str, feature: Feature) -> bytes | np.ndarray:
    assert feature.array is not None, "check_features refuses others"
    if feature.is_image:
        return bytes_of(features, path)
    return array_of(features, path, feature.array)


def _to_rgb(values: bytes | np.ndarray, name: str) -> UInt8[np.ndarray, "h w 3"]:
    if isinstance(values, bytes):
        image = open_image(Encoded(values, name))
        sixteen_bit = image.mode.startswith("I")
        values = np.array(image, np.uint16) if sixteen_bit else np.array(image.convert("RGB"))
    if values.dtype == np.uint16:
        values = np.round(values / 257).astype(np.uint8)  # 65535 becomes 255
    values = values.reshape(*values.shape[:2], -1)
    return np.repeat(values, 3, axis=-1) if values.shape[2] == 1 else values[..., :3]


def _to_ids(values: bytes | np.ndarray, name: str) -> Integer[np.ndarray, "h w"]:
    if isinstance(values, bytes):
        return mask_ids(open_image(Encoded(values, name)), name)
    values = values.reshape(values.shape[:2])
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


def check_features(files: TfdsFiles, image_feature: str, label_feature: str) -> None:
    """Raises DataError if the features are missing, or are no image and no integer mask."""
    for option, path, depths, kinds, allowed in (
        ("data.image_feature", image_feature, (1, 3, 4), (np.uint8, np.uint16), "8-bit or 16-bit"),
        ("data.label_feature", label_feature, (1,), (np.integer, np.bool_), "[h, w] of integers"),
    ):
        feature, fits = files.feature(path, option), False
        if feature.array is not None:
            shape, dtype = feature.array.shape, feature.array.dtype
            fits = len(shape) == 2 or (len(shape) == 3 and shape[2] in (*depths, None))
            fits = fits and any(np.issubdtype(dtype, kind) for kind in kinds)
        if not fits:
            raise DataError(
                f"{option}={path!r} of tfds:{files.name} is {feature}",
                f"use an image feature that is {allowed}, of {', '.join(files.feature_names())}",
            )
