"""Aspect, padding, turns and flips of the random views, by numpy twins."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from segjax.transforms.augment import Augmentation, augment
from segjax.transforms.draws import key_of

SIZE = (6, 10)
PLAIN = Augmentation(crop_size=SIZE, scale=(1.0, 1.0), flip=False)
run = jax.jit(augment, static_argnames="config")


def sample(size=SIZE):
    """An image that is painted from its labels, so that wherever a pixel goes, both must agree."""
    label = np.random.default_rng(0).permutation(size[0] * size[1]).reshape(size).astype(np.uint8)
    return np.repeat(label[..., None], 3, -1), label


def changed(**options):
    return dataclasses.replace(PLAIN, **options)


def views(config, count=200, size=SIZE):
    image, label = sample(size)
    keys = jax.random.split(jax.random.key(1), count)
    drawn = jax.jit(jax.vmap(lambda key: augment(key, image, label, config)))(keys)
    return [np.asarray(x) for x in drawn]


def assert_image_and_labels_agree(pixels, labels, inside):
    np.testing.assert_array_equal(np.rint(255 * pixels[..., 0])[inside], labels[inside])
    np.testing.assert_array_equal(labels[~inside], 255)


@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_vertical_flip(probability):
    _, label = sample()
    pixels, labels, inside = views(changed(flip_vertical=probability))
    assert_image_and_labels_agree(pixels, labels, inside)
    flipped = np.all(labels == label[::-1], (1, 2))
    np.testing.assert_array_equal(labels[~flipped], np.broadcast_to(label, labels.shape)[~flipped])
    assert abs(flipped.mean() - probability) <= 0.1


def test_the_flip_has_a_probability():
    _, label = sample()
    for probability in (0.0, 0.2, 1.0):
        _, labels, _ = views(changed(flip=True, flip_probability=probability))
        mirrored = np.all(labels == label[:, ::-1], (1, 2))
        assert abs(mirrored.mean() - probability) <= (0.09 if probability == 0.2 else 0)


def test_quarter_turns_of_a_square_are_numpys():
    _, label = sample((8, 8))
    config = changed(crop_size=(8, 8), quarter_turns=0.6)
    pixels, labels, inside = views(config, 400, (8, 8))
    assert_image_and_labels_agree(pixels, labels, inside)
    counts = [np.all(labels == np.rot90(label, k), (1, 2)).sum() for k in range(4)]
    assert sum(counts) == 400
    for count, expected in zip(counts, (160, 80, 80, 80), strict=True):
        assert abs(count - expected) <= 30


@pytest.mark.parametrize("crop", [(4, 6), (5, 3)])
@pytest.mark.parametrize("share", [1.0, 0.9])
def test_quarter_turns_of_an_oblong_crop_are_of_a_window_with_its_sides_exchanged(crop, share):
    _, label = sample((12, 15))
    config = changed(crop_size=crop, quarter_turns=1.0, max_class_share=share)
    pixels, labels, inside = views(config, 60, (12, 15))
    assert pixels.shape[1:3] == crop
    keys = jax.random.split(jax.random.key(1), 60)
    draw = jax.jit(jax.vmap(lambda key: jax.random.randint(key_of(key, "turns"), (), 1, 4)))
    turns_of = np.asarray(draw(keys)).tolist()
    for turns, view in zip(turns_of, labels, strict=True):
        # Turned back, it is a window of the label map, up to the nearest whole place.
        back = np.rot90(view, -turns)
        y, x = np.argwhere(label == back[0, 0])[0]
        np.testing.assert_array_equal(back, label[y : y + back.shape[0], x : x + back.shape[1]])
    assert set(turns_of) == {1, 2, 3}
    assert inside.all()


def test_turns_flips_and_rotation_together_keep_labels_on_their_image():
    ids = np.random.default_rng(3).permutation(np.arange(24) * 10).reshape(4, 6)
    label = np.kron(ids, np.ones((8, 8))).astype(np.uint8)
    image = np.repeat(label[..., None], 3, -1)
    config = Augmentation(
        crop_size=(30, 40),
        scale=(0.8, 2.0),
        aspect=(0.5, 2.0),
        rotate=40.0,
        rotate_probability=0.5,
        flip_vertical=0.5,
        quarter_turns=0.75,
        padding="centre",
    )
    for seed in range(8):
        pixels, labels, inside = run(jax.random.key(seed), image, label, config=config)
        agree = np.abs(255 * np.asarray(pixels)[..., 0] - np.asarray(labels)) < 1
        assert np.mean(agree[np.asarray(inside)]) > 0.5  # the rest lies on edges of blocks
        assert set(np.unique(labels)) <= {*ids.ravel().tolist(), 255}
        wrong = ~agree & np.asarray(inside)
        interior = np.ones_like(wrong)
        same = np.asarray(labels)
        for axis in (0, 1):
            for step in (-2, -1, 1, 2):
                interior &= np.roll(same, step, axis) == same
        assert not (wrong & interior)[2:-2, 2:-2].any()


def test_aspect_stretches_by_the_root_of_what_is_drawn():
    """As semseg's RandScale: the width by sqrt(r), the height by 1 / sqrt(r)."""
    # A ramp in x and one in y: their steps in the view are 1 / scale.
    y, x = np.mgrid[:40, :60].astype(np.uint8)
    image = np.stack([4 * y, 4 * x, 0 * x], -1)
    label = np.zeros((40, 60), np.uint8)
    config = Augmentation((12, 14), (1.0, 1.5), aspect=(0.5, 2.0), flip=False)
    ratios = []
    for seed in range(25):
        key = jax.random.key(seed)
        scale_key = jax.random.split(jax.random.split(key)[0], 5)[0]
        scale = float(jax.random.uniform(scale_key, (), minval=1.0, maxval=1.5))
        ratio = float(jax.random.uniform(key_of(key, "aspect"), (), minval=0.5, maxval=2.0))
        pixels, _, inside = run(key, image, label, config=config)
        pixels = 255 * np.asarray(pixels) / 4
        if not np.asarray(inside).all():
            continue
        inner = (pixels[..., 0].min() > 1) & (pixels[..., 1].min() > 1)
        inner &= (pixels[..., 0].max() < 38) & (pixels[..., 1].max() < 58)
        if inner and scale / ratio**0.5 >= 1 and scale * ratio**0.5 >= 1:  # nothing is smoothed
            down, across = np.diff(pixels[:, 0, 0]), np.diff(pixels[0, :, 1])
            np.testing.assert_allclose(down, ratio**0.5 / scale, rtol=1e-3)
            np.testing.assert_allclose(across, 1 / (scale * ratio**0.5), rtol=1e-3)
            ratios.append(ratio)
    assert len(ratios) >= 4
    assert np.ptp(ratios) > 0.3


