"""Samples on a canvas: resized, cached, and named where they cannot be read."""

import pickle
import threading

import numpy as np
import pytest

from segjax.data.errors import DataError
from segjax.data.fitted import FittedDataset, UnreadableSample, fit_image, fit_label, fitted_size
from tests.data.drawn import Numbered, damage, damaged_folder, fitted_folder


@pytest.mark.parametrize(
    "size, canvas, expected",
    [
        ((8, 12), (8, 12), (8, 12)),
        ((16, 24), (8, 12), (8, 12)),
        ((4, 6), (8, 12), (8, 12)),
        ((10, 10), (8, 12), (8, 8)),
        ((10, 40), (8, 12), (3, 12)),
        ((1000, 1), (8, 12), (8, 1)),  # never below 1
        ((360, 480), (181, 240), (180, 240)),
    ],
)
def test_fitted_size_is_the_largest_of_the_same_shape(size, canvas, expected):
    assert fitted_size(size, canvas) == expected


def test_a_sample_of_the_canvas_size_is_left_alone():
    image, label = np.ones((4, 6, 3), np.uint8), np.ones((4, 6), np.uint8)
    assert fit_image(image, (4, 6)) is image
    assert fit_label(label, (4, 6)) is label


@pytest.mark.parametrize("size", [(16, 16), (8, 40), (21, 5), (40, 64)])
def test_image_and_label_go_to_the_same_place(size):
    # Left half 0, right half 200; the label says the same as 0 and 1.
    label = np.zeros(size, np.uint8)
    label[:, size[1] // 2 :] = 1
    image = np.repeat(200 * label[..., None], 3, -1)
    canvas = (24, 32)
    fitted, ids = fit_image(image, canvas), fit_label(label, canvas)
    assert fitted.shape == (24, 32, 3)
    assert fitted.dtype == ids.dtype == np.uint8
    height, width = fitted_size(size, canvas)
    inside = np.zeros(canvas, bool)
    inside[:height, :width] = True
    np.testing.assert_array_equal(ids == 255, ~inside)
    np.testing.assert_array_equal(fitted[~inside], round(image.mean()))
    # Only columns at the edge between the halves may differ: they are interpolated.
    disagree = (fitted[..., 0] > 100) != (ids == 1)
    assert np.any(disagree & inside, 0).sum() <= 1
    assert {*ids[inside]} == {0, 1}


def test_shrinking_an_image_averages_and_a_label_picks():
    image = np.zeros((4, 4, 3), np.uint8)
    image[::2] = 240  # every other row: weights 3/7, 3/7, 1/7 over three rows at either end
    rows = [240 * 4 / 7, 240 * 3 / 7]
    np.testing.assert_allclose(fit_image(image, (2, 2))[:, 0, 0], rows, atol=1)
    label = np.array([[3, 9], [9, 3]], np.uint8).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(fit_label(label, (2, 2)), [[3, 9], [9, 3]])
    np.testing.assert_array_equal(fit_label(label, (8, 8))[::4, ::4], [[3, 9], [9, 3]])


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_each_of_any_number_of_channels_is_resized_as_one_of_three(channels):
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    order = np.arange(channels) % 3
    fitted = fit_image(rgb[..., order], (13, 24))
    assert fitted.shape == (13, 24, channels)
    np.testing.assert_array_equal(fitted, fit_image(rgb, (13, 24))[..., order])


def test_samples_have_image_label_and_index():
    dataset = FittedDataset(Numbered(3), (4, 6))
    assert len(dataset) == 3
    sample = dataset[2]
    assert {name: sample[name].shape for name in ("image", "label", "index")} == {
        "image": (4, 6, 3),
        "label": (4, 6),
        "index": (),
    }
    assert (sample["index"], sample["index"].dtype) == (2, np.int32)


IMAGES = 5 * 4 * 6 * 3


@pytest.mark.parametrize(
    "megabytes, reads",
    [((IMAGES + 5 * 4 * 6) / 1e6, 1), ((IMAGES + 5 * 4 * 6 - 1) / 1e6, 2), (0, 2)],
)
def test_samples_are_kept_only_where_all_of_them_fit(megabytes, reads):
    source = Numbered(5)
    dataset = FittedDataset(source, (4, 6), cache_mb=megabytes)
    first, second = dataset[3], dataset[3]
    np.testing.assert_array_equal(first["image"], second["image"])
    assert source.reads == [3] * reads
    dataset.decode(2)  # always read anew, and not kept
    dataset[2]
    assert source.reads[reads:] == [2, 2]


def test_pickling_drops_the_samples_that_are_kept():
    dataset = FittedDataset(Numbered(5, (64, 64)), (64, 64), cache_mb=1)
    empty = len(pickle.dumps(dataset))
    dataset[0]
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(pickle.dumps(dataset)) < empty + 100
    copy.source.reads.clear()
    assert copy[0] is copy[0]  # the copy keeps for itself
    assert copy.source.reads == [0]


def test_a_damaged_file_is_named(tmp_path):
    dataset = fitted_folder(damaged_folder(tmp_path))
    for index, file in ((2, "images/train/2.png"), (3, "masks/train/3.png"), (4, "train/4.jpg")):
        with pytest.raises(UnreadableSample, match=rf"{file} cannot be read: .*; use an intact"):
            dataset[index]


class Odd:
    """A source whose decoder raises an error that does not pickle and has no useful message."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        error = KeyError("chunk")
        error.lock = threading.Lock()
        raise error


def test_any_error_of_a_decoder_becomes_one_that_names_the_sample_and_pickles():
    with pytest.raises(DataError) as error:
        FittedDataset(Odd(), (8, 12))[1]
    assert error.value.found == "sample 1 of Odd cannot be read: KeyError: 'chunk'"
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
    with pytest.raises(ValueError, match=r"none of the 3 samples .* one of them: sample \d of Odd"):
        FittedDataset(Odd(), (8, 12), on_unreadable="skip")[1]


@pytest.mark.parametrize("cache_mb", [0, 1])
def test_the_next_readable_sample_takes_the_place_of_an_unreadable_one(tmp_path, cache_mb):
    folder = damaged_folder(tmp_path)
    split = fitted_folder(folder, on_unreadable="skip", cache_mb=cache_mb)
    for index, place in ((2, 5), (3, 5), (4, 5), (5, 5), (6, 6)):
        for name, values in fitted_folder(folder)[place].items():
            np.testing.assert_array_equal(split[index][name], index if name == "index" else values)
    assert sorted(split.skipped) == [2, 3, 4]
    assert all(file in split.skipped[k] for k, file in ((2, "/2.png"), (3, "masks/train/3.png")))
    damage(folder / "images" / "train" / "6.png")
    split = fitted_folder(folder, on_unreadable="skip")
    np.testing.assert_array_equal(split[6]["label"], split[0]["label"])  # round the end
    with pytest.raises(IndexError):
        split[7]
