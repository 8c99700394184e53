"""The files of a data set that TFDS has prepared: its features, its splits and their shards.

They are read here from the metadata, and not by TFDS's builders: those import the classes and
modules that the metadata name.
"""

import fnmatch
import functools
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from segjax.data.errors import DataError
from segjax.data.files.images import some
from segjax.data.files.json_file import read_json
from segjax.data.files.reading import reading
from segjax.data.files.text_file import read_text
from segjax.data.prepared.examples import Array, Part

_FEATURES, _INFO = "features.json", "dataset_info.json"
_INTACT, _NO_INFO = "use the files that TFDS wrote", "is not the description of a TFDS data set"
_FORMAT = "array_record"
# Feature types that are known, and where features.json keeps what each is.
_TYPES = {
    "tensorflow_datasets.core.features.features_dict.FeaturesDict": "featuresDict",
    "tensorflow_datasets.core.features.image_feature.Image": "image",
    "tensorflow_datasets.core.features.labeled_image.LabeledImage": "image",
    "tensorflow_datasets.core.features.tensor_feature.Tensor": "tensor",
}
_DTYPES = {"bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"}
_NAME = re.compile(r"\w[\w.-]{,99}")  # with numbers, within the 255 of a file's name
# Names of shards; a width such as {SPLIT:1000000000} is none.
_TEMPLATE = re.compile(
    r"([\w.-]|\{(DATASET|SPLIT|FILEFORMAT|SHARD_INDEX|NUM_SHARDS|SHARD_X_OF_Y)\}){1,100}"
)


class Feature(NamedTuple):
    """A feature of each example.

    Attributes:
      type: its name in TFDS.
      parts: of a dict of features; None for any other.
      array: of an image or a tensor of whole numbers; None for others.
      is_image: whether it lies in the example as an image file.
    """

    type: str
    parts: "Mapping[str, Feature] | None" = None
    array: Array | None = None
    is_image: bool = False

    def __str__(self) -> str:
        return f"{self.type} {self.array.dtype} {self.array.shape}" if self.array else self.type


class TfdsFiles:
    """A version of a data set.

    Args:
      name: in TFDS's words, with the version.
      folder: of its files.

    Raises:
      DataError: naming the file that is missing or damaged.
    """

    def __init__(self, name: str, folder: pathlib.Path):
        self.name, self.folder = name, folder

    @functools.cached_property
    def features(self) -> Feature:
        path = self.folder / _FEATURES
        content = read_json(path, "the features of a TFDS data set", _INTACT)
        with reading(path, _INTACT, "is not the features of a TFDS data set"):
            return _feature(content)

    @functools.cached_property
    def formats(self) -> set[str]:
        """The formats that the shards are written in."""
        with reading(self.folder / _INFO, _INTACT, _NO_INFO):
            return {self._info.get("fileFormat", ""), *self._info.get("alternativeFileFormats", ())}

    @functools.cached_property
    def _info(self) -> Mapping[str, Any]:
        path = self.folder / _INFO
        fields = {"name": str, "version": str, "splits": list}
        return read_json(path, _NO_INFO.removeprefix("is not "), _INTACT, fields=fields)

    @functools.cached_property
    def splits(self) -> Any:
        """TFDS's splits, by name or slice."""
        import tensorflow_datasets as tfds

        def split(values: Mapping[str, Any]) -> tfds.core.SplitInfo:
            name, lengths = str(values["name"]), [int(n) for n in values["shardLengths"]]
            pattern = str(values.get("filepathTemplate") or "")
            names = (self._info["name"], name)
            if not all(map(_NAME.fullmatch, names)) or not _TEMPLATE.fullmatch(pattern or "a"):
                raise ValueError(f"split {name!r} of {names[0]!r} in files {pattern!r}")
            if min(lengths, default=0) < 0:
                raise ValueError(f"split {name!r} has shards of {lengths} examples")
            template = tfds.core.ShardedFileTemplate(
                data_dir=self.folder, dataset_name=names[0], filetype_suffix=_FORMAT, split=name
            )
            if pattern:
                template = template.replace(template=pattern)
            return tfds.core.SplitInfo(
                name=name, shard_lengths=lengths, num_bytes=0, filename_template=template
            )

        with reading(self.folder / _INFO, _INTACT, _NO_INFO):
            return tfds.core.SplitDict([split(values) for values in self._info["splits"]])

    def parts(self, split: str) -> list[Part]:
        """The shards of a split or a slice of one, such as `train[:90%]`; DataError if it is not
        there, or a shard is missing."""
        try:
            instructions = self.splits[split].file_instructions if self.splits else ()
        except (KeyError, ValueError) as error:
            raise DataError(
                f"data split {split!r}: tfds:{self.name} has {', '.join(sorted(self.splits))}",
                "use one of them, or a part such as 'train[:90%]'",
            ) from error
        parts = [Part(str(i.filename), i.skip, i.take, i.examples_in_shard) for i in instructions]
        with reading(self.folder / _INFO, _INTACT, "names shards"):  # of names that are too long
            absent = [part.filename for part in parts if not pathlib.Path(part.filename).is_file()]
        if absent:
            raise DataError(f"tfds:{self.name}: {some(absent)} are missing", _INTACT)
        return parts

    def feature(self, path: str, option: str) -> Feature:
        """The feature at `a/b`; DataError, with the features of the data set, if it has no such
        one."""
        feature = self.features
        for key in path.split("/"):
            if feature.parts is None or key not in feature.parts:
                raise DataError(
                    f"{option}={path!r} is no feature of tfds:{self.name}",
                    f"use one of {', '.join(self.feature_names())}",
                )
            feature = feature.parts[key]
        return feature

    def feature_names(self) -> list[str]:
        """The paths of all features, with their types."""

        def names(feature: Feature, prefix: str) -> Iterator[str]:
            if feature.parts is None:
                yield f"{prefix[:-1]} ({feature.type})"
            for key in sorted(feature.parts or ()):
                yield from names(feature.parts[key], f"{prefix}{key}/")

        return list(names(self.features, ""))

    def class_names(self, path: str) -> list[str]:
        """The names of the classes of the feature at `a/b`; [] if it has none."""
        file = self.folder / f"{path.replace('/', '-')}.labels.txt"
        lines = read_text(file, _INTACT)[0].split("\n") if file.is_file() else ()
        return [line.strip() for line in lines if line.strip()]


