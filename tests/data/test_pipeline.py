import pickle

import grain
import numpy as np
import pytest

from segjax.data.pipeline import (
    FittedDataset,
    eval_batches,
    fit_image,
    fit_label,
    fitted_size,
    pad_batch,
    shuffled,
    train_iterator,
)


class Numbered:
    """Samples whose every pixel is their number; counts how often each is read."""

    def __init__(self, length, size=(8, 12)):
        self.length, self.size, self.reads = length, size, []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.reads.append(index)
        image = np.full((*self.size, 3), index, np.uint8)
        return {"image": image, "label": image[..., 0] % 5, "name": str(index)}

    def __repr__(self):
        return f"Numbered({self.length})"


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


def test_canvas_sample_has_image_label_and_index():
    canvas = FittedDataset(Numbered(3), (4, 6), label_size=(8, 12))
    assert len(canvas) == 3
    sample = canvas[2]
    assert set(sample) == {"image", "label", "index"}
    assert sample["image"].shape == (4, 6, 3)
    assert sample["label"].shape == (8, 12)
    assert sample["index"] == 2
    assert sample["index"].dtype == np.int32
    assert FittedDataset(Numbered(3), [4, 6])[0]["label"].shape == (4, 6)


def test_canvas_keeps_samples_only_where_all_of_them_fit():
    bytes_of_all = 5 * (4 * 6 * 3 + 4 * 6)
    for cache_mb, reads in ((bytes_of_all / 1e6, 1), ((bytes_of_all - 1) / 1e6, 2), (0, 2)):
        source = Numbered(5)
        canvas = FittedDataset(source, (4, 6), cache_mb=cache_mb)
        first, second = canvas[3], canvas[3]
        np.testing.assert_array_equal(first["image"], second["image"])
        assert source.reads == [3] * reads


def test_labels_of_another_size_count_for_the_cache():
    images_alone = 5 * (4 * 6 * 3 + 4 * 6) / 1e6
    source = Numbered(5)
    canvas = FittedDataset(source, (4, 6), label_size=(8, 12), cache_mb=images_alone)
    assert canvas[0] is not canvas[0]
    assert source.reads == [0, 0]


def test_pickling_drops_what_is_cached():
    canvas = FittedDataset(Numbered(5, (64, 64)), (64, 64), cache_mb=1)
    empty = len(pickle.dumps(canvas))
    canvas[0]
    copy = pickle.loads(pickle.dumps(canvas))
    assert len(pickle.dumps(canvas)) < empty + 100
    copy.source.reads.clear()
    assert copy[0] is copy[0]  # the copy caches for itself
    assert copy.source.reads == [0]
    uncached = pickle.loads(pickle.dumps(FittedDataset(Numbered(5), (8, 12))))
    assert uncached[0] is not uncached[0]


LENGTH, BATCH = 10, 4


def batches(count, *, seed=0, state=None):
    """The next `count` batches and the iterator's state after them."""
    iterator = train_iterator(FittedDataset(Numbered(LENGTH), (8, 12)), BATCH, seed=seed)
    if state is not None:
        iterator.set_state(state)
    found = [next(iterator) for _ in range(count)]
    state = iterator.get_state()
    iterator.close()
    return found, state


def order(found):
    return np.concatenate([b["index"] for b in found]).tolist()


def test_training_batches_hold_whole_samples():
    for batch in batches(3)[0]:
        assert batch["image"].shape == (BATCH, 8, 12, 3)
        assert batch["label"].shape == (BATCH, 8, 12)
        assert batch["image"].dtype == batch["label"].dtype == np.uint8
        assert batch["index"].dtype == np.int32
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["index"])
        np.testing.assert_array_equal(batch["label"][:, 0, 0], batch["index"] % 5)


def test_every_epoch_is_another_permutation_though_the_batch_does_not_divide_it():
    indices = order(batches(10)[0])  # 4 epochs of 10
    epochs = [indices[k : k + LENGTH] for k in range(0, 40, LENGTH)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(LENGTH))
    assert len({tuple(e) for e in epochs}) == 4


def test_order_is_the_seeds():
    assert order(batches(5)[0]) == order(batches(5)[0])
    assert order(batches(5)[0]) != order(batches(5, seed=1)[0])


