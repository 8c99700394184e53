"""Batches for training and evaluation, by one process or by several that share them."""

import pickle

import grain
import numpy as np
import pytest

from segjax.data.batches import eval_batches, pad_batch, shuffled, train_iterator
from segjax.data.fitted import FittedDataset
from tests.data.drawn import Numbered

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


def shares(size, count):
    """The rows of each of `count` processes, of a batch of `size` rows."""
    return [slice(i * size // count, (i + 1) * size // count) for i in range(count)]


@pytest.mark.parametrize("count, padded", [(1, 5), (2, 4), (4, 8)])
@pytest.mark.parametrize("indices_only", [False, True])
def test_processes_read_their_rows_of_the_batches_that_one_would(count, padded, indices_only):
    sources, options = [Numbered(LENGTH) for _ in range(count)], {"indices_only": indices_only}
    iterators = [
        train_iterator(FittedDataset(source, (8, 12)), BATCH, seed=1, rows=rows, **options)
        for source, rows in zip(sources, shares(padded, count), strict=True)
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
    assert all(len(source.reads) <= (6 + 4) * padded // count for source in sources)
    assert len({str(iterator.get_state()) for iterator in iterators}) == 1


def test_a_process_with_padding_only_reads_nothing():
    source = Numbered(LENGTH)
    dataset = FittedDataset(source, (8, 12), label_size=(4, 6))
    trained = next(train_iterator(dataset, BATCH, seed=1, rows=slice(6, 8)))
    evaluated = list(eval_batches(dataset, BATCH, rows=slice(6, 8)))
    assert len(evaluated) == 3
    for batch in (trained, *evaluated):
        assert {name: rows.shape for name, rows in batch.items()} == {
            "image": (2, 8, 12, 3),
            "label": (2, 4, 6),
            "index": (2,),
        }
        np.testing.assert_array_equal(batch["index"], -1)
    assert source.reads == []


@pytest.mark.parametrize("count, padded", [(2, 4), (2, 6), (4, 8)])
@pytest.mark.parametrize("length", [10, 1])
def test_evaluation_over_processes_is_that_of_one(count, padded, length):
    dataset = FittedDataset(Numbered(length), (8, 12), label_size=(4, 6))
    parts_of = [list(eval_batches(dataset, BATCH, rows=rows)) for rows in shares(padded, count)]
    for expected, *parts in zip(eval_batches(dataset, BATCH), *parts_of, strict=True):
        for name, rows in pad_batch(expected, padded).items():
            together = np.concatenate([part[name] for part in parts])
            assert together.dtype == rows.dtype
            np.testing.assert_array_equal(together, rows)
