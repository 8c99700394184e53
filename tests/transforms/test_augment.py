import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.transforms.augment import Augmentation, augment

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
    """Asserts image / 255 up to the last bit: compilers turn the division into a product."""
    np.testing.assert_allclose(pixels, image.astype(np.float32) / 255, rtol=2e-7)
    np.testing.assert_array_equal(np.rint(np.asarray(pixels) * 255), image)


def numpy_window(key, image, label, config):
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
            pixels[i, j], labels[i, j] = np.nan, 255
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
        pixels, labels, inside = run(jax.random.key(seed), image, label, config=PLAIN)
        assert_is_image(pixels, image)
        assert inside.all()
        np.testing.assert_array_equal(labels, label)
    assert pixels.dtype == jnp.float32
    assert labels.dtype == jnp.int32


def test_flip_mirrors_image_and_labels_half_of_the_time():
    image, label = sample()
    mirrored = 0
    for seed in range(40):
        pixels, labels, _ = run(jax.random.key(seed), image, label, config=changed(flip=True))
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
    config = changed(scale=scale, crop_size=crop)
    for seed in range(3):
        key = jax.random.key(seed)
        pixels, labels, inside = run(key, image, label, config=config)
        expected_pixels, expected_labels = numpy_window(key, image, label, config)
        np.testing.assert_array_equal(inside, ~np.isnan(expected_pixels[..., 0]))
        np.testing.assert_allclose(pixels[inside], expected_pixels[inside], atol=1e-5)
        np.testing.assert_array_equal(labels, expected_labels)


def test_halving_averages_with_a_triangle_filter():
    # One row of 8 to 4: centres at 0.5, 2.5, 4.5, 6.5, weights 1/4 .. 3/4 over four neighbours.
    row = np.array([0, 80, 160, 240, 40, 120, 200, 100], np.uint8)
    image = np.broadcast_to(row[None, :, None], (8, 8, 3))
    config = Augmentation(crop_size=(4, 4), scale=(0.5, 0.5), flip=False)
    pixels, _, _ = run(jax.random.key(0), image, np.zeros((8, 8), np.uint8), config=config)
    middle = [(80 + 3 * 160 + 3 * 240 + 40) / 8, (240 + 3 * 40 + 3 * 120 + 200) / 8]
    ends = [(3 * 0 + 3 * 80 + 160) / 7, (120 + 3 * 200 + 3 * 100) / 7]
    expected = np.array([ends[0], *middle, ends[1]]) / 255
    np.testing.assert_allclose(pixels[2, :, 1], expected, atol=1e-6)


@pytest.mark.parametrize("rotate", [0.0, 30.0])
def test_outside_is_ignored(rotate):
    image, label = sample()
    label = np.minimum(label, 4)
    config = changed(scale=(0.5, 0.5), rotate=rotate)
    for seed in range(5):
        _, labels, inside = run(jax.random.key(seed), image, label, config=config)
        np.testing.assert_array_equal(inside, labels < 255)
        # 3x5 cells of the 6x10 window lie inside, give or take a row and a column.
        assert 2 * 4 <= np.sum(inside) <= 4 * 6
        assert set(np.unique(labels)) <= {*np.unique(label), 255}


@pytest.mark.parametrize("rotate", [0.0, 40.0])
def test_labels_are_ids_of_the_input_or_255_and_stay_on_their_image(rotate):
    # The image is painted from the label in blocks, so that inside a block both must agree.
    ids = np.random.default_rng(3).permutation(np.arange(24) * 10).reshape(4, 6)
    label = np.kron(ids, np.ones((8, 8))).astype(np.uint8)
    image = np.repeat(label[..., None], 3, -1)
    config = Augmentation(crop_size=(30, 40), scale=(0.6, 2.0), rotate=rotate)
    for seed in range(8):
        pixels, labels, _ = run(jax.random.key(seed), image, label, config=config)
        pixels, labels = np.asarray(pixels)[..., 0] * 255, np.asarray(labels)
        assert set(np.unique(labels)) <= {*ids.ravel(), 255}
        known = labels < 255
        inner = np.zeros_like(known)
        inner[2:-2, 2:-2] = True
        for shift in np.ndindex(5, 5):  # all neighbours alike: no block edge near
            moved = np.roll(labels, (shift[0] - 2, shift[1] - 2), (0, 1))
            inner &= moved == labels
        compared = inner & known
        assert compared.sum() > 20
        np.testing.assert_allclose(pixels[compared], labels[compared], atol=1e-2)