def test_a_batch_larger_than_the_data_set_runs_over_its_end():
    iterator = train_iterator(FittedDataset(Numbered(3), (8, 12)), 7, seed=0)
    indices = order([next(iterator) for _ in range(3)])
    assert all(sorted(indices[k : k + 3]) == [0, 1, 2] for k in range(0, 21, 3))


@pytest.mark.versions
@pytest.mark.parametrize("taken", [0, 1, 4])
def test_a_restored_position_goes_on_exactly(taken):
    whole, _ = batches(taken + 5)
    _, state = batches(taken)
    state = pickle.loads(pickle.dumps(state))
    rest, _ = batches(5, state=state)
    for a, b in zip(whole[taken:], rest, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_the_state_is_that_of_the_batches_taken_and_not_of_those_read_ahead():
    iterator = train_iterator(FittedDataset(Numbered(LENGTH), (8, 12)), BATCH, seed=0)
    next(iterator)
    state = iterator.get_state()
    ahead = order([next(iterator) for _ in range(6)])
    iterator.set_state(state)  # the same iterator, back
    assert order([next(iterator) for _ in range(6)]) == ahead


@pytest.mark.versions
def test_a_position_that_grain_saved_is_understood():
    # As its own iterator says it, which older checkpoints hold: two workers after 5 batches.
    parts = {"iterators_in_use_states": [{"next_index": 3}, {"next_index": 2}]}
    assert order(batches(4, state=parts)[0]) == order(batches(9)[0][5:])


@pytest.mark.parametrize("length, rows", [(10, [4, 4, 2]), (8, [4, 4]), (3, [3])])
def test_evaluation_sees_every_sample_once_in_order(length, rows):
    found = list(eval_batches(FittedDataset(Numbered(length), (8, 12), label_size=(4, 6)), BATCH))
    assert [int((b["index"] >= 0).sum()) for b in found] == rows
    indices = order(found)
    assert indices[:length] == list(range(length))
    assert indices[length:] == [-1] * (len(found) * BATCH - length)
    for batch in found:
        assert batch["image"].shape == (BATCH, 8, 12, 3)
        assert batch["label"].shape == (BATCH, 4, 6)
    padding = found[-1]["index"] < 0
    assert np.all(found[-1]["label"][padding] == 255)
    assert not np.any(found[-1]["label"][~padding] == 255)


def test_the_order_of_a_seed_is_pinned():
    # As drawn by grain's shuffle since the first release: checkpoints hold positions in it.
    assert order(batches(5)[0])[:10] == [1, 2, 4, 5, 9, 7, 8, 6, 0, 3]
    assert order(batches(5)[0]) == [shuffled(LENGTH, 0)[i] for i in range(20)]


def test_decode_reads_anew_and_keeps_nothing():
    source = Numbered(5)
    canvas = FittedDataset(source, (8, 12), cache_mb=1)
    assert canvas.decode(2) is not canvas.decode(2)
    assert source.reads == [2, 2]
    canvas[2]
    assert source.reads == [2, 2, 2]


def test_indices_alone_come_in_the_same_order_and_read_nothing():
    source = Numbered(LENGTH)
    canvas = FittedDataset(source, (8, 12))
    whole = train_iterator(canvas, BATCH, seed=3)
    wanted = [next(whole)["index"] for _ in range(6)]
    source.reads.clear()
    bare = train_iterator(canvas, BATCH, seed=3, workers=2, indices_only=True)
    for indices in wanted:
        batch = next(bare)
        assert set(batch) == {"index"}
        assert batch["index"].dtype == np.int32
        np.testing.assert_array_equal(batch["index"], indices)
    assert bare.get_state() == whole.get_state()


def test_another_order_is_taken_as_it_is():
    odd = grain.MapDataset.source([1, 3, 3, 9]).repeat(None)
    iterator = train_iterator(FittedDataset(Numbered(LENGTH), (8, 12)), 3, seed=0, order=odd)
    found = [next(iterator) for _ in range(3)]
    assert order(found) == [1, 3, 3, 9, 1, 3, 3, 9, 1]
    np.testing.assert_array_equal(found[1]["image"][:, 0, 0, 0], [9, 1, 3])


def test_a_full_batch_is_not_copied():
    rows = {"image": np.zeros((2, 4, 4, 3), np.uint8), "label": np.zeros((2, 4, 4), np.uint8)}
    assert pad_batch(rows, 2)["image"] is rows["image"]
    assert pad_batch(rows, 5)["image"].dtype == np.uint8
