"""A TFDS data set written and read without TensorFlow, which wants its images as encoded bytes."""

import io
import json
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from segjax.data.checks import check_source
from segjax.data.datasets import class_table, make_source, spec_of
from tests.data.drawn import data_config

RNG = np.random.default_rng(0)
RGBA = RNG.integers(0, 256, (4, 6, 4), np.uint8)
GREY = RNG.integers(0, 256, (4, 6), np.uint8)
DEEP = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2570
TRIMAP = np.array([[1, 1, 2, 2, 3, 3]] * 4, np.uint8)  # counts from 1, as the pets' does
IDS = np.array([[0, 1, 2, 2, 1, 255]] * 4, np.uint8)


def png(array, palette=False):
    image, file = Image.fromarray(array), io.BytesIO()
    if palette:
        image = image.copy()
        image.putpalette([5, 6, 7] * 256)
    image.save(file, "png")
    return file.getvalue()


def image(channels=3, **options):
    return tfds.features.Image(shape=(None, None, channels), **options)


def tensor(dtype, *shape):
    return tfds.features.Tensor(shape=shape, dtype=dtype)


# Each feature and its value in every sample.
FEATURES = {
    "image": (image(), png(RGBA[..., :3])),
    "grey": (image(1), png(GREY)),
    "alpha": (image(4), png(RGBA)),
    "deep": (image(1, dtype=np.uint16), png(DEEP)),
    "array": (tensor(np.uint16, 4, 6), DEEP),
    "small": (image(1), png(GREY[:2])),
    "segmentation_mask": (image(1, use_colormap=True), png(TRIMAP)),
    "coloured": (image(1), png(RGBA[..., :3])),
    "kind": (tfds.features.ClassLabel(names=["cat", "dog"]), 1),
}
NAMED = tfds.features.LabeledImage(labels=["road", "car", "sky"])
MASKS = {
    "named": (NAMED, png(IDS, palette=True)),
    "array": (tensor(np.int64, 4, 6, 1), IDS[..., None].astype(np.int64)),
    "binary": (tensor(np.bool_, 4, 6), IDS == 1),
    "float": (tensor(np.float32, 4, 6), IDS.astype(np.float32)),
}


def columns(place):
    """The features (0) or the values (1) of the tables above."""
    masks = {name: row[place] for name, row in MASKS.items()}
    return {name: row[place] for name, row in FEATURES.items()} | {"masks": masks}