def test_a_rotation_of_a_stretched_image_turns_the_scaled_image():
    """Distances in the view are those of the scaled image: right angles stay right angles."""
    y, x = np.mgrid[:80, :80].astype(np.uint8)
    image = np.stack([3 * y, 3 * x, 0 * x], -1)
    config = Augmentation((12, 12), (2.0, 2.0), rotate=40.0, aspect=(1.8, 1.8), flip=False)
    scale_x, scale_y = 2 * 1.8**0.5, 2 / 1.8**0.5
    angles = []
    for seed in range(6):
        pixels, _, _ = run(jax.random.key(seed), image, np.zeros((80, 80), np.uint8), config=config)
        at = 255 * np.asarray(pixels)[..., :2] / 3 * (scale_y, scale_x)
        if at[..., 0].min() < 4 or at[..., 1].min() < 4 or at.max() > 100:
            continue
        down, right = at[1:, :-1] - at[:-1, :-1], at[:-1, 1:] - at[:-1, :-1]
        np.testing.assert_allclose(np.linalg.norm(down, axis=-1), 1, atol=5e-3)
        np.testing.assert_allclose(np.linalg.norm(right, axis=-1), 1, atol=5e-3)
        np.testing.assert_allclose(np.sum(down * right, -1), 0, atol=5e-3)
        angles.append(np.arctan2(right[0, 0, 0], right[0, 0, 1]))
    assert len(angles) >= 2
    assert np.ptp(angles) > 0.1


