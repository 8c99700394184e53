import numpy as np
import pytest

from segjax.data.datasets import class_table, make_source
from segjax.data.sets.idd import class_table as idd_classes
from segjax.data.sets.idd_lite import open_idd_lite
from tests.data.drawn import data_config, mask, photo

IDS = np.array([[0, 1, 2, 3, 4, 5, 6, 255]])


def write(root, split="train", drive="0", frame="024541", ids=IDS):
    photo(root / f"leftImg8bit/{split}/{drive}/{frame}_image.jpg", 1, 8)
    mask(root / f"gtFine/{split}/{drive}/{frame}_label.png", ids, 1, 8)
    mask(root / f"gtFine/{split}/{drive}/{frame}_inst_label.png", 99)
    return root


def test_masks_pair_with_images_of_their_drive(tmp_path):
    write(tmp_path)
    write(tmp_path, drive="1", ids=IDS[:, ::-1])
    config = data_config(name="idd_lite", root=str(tmp_path))
    source = make_source(config, "train")
    assert len(source) == 2
    assert source[0]["image"].shape == (1, 8, 3)
    np.testing.assert_array_equal(source[0]["label"], IDS)
    np.testing.assert_array_equal(source[1]["label"], IDS[:, ::-1])
    assert class_table(config) == idd_classes("level1")


def test_errors_name_the_split_the_file_and_the_ids(tmp_path):
    with pytest.raises(ValueError, match=r"'test': idd_lite has train, val"):
        open_idd_lite(tmp_path, "test")
    write(tmp_path, ids=[[0, 1, 2, 3, 4, 5, 6, 7]])
    with pytest.raises(ValueError, match=r"024541_label\.png: bad ids 7 .* ids 0\.\.6 and 255"):
        open_idd_lite(tmp_path, "train")[0]
    (tmp_path / "gtFine/train/0/024541_label.png").unlink()
    with pytest.raises(ValueError, match="1 have no mask"):
        open_idd_lite(tmp_path, "train")
