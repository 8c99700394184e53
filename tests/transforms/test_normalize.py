"""Standardised images and local contrast normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.transforms.normalize import Normalization, check_window, normalize_contrast

contrast = jax.jit(normalize_contrast, static_argnames="side")


def photo(size=(9, 11, 3), seed=0):
    return np.random.default_rng(seed).random(size).astype(np.float32)


def by_loops(image, side, inside):
    """Jarrett et al.'s two steps, window by window, over the pixels that count."""
    half, (height, width, channels) = side // 2, image.shape

    def window_mean(x):
        out = np.zeros((height, width))
        for i, j in np.ndindex(height, width):
            total = weights = 0.0
            for a, b in np.ndindex(side, side):
                y, x_ = i + a - half, j + b - half
                if 0 <= y < height and 0 <= x_ < width and inside[y, x_]:
                    squares = (a - half) ** 2 + (b - half) ** 2
                    weight = np.exp(-0.5 * squares / (side / 4) ** 2)
                    weights += weight * channels
                    total += weight * x[y, x_].sum()
            out[i, j] = total / weights if weights else 0
        return out[..., None]

    centred = image - window_mean(image)
    spread = np.sqrt(window_mean(centred**2))
    return centred / np.maximum(spread, spread[inside].mean())


def test_normalize_by_hand():
    normalization = Normalization((0.5, 0.0, 0.2), (1.0, 0.25, 0.4))
    out = normalization(jnp.array([[[0.5, 0.5, 1.0]]]))
    np.testing.assert_allclose(out, [[[0.0, 2.0, 2.0]]], rtol=1e-6)


def test_normalization_of_a_config():
    data = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
    older = Normalization.from_config(data)  # a run from before local contrast
    assert older == Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), local_contrast=0)
    assert Normalization.from_config({**data, "local_contrast": 9}).local_contrast == 9


@pytest.mark.parametrize("channels, side, share", [(3, 5, 0.0), (1, 3, 0.3), (3, 7, 0.3)])
def test_contrast_by_loops(channels, side, share):
    image = photo((9, 11, channels))
    image[:4] *= 0.05  # a flat part, where the image's own contrast divides
    inside = np.random.default_rng(1).random((9, 11)) >= share
    out = contrast(image, side=side, inside=jnp.array(inside))
    np.testing.assert_allclose(out[inside], by_loops(image, side, inside)[inside], atol=2e-4)


def test_local_contrast_stands_in_for_mean_and_std():
    image = photo()
    out = Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), 5)(image)
    np.testing.assert_array_equal(out, normalize_contrast(image, 5))


def test_contrast_does_not_see_brightness_and_gain():
    image = photo()
    out = contrast(image, side=5)
    np.testing.assert_allclose(contrast(0.3 * image + 0.2, side=5), out, atol=1e-3)
    everywhere = contrast(image, side=5, inside=jnp.ones((9, 11), bool))
    np.testing.assert_allclose(everywhere, out, atol=1e-5)


def test_a_blank_image_stays_blank():
    out = contrast(np.full((8, 8, 3), 0.7, np.float32), side=5)
    np.testing.assert_allclose(out, 0, atol=1e-2)
    nothing = Normalization((0.5,) * 3, (0.2,) * 3, 5)(photo(), jnp.zeros((9, 11), bool))
    np.testing.assert_array_equal(nothing, 0)


def test_images_of_a_batch_do_not_mix():
    images = np.stack([photo(), 0.1 * photo(seed=1)])
    out = contrast(images, side=3)
    np.testing.assert_allclose(out[1], contrast(images[1], side=3), atol=1e-4)


def test_outside_is_zero_and_its_colour_counts_nowhere():
    image, inside = photo(), np.ones((9, 11), bool)
    inside[:, :4] = inside[7:] = False
    other = np.where(inside[..., None], image, 9.0)
    for side in (0, 5):
        normalization = Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), side)
        results = [normalization(x, jnp.array(inside)) for x in (image, other)]
        np.testing.assert_array_equal(*results)
        np.testing.assert_array_equal(results[0][~inside], 0)
        alone = normalization(image[:7, 4:])
        np.testing.assert_allclose(results[0][:7, 4:], alone, atol=1e-4)


@pytest.mark.parametrize("side", [-3, 1, 4, 33])
def test_sides_that_are_no_window(side):
    with pytest.raises(ValueError, match=rf"data\.local_contrast={side}; use 0 .* from 3 to 32"):
        check_window(side, (32, 48))


@pytest.mark.parametrize("side", [0, 3, 9, 31])
def test_windows(side):
    check_window(side, (32, 48))
