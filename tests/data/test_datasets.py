import numpy as np
import pytest

from segjax.data.class_lists import IDD_LEVEL1
from segjax.data.classes import default_palette
from segjax.data.datasets import class_table, make_source
from segjax.data.sets.camvid import CAMVID
from tests.data.drawn import data_config, pairs, save


@pytest.mark.parametrize("name, table", [("streets", IDD_LEVEL1), ("camvid", CAMVID)])
def test_data_sets_with_classes_of_their_own(name, table):
    assert class_table(data_config(name=name)) is table
    assert class_table(data_config(name=name, num_classes=len(table))) is table


def test_classes_of_a_folder_are_named_or_counted():
    table = class_table(data_config(name="folder", classes="road, living things ,sky,"))
    assert table.names == ("road", "living things", "sky")
    assert table.palette == default_palette(3)
    table = class_table(data_config(name="folder", num_classes=3))
    assert table.names == ("class 0", "class 1", "class 2")


def test_streets_splits_have_their_lengths_and_size():
    config = data_config(train_images=5, eval_images=3, image_size=(32, 48))
    train, val = make_source(config, "train", 1), make_source(config, "val", 1)
    assert (len(train), len(val)) == (5, 3)
    assert train[0]["image"].shape == val[0]["image"].shape == (32, 48, 3)
    assert np.any(train[0]["image"] != val[0]["image"])
    assert np.any(train[0]["image"] != make_source(config, "train", 2)[0]["image"])


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(name="cityscape"), r"='cityscape' is unknown; known data sets: streets, .*folder, "),
        (dict(name="voc", variant="x"), r"data\.variant='x' is unknown to voc; use voc2012, sbd"),
        (dict(name="streets", variant="x"), r"data\.variant='x' is unknown to streets; leave it"),
        (dict(num_classes=5), r"data\.num_classes=5 but streets has 7 classes \(drivable, "),
        (dict(name="camvid", num_classes=5), r"=5 but camvid has 11 classes \(Sky, "),
        (dict(name="folder", classes="a,b", num_classes=5), r"2 classes \(a, b\); leave it 0"),
        (dict(name="folder"), r"data\.classes is empty, but the folder .*; use a class list, a fi"),
        (dict(name="folder", classes="absent.txt"), r"class list absent\.txt is missing; use"),
        (dict(name="folder", classes=" , "), r"a class table needs 1 to 255 classes, found 0"),
        (dict(name="folder", classes="a,b,a"), r"class names occur twice: a"),
    ],
)
def test_names_and_classes_that_will_not_do(options, message):
    for function in (class_table, lambda config: make_source(config, "train")):
        with pytest.raises(ValueError, match=message):
            function(data_config(**options))


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(name="camvid"), r"data\.root is empty, but camvid reads files; use --config"),
        (dict(name="folder"), r"data\.root is empty, but folder reads files; use --config"),
        (dict(name="folder", root="/absent"), r"data\.root=/absent is not an existing folder; use"),
        (dict(name="streets", channels=4), r"data\.channels=4, but images of streets have 3"),
        (dict(name="camvid", root="/", channels=1), r"channels=1, but images of camvid have 3"),
        (dict(name="folder", root="/", channels=0), r"channels=0, but images of folder have 3"),
    ],
)
def test_roots_and_channels_that_will_not_do(options, message):
    with pytest.raises(ValueError, match=message):
        make_source(data_config(classes="a", **options), "train")


def test_folder_takes_colours_and_channels_of_the_config(tmp_path):
    pairs(tmp_path, "a", size=(2, 2))
    (tmp_path / "c.csv").write_text("name,r,g,b\nroad,1,1,1\nvoid,0,0,0,ignore\ncar,2,2,2\n")
    rgb = np.array([[(1, 1, 1), (0, 0, 0)], [(2, 2, 2), (2, 2, 2)]], np.uint8)
    save(tmp_path / "masks/train/a.png", rgb)
    save(tmp_path / "images/train/a.png", np.full((2, 2, 4), 7, np.uint8))
    path = str(tmp_path / "c.csv")
    config = data_config(name="folder", root=str(tmp_path), classes=path, channels=4)
    assert class_table(config).names == ("road", "car")
    sample = make_source(config, "train")[0]
    np.testing.assert_array_equal(sample["label"], [[0, 255], [1, 1]])
    np.testing.assert_array_equal(sample["image"], np.full((2, 2, 4), 7))