def test_rotations_come_with_their_probability():
    image, label = sample((20, 20))
    keys = jax.random.split(jax.random.key(0), 200)

    def labels(probability):
        config = changed(crop_size=(20, 20), rotate=30.0, rotate_probability=probability)
        return np.asarray(
            jax.jit(jax.vmap(lambda key: augment(key, image, label, config)[1]))(keys)
        )

    turned = ~np.all(labels(0.3) == label, (1, 2))
    assert 40 <= turned.sum() <= 80
    np.testing.assert_array_equal(labels(0.3)[turned], labels(1.0)[turned])
    np.testing.assert_array_equal(labels(0.0), np.broadcast_to(label, (200, 20, 20)))


@pytest.mark.parametrize("padding, start", [("centre", (3, 2)), ("end", (0, 0))])
@pytest.mark.parametrize(
    "options", [{}, {"flip": True, "flip_vertical": 0.5}], ids=["still", "flips"]
)
def test_padding_puts_a_small_image_in_its_place(padding, start, options):
    _, label = sample()
    pixels, labels, inside = views(changed(crop_size=(12, 14), padding=padding, **options), 40)
    assert_image_and_labels_agree(pixels, labels, inside)
    y, x = start
    expected = np.zeros((12, 14), bool)
    expected[y : y + 6, x : x + 10] = True
    np.testing.assert_array_equal(inside, np.broadcast_to(expected, inside.shape))
    forms = [label, label[::-1], label[:, ::-1], label[::-1, ::-1]] if options else [label]
    found = [np.all(labels[:, y : y + 6, x : x + 10] == form, (1, 2)) for form in forms]
    assert np.sum(found) == 40
    assert np.min(np.sum(found, 1)) >= 2


def test_a_crop_smaller_than_the_image_does_not_see_the_padding():
    config = dict(crop_size=(4, 5), flip=True)
    ours, plain = views(changed(padding="end", **config), 50), views(changed(**config), 50)
    np.testing.assert_allclose(ours[0], plain[0], atol=1e-6)
    np.testing.assert_array_equal(ours[1], plain[1])


def test_a_rotated_image_is_cut_to_its_frame_where_it_is_padded():
    image, label = sample((16, 16))
    config = changed(crop_size=(30, 30), rotate=45.0)
    cut = dataclasses.replace(config, padding="centre")
    frame = np.zeros((30, 30), bool)
    frame[7:23, 7:23] = True
    outside = 0
    for seed in range(5):
        _, labels, inside = run(jax.random.key(seed), image, label, config=cut)
        inside = np.asarray(inside)
        assert not (inside & ~frame).any()
        np.testing.assert_array_equal(np.asarray(labels) < 255, inside)
        _, _, around = run(jax.random.key(seed), image, label, config=config)
        assert abs(int(np.sum(around)) - 256) <= 8  # nothing is lost
        outside += 256 - inside.sum()
    assert outside > 20


def test_scaled_images_are_opencvs_where_nothing_is_smoothed():
    """cv2.resize(image, size, INTER_LINEAR), as semseg and mmsegmentation scale."""
    with np.load(pathlib.Path(__file__).parents[1] / "goldens/opencv.npz") as arrays:
        photo = arrays["photo"]
        scaled = {name: arrays[name] for name in arrays if name.startswith("scaled_")}
    assert len(scaled) == 5
    label = np.zeros(photo.shape[:2], np.uint8)
    for name, expected in scaled.items():
        size = expected.shape[:2]
        scale_y, scale_x = size[0] / 24, size[1] / 32
        scale, ratio = (scale_y * scale_x) ** 0.5, scale_x / scale_y
        config = Augmentation(
            size, (scale, scale), flip=False, aspect=(ratio, ratio), antialias=False
        )
        # The path of turned views, once.
        for options in ({}, {"rotate": 1e-6})[: 1 + (name == next(iter(scaled)))]:
            config = dataclasses.replace(config, **options)
            pixels, _, _ = run(jax.random.key(0), photo, label, config=config)
            np.testing.assert_allclose(255 * np.asarray(pixels), expected, atol=2e-3)
