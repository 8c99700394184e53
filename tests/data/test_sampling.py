"""Orders of the training images: repeat factors, drawn classes, and the count they rest on."""

import json
import pickle

import numpy as np
import pytest

from segjax.data.sampling import class_presence, make_order, order, repeat_factors
from segjax.data.sets.folder import open_folder
from tests.data.drawn import THREE, Drawn, DrawnWithRepr, mask, pairs, uint8

# Ten images: all show class 0, images 0-3 class 1, image 9 class 2; class 3 never occurs.
PRESENCE = np.zeros((10, 4), bool)
PRESENCE[:, 0] = PRESENCE[:4, 1] = PRESENCE[9, 2] = True


def options(name, threshold=0.9):
    return {"sampling": name, "repeat_threshold": threshold}


def taken(dataset, start, stop):
    return [int(dataset[i]) for i in range(start, stop)]


def test_repeat_factors_by_hand():
    # sqrt(0.9 / 0.4) = 1.5, sqrt(0.9 / 0.1) = 3, and class 0 is in all: 1.
    np.testing.assert_allclose(repeat_factors(PRESENCE, 0.9), [1.5] * 4 + [1] * 5 + [3])
    np.testing.assert_allclose(repeat_factors(PRESENCE, 0.1), np.ones(10))
    np.testing.assert_allclose(repeat_factors(np.zeros((2, 3), bool), 0.5), [1, 1])


def test_repeat_factor_epochs_hold_each_image_its_factors_floor_or_ceiling_times():
    endless = order(options("repeat_factor"), PRESENCE, seed=3)
    epochs = np.reshape(taken(endless, 0, 200 * 14), (200, 14))  # 4 * 1.5 + 5 + 3 = 14 images
    counts = np.array([np.bincount(epoch, minlength=10) for epoch in epochs])
    assert (counts[:, 4:9] == 1).all()
    assert (counts[:, 9] == 3).all()
    assert set(np.unique(counts[:, :4])) == {1, 2}
    np.testing.assert_allclose(counts[:, :4].mean(0), 1.5, atol=0.15)
    assert len(np.unique(counts[:, :4], axis=0)) > 3  # the fractions are drawn anew


def test_factors_that_make_no_whole_epoch_are_kept_in_proportion():
    presence = np.zeros((7, 2), bool)
    presence[:, 0] = presence[:2, 1] = True
    factors = repeat_factors(presence, 0.5)
    assert factors.sum() == pytest.approx(5 + 2 * np.sqrt(0.5 / (2 / 7)))  # 7.65: 8 an epoch
    drawn = taken(order(options("repeat_factor", 0.5), presence, seed=0), 0, 8 * 500)
    counts = np.bincount(drawn, minlength=7) / 500
    np.testing.assert_allclose(counts, factors * 8 / factors.sum(), atol=0.1)


def test_balanced_draws_each_class_that_occurs_as_often_as_any():
    drawn = np.array(taken(order(options("balanced"), PRESENCE, seed=1), 0, 6000))
    # A third for image 9's class, a twelfth for each of class 1's, a thirtieth for class 0's.
    expected = np.full(10, 1 / 30)
    expected[:4] += 1 / 12
    expected[9] += 1 / 3
    np.testing.assert_allclose(np.bincount(drawn, minlength=10) / 6000, expected, atol=0.02)


@pytest.mark.parametrize("name", ["repeat_factor", "balanced"])
def test_an_order_is_a_function_of_seed_and_position_and_pickles(name):
    first, again = (order(options(name), PRESENCE, seed=5) for _ in range(2))
    straight = taken(first, 0, 60)
    assert straight == [int(again[i]) for i in reversed(range(60))][::-1]
    assert straight == taken(pickle.loads(pickle.dumps(first)), 0, 60)
    assert straight != taken(order(options(name), PRESENCE, seed=6), 0, 60)
    assert straight[:14] != straight[14:28]
    assert isinstance(again[10**12], int)  # far ahead, at no cost


def test_labels_are_counted_once_and_not_at_all_for_the_uniform_order(tmp_path):
    labels = [uint8([0, 0]), uint8([0, 1]), uint8([255, 255])]
    source = DrawnWithRepr(labels)
    assert make_order(options("uniform"), source, 0, tmp_path) is None
    assert order(options("uniform"), PRESENCE, 0) is None
    assert source.reads == []
    first = make_order(options("balanced"), source, 4, tmp_path)
    source = DrawnWithRepr(labels)
    again = make_order(options("balanced"), source, 4, tmp_path)
    assert source.reads == []
    assert taken(first, 0, 40) == taken(again, 0, 40)
    assert set(taken(first, 0, 40)) == {0, 1}  # image 2 shows nothing


def test_class_presence_by_hand():
    labels = [uint8([0, 2], [255, 2]), uint8([255]), uint8([1, 1])]
    presence = class_presence(Drawn(labels))
    assert presence.dtype == bool
    assert presence.tolist() == [[True, False, True], [False] * 3, [False, True, False]]


def test_class_presence_of_files_reads_the_masks_alone(tmp_path):
    source = open_folder(pairs(tmp_path / "data", "ab", ids=2), "train", THREE)
    mask(tmp_path / "data/masks/train/b.png", 0)
    (tmp_path / "data/images/train/a.png").write_bytes(b"no image")
    cache = tmp_path / "work/class_presence.json"
    assert class_presence(source, cache).tolist() == [[False, False, True], [True, False, False]]
    assert json.loads(cache.read_text())["statistics"] == {"classes": [[2], [0]]}
    mask(tmp_path / "data/masks/train/b.png", [[0, 0, 0, 1, 1, 1]])
    assert class_presence(source, cache).tolist() == [[False, False, True], [True, True, False]]


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"sampling": "rare"}, "='rare' is unknown; use uniform, repeat_factor, balanced"),
        ({"repeat_threshold": 0.0}, r"data\.repeat_threshold=0\.0; use a share"),
        ({"repeat_threshold": 1.5}, r"data\.repeat_threshold=1\.5; use a share"),
    ],
)
def test_bad_options_raise_before_anything_is_read(changed, message):
    source = Drawn([uint8([0])])
    with pytest.raises(ValueError, match=message):
        make_order({**options("balanced"), **changed}, source, 0)
    assert source.reads == []


def test_a_split_without_labels_has_no_rare_classes():
    with pytest.raises(ValueError, match="no image of the split shows any class"):
        order(options("balanced"), np.zeros((3, 2), bool), 0)
