"""Cutout, CutMix and class-mix: every pixel and label comes from the source that it should."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from segjax.transforms.augment import Augmentation, augment, augment_batch
from segjax.transforms.draws import key_of
from segjax.transforms.mix import _is_in, _seen_by_comparing, _seen_by_counting

N, SIZE, KEY = 6, (16, 20), jax.random.key(5)
STILL = Augmentation(crop_size=SIZE, scale=(1.0, 1.0), flip=False)
run = jax.jit(augment_batch, static_argnames=("config", "axis_name"))


def changed(**options):
    return dataclasses.replace(STILL, **options)


def batch(count=N, seed=0):
    """Images of one colour each, 10 times their number; labels of blocks, some ignored."""
    random = np.random.default_rng(seed)
    images = np.empty((count, *SIZE, 3), np.uint8)
    images[:] = 10 * np.arange(1, count + 1)[:, None, None, None]
    blocks = random.integers(0, 5, (count, 4, 5))
    labels = np.kron(blocks, np.ones((4, 4))).astype(np.uint8)
    labels[:, 0, :3] = 255
    return images, labels, np.arange(count, dtype=np.int32) + 40


def sources(pixels):
    """The row that each pixel comes from, by its colour."""
    rows = np.rint(255 * np.asarray(pixels)) / 10 - 1
    assert (rows == rows[..., :1]).all()
    assert (rows == np.rint(rows)).all()
    return rows[..., 0].astype(int)


def taken(views, labels):
    """The mask of the pixels from another row, and that row, or -1; asserts that each label comes
    from where the pixel does and that each view has at most one other source."""
    found = sources(views[0])
    own = np.arange(len(labels))[:, None, None]
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    np.testing.assert_array_equal(views[1], labels[found, y, x])
    assert np.asarray(views[2]).all()
    masks, partners = found != own, []
    for row, mask in zip(found, masks, strict=True):
        others = set(row[mask].tolist())
        assert len(others) <= 1
        partners.append(others.pop() if others else -1)
    return masks, np.array(partners)


def test_cutmix_pastes_a_box_of_half_of_the_area_with_its_labels():
    images, labels, index = batch()
    heights, corners = set(), set()
    for step in range(20):
        key = jax.random.fold_in(KEY, step)
        views = run(key, images, labels, index, config=changed(cutmix=1.0))
        masks, partners = taken(views, labels)
        assert (partners >= 0).all()
        for mask in masks:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert mask.sum() == height * width  # a box without holes
            assert abs(height * width - 160) <= 0.5 * (height + width) + 1  # rounded sides
            heights.add(height)
            corners.add((rows[0], columns[0]))
    assert min(heights) <= 9
    assert max(heights) >= 15
    assert len(corners) > 30


def test_cutmix_by_a_numpy_twin():
    images, labels, index = batch()
    views = run(KEY, images, labels, index, config=changed(cutmix=1.0))
    masks, partners = taken(views, labels)
    for row, number in enumerate(index):
        key = jax.random.fold_in(KEY, number)
        down, across, shape = np.asarray(jax.random.uniform(key_of(key, "cutmix_box"), (3,)))
        height, width = np.rint(16 * 0.5**shape), np.rint(20 * 0.5 / 0.5**shape)
        top, left = np.rint((16 - height) * down), np.rint((20 - width) * across)
        y, x = np.mgrid[:16, :20]
        expected = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
        np.testing.assert_array_equal(masks[row], expected)
        partner_key = key_of(key, "cutmix_partner")
        draws = [int(jax.random.bits(jax.random.fold_in(partner_key, i))) >> 1 for i in index]
        draws[row] = 2**32
        assert partners[row] == np.argmin(draws)


def test_classmix_pastes_half_of_the_partners_classes_and_all_of_their_pixels():
    images, labels, index = batch()
    chosen_of = []
    for step in range(20):
        key = jax.random.fold_in(KEY, step)
        views = run(key, images, labels, index, config=changed(classmix=1.0))
        masks, partners = taken(views, labels)
        for mask, partner in zip(masks, partners, strict=True):
            theirs = labels[partner]
            present = set(np.unique(theirs)) - {255}
            chosen = set(np.unique(theirs[mask]))
            assert len(chosen) == len(present) // 2
            assert chosen <= present
            np.testing.assert_array_equal(mask, np.isin(theirs, list(chosen)))
            chosen_of.append(tuple(sorted(chosen)))
    assert len(set(chosen_of)) >= 8  # of the 10 pairs of 5 classes


def test_classmix_of_a_partner_with_one_class_or_none_takes_nothing():
    images, labels, index = batch(2)
    for value in (3, 255):
        plain = np.full_like(labels, value)
        plain[:, 0, 0] = 255
        views = run(KEY, images, plain, index, config=changed(classmix=1.0))
        np.testing.assert_array_equal(sources(views[0]), np.ones((2, *SIZE), int) * [[[0]], [[1]]])
        np.testing.assert_array_equal(views[1], plain)


def test_ids_are_seen_in_both_forms():
    random = np.random.default_rng(0)
    for count in (1, 5, 200):
        ids = random.integers(0, 256, count)
        labels = jnp.array(random.choice(ids, (7, 9)), jnp.int32)
        expected = sorted(set(np.unique(labels).tolist()) - {255})
        for seen in (_seen_by_comparing, _seen_by_counting):
            np.testing.assert_array_equal(np.flatnonzero(seen(labels)), expected)


def test_chosen_ids_are_found():
    random = np.random.default_rng(0)
    labels = np.append(random.permutation(255), [255] * 33).reshape(16, 18).astype(np.int32)
    for share in (0.0, 0.3, 1.0):
        chosen = random.random(255) < share
        expected = np.append(chosen, False)[labels]
        np.testing.assert_array_equal(_is_in(jnp.array(labels), jnp.array(chosen)), expected)


@pytest.mark.parametrize("change", ["cutmix", "classmix"])
def test_mixes_come_with_their_probability_and_from_all_others(change):
    images, labels, index = batch()
    keys = jax.random.split(KEY, 100)
    config = changed(**{change: 0.4})
    views = jax.jit(jax.vmap(lambda key: augment_batch(key, images, labels, index, config)))(keys)
    counts = np.zeros((N, N), int)
    for step in range(100):
        _, partners = taken([np.asarray(x[step]) for x in views], labels)
        for row, partner in enumerate(partners):
            if partner >= 0:
                counts[row, partner] += 1
    assert 0.34 <= counts.sum() / 600 <= 0.46
    assert (np.diag(counts) == 0).all()
    assert (counts[~np.eye(N, dtype=bool)] >= 1).all()  # 8 on average
    assert counts.max() <= 20


MIXED = changed(cutmix=0.5, classmix=0.5, flip=True, brightness=0.2)


def test_mixes_at_probability_0_are_the_views_bit_for_bit():
    images, labels, index = batch()
    config = changed(flip=True)
    alone = jax.jit(jax.vmap(lambda key, image, label: augment(key, image, label, config)))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, index)
    views = run(KEY, images, labels, index, config=config)
    for one, other in zip(views, alone(keys, images, labels), strict=True):
        np.testing.assert_array_equal(one, other)


def test_mixed_views_depend_on_no_place_and_on_no_padding_row():
    images, labels, index = batch()
    views = run(KEY, images, labels, index, config=MIXED)
    assert (
        len(set(sources(run(KEY, images, labels, index, config=changed(cutmix=0.5))[0]).flat)) > 1
    )
    places = np.array([3, 0, 5, 1, 4, 2])
    moved = run(KEY, images[places], labels[places], index[places], config=MIXED)
    for one, other in zip(views, moved, strict=True):
        np.testing.assert_array_equal(np.asarray(one)[places], other)

    padded = [np.pad(x, [(0, 2), *[(0, 0)] * (x.ndim - 1)]) for x in (images, labels, index)]
    padded[0][N:], padded[1][N:], padded[2][N:] = 255, 255, -1
    with_padding = run(KEY, *padded, config=MIXED)
    for one, other in zip(views, with_padding, strict=True):
        np.testing.assert_array_equal(one, np.asarray(other)[:N])
    np.testing.assert_array_equal(np.asarray(with_padding[1])[N:], 255)


def test_an_example_does_not_mix_with_itself():
    images, labels, index = batch(3)
    index[:] = 7  # the end of an epoch and the start of the next one
    images[:] = images[:1]
    labels[:] = labels[:1]
    views = run(KEY, images, labels, index, config=changed(cutmix=1.0, classmix=1.0))
    for one, other in zip(views, run(KEY, images, labels, index, config=STILL), strict=True):
        np.testing.assert_array_equal(one, other)
    alone = run(KEY, images[:1], labels[:1], index[:1], config=changed(cutmix=1.0))
    np.testing.assert_array_equal(alone[1], labels[:1])


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_mixed_views_are_the_same_on_8_devices(mode):
    images, labels, index = batch(16)
    alone = run(KEY, images, labels, index, config=MIXED)
    if mode == "jit":
        sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
        placed = [jax.device_put(x, sharding) for x in (images, labels, index)]
        together = run(KEY, *placed, config=MIXED)
    else:
        view = functools.partial(augment_batch, config=MIXED, axis_name="data")
        parts = [x.reshape(8, 2, *x.shape[1:]) for x in (images, labels, index)]
        shards = jax.pmap(view, "data", in_axes=(None, 0, 0, 0))(KEY, *parts)
        together = [x.reshape(16, *x.shape[2:]) for x in shards]
    # Colours are rounded in another order.
    np.testing.assert_allclose(together[0], alone[0], atol=1e-6)
    np.testing.assert_array_equal(together[1], alone[1])
    np.testing.assert_array_equal(together[2], alone[2])
    plain = run(KEY, images, labels, index, config=changed(flip=True, brightness=0.2))
    assert np.mean(np.any(np.asarray(alone[1]) != plain[1], (1, 2))) > 0.4


def test_both_mixes_take_from_the_unmixed_views():
    images, labels, index = batch()
    views = run(KEY, images, labels, index, config=changed(cutmix=1.0, classmix=1.0))
    cut = run(KEY, images, labels, index, config=changed(cutmix=1.0))
    classes = run(KEY, images, labels, index, config=changed(classmix=1.0))
    mask, _ = taken(classes, labels)
    for both, first, second in zip(views, cut, classes, strict=True):
        where = mask.reshape(*mask.shape, *[1] * (first.ndim - 3))
        np.testing.assert_array_equal(both, np.where(where, second, first))


# Cutout -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count, size, labels_are", [(1, 0.5, "kept"), (3, 0.25, "ignored")])
def test_cutout_by_a_numpy_twin(count, size, labels_are):
    images, labels, _ = batch()
    config = changed(cutout=count, cutout_size=size, cutout_labels=labels_are)
    side = round(size * 16)
    view = jax.jit(augment, static_argnames="config")
    for seed in range(12):
        key = jax.random.key(seed)
        _, found, inside = view(key, images[0], labels[0], config=config)
        ys = np.ravel(jax.random.randint(key_of(key, "cutout_y"), (count, 1), 0, 16))
        xs = np.ravel(jax.random.randint(key_of(key, "cutout_x"), (count, 1), 0, 20))
        hidden = np.zeros(SIZE, bool)
        for y, x in zip(ys, xs, strict=True):
            top, left = y - side // 2, x - side // 2
            hidden[max(top, 0) : top + side, max(left, 0) : left + side] = True
        assert 0 < hidden.sum() <= count * side**2
        np.testing.assert_array_equal(inside, ~hidden)
        expected = labels[0] if labels_are == "kept" else np.where(hidden, 255, labels[0])
        np.testing.assert_array_equal(found, expected)


def test_cutout_comes_with_its_probability():
    images, labels, _ = batch()
    config = changed(cutout=2, cutout_probability=0.3)
    view = jax.jit(jax.vmap(lambda key: augment(key, images[0], labels[0], config)[2]))
    hidden = ~np.asarray(view(jax.random.split(KEY, 300)))
    cut = hidden.any((1, 2))
    assert 65 <= cut.sum() <= 115  # 90 on average
    assert len({tuple(np.argwhere(mask)[0]) for mask in hidden[cut]}) > 30
