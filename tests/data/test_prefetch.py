"""Results ahead of their use: order, errors, files that are damaged or hang, workers that die."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from segjax.data.batches import eval_batches, train_iterator
from segjax.data.files import pixels
from segjax.data.fitted import FittedDataset, UnreadableSample
from segjax.data.prefetch import PrefetchIterator
from tests.data.drawn import DAMAGED_LENGTH, damaged_folder, fitted_folder
from tests.data.test_fitted import Odd

BATCH = 3


def prefetch(items, load, *, ahead=4, timeout_s=10.0):
    return PrefetchIterator(
        items, load, ahead=ahead, timeout_s=timeout_s, reading=lambda item: f"{item}.png"
    )


def late(number):
    time.sleep(0.02 * (number % 3 == 0))
    return {"number": number}


@pytest.mark.parametrize("ahead", [1, 3, 8])
def test_results_come_in_order_whichever_thread_is_slow(ahead):
    numbers = prefetch(range(12), late, ahead=ahead)
    assert [result["number"] for result in numbers] == list(range(12))
    assert list(prefetch([], late)) == []


def test_a_position_is_gone_to_forwards_and_back():
    iterator = prefetch(range(12), late)
    first = [next(iterator) for _ in range(3)]
    state = iterator.get_state()
    rest = list(iterator)
    iterator.set_state(state)
    assert list(iterator) == rest
    iterator.set_state({"next_index": 0})
    assert [next(iterator) for _ in range(3)] == first


def test_no_more_than_ahead_is_called():
    called = []
    results = prefetch(range(100), lambda number: called.append(number) or {}, ahead=3)
    for taken in range(1, 6):
        next(results)
        time.sleep(0.02)
        assert len(called) <= taken + 2
    results.close()
    time.sleep(0.02)
    assert len(called) <= 7


def test_an_error_comes_at_its_place_and_again():
    def inverse(number):
        if number == 6:
            raise TimeoutError("the file server's own")
        return {"inverse": 1 / (number - 3)}

    results = prefetch(range(10), inverse)
    assert [next(results)["inverse"] for _ in range(3)] == [1 / -3, 1 / -2, -1]
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            next(results)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="the file server's own"):  # at once, and as it is
        list(prefetch([6], inverse))
    assert time.monotonic() - began < 5


def test_a_call_that_hangs_ends_in_an_error_that_names_the_file():
    released = threading.Event()
    results = prefetch([1, 2], lambda n: late(n) if n == 1 else released.wait(), timeout_s=0.3)
    assert next(results) == {"number": 1}
    began = time.monotonic()
    message = r"no data for 0\.3 s \(data\.timeout_s\) while reading 2\.png; see whether .* larger"
    with pytest.raises(TimeoutError, match=message):
        next(results)
    assert 0.3 <= time.monotonic() - began < 5
    released.set()


def test_a_thread_that_hangs_does_not_keep_the_interpreter():
    program = """
import threading
from segjax.data.prefetch import PrefetchIterator
never = threading.Event()
def load(item):
    never.wait(*item)
    print("ended", flush=True)
results = PrefetchIterator([(), (0.5,)], load, ahead=2, timeout_s=0.1, reading=str)
next(results)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("TimeoutError: no data for 0.1 s")
    assert done.stdout == "ended\n"  # the end of a call that does end is awaited


@pytest.fixture
def folder(tmp_path):
    return damaged_folder(tmp_path)


def two_epochs(dataset, **options):
    iterator = train_iterator(dataset, BATCH, seed=0, **options)
    results = [next(iterator) for _ in range(5)]
    iterator.close()
    return results, iterator.skipped


