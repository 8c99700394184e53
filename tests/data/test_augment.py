import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.data.augment import Augmentation, augment, jitter_colours, normalize

SIZE = (6, 10)
PLAIN = Augmentation(crop_size=SIZE, scale=(1.0, 1.0), flip=False)
run = jax.jit(augment, static_argnames="config")


def sample(seed=0, size=SIZE):
    random = np.random.default_rng(seed)
    label = random.integers(0, 5, size).astype(np.uint8)
    label[0, 0] = 255
    return random.integers(0, 256, (*size, 3), np.uint8), label


def changed(**options):
    return dataclasses.replace(PLAIN, **options)


def assert_is_image(pixels, image):
    """image / 255, but for the last bit: a compiled division is a product with 1/255."""
    np.testing.assert_allclose(pixels, image.astype(np.float32) / 255, rtol=2e-7)
    np.testing.assert_array_equal(np.rint(np.asarray(pixels) * 255), image)


def numpy_window(key, image, label, config, fill):
    """The view by loops over pixels, from the same random numbers (no flip, scale of 1 or more)."""
    geometry, _ = jax.random.split(key)
    scale_key, y_key, x_key, _ = jax.random.split(geometry, 4)
    low, high = config.scale
    scale = float(jax.random.uniform(scale_key, (), minval=low, maxval=high))
    corners = [
        float(jax.random.uniform(k, ())) * (n * scale - c)
        for k, n, c in zip((y_key, x_key), label.shape, config.crop_size, strict=True)
    ]
    pixels = np.empty((*config.crop_size, 3))
    labels = np.empty(config.crop_size, np.int32)
    for i, j in np.ndindex(*config.crop_size):
        at = [(n + o + 0.5) / scale - 0.5 for n, o in zip((i, j), corners, strict=True)]
        if not all(-0.5 <= a < n - 0.5 for a, n in zip(at, label.shape, strict=True)):
            pixels[i, j], labels[i, j] = fill, 255
            continue
        labels[i, j] = label[tuple(int(np.floor(a + 0.5)) for a in at)]
        y, x = (np.clip(a, 0, n - 1) for a, n in zip(at, label.shape, strict=True))
        top, left = int(y), int(x)
        bottom, right = min(top + 1, label.shape[0] - 1), min(left + 1, label.shape[1] - 1)
        upper = image[top, left] * (1 - x + left) + image[top, right] * (x - left)
        lower = image[bottom, left] * (1 - x + left) + image[bottom, right] * (x - left)
        pixels[i, j] = (upper * (1 - y + top) + lower * (y - top)) / 255
    return pixels, labels


def test_nothing_to_draw_returns_the_image_and_its_labels():
    image, label = sample()
    for seed in range(3):
        pixels, labels = run(jax.random.key(seed), image, label, config=PLAIN)
        assert_is_image(pixels, image)
        np.testing.assert_array_equal(labels, label)
    assert pixels.dtype == jnp.float32
    assert labels.dtype == jnp.int32


def test_flip_mirrors_image_and_labels_half_of_the_time():
    image, label = sample()
    mirrored = 0
    for seed in range(40):
        pixels, labels = run(jax.random.key(seed), image, label, config=changed(flip=True))
        step = -1 if np.array_equal(labels, label[:, ::-1]) else 1
        np.testing.assert_array_equal(labels, label[:, ::step])
        assert_is_image(pixels, image[:, ::step])
        mirrored += step == -1
    assert 8 <= mirrored <= 32


@pytest.mark.parametrize(
    "scale, crop", [((2.0, 2.0), SIZE), ((2.0, 2.0), (9, 4)), ((1.0, 1.7), (14, 30))]
)
def test_enlarging_equals_bilinear_interpolation_by_loops(scale, crop):
    image, label = sample()
    fill = np.array([0.1, 0.2, 0.3], np.float32)
    config = changed(scale=scale, crop_size=crop)
    for seed in range(3):
        key = jax.random.key(seed)
        pixels, labels = run(key, image, label, config=config, fill=fill)
        expected_pixels, expected_labels = numpy_window(key, image, label, config, fill)
        np.testing.assert_allclose(pixels, expected_pixels, atol=1e-5)
        np.testing.assert_array_equal(labels, expected_labels)


