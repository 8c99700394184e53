"""`data.images` and `data.masks`: patterns below `data.root`."""

import pytest

from segjax.data.datasets import make_source
from segjax.data.errors import DataError
from segjax.data.files import patterns
from segjax.data.files.patterns import Tree, normalized
from tests.data.drawn import data_config, mask, photo


def opened(root, images, masks, split="train", **options):
    options = dict(num_classes=2, images=images, masks=masks, **options)
    return make_source(data_config(name="folder", root=str(root), **options), split)


@pytest.mark.parametrize(
    "images, masks, image, mask_file, name",
    [
        ("{split}/{stem}.jpg", "gt/{split}/{stem}.png", "train/a.jpg", "gt/train/a.png", "a"),
        ("photos/{split}", "classes/{split}", "photos/train/a.jpg", "classes/train/a_m.png", "a"),
        ("photos/{split}", "m/{stem}_mask.*", "photos/train/x/a.jpg", "m/x/a_mask.gif", "x/a"),
        ("p/{stem}", "p/{stem}_mask", "p/a.jpg", "p/a_mask.png", "a"),
        ("{split}_{stem}.jpg", "{split}_{stem}_seg.png", "train_7.jpg", "train_7_seg.png", "7"),
        (
            "*/{split}/{stem}.jpg",
            "*/{split}/{stem}.png",
            "s1/train/a.jpg",
            "s1/train/a.png",
            "s1/a",
        ),
        ("{split}/{stem}.jpg", "{split}/{stem}-v*.png", "train/a.jpg", "train/a-v3.png", "a"),
        (
            "{split}/{stem}/{stem}.jpg",
            "{split}/{stem}/gt.png",
            "train/a/a.jpg",
            "train/a/gt.png",
            "a",
        ),
        (r"IMG\{split}\{stem}.JPG", r".\lab\{stem}.png", "img/train/a.jpg", "lab/a.png", "a"),
        ("[1] (x)/{stem}.jpg", "[1] (x)/{stem}.png", "[1] (x)/a.jpg", "[1] (x)/a.png", "a"),
        (
            "images/{split}",
            "masks/{split}/{stem}+.png",
            "images/train/a.jpg",
            "masks/train/a+.png",
            "a",
        ),
    ],
)
def test_patterns_name_image_and_mask(tmp_path, images, masks, image, mask_file, name):
    root = tmp_path / "da[ta] set"
    photo(root / image)
    mask(root / mask_file)
    source = opened(root, images, masks)
    assert list(source.names) == [name]
    assert source.image_paths == [root / image]
    assert source.mask_paths == [root / mask_file]


def test_splits_have_synonyms_and_masks_may_be_of_all_splits(tmp_path):
    for split, name in (("Training", "a"), ("validation", "b")):
        photo(tmp_path / split / f"{name}.jpg")
        mask(tmp_path / "masks" / f"{name}.png")
    assert opened(tmp_path, "{split}", "masks").names == ["a"]
    assert opened(tmp_path, "{split}", "masks", "val").names == ["b"]
    assert opened(tmp_path, "{split}/{stem}.jpg", "masks/{stem}.png", "val").names == ["b"]
    photo(tmp_path / "dev/c.jpg")
    with pytest.raises(ValueError, match=r"'val' may be validation or dev"):
        opened(tmp_path, "{split}", "masks", "val")
    with pytest.raises(
        ValueError, match=r"'val': data\.root=.* has no splits .*no \{split\}\); use"
    ):
        opened(tmp_path, "dev", "masks", "val")


@pytest.mark.parametrize(
    "images, masks, words",
    [
        (
            "imags/{split}",
            "masks",
            r"data\.images=imags/.*no imags in .*holds: images, masks; near",
        ),
        ("imags/{stem}.jpg", "masks", r"data\.images=imags/\{stem\}.jpg matches nothing: no imags"),
        (
            "images/{stem}.png",
            "masks",
            r"no \.\.\.\.png in .*images, which holds: a\.jpg; near names",
        ),
        ("images/{stem}.jpg", "masks/{stem}.xcf", r"xcf matches nothing.* files of \.png"),
        ("images/{name}.jpg", "masks", r"data\.images='images/\{name\}\.jpg' has \{name\}; use"),
        ("images", "", r"data\.masks is empty, but its partner is not"),
        (
            "images/{stem}.jpg",
            "masks/{stem}_x.png",
            r"_x\.png matches nothing: no \.\.\._x\.png in",
        ),
        (
            "images/{stem}.jpg",
            "masks/{stem}",
            r"1 masks in data\.masks=masks/\{stem\} have no image",
        ),
    ],
)
def test_patterns_that_will_not_do(tmp_path, images, masks, words):
    photo(tmp_path / "images/a.jpg")
    mask(tmp_path / "masks/a.png")
    mask(tmp_path / "masks/b.png")
    with pytest.raises(ValueError, match=words):
        opened(tmp_path, images, masks)


def test_two_files_of_one_name_are_named(tmp_path):
    for name in ("north/a", "south/a"):
        photo(tmp_path / "images" / f"{name}.jpg")
    mask(tmp_path / "masks/a.png")
    with pytest.raises(ValueError, match=r"north/a\.jpg and .*south/a\.jpg, which have the same"):
        opened(tmp_path, "images/*/{stem}.jpg", "masks/{stem}.png")


def test_a_pattern_may_lead_out_of_the_root(tmp_path):
    photo(tmp_path / "root/images/a.jpg")
    mask(tmp_path / "elsewhere/a.png")
    for masks in ("../elsewhere/{stem}.png", f"{tmp_path}/elsewhere/{{stem}}.png"):
        assert opened(tmp_path / "root", "images/{stem}.jpg", masks).names == ["a"]


def test_hidden_files_are_no_matches_and_case_decides_where_both_are_there(tmp_path):
    for name in ("A/x", "a/x", ".b/x"):
        (tmp_path / name).mkdir(parents=True)
    tree = Tree(tmp_path)
    assert [match.path for match in tree.expand("a/x")] == [tmp_path / "a/x"]
    assert [match.wild for match in tree.expand("*/x")] == [("A",), ("a",)]
    assert normalized("data.images", "./a//b/") == "a/b"


def test_a_tree_keeps_its_walks(tmp_path, monkeypatch):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b" / "c.jpg")
    tree = Tree(tmp_path)
    first = tree.walk(tmp_path)
    assert next(first).name == "a.jpg"
    whole = [path.name for path in tree.walk(tmp_path)]
    assert whole == ["a.jpg", "c.jpg"]
    photo(tmp_path / "d.jpg")
    assert [path.name for path in first] == whole[1:]
    assert [path.name for path in tree.walk(tmp_path)] == whole


def test_a_walk_that_fails_fails_again(tmp_path, monkeypatch):
    def walk(folder):
        yield tmp_path / "a.jpg"
        raise DataError("too many", "use fewer")

    monkeypatch.setattr(patterns, "walk", walk)
    tree = Tree(tmp_path)
    for _ in range(2):
        with pytest.raises(DataError, match="too many"):
            list(tree.walk(tmp_path))
