"""Sliding windows against a slow implementation, in bounded memory, and without seams."""

import numpy as np
import pytest

from segjax.inference import sliding
from segjax.inference.windows import blend_weights, starts
from tests.inference.toys import BrightestThird, SeesItsPlace, toy_predictor


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def place_logits(window):
    """SeesItsPlace in numpy, of a window of colours in [0, 1]."""
    height, width = window.shape[:2]
    out = np.array(window, np.float64)
    for y in range(height):
        for x in range(width):
            row = y / (height - 1)
            column = -1 + 2 * x / (width - 1)
            out[y, x] += [row, 3 * column, 1 - row * column]
    return out


def twin(image, window, overlap, blend, flip=False):
    """Mean probabilities of all windows over each pixel, one window after the other."""
    image = image / 255
    weights = blend_weights(window, blend).astype(np.float64)
    total, weight = np.zeros(image.shape), np.zeros((*image.shape[:2], 1))
    for top in starts(image.shape[0], window[0], overlap):
        for left in starts(image.shape[1], window[1], overlap):
            place = slice(top, top + window[0]), slice(left, left + window[1])
            probabilities = softmax(place_logits(image[place]))
            if flip:
                mirrored = place_logits(image[place][:, ::-1])[:, ::-1]
                probabilities = (probabilities + softmax(mirrored)) / 2
            total[place] += weights[..., None] * probabilities
            weight[place] += weights[..., None]
    return total / weight


@pytest.mark.versions
@pytest.mark.parametrize(
    "options",
    [
        dict(overlap=0.5, blend="gaussian"),
        dict(overlap=0.0, blend="uniform", batch_size=3),
        dict(overlap=0.3, blend="linear", flip=True),
    ],
)
def test_as_the_slow_twin(options):
    image = noise((41, 53))
    predictor = toy_predictor(SeesItsPlace(), inference="slide", window=(12, 16), **options)
    options.pop("batch_size", None)
    expected = twin(image, (12, 16), **options)
    scores = predictor.logits(image)
    np.testing.assert_allclose(np.exp(scores), expected, atol=1e-5)
    labels = predictor.predict(image)
    np.testing.assert_array_equal(labels, expected.argmax(-1))
    assert labels.dtype == np.uint8


def test_bands_give_what_one_strip_gives(monkeypatch, tmp_path):
    """An image of 6 times the strip's width: same labels, written to a file as they come."""
    image = noise((30, 200), 1)
    options = dict(inference="slide", window=(12, 16), overlap=0.5)
    whole = toy_predictor(SeesItsPlace(), **options).predict(image)
    monkeypatch.setattr(sliding, "STRIP_BYTES", 0)
    predictor = toy_predictor(SeesItsPlace(), **options)
    assert predictor._windows.strip_columns(200) == predictor._windows.strip_columns(9000) == 32
    out = np.memmap(tmp_path / "labels", np.uint8, "w+", shape=(30, 200))
    assert predictor.predict(image, out) is out
    np.testing.assert_array_equal(out, whole)
    assert predictor._windows._scores._cache_size() == 1


@pytest.mark.usefixtures("unchecked")
def test_the_strip_is_bounded_by_the_window():
    """9000x9000 or 9000x90,000 in the paper's window, 11 or 150 classes."""
    for classes, window in ((11, (360, 480)), (150, (473, 473))):
        windows = sliding.SlidingWindows(None, window, classes, toy_predictor(None).options)
        for width in (9000, 90_000):
            columns = windows.strip_columns(width)
            limit = max(sliding.STRIP_BYTES, 4 * window[0] * classes * 2 * window[1])
            assert 4 * window[0] * classes * columns <= limit
            assert columns >= 2 * window[1]
        assert windows.strip_columns(500) in (1024, 960, 946)


def test_only_windows_are_read():
    """Never more of the image at a time than one window, nor the device more than a batch."""

    class Watched(np.ndarray):
        largest = 0

        def __getitem__(self, place):
            part = np.asarray(self)[place]
            Watched.largest = max(Watched.largest, part.shape[0] * part.shape[1])
            return part

    predictor = toy_predictor(BrightestThird(), inference="slide", window=(12, 16))
    image, out = noise((60, 80)), np.empty((60, 80), np.uint8)
    predictor._windows.run(1.0, image.view(Watched), out)
    assert Watched.largest == 12 * 16
    np.testing.assert_array_equal(out, image.argmax(-1))


@pytest.mark.parametrize("size", [(5, 7), (12, 7), (5, 40), (1, 1)])
def test_smaller_than_the_window(size):
    """The network sees 0 beyond the image, and the result has the image's size."""
    image = noise(size, 2)
    predictor = toy_predictor(SeesItsPlace(), inference="slide", window=(12, 16), overlap=0.5)
    padded = np.zeros((max(12, size[0]), max(16, size[1]), 3), np.uint8)
    padded[: size[0], : size[1]] = image
    expected = twin(padded, (12, 16), 0.5, "gaussian")[: size[0], : size[1]]
    np.testing.assert_allclose(np.exp(predictor.logits(image)), expected, atol=1e-5)
    np.testing.assert_array_equal(predictor.predict(image), expected.argmax(-1))


def seam(scores, side):
    """How much more scores change across the borders of a grid of windows than elsewhere."""
    borders, others = [], []
    for axis in (0, 1):
        change = np.abs(np.diff(scores, axis=axis)).mean(-1)
        at_border = np.arange(1, scores.shape[axis]) % side == 0
        borders.append(np.compress(at_border, change, axis).ravel())
        others.append(np.compress(~at_border, change, axis).ravel())
    return np.concatenate(borders).mean() - np.concatenate(others).mean()


def test_overlap_removes_seams():
    """A model that errs near its window's sides leaves seams, unless windows overlap and blend."""
    image = (noise((64, 96), 3) // 8 + 110).astype(np.uint8)
    seams = {}
    for overlap, blend in ((0.0, "uniform"), (0.5, "uniform"), (0.5, "linear"), (0.5, "gaussian")):
        predictor = toy_predictor(
            SeesItsPlace(), inference="slide", window=(16, 16), overlap=overlap, blend=blend
        )
        # Half-overlapping windows begin and end every 8 pixels.
        seams[overlap, blend] = seam(predictor.logits(image), 8 if overlap else 16)
    assert seams[0.0, "uniform"] > 0.5
    assert seams[0.5, "uniform"] < 0.6 * seams[0.0, "uniform"]
    assert abs(seams[0.5, "linear"]) < 0.1 * seams[0.5, "uniform"]
    assert abs(seams[0.5, "gaussian"]) < 0.1 * seams[0.5, "uniform"]


def test_scales_of_windows_see_the_same_scene():
    """A model of colours alone finds the same regions at every scale."""
    truth = np.zeros((40, 48), int)
    truth[:, 20:] = 1
    truth[25:] = 2
    image = (np.eye(3)[truth] * 250).astype(np.uint8)
    options = dict(inference="slide", window=(24, 24), scales=(0.5, 1.0, 1.5), flip=True)
    labels = toy_predictor(BrightestThird(), 9.0, **options).predict(image)
    wrong = labels != truth
    assert wrong.mean() < 0.05
    inside = np.ones_like(wrong)
    inside[:, 18:22] = inside[23:27] = False
    assert not (wrong & inside).any()