def test_halving_averages_with_a_triangle_filter():
    # One row of 8 to 4: centres at 0.5, 2.5, 4.5, 6.5, weights 1/4 .. 3/4 over four neighbours.
    row = np.array([0, 80, 160, 240, 40, 120, 200, 100], np.uint8)
    image = np.broadcast_to(row[None, :, None], (8, 8, 3))
    config = Augmentation(crop_size=(4, 4), scale=(0.5, 0.5), flip=False)
    pixels, _ = run(jax.random.key(0), image, np.zeros((8, 8), np.uint8), config=config)
    middle = [(80 + 3 * 160 + 3 * 240 + 40) / 8, (240 + 3 * 40 + 3 * 120 + 200) / 8]
    ends = [(3 * 0 + 3 * 80 + 160) / 7, (120 + 3 * 200 + 3 * 100) / 7]
    expected = np.array([ends[0], *middle, ends[1]]) / 255
    np.testing.assert_allclose(pixels[2, :, 1], expected, atol=1e-6)


def test_outside_is_ignored_and_filled_even_under_colour_jitter():
    image, label = sample()
    label = np.minimum(label, 4)
    config = changed(scale=(0.5, 0.5), brightness=0.5, contrast=0.5, saturation=0.5, hue=0.1)
    fill = np.array([0.25, 0.5, 0.75], np.float32)
    for seed in range(5):
        pixels, labels = run(jax.random.key(seed), image, label, config=config, fill=fill)
        outside = np.asarray(labels) == 255
        # 3x5 cells of the 6x10 window lie inside, give or take a row and a column.
        assert 2 * 4 <= np.sum(~outside) <= 4 * 6
        np.testing.assert_array_equal(
            np.asarray(pixels)[outside], np.tile(fill, (outside.sum(), 1))
        )
        assert set(np.unique(labels)) <= {*np.unique(label), 255}


def test_labels_are_ids_of_the_input_or_255_and_stay_on_their_image():
    # The image is painted from the label in blocks, so that inside a block both must agree.
    ids = np.random.default_rng(3).permutation(np.arange(24) * 10).reshape(4, 6)
    label = np.kron(ids, np.ones((8, 8))).astype(np.uint8)
    image = np.repeat(label[..., None], 3, -1)
    config = Augmentation(crop_size=(30, 40), scale=(0.6, 2.0), flip=True)
    for seed in range(8):
        pixels, labels = run(jax.random.key(seed), image, label, config=config)
        pixels, labels = np.asarray(pixels)[..., 0] * 255, np.asarray(labels)
        assert set(np.unique(labels)) <= {*ids.ravel(), 255}
        known = labels < 255
        inner = np.zeros_like(known)
        inner[2:-2, 2:-2] = True
        for shift in np.ndindex(5, 5):  # all neighbours alike: no block edge near
            moved = np.roll(labels, (shift[0] - 2, shift[1] - 2), (0, 1))
            inner &= moved == labels
        compared = inner & known
        assert compared.sum() > 50
        np.testing.assert_allclose(pixels[compared], labels[compared], atol=1e-2)


def test_views_depend_on_the_key_alone():
    image, label = sample()
    config = Augmentation(
        crop_size=SIZE, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1, scale=(0.7, 1.5)
    )
    views = [np.asarray(run(jax.random.key(s), image, label, config=config)[0]) for s in (1, 1, 2)]
    np.testing.assert_array_equal(views[0], views[1])
    assert np.abs(views[0] - views[2]).max() > 0.05


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


def test_normalize_by_hand():
    out = normalize(jnp.array([[0.5, 0.5, 1.0]]), (0.5, 0.0, 0.2), (1.0, 0.25, 0.4))
    np.testing.assert_allclose(out, [[0.0, 2.0, 2.0]], rtol=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"scale": (0.0, 1.0)}, r"augment\.scale=\(0\.0, 1\.0\)"),
        ({"scale": (2.0, 1.0)}, r"augment\.scale=\(2\.0, 1\.0\); use \(lowest, highest\)"),
        ({"crop_size": (0, 4)}, r"augment\.crop_size=\(0, 4\)"),
        ({"brightness": 1.0}, r"augment\.brightness=1\.0; use a number in \[0, 1\)"),
        ({"contrast": -0.1}, r"augment\.contrast=-0\.1"),
        ({"saturation": 3}, r"augment\.saturation=3"),
        ({"hue": 0.6}, r"augment\.hue=0\.6; use a number of turns in \[0, 0\.5\]"),
    ],
)
def test_bad_options_raise_naming_the_field(options, message):
    with pytest.raises(ValueError, match=message):
        changed(**options)
