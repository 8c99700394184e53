"""data.value_range and data.exif: found over the training split, checked, recorded."""

import json

import numpy as np
import pytest
import tifffile

from segjax.data.checks import check_source
from segjax.data.datasets import make_source
from segjax.data.doctor import ERROR, diagnose
from segjax.data.files.images import read_image
from segjax.data.image_options import resolve
from segjax.data.prepared import manifest
from segjax.data.prepared.write import write_prepared
from segjax.data.sets.folder import open_folder
from segjax.data.splits import Splits
from tests.data.drawn import TWO, data_config, save
from tests.data.files.test_orientation import PIXELS, tagged


def deep_pairs(root, highest, split="train", count=3):
    """16-bit grey images with values from 0 to `highest`, and their masks."""
    values = np.linspace(0, highest, 24).reshape(4, 6).astype(np.uint16)
    for index in range(count):
        save(root / f"images/{split}/{index}.png", np.roll(values, index))
        save(root / f"masks/{split}/{index}.png", np.arange(24, dtype=np.uint8).reshape(4, 6) % 2)
    return root


@pytest.mark.parametrize("highest, bits", [(1000, 10), (16383, 14)])
def test_16_bit_files_of_few_bits_are_refused_with_the_option(tmp_path, highest, bits):
    source = open_folder(deep_pairs(tmp_path, highest), "train", TWO)
    words = rf"3 of 3 images .*up to {highest}.*look like {bits} bit.*_range=\(0,{2**bits - 1}\)"
    with pytest.raises(ValueError, match=words):
        check_source(source, "train")
    (finding,) = diagnose({"train": source}).of(ERROR)
    assert (finding.code, len(finding.files)) == ("value-range", 3)
    ranged = open_folder(tmp_path, "train", TWO, value_range=((0, highest),))
    assert check_source(ranged, "train").counted == 3
    assert ranged[0]["image"].max() == 255
    assert not diagnose({"train": ranged}).of(ERROR)


def test_one_file_of_all_bits_shows_that_the_others_are_dark(tmp_path):
    deep_pairs(tmp_path, 4095)
    save(tmp_path / "images/train/1.png", np.full((4, 6), 65535, np.uint16))
    assert check_source(open_folder(tmp_path, "train", TWO), "train").counted == 3


def folder_config(root, **options):
    return data_config(name="folder", root=str(root), classes="a,b", **options)


def test_auto_is_found_over_the_training_split_for_every_split(tmp_path):
    deep_pairs(tmp_path, 4000)
    deep_pairs(tmp_path, 60000, "val", 1)
    splits = Splits(folder_config(tmp_path, value_range=("auto",)))
    ((low, high),) = splits.image_options.value_range
    assert 0 <= low < 10
    assert 3990 < high <= 4000
    assert splits.image_options.notes[0].endswith("found over 3 training images")
    assert splits.source("val")[0]["image"].max() == 255
    again = Splits(folder_config(tmp_path, value_range=("auto",)))
    assert again.image_options == splits.image_options
    plain = json.loads(json.dumps(splits.image_options.values))  # as config.json holds it
    saved = folder_config(tmp_path, **plain)
    np.testing.assert_array_equal(
        make_source(saved, "train")[0]["image"], splits.source("train")[0]["image"]
    )


def test_auto_leaves_8_bits_alone_and_void_pixels_out(tmp_path):
    for index in range(2):
        save(tmp_path / f"images/train/{index}.png", np.full((4, 6), 9 * index, np.uint8))
        save(tmp_path / f"masks/train/{index}.png", np.zeros((4, 6), np.uint8))
    config = folder_config(tmp_path, value_range=("auto",))
    assert Splits(config).image_options.value_range == ()
    for index in range(2):
        values = np.full((4, 6), -9999, np.float32)
        values[:2] = np.arange(12).reshape(2, 6)
        (tmp_path / f"images/train/{index}.png").unlink()
        nodata = [(42113, 2, 0, "-9999", True)]
        tifffile.imwrite(tmp_path / f"images/train/{index}.tif", values, extratags=nodata)
    ((low, high),) = Splits(config).image_options.value_range
    assert 0 <= low < 1
    assert 10 < high <= 11


@pytest.mark.parametrize(
    "orientations, shapes, expected",
    [
        ((6, 3), ((6, 4), (4, 6)), "apply"),
        ((6, 3), ((4, 6), (4, 6)), "ignore"),
        ((6, 8), ((4, 6), (6, 4)), "auto"),
        ((3, 1), ((4, 6), (4, 6)), "auto"),
    ],
)
def test_the_masks_that_tell_decide_for_those_that_do_not(tmp_path, orientations, shapes, expected):
    for index, (orientation, shape) in enumerate(zip(orientations, shapes, strict=True)):
        tagged(tmp_path / f"images/train/{index}.png", orientation)
        save(tmp_path / f"masks/train/{index}.png", np.zeros(shape, np.uint8))
    splits = Splits(folder_config(tmp_path))
    assert splits.image_options.exif == expected
    if expected == "apply":
        np.testing.assert_array_equal(splits.source("train")[1]["image"], PIXELS[::-1, ::-1])


def test_prepared_data_keep_the_range_that_they_were_written_with(tmp_path):
    source = open_folder(deep_pairs(tmp_path, 4095), "train", TWO, value_range=((0, 4095),))
    sources = {"train": source}
    options = dict(name="deep", classes=TWO, value_range=source.value_range)
    write_prepared(sources, tmp_path / "out", **options)
    root = tmp_path / "out/deep/1.0.0"
    assert manifest.find(root).value_range == ((0, 4095),)
    config = data_config(name="prepared", root=str(root))
    assert Splits(config).image_options.values["value_range"] == (0, 4095)
    np.testing.assert_array_equal(Splits(config).source("train")[0]["image"], source[0]["image"])
    with pytest.raises(ValueError, match=r"were prepared with \(0,4095\); leave it \(\)"):
        _ = Splits(data_config(name="prepared", root=str(root), value_range=(0, 9))).image_options
    with pytest.raises(ValueError, match="value_range"):
        write_prepared(sources, tmp_path / "out", **options | {"value_range": ()})


def test_options_that_are_not_applied_or_unknown(tmp_path):
    for options, words in (
        (dict(name="camvid", value_range=(0, 4095)), "images of camvid have 8 bits"),
        (dict(name="folder", exif="upright"), "exif='upright' is unknown; use auto, apply, ignore"),
    ):
        with pytest.raises(ValueError, match=words):
            resolve(data_config(**options), lambda data: None)


def test_bands_with_a_range_each(tmp_path):
    values = np.stack([np.full((4, 6), 3000), np.full((4, 6), 100)], -1).astype(np.uint16)
    np.save(tmp_path / "a.npy", values)
    image = read_image(tmp_path / "a.npy", 2, value_range=((0, 3000), (0, 200)))
    assert image[0, 0].tolist() == [255, 128]
