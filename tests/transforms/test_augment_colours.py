"""Colours and blur of the random views."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.transforms.augment import Augmentation, augment
from segjax.transforms.colours import blur, jitter_colours

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
    image = jax.random.uniform(jax.random.key(0), (4, 5, 1), minval=0.1)
    grey = np.asarray(jitter_colours(jax.random.key(2), image, config))
    four = jitter_colours(jax.random.key(2), jnp.repeat(image, 4, -1), config)
    np.testing.assert_allclose(four, np.repeat(grey, 4, -1), atol=1e-6)
    line = np.polyfit(np.ravel(image), grey.ravel(), 1)  # a factor and an offset, and no more
    np.testing.assert_allclose(np.polyval(line, np.ravel(image)), grey.ravel(), atol=1e-5)
    assert abs(line[0] - 1) > 0.02
    pixels, _, _ = augment(jax.random.key(0), np.zeros((*SIZE, 4), np.uint8), sample()[1], PLAIN)
    assert pixels.shape == (*SIZE, 4)