class PhotosOfNothing(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(columns(0)))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(5), "test": self._generate_examples(2)}

    def _generate_examples(self, count):
        return ((k, columns(1)) for k in range(count))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    PhotosOfNothing(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return folder


@pytest.fixture
def config(data_dir):
    def configured(**options):
        options = {"label_feature": "masks/named", "root": str(data_dir)} | options
        return data_config(**{"name": "tfds:photos_of_nothing"} | options)

    return configured


@pytest.mark.versions
def test_a_prepared_data_set_is_read_without_tensorflow(config):
    source = make_source(config(), "train")
    sample = source[3]
    np.testing.assert_array_equal(sample["image"], RGBA[..., :3])
    np.testing.assert_array_equal(sample["label"], IDS)
    assert sample["image"].dtype == sample["label"].dtype == np.uint8
    assert (len(source), sample["name"]) == (5, "photos_of_nothing_1.2.0_train_000003")
    assert source.classes.names == ("road", "car", "sky")  # the feature's own
    assert check_source(source, "train").class_pixels.tolist() == [20, 40, 40]
    with pytest.raises(IndexError):
        source[5]
    parts = [make_source(config(), f"train[{part}]") for part in (":80%", "80%:")]
    assert [len(part) for part in parts] == [4, 1]
    assert len(make_source(config(name="tfds:photos_of_nothing:1.2.0"), "test")) == 2


def test_sources_pickle_before_and_after_their_first_read(config):
    source = make_source(config(), "test")
    for _ in range(2):
        again = pickle.loads(pickle.dumps(source))
        np.testing.assert_array_equal(again[1]["label"], source[1]["label"])
        assert repr(again) == repr(source)
    assert str(config().root) not in repr(source)


TENTHS = np.arange(24).reshape(4, 6) * 10


@pytest.mark.parametrize(
    "option, feature, expected",
    [
        ("image_feature", "grey", np.stack([GREY] * 3, -1)),
        ("image_feature", "alpha", RGBA[..., :3]),
        ("image_feature", "deep", np.stack([TENTHS] * 3, -1)),
        ("image_feature", "array", np.stack([TENTHS] * 3, -1)),
        ("label_feature", "masks/array", IDS),
        ("label_feature", "masks/binary", IDS == 1),
        ("label_feature", "masks/named", IDS),
    ],
)
def test_images_become_rgb_and_masks_of_any_whole_numbers_labels(config, option, feature, expected):
    sample = make_source(config(classes="a,b,c", **{option: feature}), "train")[0]
    np.testing.assert_array_equal(sample[option.removesuffix("_feature")], expected)


def test_ids_that_count_from_1_need_a_class_more(config):
    options = {"label_feature": "segmentation_mask", "num_classes": 3}
    with pytest.raises(ValueError, match=r"bad ids 3 \(8 pix.*num_classes=4 .*ids=\(0, 255\)"):
        make_source(config(**options), "train")[0]
    options |= {"num_classes": 4, "ignore_ids": (0, 255)}
    np.testing.assert_array_equal(make_source(config(**options), "train")[0]["label"], TRIMAP)


def test_classes_are_asked_for_where_the_feature_has_none(config):
    with pytest.raises(ValueError, match=r"'segmentation_mask' names no classes; use data.classes"):
        class_table(config(label_feature="segmentation_mask"))
    listed = config(label_feature="segmentation_mask", classes="pet,border")
    assert class_table(listed).names == ("pet", "border")
    assert class_table(config(num_classes=3)).names == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize(
    "option, feature, error",
    [
        ("image_feature", "imag", r"_feature='imag' is no .*grey \(Image\), image \(Image\), kind"),
        ("label_feature", "masks/x", r"label_feature='masks/x' is no .*masks/named \(LabeledImage"),
        ("label_feature", "image/x", "is no feature"),
        ("image_feature", "masks", "is FeaturesDict; use an image feature that is 8-bit"),
        ("label_feature", "kind", r"is ClassLabel; use .*\[h, w\] of integers"),
        ("label_feature", "masks/float", r"is Tensor float32 \(4, 6\); use"),
        ("label_feature", "image", r"is Image uint8 \(None, None, 3\); use"),
        ("image_feature", "small", r"train_000002: small is 2x6 but masks/named is 4x6"),
        ("label_feature", "coloured", r"train_000002: masks must hold one class id .*mode RGB"),
    ],
)
def test_features_that_will_not_do_are_named(config, option, feature, error):
    with pytest.raises(ValueError, match=error):
        make_source(config(num_classes=3, **{option: feature}), "train")[2]


def test_data_that_are_not_prepared_come_with_the_command(config, data_dir, tmp_path):
    with pytest.raises(
        ValueError, match=r"'val': tfds:photos_of_nothing/1\.2\.0 has test, train; use"
    ):
        make_source(config(), "val")
    (tmp_path / "cifar10").mkdir()
    command = rf"`tfds build oxford_iiit_pet --file_format=array_record --data_dir={tmp_path}`"
    pets = config(name="tfds:oxford_iiit_pet", root=str(tmp_path), num_classes=4)
    with pytest.raises(ValueError, match=rf"found there: cifar10\).*{command}.*TensorFlow"):
        make_source(pets, "train")
    assert [p.name for p in tmp_path.iterdir()] == ["cifar10"]  # nothing was downloaded
    with pytest.raises(ValueError, match=r"photos_of_nothing:9\.0\.0 is not prepared"):
        class_table(config(name="tfds:photos_of_nothing:9.0.0"))
    copy = tmp_path / "photos_of_nothing" / "1.2.0"
    copy.mkdir(parents=True)
    for file in (data_dir / "photos_of_nothing" / "1.2.0").glob("*.json"):
        content = json.loads(file.read_text())
        if "fileFormat" in content:
            content["fileFormat"] = "tfrecord"
        (copy / file.name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"as tfrecord, .*tfds convert_format .*array_record"):
        class_table(config(root=str(tmp_path)))


@pytest.mark.parametrize("name", ["tfds:", "tfds:../pets", "tfds:a/b/c", "tfds:a:latest"])
def test_malformed_names(name):
    with pytest.raises(ValueError, match="names no TFDS data set; use tfds:NAME"):
        spec_of(data_config(name=name))
