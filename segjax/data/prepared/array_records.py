"""Samples as records of ArrayRecord files, in TFDS's form, without TensorFlow.

A record is a `tf.train.Example` with `image`, `segmentation_mask` and `name`. "raw" keeps the
arrays as bytes: reading one is a copy. "png" keeps them compressed, without loss; "jpeg" the images
with a little loss, and the masks as "png".
"""

import contextlib
import errno
import io
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from segjax.data.errors import DataError
from segjax.data.files.atomic import replacing
from segjax.data.files.ids import class_ids
from segjax.data.files.images import PNG_LEVEL
from segjax.data.files.pixels import open_image
from segjax.data.fitted import fit_image, fit_label
from segjax.data.parallel import TIMEOUT_S, within
from segjax.data.prepared.examples import Encoded
from segjax.data.prepared.manifest import ENCODINGS, Manifest, Shard, sha256
from segjax.data.source import Source, file_names, read_sample
from segjax.terminal import printable

# One record a group, or a random read decompresses its neighbours too. Uncompressed: PNG bytes do
# not get smaller, and inflating raw arrays takes four times as long as reading them.
_OPTIONS = "group_size:1,uncompressed"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
# Channels that an encoding holds.
_CHANNELS = {"raw": range(1, 2**31), "png": (1, 3, 4), "jpeg": (1, 3)}
_JPEG = {"quality": 90}


def features(encoding: str, channels: int) -> Any:
    """TFDS's description of a record; DataError for an unknown encoding, or channels that it
    cannot hold."""
    if encoding not in ENCODINGS:
        raise DataError(f"encoding={encoding!r} is unknown", f"use {' or '.join(ENCODINGS)}")
    if channels not in _CHANNELS[encoding]:
        found = f"encoding={encoding!r} cannot hold {channels} channels"
        raise DataError(found, "use encoding='raw'")
    import tensorflow_datasets as tfds  # takes a second, and only this needs it

    def array(channels: int, encoding: str):
        shape = (None, None, channels)
        if encoding != "raw":
            return tfds.features.Image(shape=shape, dtype=np.uint8, encoding_format=encoding)
        return tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes")

    return tfds.features.FeaturesDict(
        {
            "image": array(channels, encoding),
            "segmentation_mask": array(1, _of_masks(encoding)),
            "name": tfds.features.Text(),
        }
    )


def _of_masks(encoding: str) -> str:
    """The encoding of the masks, which bear no loss."""
    return "png" if encoding == "jpeg" else encoding


def fitted_sample(
    source: Source, index: int, num_values: int, size: tuple[int, int] | None
) -> dict[str, Any]:
    """A sample, fitted to `size` as by `fitted.FittedDataset`; DataError if the arrays are not
    those of a source, or a labelled pixel holds `num_values` or more."""
    image, label, name = read_sample(source, index)
    label = class_ids(num_values).labels_of(label, name)
    if size is not None:
        image, label = fit_image(image, size), fit_label(label, size)
    return {"image": image, "label": label, "name": name}


def timed_sample(
    source: Source, index: int, num_values: int, size: tuple[int, int] | None, timeout_s: float
) -> dict[str, Any]:
    """`fitted_sample`, or TimeoutError if it takes longer."""
    names = " with ".join(file_names(source, index))
    return within(timeout_s, names, fitted_sample, source, index, num_values, size)


def record(sample: Mapping[str, Any], features: Any, encoding: str) -> bytes:
    """A sample as it is stored; DataError if it has other channels than `features`."""
    own, channels = sample["image"].shape[2], features["image"].shape[2]
    if own != channels:
        raise DataError(
            f"{sample['name']}: image has {own} channels, the first of its data set {channels}",
            "use images of one kind",
        )
    image, mask = sample["image"], sample["label"][..., None]
    if encoding != "raw":
        image, mask = _file(image, encoding), _file(mask, _of_masks(encoding))
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    values = {"image": image, "segmentation_mask": mask, "name": printable(sample["name"])}
    serializer = ExampleSerializer(features.get_serialized_info())
    # Not features.serialize_example, whose bytes differ from run to run, as the order of a map's
    # entries is free. This way equal files have equal checksums, whoever writes them.
    example = serializer.get_tf_example(features.encode_example(values))
    return example.SerializeToString(deterministic=True)


def _file(array: np.ndarray, encoding: str) -> io.BytesIO:
    file = io.BytesIO()
    array = array[..., 0] if array.shape[-1] == 1 else array
    options = _JPEG if encoding == "jpeg" else {"compress_level": PNG_LEVEL}
    Image.fromarray(np.ascontiguousarray(array)).save(file, encoding, **options)
    file.seek(0)
    return file


def from_file(data: bytes, place: str) -> np.ndarray:
    """The array [h, w] or [h, w, c] of the bytes of a PNG or JPEG file; DataError, naming the
    place, for others."""
    return np.asarray(open_image(Encoded(data, place)))


def write_shard(
    source: Source, first: int, shard: Shard, manifest: Manifest, timeout_s: float = TIMEOUT_S
) -> Shard:
    """Writes the samples from `first` on to a file that appears when it is complete.

    Returns:
      The shard with its size and SHA-256.

    Raises:
      DataError: for a bad sample, or one with another number of channels than the first.
      OSError: if the file could not be completed.
    """
    from array_record.python import array_record_module

    described = features(manifest.encoding, manifest.channels)
    with _disk_errors(manifest.path(shard)), replacing(manifest.path(shard)) as partial:
        writer = array_record_module.ArrayRecordWriter(str(partial), _OPTIONS)
        for index in range(first, first + shard.samples):
            values = len(manifest.classes.values)
            sample = timed_sample(source, index, values, manifest.size, timeout_s)
            writer.write(record(sample, described, manifest.encoding))
        writer.close()
        reader = array_record_module.ArrayRecordReader(str(partial))
        written = reader.num_records()
        reader.close()
        if written != shard.samples:
            raise OSError(f"{partial} has {written} of {shard.samples} records; is the disk full?")
        return Shard(shard.file, shard.samples, partial.stat().st_size, sha256(partial))


@contextlib.contextmanager
def _disk_errors(path: pathlib.Path) -> Iterator[None]:
    """Turns an error of ArrayRecord's writer, for which it has one type, into an OSError."""
    try:
        yield
    except RuntimeError as error:
        number = next((n for n in _FULL if os.strerror(n) in str(error)), None)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def write_tfds_metadata(manifest: Manifest) -> None:
    """Writes the metadata for `tfds.builder_from_directory` beside the shards."""
    import tensorflow_datasets as tfds

    # TFDS's own builders neither resume nor write in parallel without Beam, but shards with its
    # file names become a data set with metadata beside them. check_data would need TensorFlow.
    template = tfds.core.ShardedFileTemplate(
        data_dir=manifest.folder, dataset_name=manifest.name, filetype_suffix="array_record"
    )
    tfds.folder_dataset.write_metadata(
        data_dir=os.fspath(manifest.folder),
        features=features(manifest.encoding, manifest.channels),
        split_infos=[
            tfds.core.SplitInfo(
                name=name,
                shard_lengths=[shard.samples for shard in split.shards],
                num_bytes=sum(shard.bytes for shard in split.shards),
                filename_template=template.replace(split=name),
            )
            for name, split in manifest.splits.items()
        ],
        version=manifest.version,
        check_data=False,
        description=manifest.title or manifest.name,
        homepage=manifest.url or None,
        license=manifest.licence or None,
        metadata=tfds.core.MetadataDict(
            classes=list(manifest.classes.names),
            palette=[list(c) for c in manifest.classes.palette],
        ),
    )
