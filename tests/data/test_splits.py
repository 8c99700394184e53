"""The splits of a data set are opened and checked once."""

import pytest

from segjax.data import splits as module
from segjax.data.layouts import find
from segjax.data.splits import Splits
from tests.data.drawn import data_config, mask, pairs


@pytest.fixture
def folder(tmp_path):
    """A folder data set with train and val, and the splits that are opened from then on."""
    pairs(tmp_path, "01234")
    pairs(tmp_path, "01", "val")
    sizes = {"image_size": (4, 6), "label_size": (8, 12)}
    return data_config(name="folder", root=str(tmp_path), classes="a,b", **sizes)


@pytest.fixture
def opened(monkeypatch):
    """The splits that are opened, in order."""
    splits, make_source = [], module.make_source

    def make(config, split, seed):
        splits.append(split)
        return make_source(config, split, seed)

    monkeypatch.setattr(module, "make_source", make)
    return splits


def test_each_split_is_opened_and_checked_once(folder, opened, monkeypatch):
    checked, quick_check = [], module.quick_check

    def check(sources, **options):
        checked.append(sorted(sources))
        return quick_check(sources, **options)

    monkeypatch.setattr(module, "quick_check", check)
    data = Splits(folder)
    assert data.classes.names == ("a", "b")
    assert opened == []
    data.check("train", "val", batch_size=5)
    assert data.source("train") is data.training().source
    assert data.fitted("val") is data.fitted("val")
    data.check("val")
    assert opened == ["train", "val"]
    assert [splits for splits in checked if splits] == [["train", "val"]]


def test_the_root_is_searched_once(folder, monkeypatch):
    """For the classes, the image options and all splits; train first, as classes need it."""
    searched, search = [], find._searched
    monkeypatch.setattr(
        find, "_searched", lambda tree, names: searched.append(1) or search(tree, names)
    )
    folder.classes, folder.num_classes = "", 2
    data = Splits(folder)
    assert data.classes_in_words.startswith("classes: 2 of folder")
    data.check(*data.used)
    assert (data.used, len(searched)) == (("train", "val"), 1)
    Splits(folder).check("val")
    assert len(searched) == 2  # files may have changed since


def test_labels_are_at_the_canvas_for_training_and_at_their_own_size_for_evaluation(folder):
    data = Splits(folder)
    assert data.training()[0]["label"].shape == (4, 6)
    assert data.fitted("val")[0]["label"].shape == (8, 12)
    assert data.fitted("train")[0]["label"].shape == (8, 12)
    assert data.fitted("train").source is data.training().source
    folder.label_size = (0, 0)
    data = Splits(folder)
    assert data.fitted("train") is data.training()


def test_splits_that_a_run_uses(folder, tmp_path, opened):
    assert Splits(folder).used == ("train", "val")
    assert opened == ["train", "test"]  # train for its image options; there is no test
    pairs(tmp_path, "a", "test")
    data = Splits(folder)
    assert (data.evaluated, data.used) == (("val", "test"), ("train", "val", "test"))
    folder.eval_splits = ("train",)
    assert (Splits(folder).evaluated, Splits(folder).used) == (("train",), ("train", "val"))


def test_problems_of_all_splits_are_one_error(folder, tmp_path):
    mask(tmp_path / "masks/val/1.png", 7)
    with pytest.raises(ValueError) as error:
        Splits(folder).check("train", "val", batch_size=8)
    assert "split 'train' has 5 images but train.batch_size=8" in str(error.value)
    assert "1.png: bad ids 7" in str(error.value)
    with pytest.raises(ValueError, match=r"1\.png: bad ids 7"):
        Splits(folder).fitted("val")
    mask(tmp_path / "masks/train/1.png", 7)
    folder.on_unreadable = "skip"
    assert len(Splits(folder).training()) == 5