def _feature(content: Mapping[str, Any], depth: int = 0) -> Feature:
    """A feature of features.json; ValueError, KeyError and others for what is none."""
    full_name = str(content["pythonClassName"])
    name, kind = full_name.rpartition(".")[2], _TYPES.get(full_name)
    if depth > 32:
        raise ValueError("features lie too deep in one another")
    if kind is None:
        return Feature(name)
    inner = content[kind]
    if kind == "featuresDict":
        parts = inner.get("features", {}).items()
        return Feature(name, {key: _feature(part, depth + 1) for key, part in parts})
    sizes = [int(n) for n in inner["shape"].get("dimensions", ())]
    shape = tuple(None if n == -1 else n for n in sizes)
    dtype, encoding = str(inner.get("dtype", "uint8")), str(inner.get("encoding", "none"))
    if min(sizes, default=0) < -1 or len(sizes) > 8:
        raise ValueError(f"a feature of the shape {sizes}")
    if dtype not in _DTYPES or encoding not in ("none", "bytes", "zlib"):
        return Feature(f"{name} {dtype} {shape}")
    return Feature(name, None, Array(shape, np.dtype(dtype), encoding), is_image=kind == "image")


def find_files(name: str, data_dir: str) -> TfdsFiles:
    """The newest version of a data set `NAME`, `NAME/CONFIG` or either with `:VERSION`, in
    `data_dir` ("" = TFDS's own choice); DataError if it is not there as ArrayRecord."""
    if data_dir:
        folders = [pathlib.Path(data_dir)]
    else:
        from tensorflow_datasets.core.utils import file_utils

        folders = [pathlib.Path(folder) for folder in file_utils.list_data_dirs(None)]
    found = [(version, folder) for folder in folders for version in _versions(folder, name)]
    if not found:
        prepared = [p.name for d in folders if d.is_dir() for p in d.iterdir() if p.is_dir()]
        where = f" --data_dir={data_dir}" if data_dir else ""
        raise DataError(
            f"tfds:{name} is not prepared in {', '.join(map(str, folders))} (found there: "
            f"{some(prepared)})",
            f"use data.root=FOLDER where it is, or prepare it: `tfds build {name} "
            f"--file_format=array_record{where}`, in an environment that has TensorFlow",
        )
    folder, within = max(found, key=lambda pair: [int(n) for n in pair[0].name.split(".")])
    files = TfdsFiles(folder.relative_to(within).as_posix(), folder)
    if _FORMAT not in files.formats:
        raise DataError(
            f"tfds:{name} lies in {folder} as {some(files.formats)}, which has no random access",
            f"use ArrayRecord: `tfds convert_format --dataset_version_dir={folder} "
            "--out_file_format=array_record`, in an environment that has TensorFlow",
        )
    return files


def _versions(data_dir: pathlib.Path, name: str) -> list[pathlib.Path]:
    """The folders of the versions that a name stands for."""
    base, _, version = name.partition(":")
    folder = data_dir / base
    if "/" not in base and not _numbered(folder):
        default = folder / ".config" / "metadata.json"
        if default.is_file():
            fields = {"default_config_name": str}
            content = read_json(default, "TFDS's default config", _INTACT, fields=fields)
            if _NAME.fullmatch(content["default_config_name"]):
                folder /= content["default_config_name"]
    return [p for p in _numbered(folder) if fnmatch.fnmatch(p.name, version or "*")]


def _numbered(folder: pathlib.Path) -> list[pathlib.Path]:
    entries = folder.iterdir() if folder.is_dir() else ()
    return [
        p for p in entries if re.fullmatch(r"\d+\.\d+\.\d+", p.name) and (p / _FEATURES).is_file()
    ]
