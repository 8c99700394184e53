import numpy as np
import pytest
from PIL import Image

from segjax.data.classes import IDD_LEVEL1, default_palette
from segjax.data.datasets import class_table, make_source
from segjax.data.sets.camvid import CAMVID
from tests.data.drawn import data_config


def write_folder(root, ids=((0, 1), (2, 255))):
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(root / "images" / split / "a.png")
        Image.fromarray(np.array(ids, np.uint8)).save(root / "masks" / split / "a.png")
    return str(root)


@pytest.mark.parametrize("name, table", [("streets", IDD_LEVEL1), ("camvid", CAMVID)])
def test_data_sets_with_classes_of_their_own(name, table):
    assert class_table(data_config(name=name)) is table
    assert class_table(data_config(name=name, num_classes=len(table))) is table


def test_names_given_with_commas():
    table = class_table(data_config(name="folder", classes="road, living things ,sky,"))
    assert table.names == ("road", "living things", "sky")
    assert table.palette == default_palette(3)


def test_a_number_of_classes_without_names():
    table = class_table(data_config(name="folder", num_classes=3))
    assert table.names == ("class 0", "class 1", "class 2")


def test_streets_splits_have_their_lengths_and_size():
    config = data_config(train_images=5, eval_images=3, image_size=(32, 48))
    train, val = make_source(config, "train", 1), make_source(config, "val", 1)
    assert (len(train), len(val)) == (5, 3)
    assert train[0]["image"].shape == val[0]["image"].shape == (32, 48, 3)
    assert np.any(train[0]["image"] != val[0]["image"])
    assert np.any(train[0]["image"] != make_source(config, "train", 2)[0]["image"])


def test_unknown_data_set_lists_the_known():
    message = r"data\.name='cityscape' is unknown; known data sets: streets, camvid, .*folder, "
    for function in (class_table, lambda config: make_source(config, "train")):
        with pytest.raises(ValueError, match=message):
            function(data_config(name="cityscape"))


@pytest.mark.parametrize("name", ["camvid", "folder"])
def test_missing_root(name, tmp_path):
    with pytest.raises(
        ValueError, match=rf"data\.root is empty, but {name} reads files; use --config"
    ):
        make_source(data_config(name=name, classes="a"), "train")
    absent = data_config(name=name, classes="a", root=str(tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"data\.root=.*absent is not an existing folder; use one"):
        make_source(absent, "train")


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(name="streets"), r"data\.num_classes=5 but streets has 7 classes \(drivable, "),
        (dict(name="camvid"), r"data\.num_classes=5 but camvid has 11 classes \(Sky, "),
        (dict(name="folder", classes="a,b"), r"=5 but folder has 2 classes \(a, b\); leave it 0"),
    ],
)
def test_a_number_of_classes_that_is_not_the_data_sets(options, message):
    with pytest.raises(ValueError, match=message):
        class_table(data_config(num_classes=5, **options))


@pytest.mark.parametrize(
    "classes, message",
    [
        ("", r"data\.classes is empty, but the folder .*; use a class list, a file or names"),
        ("absent.txt", r"class list absent\.txt does not exist; use a file or names"),
        (" , ", r"a class table needs 1 to 255 classes, found 0"),
        ("a,b,a", r"class names occur twice: a"),
    ],
)
def test_class_lists_that_will_not_do(classes, message):
    with pytest.raises(ValueError, match=message):
        class_table(data_config(name="folder", classes=classes))


def test_folder_takes_colours_and_channels_of_the_config(tmp_path):
    root = write_folder(tmp_path)
    (tmp_path / "c.csv").write_text("name,r,g,b\nroad,1,1,1\nvoid,0,0,0,ignore\ncar,2,2,2\n")
    rgb = np.array([[(1, 1, 1), (0, 0, 0)], [(2, 2, 2), (2, 2, 2)]], np.uint8)
    Image.fromarray(rgb).save(tmp_path / "masks/train/a.png")
    Image.fromarray(np.full((2, 2, 4), 7, np.uint8)).save(tmp_path / "images/train/a.png")
    config = data_config(name="folder", root=root, classes=str(tmp_path / "c.csv"), channels=4)
    assert class_table(config).names == ("road", "car")
    sample = make_source(config, "train")[0]
    np.testing.assert_array_equal(sample["label"], [[0, 255], [1, 1]])
    np.testing.assert_array_equal(sample["image"], np.full((2, 2, 4), 7))


@pytest.mark.parametrize("name, channels", [("streets", 4), ("camvid", 1), ("folder", 0)])
def test_other_channels_only_from_folders(tmp_path, name, channels):
    config = data_config(name=name, root=str(tmp_path), classes="a", channels=channels)
    with pytest.raises(ValueError, match=rf"data\.channels={channels}, but images of {name} have"):
        make_source(config, "train")
