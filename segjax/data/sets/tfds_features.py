"""Data sets that TensorFlow Datasets has prepared on disk, and the features of their records."""

import numpy as np

from segjax.data.errors import DataError
from segjax.data.files.images import some


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
