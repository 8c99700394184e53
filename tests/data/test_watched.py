"""Training batches from files that are damaged, that hang, and from workers that die."""

import itertools
import multiprocessing
import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest

from segjax.data.pipeline import FittedDataset, UnreadableSample, eval_batches, train_iterator
from segjax.data.sets.folder import open_folder
from tests.data.drawn import THREE, mask, photo

SIZE, LENGTH, BATCH = (8, 12), 7, 3


@pytest.fixture
def folder(tmp_path):
    return damaged_folder(tmp_path)


def damaged_folder(path):
    """7 images; those of 2.png and 4.jpg end in the middle, and so does the mask of 3."""
    random = np.random.default_rng(0)
    for k in range(LENGTH):
        image = path / "images" / "train" / f"{k}.{'jpg' if k == 4 else 'png'}"
        photo(image, 64, 96)
        mask(path / "masks" / "train" / f"{k}.png", random.integers(0, 3, (64, 96)), 64, 96)
        if k in (2, 4):
            damage(image)
    damage(path / "masks" / "train" / "3.png")
    return path


def damage(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def canvas(folder, **options):
    return FittedDataset(open_folder(folder, "train", THREE), SIZE, **options)


def test_a_damaged_file_is_named(folder):
    for index, file in ((2, "images/train/2.png"), (3, "masks/train/3.png"), (4, "train/4.jpg")):
        with pytest.raises(UnreadableSample, match=rf"{file} cannot be read: .*; use an intact"):
            canvas(folder)[index]
    batches = eval_batches(canvas(folder, on_unreadable="stop"), 2)
    next(batches)
    with pytest.raises(UnreadableSample, match=r"images/train/2\.png cannot be read"):
        next(batches)


class Odd:
    """A source whose decoder raises what no pickle can carry, and no message that helps."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        error = KeyError("chunk")
        error.lock = threading.Lock()
        raise error


def test_whatever_a_decoder_raises_arrives_with_the_sample_and_pickles():
    with pytest.raises(
        ValueError, match=r"^sample 1 of Odd cannot be read: KeyError: 'chunk'$"
    ) as e:
        FittedDataset(Odd(), SIZE)[1]
    assert str(pickle.loads(pickle.dumps(e.value))) == str(e.value)
    with pytest.raises(ValueError, match=r"none of the 3 samples .* one of them: sample \d of Odd"):
        FittedDataset(Odd(), SIZE, on_unreadable="skip")[1]


@pytest.mark.parametrize("cache_mb", [0, 1])
def test_the_next_readable_sample_takes_the_place_of_one_that_is_not(folder, cache_mb):
    split = canvas(folder, on_unreadable="skip", cache_mb=cache_mb)
    for index, place in ((2, 5), (3, 5), (4, 5), (5, 5), (6, 6)):
        for name, values in canvas(folder)[place].items():
            np.testing.assert_array_equal(split[index][name], index if name == "index" else values)
    assert sorted(split.skipped) == [2, 3, 4]
    assert all(file in split.skipped[k] for k, file in ((2, "/2.png"), (3, "masks/train/3.png")))
    damage(folder / "images" / "train" / "6.png")
    split = canvas(folder, on_unreadable="skip")
    np.testing.assert_array_equal(split[6]["label"], split[0]["label"])  # round the end


@pytest.mark.parametrize("on_unreadable", ["stop", "skip"])
def test_there_is_nothing_after_the_last_sample(folder, on_unreadable):
    with pytest.raises(IndexError):
        canvas(folder, on_unreadable=on_unreadable)[LENGTH]


def two_epochs(**options):
    iterator = train_iterator(seed=0, batch_size=BATCH, **options)
    found = [next(iterator) for _ in range(5)]
    iterator.close()
    return found, iterator.skipped


def test_skipped_files_are_named_once_and_change_nothing_else(folder):
    split = canvas(folder, on_unreadable="skip")
    found, skipped = two_epochs(canvas=split)
    assert all(set(batch) == {"image", "label", "index"} for batch in found)
    assert sorted(skipped) == [2, 3, 4]
    readable = {2: 5, 3: 5, 4: 5}
    for batch in found:
        for row, index in enumerate(batch["index"].tolist()):
            expected = canvas(folder)[readable.get(index, index)]
            np.testing.assert_array_equal(batch["label"][row], expected["label"])
    bare, _ = two_epochs(canvas=split, indices_only=True)
    for batch, indices in zip(found, bare, strict=True):
        np.testing.assert_array_equal(batch["index"], indices["index"])
    # Whoever reads only some rows gets these of the same batches, and names what it met.
    part, met = two_epochs(canvas=split, rows=slice(1, 2))
    for batch, rows in zip(found, part, strict=True):
        np.testing.assert_array_equal(batch["label"][1:2], rows["label"])
    assert set(met) <= {2, 3, 4}


def test_stopping_names_the_file_and_the_position_stays(folder):
    iterator = train_iterator(canvas(folder), BATCH, seed=0)
    order = two_epochs(canvas=canvas(folder), indices_only=True)[0]
    damaged = [bool({2, 3, 4} & set(batch["index"].tolist())) for batch in order]
    for _ in range(damaged.index(True)):
        next(iterator)
    position = iterator.get_state()
    for _ in range(2):  # whoever asks again gets the same answer
        with pytest.raises(UnreadableSample, match=r"train/[234].* cannot be read"):
            next(iterator)
        assert iterator.get_state() == position


def test_a_file_that_does_not_answer_is_named(folder):
    """A pipe that nobody writes to hangs whoever opens it, as a file server may."""
    split = canvas(folder, on_unreadable="skip", timeout_s=1)
    pipe = folder / "images" / "train" / "1.png"
    pipe.unlink()
    os.mkfifo(pipe)
    iterator, began = train_iterator(split, LENGTH, seed=0), time.monotonic()
    message = r"no data for 1 s \(data\.timeout_s\) while reading .*images/train/1\.png, .*masks"
    with pytest.raises(TimeoutError, match=message):
        next(iterator)
    with pytest.raises(TimeoutError, match=r"while reading .*images/train/1\.png"):
        list(eval_batches(canvas(folder, timeout_s=0.2), 2))
    assert time.monotonic() - began < 8
    os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))  # lets the threads go


def test_workers_read_the_same_name_what_is_skipped_and_are_missed_when_killed(folder):
    split = canvas(folder, on_unreadable="skip")
    wanted, skipped = two_epochs(canvas=split)
    before = set(multiprocessing.active_children())
    iterator = train_iterator(split, BATCH, seed=0, workers=2)
    iterator.set_state({"next_index": 1})
    for batch in wanted[1:]:
        found = next(iterator)
        assert set(found) == set(batch)
        for name, rows in batch.items():
            assert type(found[name]) is np.ndarray
            np.testing.assert_array_equal(found[name], rows)
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
    iterator = train_iterator(canvas(folder), LENGTH, seed=0, workers=1)
    with pytest.raises(
        UnreadableSample, match=r"train/[234]\.\w+ cannot be read: .*; use an intact"
    ):
        next(iterator)
    iterator = train_iterator(FittedDataset(Odd(), SIZE), 2, seed=0, workers=1)
    with pytest.raises(
        UnreadableSample, match=r"^sample \d of Odd cannot be read: KeyError: 'chunk'"
    ):
        next(iterator)
