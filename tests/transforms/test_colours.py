"""Colours, blur and noise of the random views."""

import dataclasses
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.transforms import colours
from segjax.transforms.augment import Augmentation, augment
from segjax.transforms.colours import blur, distort_colours, distorted, jitter_colours
from segjax.transforms.draws import key_of

SIZE = (6, 10)
PLAIN = Augmentation(crop_size=SIZE, scale=(1.0, 1.0), flip=False)


def changed(**options):
    return dataclasses.replace(PLAIN, **options)


def sample():
    random = np.random.default_rng(0)
    return random.integers(0, 256, (*SIZE, 3), np.uint8), random.integers(0, 5, SIZE)


def test_jitter_of_zero_is_the_identity():
    image = jax.random.uniform(jax.random.key(0), (4, 5, 3))
    assert jitter_colours(jax.random.key(1), image, PLAIN) is image


def test_brightness_is_one_factor_in_its_range():
    image = jax.random.uniform(jax.random.key(0), (4, 5, 3), minval=0.1)
    factors = []
    for seed in range(20):
        ratio = jitter_colours(jax.random.key(seed), image, changed(brightness=0.3)) / image
        assert np.ptp(ratio) < 1e-5
        factors.append(float(ratio[0, 0, 0]))
    assert 0.7 <= min(factors) < 0.9
    assert 1.1 < max(factors) <= 1.3


LUMA = np.array([0.299, 0.587, 0.114])


def test_contrast_keeps_the_mean_luma():
    image = np.asarray(jax.random.uniform(jax.random.key(0), (4, 5, 3)))
    out = np.asarray(jitter_colours(jax.random.key(2), image, changed(contrast=0.5)))
    assert np.mean(out @ LUMA) == pytest.approx(np.mean(image @ LUMA), abs=1e-5)
    mean = np.mean(image @ LUMA)
    ratio = (out - mean) / (image - mean)
    np.testing.assert_allclose(ratio, ratio[0, 0, 0], rtol=1e-3)


def test_saturation_moves_pixels_along_the_line_to_their_luma():
    image = np.asarray(jax.random.uniform(jax.random.key(0), (4, 5, 3)))
    out = np.asarray(jitter_colours(jax.random.key(3), image, changed(saturation=0.5)))
    grey = (image @ LUMA)[..., None]
    np.testing.assert_allclose(out @ LUMA, image @ LUMA, atol=1e-4)
    factor = np.sum((out - grey) * (image - grey)) / np.sum((image - grey) ** 2)
    assert 0.5 <= factor <= 1.5
    assert abs(factor - 1) > 0.05
    np.testing.assert_allclose(out, grey + factor * (image - grey), atol=1e-4)


def test_hue_turns_keep_luma_and_a_full_turn_returns(monkeypatch):
    image = np.asarray(jax.random.uniform(jax.random.key(0), (4, 5, 3)))
    key = jax.random.key(5)
    out = np.asarray(jitter_colours(key, image, changed(hue=0.4)))
    np.testing.assert_allclose(out @ LUMA, image @ LUMA, atol=1e-4)
    assert np.abs(out - image).max() > 0.05

    def turned(image, turn):
        # `hue` draws the turn; here it is given.
        monkeypatch.setattr(
            jax.random,
            "uniform",
            lambda *_, minval, maxval: turn if maxval == 0.4 else jnp.float32(1.0),
        )
        return np.asarray(jitter_colours(key, image, changed(hue=0.4)))

    np.testing.assert_allclose(turned(image, 1.0), image, atol=1e-4)
    grey = (image @ LUMA)[..., None]
    np.testing.assert_allclose(turned(image, 0.5) - grey, grey - image, atol=1e-4)
    np.testing.assert_allclose(turned(turned(image, 0.3), 0.7), image, atol=1e-4)


def test_grey_has_no_hue_or_saturation_to_change():
    grey = np.full((3, 3, 3), 0.4, np.float32)
    out = jitter_colours(jax.random.key(4), grey, changed(saturation=0.9, hue=0.5))
    np.testing.assert_allclose(out, grey, atol=1e-4)