def test_skipped_files_are_named_once_and_change_nothing_else(folder):
    split = fitted_folder(folder, on_unreadable="skip")
    results, skipped = two_epochs(split)
    assert all(set(batch) == {"image", "label", "index"} for batch in results)
    assert sorted(skipped) == [2, 3, 4]
    readable = {2: 5, 3: 5, 4: 5}
    for batch in results:
        for row, index in enumerate(batch["index"].tolist()):
            expected = fitted_folder(folder)[readable.get(index, index)]
            np.testing.assert_array_equal(batch["label"][row], expected["label"])
    bare, _ = two_epochs(split, indices_only=True)
    for batch, indices in zip(results, bare, strict=True):
        np.testing.assert_array_equal(batch["index"], indices["index"])
    # A process that reads only some rows gets these of the same batches, and names its own files.
    part, own = two_epochs(split, rows=slice(1, 2))
    for batch, rows in zip(results, part, strict=True):
        np.testing.assert_array_equal(batch["label"][1:2], rows["label"])
    assert set(own) <= {2, 3, 4}


def test_stopping_names_the_file_and_the_position_stays(folder):
    iterator = train_iterator(fitted_folder(folder), BATCH, seed=0)
    order = two_epochs(fitted_folder(folder), indices_only=True)[0]
    damaged = [bool({2, 3, 4} & set(batch["index"].tolist())) for batch in order]
    for _ in range(damaged.index(True)):
        next(iterator)
    position = iterator.get_state()
    for _ in range(2):
        with pytest.raises(UnreadableSample, match=r"train/[234].* cannot be read"):
            next(iterator)
        assert iterator.get_state() == position


def test_a_file_that_does_not_answer_is_named(folder, monkeypatch):
    """A pipe without a writer hangs its reader, as a file server may."""
    monkeypatch.setattr(pixels, "regular", lambda path: path)  # which would refuse it
    split = fitted_folder(folder, on_unreadable="skip", timeout_s=1)
    pipe = folder / "images" / "train" / "1.png"
    pipe.unlink()
    os.mkfifo(pipe)
    iterator, began = train_iterator(split, DAMAGED_LENGTH, seed=0), time.monotonic()
    message = r"no data for 1 s \(data\.timeout_s\) while reading .*images/train/1\.png, .*masks"
    with pytest.raises(TimeoutError, match=message):
        next(iterator)
    with pytest.raises(TimeoutError, match=r"while reading .*images/train/1\.png"):
        list(eval_batches(fitted_folder(folder, timeout_s=0.2), 2))
    assert time.monotonic() - began < 8
    os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))  # ends the threads


def test_workers_give_the_same_batches_and_a_killed_one_is_reported(folder):
    split = fitted_folder(folder, on_unreadable="skip")
    expected, skipped = two_epochs(split)
    before = set(multiprocessing.active_children())
    iterator = train_iterator(split, BATCH, seed=0, workers=2)
    iterator.set_state({"next_index": 1})
    for batch in expected[1:]:
        result = next(iterator)
        assert set(result) == set(batch)
        for name, rows in batch.items():
            assert type(result[name]) is np.ndarray
            np.testing.assert_array_equal(result[name], rows)
    assert iterator.get_state() == {"next_index": 5}
    assert iterator.skipped == skipped
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    victim = workers.pop()
    os.kill(victim.pid, signal.SIGKILL)
    began = time.monotonic()
    message = rf"worker process {victim.pid} of the data loader was ended by SIGKILL; if memory ran"
    with pytest.raises(ChildProcessError, match=message):
        list(itertools.islice(iterator, 20))
    assert time.monotonic() - began < 8
    assert not workers & set(multiprocessing.active_children())  # the other one has ended too


@pytest.mark.slow
def test_an_error_in_a_worker_arrives_as_it_was(folder):
    iterator = train_iterator(fitted_folder(folder), DAMAGED_LENGTH, seed=0, workers=1)
    with pytest.raises(
        UnreadableSample, match=r"train/[234]\.\w+ cannot be read: .*; use an intact"
    ):
        next(iterator)
    iterator = train_iterator(FittedDataset(Odd(), (8, 12)), 2, seed=0, workers=1)
    with pytest.raises(
        UnreadableSample, match=r"^sample \d of Odd cannot be read: KeyError: 'chunk'"
    ):
        next(iterator)
