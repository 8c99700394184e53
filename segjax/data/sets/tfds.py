"""Prepared data sets of TensorFlow Datasets, read without TensorFlow.

TFDS is imported when a data set is opened, as that takes a second. Only a data set's metadata and
ArrayRecord files are used, not the code that made them, and nothing is ever downloaded.
"""

import dataclasses
import functools
import io
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
from segjax.data.files.images import some
from segjax.data.files.masks import mask_ids
from segjax.data.files.pixels import open_image
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

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} of {self.length} samples")
        name = f"{self.name.replace('/', '_')}_{self.split}_{index:06d}"
        records, features, skipped = self._opened
        record = features.deserialize_example_np(records[index], decoders=skipped)
        image = _to_rgb(_within(record, self.image_feature), name)
        ids = _to_ids(_within(record, self.label_feature), name)
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
    def _opened(self):
        """The records, their two features that are read, and those of them that stay encoded.

        Images are decoded here, not by TFDS, which reads no 16-bit ones without TensorFlow.
        """
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(self.folder)
        chosen, skipped = {}, {}
        for path in (self.image_feature, self.label_feature):
            feature, (*outer, last) = find_feature(builder, path, ""), path.split("/")
            inside, inside_skipped = chosen, skipped
            for key in outer:
                inside = inside.setdefault(key, {})
                inside_skipped = inside_skipped.setdefault(key, {})
            inside[last] = feature
            if isinstance(feature, tfds.features.Image):
                inside_skipped[last] = tfds.decode.SkipDecoding()
        records = builder.as_data_source(
            self.split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        return records, tfds.features.FeaturesDict(chosen), skipped


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
    builder = prepared_builder(name, data_dir)
    check_features(builder, image_feature, label_feature)
    try:
        length = builder.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        known = ", ".join(sorted(builder.info.splits))
        raise DataError(
            f"data split {split!r}: tfds:{name} has {known}",
            "use one of them, or a part such as 'train[:90%]'",
        ) from error
    remedy = (
        "use data.ignore_ids for void ids; where ids count from 1, "
        f"data.num_classes={len(listed.classes) + 1} and data.ignore_ids=(0, {IGNORE})"
    )
    return TfdsSplit(
        builder.info.full_name,
        str(builder.data_dir),
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
    feature = find_feature(prepared_builder(name, data["root"]), path, "data.label_feature")
    names = getattr(feature, "names", ())
    if not names:
        raise DataError(
            f"tfds:{name}: feature {path!r} names no classes",
            'use data.classes, a file or names ("road,car,sky"), or at least data.num_classes',
        )
    return class_lists.listed(from_names(names))


class _Encoded(io.BytesIO):
    """The bytes of an image file; its text in messages is the sample's name."""

    def __init__(self, data: bytes, name: str):
        super().__init__(data)
        self.name = name

    def __str__(self) -> str:
        return self.name


def _within(record: Mapping[str, Any], path: str) -> bytes | np.ndarray:
    for key in path.split("/"):
        record = record[key]
    return record


def _to_rgb(values: bytes | np.ndarray, name: str) -> UInt8[np.ndarray, "h w 3"]:
    if isinstance(values, bytes):
        image = open_image(_Encoded(values, name))
        sixteen_bit = image.mode.startswith("I")
        values = np.array(image, np.uint16) if sixteen_bit else np.array(image.convert("RGB"))
    if values.dtype == np.uint16:
        values = np.round(values / 257).astype(np.uint8)  # 65535 becomes 255
    values = values.reshape(*values.shape[:2], -1)
    return np.repeat(values, 3, axis=-1) if values.shape[2] == 1 else values[..., :3]


def _to_ids(values: bytes | np.ndarray, name: str) -> Integer[np.ndarray, "h w"]:
    if isinstance(values, bytes):
        return mask_ids(open_image(_Encoded(values, name)), name)
    values = values.reshape(values.shape[:2])
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


def prepared_builder(name: str, data_dir: str):
    """TFDS's builder for a data set's files; DataError if they are missing or not usable."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils import file_utils

    where = f" --data_dir={data_dir}" if data_dir else ""
    try:
        builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=data_dir or None)
    except tfds.core.DatasetNotFoundError as error:
        folders = [tfds.core.Path(d) for d in file_utils.list_data_dirs(data_dir or None)]
        prepared = [p.name for d in folders if d.is_dir() for p in d.iterdir() if p.is_dir()]
        raise DataError(
            f"tfds:{name} is not prepared in {', '.join(map(str, folders))} (found there: "
            f"{some(prepared)})",
            f"use data.root=FOLDER where it is, or prepare it: `tfds build {name} "
            f"--file_format=array_record{where}`, in an environment that has TensorFlow",
        ) from error
    formats = {f.value for f in builder.info.available_file_formats()}
    if "array_record" not in formats:
        raise DataError(
            f"tfds:{name} lies in {builder.data_dir} as {some(formats)}, which has no random "
            f"access",
            f"use ArrayRecord: `tfds convert_format --dataset_version_dir="
            f"{builder.data_dir} --out_file_format=array_record`, in an environment that has "
            "TensorFlow",
        )
    return builder


def find_feature(builder, path: str, option: str):
    """The feature at `a/b`; DataError, with the features of the data set, if it has no such one."""
    feature = builder.info.features
    for key in path.split("/"):
        if not _has_parts(feature) or key not in feature:
            raise DataError(
                f"{option}={path!r} is no feature of tfds:{builder.info.full_name}",
                f"use one of {', '.join(_feature_names(builder.info.features))}",
            )
        feature = feature[key]
    return feature


def _feature_names(features, prefix: str = "") -> list[str]:
    if not _has_parts(features):
        return [f"{prefix[:-1]} ({type(features).__name__})"]
    return [n for k in sorted(features) for n in _feature_names(features[k], f"{prefix}{k}/")]


def _has_parts(feature) -> bool:
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.FeaturesDict)


def check_features(builder, image_feature: str, label_feature: str) -> None:
    """Raises DataError if the features are missing, or are no image and no integer mask."""
    import tensorflow_datasets as tfds

    for option, path, depths, kinds, allowed in (
        ("data.image_feature", image_feature, (1, 3, 4), (np.uint8, np.uint16), "8-bit or 16-bit"),
        ("data.label_feature", label_feature, (1,), (np.integer, np.bool_), "[h, w] of integers"),
    ):
        feature = find_feature(builder, path, option)
        described, fits = type(feature).__name__, False
        if isinstance(feature, tfds.features.Image | tfds.features.Tensor):
            shape, dtype = feature.shape, np.dtype(feature.np_dtype)
            described = f"{described} {dtype} {shape}"
            fits = len(shape) == 2 or (len(shape) == 3 and shape[2] in (*depths, None))
            fits = fits and any(np.issubdtype(dtype, kind) for kind in kinds)
        if not fits:
            raise DataError(
                f"{option}={path!r} of tfds:{builder.info.full_name} is {described}",
                f"use an image "
                f"feature that is {allowed}, of {', '.join(_feature_names(builder.info.features))}",
            )
