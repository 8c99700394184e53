"""Splits of the folder data set that a list of `image mask` lines makes up."""

import pytest

from segjax.data.sets.folder import open_folder
from tests.data.drawn import THREE, mask, photo


def write(root, lists):
    for name, lines in lists.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(lines, encoding="utf-8")


@pytest.mark.parametrize(
    "name, lines",
    [
        ("train.txt", "photos/b.jpg ids/x/b.png\n\n# the rest\nphotos/a.jpg ids/y.png\n"),
        ("list/train.txt", "photos/b.jpg\tids/x/b.png\t\nphotos/a.jpg\tids/y.png"),
        ("train.csv", "\ufeffimage,mask\nphotos/b.jpg, ids/x/b.png\nphotos/a.jpg,ids/y.png\n"),
        ("list/train.csv", 'photos/b.jpg,"ids/x/b.png"\r\n/photos/a.jpg,/ids/y.png\r\n'),
        (
            "train.csv",
            "image_path,mask_path\nphotos\\b.jpg,ids\\x\\b.png\nphotos\\a.jpg,ids\\y.png",
        ),
        ("valid.csv", ",image,label\n0,photos/b.jpg,ids/x/b.png\n1,photos/a.jpg,ids/y.png\n"),
        ("train.csv", "mask;size;img\nids/x/b.png;4;photos/b.jpg\nids/y.png;4;photos/a.jpg\n"),
        ("train.csv", "0,photos/b.jpg,ids/x/b.png\n1,photos/a.jpg,ids/y.png\n"),
        ("train.txt", "photos/b.jpg ids/x/b.png 0\nphotos/a.jpg ids/y.png 1"),
        ("train.lst", "C:\\me\\photos\\b.jpg\tids\\x\\b.png\nphotos/a.jpg\tids/y.png"),
        (
            "train.jsonl",
            '{"image": "photos/b.jpg", "mask": "ids/x/b.png"}\n'
            '{"mask": "ids/y.png", "image": "photos/a.jpg"}\n',
        ),
        # The list is of another place, so the last two parts must do.
        ("train.txt", "/else/photos/b.jpg /else/z/b.png\n/else/photos/a.jpg /else/ids/y.png"),
    ],
)
def test_lists_name_the_files_in_their_order(tmp_path, name, lines):
    for file, ids in (("ids/x/b.png", 1), ("ids/y.png", 2), ("x/b.png", 0), ("z/b.png", 1)):
        mask(tmp_path / file, ids)
    photo(tmp_path / "photos/a.jpg")
    photo(tmp_path / "photos/b.jpg")
    write(tmp_path, {name: lines})
    source = open_folder(tmp_path, "val" if "valid" in name else "train", THREE)
    assert [source[i]["name"] for i in range(len(source))] == ["b", "a"]
    assert [int(source[i]["label"].max()) for i in range(2)] == [1, 2]
    assert source.pairing == f"as listed in {name}"


def test_list_paths_count_from_the_root_before_their_last_two_parts(tmp_path):
    mask(tmp_path / "images/train/a.png", 0)
    mask(tmp_path / "train/a.png", 0)
    mask(tmp_path / "masks/train/a.png", 2)
    outside = tmp_path.parent / f"{tmp_path.name} elsewhere" / "b.png"
    mask(outside, 1)
    lines = f"images/train/a.png\tmasks/train/a.png\n{outside}\t{outside}"
    write(tmp_path, {"train.txt": lines})
    source = open_folder(tmp_path, "train", THREE)
    assert source.image_paths == [tmp_path / "images/train/a.png", outside]
    assert source[0]["label"].max() == 2


@pytest.mark.parametrize(
    "lines, names",
    [
        ("x/a.png,m.png\nx/a.jpg,m.png\ny/a.png,m.png", ["x/a.png", "x/a.jpg", "y/a.png"]),
        ("x/a.png,m.png\ny/a.png,m.png", ["x/a", "y/a"]),
        ("images/train/b 1.png,m.png", ["b 1"]),
    ],
)
def test_a_list_comes_before_folders_and_names_are_short_and_unique(tmp_path, lines, names):
    for name in ("x/a.png", "x/a.jpg", "y/a.png", "m.png"):
        mask(tmp_path / name)
    for folder in ("images", "masks"):
        mask(tmp_path / folder / "train/b 1.png")
    write(tmp_path, {"train.csv": lines})
    assert open_folder(tmp_path, "train", THREE).names == names


DEV = {"list/dev.txt": "a.png m.png", "val.csv": "a.png,m.png", "classes.txt": "road 1 2 3"}


@pytest.mark.parametrize(
    "lists, words",
    [
        ({"train.txt": "a.png m.png", "list/train.csv": "a.png,m.png"}, "several lists in data.ro"),
        ({"train.txt": "a.png m.png\na.png m.png"}, r"txt lists images twice: .*a\.png; u"),
        ({"train.txt": "a b.png m.png"}, r"train\.txt, line 1: 'a b\.png m\.png'; use .* a tab or"),
        ({"train.txt": "a.png"}, r"line 1: 'a\.png'; use `image\.png mask\.png`"),
        ({"train.csv": "image,mask\na.png,z.png"}, r"csv, line 2: z\.png is not there \(looked"),
        ({"list/train.txt": "# nothing\n"}, r"list/train\.txt lists no images"),
        (DEV, r"one of .*<split>\.txt or \.csv.*splits found: dev, val; data\.root holds: a"),
    ],
)
def test_lists_that_will_not_do(tmp_path, lists, words):
    mask(tmp_path / "a.png")
    mask(tmp_path / "m.png")
    write(tmp_path, lists)
    with pytest.raises(ValueError, match=words):
        open_folder(tmp_path, "train", THREE)


@pytest.mark.parametrize("lines", ["b\na\n", "b.jpg\na.jpg\n", "image\n./img/b.jpg\nimg/a.jpg\n"])
def test_names_alone_stand_for_files_of_the_layout(tmp_path, lines):
    for name in "abc":
        photo(tmp_path / f"img/{name}.jpg")
        mask(tmp_path / f"lab/{name}_L.png")
    photo(tmp_path / "img/without a mask.jpg")
    write(tmp_path, {"train.txt": lines})
    assert open_folder(tmp_path, "train", THREE).names == ["b", "a"]
    write(tmp_path, {"train.txt": "b\nz\n"})
    with pytest.raises(ValueError, match=r"train\.txt, line 2: no image and mask are named z; use"):
        open_folder(tmp_path, "train", THREE)


def test_tables_of_something_else_are_no_lists(tmp_path):
    for folder in ("images", "masks"):
        mask(tmp_path / "train" / folder / "a.png")
    for lines in ("id,rle_mask\na,1 2 3\n", "ImageId,EncodedPixels\na.png,1 2\n"):
        write(tmp_path, {"train.csv": lines})
        assert open_folder(tmp_path, "train", THREE).names == ["a"]
