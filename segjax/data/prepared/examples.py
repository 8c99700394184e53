"""Records of ArrayRecord shards, and the values of the `tf.train.Example` in each.

They are read by what the caller says of them, without TensorFlow and without TFDS's builders, which
import classes that the files of a data set name.
"""

import functools
import io
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

_LARGEST = 1 << 30  # bytes of an array that is compressed


class Part(NamedTuple):
    """Consecutive records of a shard, in the words of ArrayRecord's reader."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


class Array(NamedTuple):
    """How an array lies in an example."""

    shape: tuple[int | None, ...]  # None = each record's own
    dtype: np.dtype
    encoding: str = "none"  # "none": numbers; "bytes", "zlib"


class Records:
    """The examples of shards, by index: the features of each by name.

    Each process opens the files for itself. What a damaged shard makes of a read is any error.

    Args:
      parts: of the shards, in order.
    """

    def __init__(self, parts: Sequence[Part]):
        self._parts = parts
        self._ends = np.cumsum([part.take for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self._example.FromString(self._source[index]).features.feature

    def place(self, index: int) -> str:
        """The shard and the number of an example in it, for messages."""
        k = int(np.searchsorted(self._ends, index, "right"))
        part = self._parts[k]
        return f"{part.filename}, record {index - self._ends[k] + part.take + part.skip}"

    @functools.cached_property
    def _source(self) -> Any:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        return ArrayRecordDataSource(list(self._parts))

    @functools.cached_property
    def _example(self) -> Any:
        from tensorflow_datasets.proto import tf_example_pb2  # takes half a second

        return tf_example_pb2.Example


class Encoded(io.BytesIO):
    """The bytes of an image file; its text in messages is the place that they are from."""

    def __init__(self, data: bytes, place: str):
        super().__init__(data)
        self.name = place

    def __str__(self) -> str:
        return self.name


def bytes_of(features: Mapping[str, Any], name: str) -> bytes:
    """The bytes of a feature; ValueError if it is not one piece of them."""
    values = features[name].bytes_list.value
    if len(values) != 1:
        raise ValueError(f"feature {name!r} holds {len(values)} pieces of bytes, not one")
    return values[0]


def array_of(features: Mapping[str, Any], name: str, array: Array) -> Shaped[np.ndarray, "..."]:
    """The array of a feature, read-only where it lies there as bytes.

    Raises:
      ValueError, OverflowError: if the feature is another.
    """
    shape, value = array.shape, name
    if shape.count(None) > 1:
        value, given = f"{name}/value", tuple(features[f"{name}/shape"].int64_list.value)
        own = [n if n is not None else g for n, g in zip(shape, given, strict=True)]
        if min(given, default=0) < 0 or tuple(own) != given:
            raise ValueError(f"feature {name!r} has the shape {given}, not {shape}")
        shape = given
    if array.encoding == "none":
        numbers = list(features[value].int64_list.value)
        signed = array.dtype == np.uint64  # which lie there as signed numbers
        values = np.array(numbers, np.int64 if signed else array.dtype)
        values = values.view(array.dtype)
    else:
        data = bytes_of(features, value)
        if array.encoding == "zlib":
            data = zlib.decompressobj().decompress(data, _LARGEST)
        values = np.frombuffer(data, array.dtype)
    return values.reshape([-1 if n is None else n for n in shape])