def test_blur_is_opencvs():
    """GaussianBlur(image, (5, 5), 0) of OpenCV 5.0.0 on a float image. For sigma 0 OpenCV takes
    weights from a table, which differ from those of its formula's sigma of 1.1."""
    image = np.zeros((6, 7, 1), np.float32)
    image[0, 0] = image[3, 3] = image[5, 2] = 256
    np.testing.assert_allclose(blur(jnp.array(image))[..., 0], OPENCV, atol=1e-4)


OPENCV = [
    [36, 24, 6, 0, 0, 0, 0],
    [24, 17, 8, 6, 4, 1, 0],
    [6, 8, 17, 24, 16, 4, 0],
    [2, 10, 30, 40, 25, 6, 0],
    [8, 20, 40, 40, 20, 4, 0],
    [12, 26, 44, 36, 14, 2, 0],
]


def test_blur_comes_with_its_probability():
    image, label = sample()
    keys = jax.random.split(jax.random.key(0), 200)
    views = jax.jit(jax.vmap(lambda key: augment(key, image, label, changed(blur=0.3))[0]))(keys)
    plain = image.astype(np.float32) / 255
    blurred = np.abs(np.asarray(views) - plain).max((1, 2, 3)) > 1e-3
    assert 40 <= blurred.sum() <= 80
    expected = np.where(blurred[:, None, None, None], blur(jnp.array(plain)), plain)
    np.testing.assert_allclose(views, expected, atol=1e-6)


def test_images_of_other_channels_than_three():
    config = changed(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1)
    image = np.asarray(jax.random.uniform(jax.random.key(0), (4, 5, 1), minval=0.1))
    jitter = jax.jit(lambda image: jitter_colours(jax.random.key(2), image, config))
    grey, four = np.asarray(jitter(image)), jitter(np.repeat(image, 4, -1))
    np.testing.assert_allclose(four, np.repeat(grey, 4, -1), atol=1e-6)
    line = np.polyfit(np.ravel(image), grey.ravel(), 1)  # a factor and an offset, and no more
    np.testing.assert_allclose(np.polyval(line, np.ravel(image)), grey.ravel(), atol=1e-5)
    assert abs(line[0] - 1) > 0.02
    pixels, _, _ = augment(jax.random.key(0), np.zeros((*SIZE, 4), np.uint8), sample()[1], PLAIN)
    assert pixels.shape == (*SIZE, 4)


def varied(config, count=400):
    """Views of one image under many keys."""
    image, label = sample()
    keys = jax.random.split(jax.random.key(0), count)
    return np.asarray(jax.jit(jax.vmap(lambda key: augment(key, image, label, config)[0]))(keys))


COLOURS = ("brightness", "contrast", "saturation", "hue")
SOMETIMES = {f"{change}_probability": 0.3 for change in COLOURS}


# Each colour by one of the two models.
QUICK = {("yiq", "brightness"), ("yiq", "hue"), ("hsv", "contrast"), ("hsv", "saturation")}


@pytest.mark.parametrize(
    "model, change",
    [
        pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow)
        for pair in itertools.product(["yiq", "hsv"], COLOURS)
    ],
)
def test_each_colour_changes_with_its_probability(model, change):
    plain = sample()[0].astype(np.float32) / 255
    config = changed(**{change: 0.3}, colour_model=model)
    sometimes, always = varied(dataclasses.replace(config, **SOMETIMES)), varied(config)
    moved = np.abs(sometimes - plain).max((1, 2, 3)) > 1e-3
    assert 90 <= moved.sum() <= 150  # of 400; the deviation is 9
    assert np.mean(np.abs(always - plain).max((1, 2, 3)) > 1e-3) > 0.9
    # The amount is drawn by another key than the coin: views that change do so by the same amount.
    np.testing.assert_allclose(sometimes[moved], always[moved], atol=1e-5)


@pytest.mark.parametrize("model", ["yiq", "hsv"])
def test_colours_of_probability_0_change_nothing(model):
    options = dict.fromkeys(COLOURS, 0.3) | dict.fromkeys(SOMETIMES, 0.0)
    views = varied(changed(colour_model=model, **options), 5)
    plain = sample()[0].astype(np.float32) / 255
    np.testing.assert_allclose(views, np.broadcast_to(plain, views.shape), atol=1e-5)


