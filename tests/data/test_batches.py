"""Batches for training and evaluation, by one process or by several that share them."""

import pickle

import grain
import numpy as np
import pytest

from segjax.data.batches import eval_batches, pad_batch, shuffled, train_iterator
from segjax.data.fitted import FittedDataset
from tests.data.drawn import Numbered

LENGTH, BATCH = 10, 4


def numbered(length=LENGTH, **options):
    return FittedDataset(Numbered(length), (8, 12), **options)


def batches(count, *, seed=0, state=None):
    """The next `count` batches and the iterator's state after them."""
    iterator = train_iterator(numbered(), BATCH, seed=seed)
    if state is not None:
        iterator.set_state(state)
    results = [next(iterator) for _ in range(count)]
    state = iterator.get_state()
    iterator.close()
    return results, state


def order(results):
    return np.concatenate([b["index"] for b in results]).tolist()


def test_training_batches_hold_complete_samples():
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
    assert all(sorted(epoch) == list(range(LENGTH)) for epoch in epochs)
    assert len({tuple(e) for e in epochs}) == 4
    # As drawn by grain's shuffle since the first release: checkpoints hold positions in it.
    assert epochs[0] == [1, 2, 4, 5, 9, 7, 8, 6, 0, 3]
    assert indices == [shuffled(LENGTH, 0)[i] for i in range(40)]
    iterator = train_iterator(numbered(3), 7, seed=0)  # a batch runs over the data set's end
    indices = order([next(iterator) for _ in range(3)])
    assert all(sorted(indices[k : k + 3]) == [0, 1, 2] for k in range(0, 21, 3))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_order_does_not_depend_on_the_size_of_a_batch(size):
    """Batches of one included, of which there are more than an int of Python's indices counts."""
    iterator = train_iterator(numbered(), size, seed=0)
    assert order([next(iterator) for _ in range(12 // size)]) == order(batches(3)[0])


@pytest.mark.versions
@pytest.mark.parametrize("taken", [0, 1, 4])
def test_a_restored_position_goes_on_exactly(taken):
    complete, _ = batches(taken + 5)
    state = pickle.loads(pickle.dumps(batches(taken)[1]))
    for a, b in zip(complete[taken:], batches(5, state=state)[0], strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_the_state_is_that_of_the_batches_taken_and_not_of_those_read_ahead():
    iterator = train_iterator(numbered(), BATCH, seed=0)
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
    results = list(eval_batches(numbered(length), BATCH))
    assert [int((b["index"] >= 0).sum()) for b in results] == rows
    assert order(results) == [*range(length), *[-1] * (len(results) * BATCH - length)]
    for batch in results:
        assert batch["image"].shape == (BATCH, 8, 12, 3)
        assert batch["label"].shape == (BATCH, 8, 12)
        padding = batch["index"] < 0
        np.testing.assert_array_equal((batch["label"] == 255).all((1, 2)), padding)


def test_indices_alone_come_in_the_same_order_and_read_nothing():
    dataset = numbered()
    complete = train_iterator(dataset, BATCH, seed=3)
    expected = [next(complete)["index"] for _ in range(6)]
    dataset.source.reads.clear()
    bare = train_iterator(dataset, BATCH, seed=3, workers=2, indices_only=True)
    for indices in expected:
        batch = next(bare)
        assert set(batch) == {"index"}
        assert batch["index"].dtype == np.int32
        np.testing.assert_array_equal(batch["index"], indices)
    assert dataset.source.reads == []
    assert bare.get_state() == complete.get_state()


def test_another_order_is_taken_as_it_is():
    odd = grain.MapDataset.source([1, 3, 3, 9]).repeat(None)
    iterator = train_iterator(numbered(), 3, seed=0, order=odd)
    results = [next(iterator) for _ in range(3)]
    assert order(results) == [1, 3, 3, 9, 1, 3, 3, 9, 1]
    np.testing.assert_array_equal(results[1]["image"][:, 0, 0, 0], [9, 1, 3])


def shares(size, count):
    """The rows of each of `count` processes, of a batch of `size` rows."""
    return [slice(i * size // count, (i + 1) * size // count) for i in range(count)]


@pytest.mark.parametrize("count, padded", [(1, 5), (2, 4), (4, 8)])
@pytest.mark.parametrize("indices_only", [False, True])
def test_processes_read_their_rows_of_the_batches_that_one_would(count, padded, indices_only):
    datasets, options = [numbered() for _ in range(count)], {"indices_only": indices_only}
    iterators = [
        train_iterator(dataset, BATCH, seed=1, rows=rows, **options)
        for dataset, rows in zip(datasets, shares(padded, count), strict=True)
    ]
    for expected in batches(6, seed=1)[0]:
        parts = [next(iterator) for iterator in iterators]
        assert all(len(part["index"]) == padded // count for part in parts)
        assert set(parts[0]) == ({"index"} if indices_only else set(expected))
        for name in parts[0]:
            together = np.concatenate([part[name] for part in parts])
            assert together.dtype == expected[name].dtype
            np.testing.assert_array_equal(together[:BATCH], expected[name])
            assert np.all(together[BATCH:] == {"image": 0, "label": 255, "index": -1}[name])
    # No process decodes another's rows; a share reads at most 4 batches ahead.
    assert all(len(dataset.source.reads) <= (6 + 4) * padded // count for dataset in datasets)
    assert len({str(iterator.get_state()) for iterator in iterators}) == 1


def test_a_process_with_padding_only_reads_nothing():
    dataset = numbered()
    trained = next(train_iterator(dataset, BATCH, seed=1, rows=slice(6, 8)))
    evaluated = list(eval_batches(dataset, BATCH, rows=slice(6, 8)))
    assert len(evaluated) == 3
    for batch in (trained, *evaluated):
        assert [batch[n].shape for n in ("image", "label")] == [(2, 8, 12, 3), (2, 8, 12)]
        np.testing.assert_array_equal(batch["index"], [-1, -1])
    assert dataset.source.reads == []


@pytest.mark.parametrize("count, padded", [(2, 4), (2, 6), (4, 8)])
@pytest.mark.parametrize("length", [10, 1])
def test_evaluation_over_processes_is_that_of_one(count, padded, length):
    dataset = numbered(length)
    parts_of = [list(eval_batches(dataset, BATCH, rows=rows)) for rows in shares(padded, count)]
    for expected, *parts in zip(eval_batches(dataset, BATCH), *parts_of, strict=True):
        for name, rows in pad_batch(expected, padded).items():
            together = np.concatenate([part[name] for part in parts])
            assert together.dtype == rows.dtype
            np.testing.assert_array_equal(together, rows)
