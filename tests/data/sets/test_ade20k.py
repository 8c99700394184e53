import pickle

import numpy as np
import pytest

from segjax.data.datasets import class_table, make_source
from segjax.data.sets.ade20k import open_ade20k
from tests.data.drawn import data_config, mask, photo


def write(root, folder="training", names=("ADE_train_00000001", "ADE_train_00000002")):
    for name in names:
        photo(root / f"images/{folder}/{name}.jpg", 1, 151)
        mask(root / f"annotations/{folder}/{name}.png", np.arange(151)[None], 1, 151)
    return root


@pytest.mark.parametrize("parent", ["", "ADEChallengeData2016"])
@pytest.mark.parametrize(
    "split, folder",
    [
        ("training", "training"),
        ("train", "training"),
        ("validation", "validation"),
        ("val", "validation"),
    ],
)
def test_ids_count_from_1_and_0_is_ignored(tmp_path, parent, split, folder):
    write(tmp_path / parent, folder)
    config = data_config(name="ade20k", root=str(tmp_path))
    source = pickle.loads(pickle.dumps(make_source(config, split)))
    assert list(source.names) == ["ADE_train_00000001", "ADE_train_00000002"]
    assert source[1]["image"].shape == (1, 151, 3)
    np.testing.assert_array_equal(source[1]["label"], [[255, *range(150)]])


def test_the_150_classes_are_the_benchmarks():
    table = class_table(data_config(name="ade20k"))
    assert len(table) == 150
    assert table.names[:3] == ("wall", "building", "sky")
    assert (table.names[44], table.names[149]) == ("chest of drawers", "flag")
    assert table.palette[:3] == ((120, 120, 120), (180, 120, 120), (6, 230, 230))
    assert table.palette[149] == (92, 0, 255)


def test_ids_beyond_150_are_refused(tmp_path):
    write(tmp_path)
    mask(tmp_path / "annotations/training/ADE_train_00000001.png", 151, 1, 151)
    with pytest.raises(ValueError, match=r"00000001\.png: bad ids 151 \(151 pixels\); allowed are"):
        open_ade20k(tmp_path, "train")[0]