def test_noise_is_gaussian_and_comes_with_its_probability():
    plain = sample()[0].astype(np.float32) / 255
    noise = varied(changed(noise=0.1, noise_probability=0.5)) - plain
    noisy = np.abs(noise).max((1, 2, 3)) > 1e-3
    assert 160 <= noisy.sum() <= 240
    values = noise[noisy]
    assert np.mean(values) == pytest.approx(0, abs=0.002)
    assert np.std(values) == pytest.approx(0.1, rel=0.02)
    assert np.mean(np.abs(values) < 0.1) == pytest.approx(0.683, abs=0.01)
    for a, b in ((values[:, 1:], values[:, :-1]), (values[..., 0], values[..., 1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02


# OpenCV, by golden files --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opencv():
    """Written by benchmarks/goldens/make_opencv.py."""
    with np.load(pathlib.Path(__file__).parents[1] / "goldens/opencv.npz") as arrays:
        return dict(arrays)


def test_hsv_is_opencvs(opencv):
    def planes(name):
        return np.moveaxis(opencv[name], -1, 0)

    to_hsv = jax.jit(colours._to_hsv)(*planes("image").astype(np.float32))
    np.testing.assert_array_equal(to_hsv, planes("image_to_hsv"))
    to_rgb = jax.jit(colours._from_hsv)(*planes("hsv").astype(np.float32))
    np.testing.assert_array_equal(to_rgb, planes("hsv_to_rgb"))


def test_distortions_are_mmsegmentations(opencv):
    """Of 12,288 values, up to 3 differ by 1: a compiler may round a product and a sum together."""
    image = jnp.array(opencv["image"], jnp.float32) / 255
    distort = jax.jit(distorted)
    for row, expected in zip(opencv["distortions"], opencv["distorted"], strict=True):
        delta, contrast, first, saturation, shift = np.where(np.isnan(row), [0, 1, 0, 1, 0], row)
        result = distort(
            image,
            delta=delta,
            contrast=contrast,
            contrast_first=bool(first),
            saturation=saturation,
            shift=int(shift),
            saturates=not np.isnan(row[3]),
            shifts=not np.isnan(row[4]),
        )
        result = 255 * np.asarray(result)
        np.testing.assert_allclose(result, np.rint(result), atol=1e-4)
        wrong = np.rint(result) != expected
        assert wrong.sum() <= 5
        np.testing.assert_allclose(result, expected, atol=1.001)


def test_what_mmsegmentation_draws():
    """Each parameter from its own key; contrast is before hue half of the time."""
    image = jax.random.uniform(jax.random.key(0), (4, 5, 3))
    options = dict(brightness=32 / 255, contrast=0.5, saturation=0.5, hue=0.1)
    config = changed(colour_model="hsv", hue_probability=0.5, **options)
    seen = {"first": 0, "shifts": []}
    for seed in range(60):
        key = jax.random.key(seed)

        def uniform(name, low, high, key=key):
            return jax.random.uniform(key_of(key, name), (), minval=low, maxval=high)

        shift = int(jax.random.randint(key_of(key, "hue"), (), -18, 18))
        first = bool(jax.random.bernoulli(key_of(key, "contrast_first")))
        shifts = bool(jax.random.bernoulli(key_of(key, "hue_coin")))
        if seed < 8:
            expected = distorted(
                image,
                delta=uniform("brightness", -32, 32),
                contrast=uniform("contrast", 0.5, 1.5),
                contrast_first=first,
                saturation=uniform("saturation", 0.5, 1.5),
                shift=shift if shifts else 0,
                saturates=True,
                shifts=shifts,
            )
            np.testing.assert_allclose(distort_colours(key, image, config), expected, atol=1e-6)
        seen["first"] += first
        seen["shifts"].append(shift)
    assert 18 <= seen["first"] <= 42
    assert -18 <= min(seen["shifts"]) < -12
    assert 12 < max(seen["shifts"]) <= 17


def test_distortion_of_grey_images_has_brightness_and_contrast_alone():
    config = changed(colour_model="hsv", brightness=0.2, contrast=0.5, saturation=0.5, hue=0.1)
    image = jax.random.uniform(jax.random.key(0), (4, 5, 1))
    grey = np.asarray(distort_colours(jax.random.key(2), image, config))
    plain = dataclasses.replace(config, saturation=0.0, hue=0.0)
    np.testing.assert_array_equal(grey, distort_colours(jax.random.key(2), image, plain))
    assert np.abs(grey - image).max() > 0.02
