"""The sheet of what augmentation does."""

import dataclasses
import io

import jax
import numpy as np
import pytest
from PIL import Image

from segjax.data.classes import from_names
from segjax.report.augmentation import _most_different, _one_by_one, augmentation_sheet
from segjax.transforms.augment import Augmentation

CLASSES = from_names(["left", "right", "thing"])


@pytest.fixture
def config(tiny_config):
    tiny_config.data.mean, tiny_config.data.std = (0.25, 0.5, 0.75), (0.2, 0.2, 0.2)
    recipe = tiny_config.augment
    recipe.scale, recipe.flip = (1.0, 1.0), False
    recipe.brightness = recipe.contrast = recipe.saturation = recipe.hue = 0.0
    return tiny_config


def halves(size=(32, 48)):
    label = np.zeros(size, np.uint8)
    label[:, size[1] // 2 :] = 1
    return np.stack([200 * label + 20] * 3, -1), label


def drawn(config, **options):
    buffer = io.BytesIO()
    augmentation_sheet(*halves(), CLASSES, config, jax.random.key(0), buffer, **options)
    return np.asarray(Image.open(buffer).convert("RGB")), buffer.tell()


def test_rows_are_of_what_is_on():
    nothing = Augmentation((32, 48), (1.0, 1.0), flip=False)
    assert _one_by_one(nothing, (32, 48)) == []
    recipe = Augmentation(
        (16, 24), (0.5, 2.0), rotate=10.0, max_class_share=0.75, blur=0.5, brightness=0.1, hue=0.02
    )
    rows = _one_by_one(recipe, (32, 48))
    assert [title for title, _ in rows] == [
        "zoom 0.5 to 2, crop 16x24",
        "no class over 75% of a crop, where one of 10 will do",
        "turn by up to 10 degrees",
        "mirror, half of the time",
        "5x5 Gaussian blur, half of the time",
        "brightness 0.1, hue 0.02",
    ]
    alone = dict(scale=(1.0, 1.0), flip=False)
    assert rows[2][1] == Augmentation((32, 48), rotate=10.0, **alone)
    assert rows[5][1] == Augmentation((32, 48), brightness=0.1, hue=0.02, **alone)
    assert rows[1][1] == Augmentation((16, 24), (0.5, 2.0), flip=False, max_class_share=0.75)


def test_rows_say_how_often():
    recipe = Augmentation(
        (32, 48),
        (1.0, 1.0),
        aspect=(0.8, 1.25),
        rotate=10.0,
        rotate_probability=0.5,
        flip=False,
        flip_vertical=0.3,
        quarter_turns=1.0,
        colour_model="hsv",
        brightness=0.1,
        brightness_probability=0.5,
        hue=0.05,
        hue_probability=0.5,
        noise=0.02,
        cutout=2,
        cutout_labels="ignored",
        cutmix=0.5,
        classmix=0.25,
    )
    assert [title for title, _ in _one_by_one(recipe, (32, 48))] == [
        "aspect 0.8 to 1.25",
        "turn by up to 10 degrees, half of the time",
        "mirror top-bottom, 30% of the time",
        "quarter turns",
        "brightness 0.1, hue 0.05, each half of the time, in HSV",
        "noise 0.02",
        "cutout of 2 squares, labels ignored",
        "CutMix, half of the time",
        "class-mix, 25% of the time",
    ]
    uneven = dataclasses.replace(recipe, hue_probability=1.0)
    assert "brightness 0.1 (50%), hue 0.05 (100%), in HSV" in dict(_one_by_one(uneven, (32, 48)))
    never = dict.fromkeys(("cutmix", "classmix", "quarter_turns", "flip_vertical"), 0.0)
    never |= {f"{n}_probability": 0.0 for n in ("rotate", "noise", "cutout", "brightness", "hue")}
    rows = _one_by_one(dataclasses.replace(recipe, **never), (32, 48))
    assert [title for title, _ in rows] == ["aspect 0.8 to 1.25"]


def test_mixes_are_drawn_with_the_other_samples(config):
    config.augment.cutmix = 1.0
    other = np.full((32, 48, 3), (200, 0, 0), np.uint8), np.full((32, 48), 2, np.uint8)
    picture, _ = drawn(config, others=[other])
    top = 8 + 2 * 24 + 64 + 8
    view = picture[top : top + 64, 8 : 8 + 96].astype(int)  # of CutMix
    red = np.all(np.abs(view - (200, 0, 0)) < 8, -1)
    assert red.mean() == pytest.approx(0.5, abs=0.05)
    legend = picture[-24:]
    assert np.any(np.all(legend == CLASSES.palette[2], -1))  # a class that only the other has


def test_the_views_that_differ_the_most_are_taken():
    label = np.zeros((2, 2), np.uint8)
    views = [(np.full((2, 2, 3), value, np.uint8), label) for value in (10, 12, 90, 50, 11)]
    assert [int(picture[0, 0, 0]) for picture, _ in _most_different(views, 3)] == [10, 90, 50]


def test_sheet_shows_the_image_its_overlay_and_the_mirror(config):
    config.augment.flip = True
    picture, _ = drawn(config)
    # Panels of 96x64 pixels, gaps of 8 and title lines of 24.
    assert picture.shape[1] == 8 + 6 * (96 + 8)
    top = 8 + 24
    first = picture[top : top + 64, 8 : 8 + 96]
    np.testing.assert_allclose(first[32, [10, 80]], [[20] * 3, [220] * 3], atol=3)
    tinted = picture[top + 32, 8 + 96 + 8 + 80]
    expected = (np.array([220] * 3) + np.array(CLASSES.palette[1])) / 2
    np.testing.assert_allclose(tinted, expected, atol=4)
    mirrors = picture[top + 64 + 8 + 24 + 32]  # the row below: some views mirrored, some not
    lefts = {int(mirrors[8 + i * 2 * (96 + 8) + 10, 0]) > 128 for i in range(3)}
    assert lefts == {True, False}


def test_outside_has_the_mean_colour_and_contrast_is_shown(config):
    config.augment.crop_size = (48, 72)
    plain, _ = drawn(config)
    colour = np.array([64, 128, 191])
    assert np.mean(np.all(np.abs(plain.astype(int) - colour) < 5, -1)) > 0.1
    config.data.local_contrast = 5
    picture, _ = drawn(config)
    assert picture.shape[0] == plain.shape[0] + 24 + 64 + 8  # one row more
    # Flat parts are grey; the edge between the halves is not.
    # Below the image's row and that of the crops, 144x96 pixels.
    row = picture[8 + (24 + 64 + 8) + (24 + 96 + 8) + 24 + 32, 8 : 8 + 96].astype(int)
    np.testing.assert_allclose(row[[10, 80]], 128, atol=4)
    assert np.ptp(row[40:56]) > 80


def test_a_bound_on_the_bytes_makes_the_pictures_smaller(config):
    config.augment.brightness = 0.5
    whole, size = drawn(config)
    small, fewer = drawn(config, max_bytes=size - 1)
    assert fewer < size
    assert small.shape[1] < whole.shape[1]
