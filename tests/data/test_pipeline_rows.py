"""Processes that share batches: each reads its rows, and padding where there are no more."""

import numpy as np
import pytest

from segjax.data.pipeline import FittedDataset, eval_batches, pad_batch, train_iterator
from tests.data.test_pipeline import BATCH, LENGTH, Numbered, batches


def shares(size, count):
    """The rows of each of `count` processes, of a batch of `size` rows."""
    return [slice(i * size // count, (i + 1) * size // count) for i in range(count)]


@pytest.mark.parametrize("count, padded", [(1, 4), (2, 4), (4, 4), (2, 6), (4, 8), (1, 5)])
@pytest.mark.parametrize("indices_only", [False, True])
def test_processes_read_their_rows_of_the_batches_that_one_would(count, padded, indices_only):
    sources, options = [Numbered(LENGTH) for _ in range(count)], {"indices_only": indices_only}
    iterators = [
        train_iterator(FittedDataset(source, (8, 12)), BATCH, seed=1, rows=rows, **options)
        for source, rows in zip(sources, shares(padded, count), strict=True)
    ]
    for whole in batches(6, seed=1)[0]:
        parts = [next(iterator) for iterator in iterators]
        assert all(len(part["index"]) == padded // count for part in parts)
        assert set(parts[0]) == ({"index"} if indices_only else set(whole))
        for name in parts[0]:
            together = np.concatenate([part[name] for part in parts])
            assert together.dtype == whole[name].dtype
            np.testing.assert_array_equal(together[:BATCH], whole[name])
            assert np.all(together[BATCH:] == {"image": 0, "label": 255, "index": -1}[name])
    # Nobody decodes another's rows; a share reads at most the 4 batches ahead that it may.
    assert all(len(source.reads) <= (6 + 4) * padded // count for source in sources)
    assert len({str(iterator.get_state()) for iterator in iterators}) == 1


def test_a_process_with_padding_only_reads_nothing():
    source = Numbered(LENGTH)
    canvas = FittedDataset(source, (8, 12), label_size=(4, 6))
    trained = next(train_iterator(canvas, BATCH, seed=1, rows=slice(6, 8)))
    evaluated = list(eval_batches(canvas, BATCH, rows=slice(6, 8)))
    assert len(evaluated) == 3
    for batch in (trained, *evaluated):
        assert {name: rows.shape for name, rows in batch.items()} == {
            "image": (2, 8, 12, 3),
            "label": (2, 4, 6),
            "index": (2,),
        }
        np.testing.assert_array_equal(batch["index"], -1)
    assert source.reads == []


@pytest.mark.parametrize("count, padded", [(1, 4), (2, 4), (4, 4), (2, 6), (4, 8)])
@pytest.mark.parametrize("length", [10, 8, 1])
def test_evaluation_over_processes_is_that_of_one(count, padded, length):
    canvas = FittedDataset(Numbered(length), (8, 12), label_size=(4, 6))
    parts_of = [list(eval_batches(canvas, BATCH, rows=rows)) for rows in shares(padded, count)]
    for whole, *parts in zip(eval_batches(canvas, BATCH), *parts_of, strict=True):
        for name, rows in pad_batch(whole, padded).items():
            together = np.concatenate([part[name] for part in parts])
            assert together.dtype == rows.dtype
            np.testing.assert_array_equal(together, rows)