def test_views_depend_on_the_key_alone():
    image, label = sample()
    config = Augmentation(
        crop_size=SIZE, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1, scale=(0.7, 1.5)
    )
    views = [np.asarray(run(jax.random.key(s), image, label, config=config)[0]) for s in (1, 1, 2)]
    np.testing.assert_array_equal(views[0], views[1])
    assert np.abs(views[0] - views[2]).max() > 0.05


def grid(size=(24, 32)):
    """An image whose channels hold each pixel's own row and column, and labels of their cells."""
    y, x = np.mgrid[: size[0], : size[1]]
    image = np.stack([y, x, np.zeros_like(y)], -1).astype(np.uint8)
    return image, (y * size[1] + x) % 250


@pytest.mark.parametrize("scale", [(1.0, 1.0), (1.0, 2.0), (0.5, 0.9)])
def test_image_and_labels_turn_together(scale):
    """Bilinear interpolation is exact on a plane, so every pixel tells where it comes from, and its
    label must come from the same place."""
    image, label = grid()
    config = Augmentation(crop_size=(20, 20), scale=scale, rotate=25.0)
    turns = []
    for seed in range(6):
        pixels, labels, inside = run(jax.random.key(seed), image, label, config=config)
        pixels, labels = np.asarray(pixels)[..., :2] * 255, np.asarray(labels)
        # Half a pixel at the border is repeated; a shrinking filter is cut off near the border.
        margin = 0 if scale[0] >= 1 else 2
        kept = inside & np.all(
            (pixels > margin + 0.01) & (pixels < np.array(label.shape) - 1.01 - margin), -1
        )
        cells = np.rint(pixels).astype(int)
        sure = kept & np.all(np.abs(pixels - cells) < 0.49, -1)
        assert sure.sum() > 60
        np.testing.assert_array_equal(labels[sure], label[tuple(cells[sure].T)])
        inner = kept[:-1, :-1] & kept[1:, :-1] & kept[:-1, 1:]
        down = (pixels[1:, :-1] - pixels[:-1, :-1])[inner]
        right = (pixels[:-1, 1:] - pixels[:-1, :-1])[inner]
        # Steps are equal everywhere, as long down as across, and at right angles.
        for step in (down, right):
            np.testing.assert_allclose(step, np.broadcast_to(step[0], step.shape), atol=2e-3)
            assert 1 / scale[1] - 1e-3 <= np.hypot(*step[0]) <= 1 / scale[0] + 1e-3
        assert np.hypot(*down[0]) == pytest.approx(np.hypot(*right[0]), abs=1e-3)
        assert down[0] @ right[0] == pytest.approx(0, abs=1e-3)
        turns.append(np.rad2deg(np.arctan2(-down[0, 1], down[0, 0])))
    assert max(map(abs, turns)) <= 25.1
    assert np.ptp(turns) > 10


def test_a_rotation_by_zero_changes_nothing(monkeypatch):
    image, label = sample()
    options = dict(scale=(1.0, 2.0), crop_size=(9, 9))
    plain = run(jax.random.key(3), image, label, config=changed(**options))
    monkeypatch.setattr(jnp, "deg2rad", lambda degrees: 0.0)
    turned = run(jax.random.key(3), image, label, config=changed(rotate=10.0, **options))
    np.testing.assert_allclose(plain[0], turned[0], atol=1e-5)
    np.testing.assert_array_equal(plain[1], turned[1])
    np.testing.assert_array_equal(plain[2], turned[2])


