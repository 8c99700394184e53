"""Splits of the folder data set that a list of `image mask` lines makes up."""

import pytest

from segjax.data.sets.folder import open_folder
from tests.data.drawn import THREE, mask, photo


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "name, lines",
    [
        ("train.txt", "photos/b.jpg ids/x/b.png\n\n# the rest\nphotos/a.jpg ids/y.png\n"),
        ("list/train.txt", "photos/b.jpg\tids/x/b.png\t\nphotos/a.jpg\tids/y.png"),
        ("train.csv", "\ufeffimage,mask\nphotos/b.jpg, ids/x/b.png\nphotos/a.jpg,ids/y.png\n"),
        ("list/train.csv", 'photos/b.jpg,"ids/x/b.png"\r\n/photos/a.jpg,/ids/y.png\r\n'),
        ("train.txt", "/else/photos/b.jpg /else/ids/x/b.png\n/else/photos/a.jpg /else/ids/y.png"),
    ],
)
def test_lists_name_the_files_in_their_order(tmp_path, name, lines):
    for file, ids in (("ids/x/b.png", 1), ("ids/y.png", 2), ("x/b.png", 0)):
        mask(tmp_path / file, ids)
    photo(tmp_path / "photos/a.jpg")
    photo(tmp_path / "photos/b.jpg")
    if "/else" in lines:  # the list is of another place, so the last two parts must do
        lines = lines.replace("/else/ids/x/b.png", "/else/x/b.png")
        mask(tmp_path / "x/b.png", 1)
    write(tmp_path / name, lines)
    source = open_folder(tmp_path, "train", THREE)
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
    write(tmp_path / "train.txt", lines)
    source = open_folder(tmp_path, "train", THREE)
    assert source.image_paths == [tmp_path / "images/train/a.png", outside]
    assert source[0]["label"].max() == 2


def test_a_list_comes_before_folders_and_names_may_hold_spaces(tmp_path):
    for name in ("a.jpg", "b 1.jpg"):
        photo(tmp_path / "images/train" / name)
        mask(tmp_path / "masks/train" / name.replace("jpg", "png"))
    write(tmp_path / "train.csv", "images/train/b 1.jpg,masks/train/b 1.png")
    source = open_folder(tmp_path, "train", THREE)
    assert (len(source), source[0]["name"]) == (1, "b 1")


def test_listed_images_of_one_name_keep_their_suffix_or_folder(tmp_path):
    for name in ("x/a.png", "x/a.jpg", "y/a.png", "m.png"):
        mask(tmp_path / name)
    write(tmp_path / "train.txt", "x/a.png m.png\nx/a.jpg m.png\ny/a.png m.png")
    assert open_folder(tmp_path, "train", THREE).names == ["x/a.png", "x/a.jpg", "y/a.png"]
    write(tmp_path / "train.txt", "x/a.png m.png\ny/a.png m.png")
    assert open_folder(tmp_path, "train", THREE).names == ["x/a", "y/a"]


@pytest.mark.parametrize(
    "lists, words",
    [
        ({"train.txt": "a.png m.png", "list/train.csv": "a.png,m.png"}, "several lists in data.ro"),
        (
            {"train.txt": "a.png m.png\na.png m.png"},
            r"train\.txt lists images twice: .*a\.png; u",
        ),
        ({"train.txt": "a b.png m.png"}, r"train\.txt, line 1: 'a b\.png m\.png'; use .* a tab or"),
        ({"train.txt": "a.png"}, r"line 1: 'a\.png'; use `image\.png mask\.png`"),
        (
            {"train.csv": "image,mask\na.png,z.png"},
            r"csv, line 2: z\.png is not there \(looked",
        ),
        ({"list/train.txt": "# nothing\n"}, r"list/train\.txt lists no images"),
        (
            {"list/dev.txt": "a.png m.png", "val.csv": "a.png,m.png", "classes.txt": "road 1 2 3"},
            r"needs one of .*<split>\.txt or \.csv.*splits found: dev, val; data\.root holds: a",
        ),
    ],
)
def test_lists_that_will_not_do(tmp_path, lists, words):
    mask(tmp_path / "a.png")
    mask(tmp_path / "m.png")
    for name, lines in lists.items():
        write(tmp_path / name, lines)
    with pytest.raises(ValueError, match=words):
        open_folder(tmp_path, "train", THREE)
