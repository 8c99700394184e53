"""Copies of images are found, and look-alikes are not."""

import io

import numpy as np
import pytest
from PIL import Image

from segjax.data.doctor.duplicates import Duplicate, duplicates
from segjax.data.doctor.samples import THUMBNAIL, SampleFacts, image_facts
from segjax.data.streets.dataset import Streets


def facts(image, mask_hash=""):
    return SampleFacts("name", mask_hash=mask_hash, **image_facts(image))


@pytest.fixture(scope="module")
def scenes():
    source = Streets("train", (180, 300), length=6, seed=2)
    return [source[i]["image"] for i in range(6)]


def as_jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=80)
    return np.asarray(Image.open(file))


def resized(image, height, width):
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def test_equal_pixels_are_exact_and_masks_are_compared(scenes):
    a, b = scenes[:2]
    train = [facts(a, "x"), facts(b), facts(a, "y")]
    val = [facts(a, "x"), facts(scenes[2])]
    assert duplicates({"train": train, "val": val}) == [
        Duplicate(("train", 0), ("train", 2), exact=True, same_mask=False),
        Duplicate(("train", 0), ("val", 0), exact=True, same_mask=True),
    ]


@pytest.mark.parametrize(
    "copy",
    [
        as_jpeg,
        lambda image: resized(image, 90, 150),
        lambda image: resized(image, 360, 600),
        lambda image: resized(image, 141, 235),
        lambda image: image + (image < 250) * np.uint8(2),
    ],
    ids=["jpeg", "half", "double", "odd", "brighter"],
)
def test_copies_that_went_through_a_program_are_near(scenes, copy):
    found = duplicates({"train": [facts(s) for s in scenes], "test": [facts(copy(scenes[3]))]})
    assert [(d.first, d.second, d.exact) for d in found] == [(("train", 3), ("test", 0), False)]


def test_look_alikes_are_not_copies(scenes):
    moved = np.roll(scenes[0], 6, axis=1)
    other_shape = resized(scenes[0], 300, 300)
    grey = [np.full((40, 40, 3), level, np.uint8) for level in (100, 100, 101)]
    rng = np.random.default_rng(0)
    faint = [(100 + rng.integers(0, 9, (40, 40, 3))).astype(np.uint8) for _ in range(2)]
    pictures = [scenes[0], moved, other_shape, *grey, *faint]
    assert duplicates({"train": [facts(p) for p in pictures]}) == []


def test_sorting_loses_no_pair():
    """Against all pairs, on thumbnails that are near each other in groups."""
    rng = np.random.default_rng(1)
    groups = rng.integers(60, 190, (12, THUMBNAIL, THUMBNAIL))
    # Two of an even group differ by 4 at most, two of an odd one by 5 somewhere.
    highest = 3 + np.arange(60)[:, None, None] % 2
    thumbnails = np.tile(groups, (5, 1, 1))
    thumbnails = thumbnails + rng.integers(-2, highest, thumbnails.shape)
    options = {"size": (10, 10), "contrast": 30.0}
    samples = [
        SampleFacts("name", thumbnail=t.astype(np.uint8), image_hash=str(i), **options)
        for i, t in enumerate(thumbnails)
    ]
    apart = np.abs(thumbnails[:, None] - thumbnails).max((2, 3))
    expected = {(i, j) for i, j in np.argwhere(apart <= 4).tolist() if i < j}
    assert len(expected) == 6 * 10
    found = {(d.first[1], d.second[1]) for d in duplicates({"train": samples})}
    assert found == expected