def test_shrinking_smooths_before_it_turns():
    stripes = np.zeros((48, 48, 3), np.uint8)
    stripes[::2] = 255
    config = Augmentation(crop_size=(24, 24), scale=(0.5, 0.5), rotate=5.0)
    pixels, _, _ = run(jax.random.key(1), stripes, np.zeros((48, 48), np.uint8), config=config)
    np.testing.assert_allclose(pixels[4:-4, 4:-4], 0.5, atol=0.02)  # and no moire


@pytest.mark.parametrize("rotate", [0.0, 20.0])
def test_a_crop_has_no_class_above_its_share_where_one_can_be_found(rotate):
    # Class 0 everywhere, class 1 in a patch, and ignored pixels, which do not count.
    label = np.zeros((40, 40), np.uint8)
    label[14:26, 14:26] = 1
    label[:, 30:] = 255
    image = np.zeros((40, 40, 3), np.uint8)

    def shares(limit):
        config = Augmentation((12, 12), (1.0, 1.0), rotate, max_class_share=limit)
        views = jax.jit(jax.vmap(lambda key: augment(key, image, label, config)[1]))
        found = np.asarray(views(jax.random.split(jax.random.key(0), 60)))
        counts = np.stack([(found == k).sum((1, 2)) for k in (0, 1)], 1)
        return counts.max(1) / np.maximum(counts.sum(1), 1)

    assert np.mean(shares(1.0) > 0.7) > 0.5
    # One crop in four fits, so all ten fail with a probability of 0.06.
    assert np.mean(shares(0.7) > 0.7) < 0.15


def test_the_first_crop_that_fits_is_taken_else_the_last():
    label = np.repeat(np.repeat([[0, 1]], 20, 1), 8, 0).astype(np.uint8)
    image = np.zeros((8, 40, 3), np.uint8)
    config = Augmentation((8, 8), (1.0, 1.0), flip=False, max_class_share=0.75)
    places = set()
    for seed in range(12):
        key = jax.random.key(seed)
        y_key = jax.random.split(jax.random.split(key)[0], 4)[1]
        crops = []
        for crop_key in jax.random.split(y_key, 10):
            left = float(jax.random.uniform(jax.random.split(crop_key)[1], ())) * 32
            crops.append(label[:, np.floor(np.arange(8) + left + 0.5).astype(int)])
        good = [k for k, crop in enumerate(crops) if 2 <= crop[0].sum() <= 6]
        places.add(good[0] if good else "none")
        _, labels, _ = run(key, image, label, config=config)
        np.testing.assert_array_equal(labels, crops[good[0] if good else -1])
    assert {"none", 0} < places
    _, labels, inside = run(key, image, np.full_like(label, 255), config=config)
    assert (np.asarray(labels) == 255).all()
    assert inside.all()


# (config, weighted sum of the labels, of the pixels) of what was drawn before changes had
# probabilities and there were as many: runs keep their numbers.
PINNED = [
    (Augmentation((24, 32)), 1187984, 890998.79),
    (Augmentation((24, 32), rotate=10.0, blur=0.5), 1188126, 890306.54),
    (
        Augmentation(
            (24, 32), max_class_share=0.3, brightness=0.25, contrast=0.25, saturation=0.25, hue=0.02
        ),
        1205951,
        891078.62,
    ),
]


@pytest.mark.parametrize("config, labels_sum, pixels_sum", PINNED, ids=["crop", "turn", "colours"])
def test_views_are_what_they_were(config, labels_sum, pixels_sum):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (40, 56, 3), np.uint8)
    label = random.integers(0, 5, (40, 56)).astype(np.uint8)
    weights = np.arange(1, 16 * 24 * 32 + 1).reshape(16, 24, 32) % 97
    keys = jax.random.split(jax.random.key(3), 16)
    view = jax.jit(jax.vmap(lambda key: augment(key, image, label, config)))
    pixels, labels, inside = map(np.asarray, view(keys))
    assert np.sum(weights * np.where(inside, labels, 7)) == labels_sum
    total = np.sum(weights[..., None] * np.where(inside[..., None], pixels, 0), dtype=float)
    assert total == pytest.approx(pixels_sum, rel=1e-6)
