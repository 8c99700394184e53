"""Masks as bits and as a file for each class, to the labels that training gets."""

import numpy as np
import pytest

from segjax.data.checks import check_source
from segjax.data.classes import ClassTable, from_names
from segjax.data.datasets import class_table, make_source
from segjax.data.sampling import class_presence
from segjax.data.sets.folder import open_folder
from segjax.data.statistics import class_statistics, fingerprint_of
from tests.data.drawn import THREE, data_config, photo, save, uint8

CRACK, PAIR = from_names(["crack"]), from_names(["crack", "stain"])
BOTH = ClassTable(("crack", "stain"), ((200, 0, 0), (0, 100, 50)), multilabel=True)


def folder(root, masks, split="train"):
    """A data set of images `a` and `b`, 2x3, and of masks by their path below masks/SPLIT."""
    for name in "ab":
        photo(root / "images" / split / f"{name}.png", 2, 3)
    for path, rows in masks.items():
        save(root / "masks" / split / path, np.array(rows, np.uint8))
    return root


def labels(root, classes, **options):
    source = open_folder(root, "train", classes, **options)
    return [source[i]["label"].tolist() for i in range(len(source))]


A, B = [[0, 1, 1], [0, 0, 1]], [[1, 0, 0], [0, 0, 0]]
STAIN_A, STAIN_B = [[1, 1, 0], [0, 0, 1]], [[0, 0, 0], [0, 1, 0]]
BITS_A, BITS_B = [[2, 3, 1], [0, 0, 3]], [[1, 0, 0], [0, 2, 0]]


def times_255(rows):
    return (255 * np.array(rows)).tolist()


def test_bits_are_the_labels(tmp_path):
    a = [[2, 255, 1], [0, 9, 3]]
    root = folder(tmp_path, {"a.png": a, "b.png": BITS_B})
    got = labels(root, PAIR, mask_format="bits", ignore_ids=(9, 255))
    assert got == [[[2, 255, 1], [0, 255, 3]], BITS_B]


@pytest.mark.parametrize("layout", ["{name}/{image}.png", "{image}_{name}.png"])
def test_a_file_for_each_class(tmp_path, layout):
    files = {("a", "crack"): A, ("b", "crack"): B, ("a", "stain"): STAIN_A, ("b", "stain"): STAIN_B}
    for kind, rows in (("ones", lambda x: x), ("high", times_255)):
        masks = {layout.format(image=i, name=n): rows(mask) for (i, n), mask in files.items()}
        root = folder(tmp_path / kind, masks)
        ignored = (255,) if kind == "ones" else ()
        assert labels(root, PAIR, mask_format="per_class", ignore_ids=ignored) == [BITS_A, BITS_B]
    # The order of the classes is the order of the bits.
    got = labels(root, from_names(["stain", "crack"]), mask_format="per_class", ignore_ids=())
    assert got == [[[1, 3, 2], [0, 0, 3]], [[2, 0, 0], [0, 1, 0]]]


def test_a_pixel_ignored_in_one_of_the_files_is_ignored(tmp_path):
    masks = {"crack/a.png": [[0, 255, 1], [0, 0, 1]], "stain/a.png": [[1, 1, 7], [0, 0, 0]]}
    root = folder(tmp_path, {**masks, "crack/b.png": B, "stain/b.png": B})
    got = labels(root, PAIR, mask_format="per_class", ignore_ids=(7, 255))
    assert got[0] == [[2, 255, 255], [0, 0, 1]]


@pytest.mark.parametrize("classes", [["wall", "dry_wall", "type1"]])
def test_names_of_classes_that_end_like_others_or_in_a_number(tmp_path, classes):
    masks = {f"{i}_{name}.png": A if name == "type1" else B for i in "ab" for name in classes}
    got = labels(folder(tmp_path, masks), from_names(classes), mask_format="per_class")
    assert got[0] == got[1] == (4 * np.array(A) + 3 * np.array(B)).tolist()


def test_one_class_of_0_and_1_or_of_0_and_255(tmp_path):
    ones = folder(tmp_path / "ones", {"a.png": [[0, 1, 255], [0, 0, 1]], "b.png": B})
    assert labels(ones, CRACK, mask_format="bits") == [[[0, 1, 255], [0, 0, 1]], B]
    high = folder(tmp_path / "high", {"a.png": times_255(A), "b.png": times_255(B)})
    assert labels(high, CRACK, mask_format="bits", ignore_ids=()) == [A, B]
    with pytest.raises(ValueError, match=r"a\.png: ids 1 and 255 in one mask, with 255 not among"):
        labels(ones, CRACK, mask_format="bits", ignore_ids=())


@pytest.mark.parametrize("masks, classes", [("bits", CRACK), ("per_class", PAIR)])
def test_a_foreground_of_255_is_never_lost_in_silence(tmp_path, masks, classes):
    """With 255 ignored, as by default, masks of 0 and 255 have no foreground at all."""
    names = ["{}.png"] if masks == "bits" else ["crack/{}.png", "stain/{}.png"]
    root = folder(tmp_path, {name.format(i): times_255(A) for name in names for i in "ab"})
    source = open_folder(root, "train", classes, mask_format=masks)
    with pytest.raises(
        ValueError,
        match=r"no pixel of any class \(crack.*0/255 mask loses its.*"
        r"data\.ignore_ids=\(\) if 255 is the foreground",
    ):
        check_source(source, "train")
    counts = check_source(
        open_folder(root, "train", classes, mask_format=masks, ignore_ids=()), "train"
    )
    assert counts.class_pixels.tolist() == [6] * len(classes)


@pytest.mark.parametrize(
    "files, words",
    [
        (
            {"a.png": [[0, 4, 1], [0, 0, 0]], "b.png": B},
            r"a\.png: bad ids 4 \(1 pixels\); allowed "
            r"are 0\.\.3, a bit for each of 2 classes, and data\.ignore_ids=\(255,\)",
        ),
        ({"a.png": [[0, 255, 1], [0, 0, 0]], "b.png": B}, None),
    ],
)
def test_bits_of_no_class_are_refused(tmp_path, files, words):
    root = folder(tmp_path, files)
    if words:
        with pytest.raises(ValueError, match=words):
            labels(root, PAIR, mask_format="bits")
    else:
        labels(root, PAIR, mask_format="bits")


@pytest.mark.parametrize(
    "files, words",
    [
        (
            ["crack/a.png", "crack/b.png"],
            r"classes without a mask: stain; folders of no class: none; name the folders",
        ),
        (["crack/a.png", "crack/b.png", "stain/a.png"], r"1 images in .* have no mask \(b\.png\)"),
        (["a_crack.png", "b_crack.png", "a_stain.png"], r"1 images in .* have no mask \(b\.png\)"),
        (["a_crack.png", "b_crack.png"], r"classes without a mask: stain; files of no class: none"),
        (["a_crack.png", "b_crack.png", "a_stain.png", "b.png"], r"files of no class: b; name the"),
    ],
)
def test_files_of_classes_that_are_missing_are_named(tmp_path, files, words):
    with pytest.raises(ValueError, match=words):
        open_folder(
            folder(tmp_path, dict.fromkeys(files, A)), "train", PAIR, mask_format="per_class"
        )


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("high", [1, 255])
def test_a_channel_for_each_class_as_bits(tmp_path, first, high):
    root, ignored = folder(tmp_path, {}), () if high == 255 else (255,)
    for name, masks in (("a", (A, STAIN_A)), ("b", (B, STAIN_B))):
        (root / "masks/train").mkdir(parents=True, exist_ok=True)
        stack = np.stack(masks, 0 if first else -1).astype(np.uint8) * high
        np.save(root / f"masks/train/{name}.npy", stack)
    assert labels(root, PAIR, mask_format="bits", ignore_ids=ignored) == [BITS_A, BITS_B]
    with pytest.raises(ValueError, match=r"a\.npy is a stack"):
        labels(root, PAIR)


def test_bits_and_files_of_soft_masks_have_a_threshold(tmp_path):
    soft = [[0, 200, 140], [9, 0, 255]]
    root = folder(tmp_path / "one", {"a.png": soft, "b.png": soft})
    got = labels(root, CRACK, mask_format="bits", mask_threshold=128)
    assert got == [[[0, 1, 1], [0, 0, 1]]] * 2
    root = folder(tmp_path / "each", {f"{n}/{i}.png": soft for n in PAIR.names for i in "ab"})
    got = labels(root, PAIR, mask_format="per_class", mask_threshold=200)
    assert got == [[[0, 3, 0], [0, 0, 3]]] * 2
    bits = folder(tmp_path / "bits", {"a.png": soft, "b.png": soft})
    with pytest.raises(ValueError, match=r"a\.png has bits of 2 classes, which data\.mask_thresh"):
        labels(bits, PAIR, mask_format="bits", mask_threshold=128)


@pytest.mark.parametrize("layout", ["{name}/{image}.png", "{image}_{name}.png"])
def test_a_missing_file_may_mean_that_a_class_does_not_occur(tmp_path, layout):
    files = {("a", "crack"): A, ("a", "stain"): STAIN_A, ("b", "stain"): STAIN_B}
    masks = {layout.format(image=i, name=n): mask for (i, n), mask in files.items()}
    root = folder(tmp_path, masks)
    with pytest.raises(ValueError, match=r"1 images in .* have no mask \(b\.png\)"):
        labels(root, PAIR, mask_format="per_class")
    got = labels(root, PAIR, mask_format="per_class", missing_is_empty=True)
    assert got == [BITS_A, [[0, 0, 0], [0, 2, 0]]]
    (root / "masks/train" / layout.format(image="b", name="stain")).unlink()
    with pytest.raises(ValueError, match=r"1 images in .* have no mask of any class \(b\.png\)"):
        labels(root, PAIR, mask_format="per_class", missing_is_empty=True)


def test_a_folder_of_no_class_is_named(tmp_path):
    masks = {f"{name}/{i}.png": A for name in ("crack", "stain", "dirt") for i in "ab"}
    with pytest.raises(ValueError, match=r"folders of no class: dirt; name the folders"):
        labels(folder(tmp_path, masks), PAIR, mask_format="per_class")


def test_masks_of_a_class_with_other_values_or_sizes_are_named(tmp_path):
    masks = {"crack/a.png": A, "crack/b.png": B, "stain/a.png": [[0, 2, 0]] * 2, "stain/b.png": B}
    with pytest.raises(ValueError, match=r"stain/a\.png: bad ids 2"):
        labels(folder(tmp_path / "values", masks), PAIR, mask_format="per_class")
    masks["stain/a.png"] = [[0, 1]]
    with pytest.raises(ValueError, match=r"stain/a\.png is 1x2 but .*crack/a\.png, .*, is 2x3"):
        labels(folder(tmp_path / "sizes", masks), PAIR, mask_format="per_class")


def test_lists_and_ignored_classes_do_not_go_with_bits(tmp_path):
    root = folder(tmp_path, {"a.png": A, "b.png": B})
    (root / "train.txt").write_text("images/train/a.png masks/train/a.png\n")
    assert labels(root, CRACK, mask_format="bits") == [A]
    with pytest.raises(ValueError, match=r"per_class' with the list .*train\.txt"):
        open_folder(root, "train", PAIR, mask_format="per_class")
    (root / "classes.txt").write_text("void ignore\ncrack\n")
    data = data_config(name="folder", root=str(root), classes=str(root / "classes.txt"))
    data.mask_format = "bits"
    with pytest.raises(ValueError, match=r"data\.classes has lines that end with `ignore`"):
        class_table(data)


def test_counts_and_presence_are_per_class(tmp_path):
    void = [[255, 3, 1], [0, 0, 3]]
    source = open_folder(
        folder(tmp_path, {"a.png": void, "b.png": BITS_B}), "train", PAIR, mask_format="bits"
    )
    counts = check_source(source, "train")
    assert counts.class_pixels.tolist() == [4, 3]
    assert counts.class_images.tolist() == [2, 2]
    assert (counts.pixels, counts.labelled_pixels, counts.ignored_pixels) == (12, 11, 1)
    assert counts.void_share == pytest.approx(1 / 12)
    assert class_statistics(source)["class_pixels"].tolist() == [4, 3]
    np.testing.assert_array_equal(class_presence(source), [[1, 1], [1, 1]])
    only = folder(tmp_path / "only", {"a.png": A, "b.png": [[2, 0, 0], [0, 0, 0]]})
    presence = class_presence(open_folder(only, "train", PAIR, mask_format="bits"))
    np.testing.assert_array_equal(presence, [[1, 0], [0, 1]])


def test_a_changed_mask_of_any_class_changes_the_fingerprint(tmp_path):
    masks = {f"{name}/{i}.png": A for name in ("crack", "stain") for i in "ab"}
    root = folder(tmp_path, masks)
    before = fingerprint_of(open_folder(root, "train", PAIR, mask_format="per_class"))
    (root / "masks/train/stain/b.png").unlink()
    save(root / "masks/train/stain/b.png", np.zeros((2, 3), np.uint8), compress_level=0)
    assert fingerprint_of(open_folder(root, "train", PAIR, mask_format="per_class")) != before


def test_the_config_names_the_kind_of_masks(tmp_path):
    root = folder(tmp_path, {"a.png": BITS_A, "b.png": BITS_B})
    data = data_config(name="folder", root=str(root), classes="crack,stain", mask_format="bits")
    assert make_source(data, "train").classes == class_table(data)
    assert class_table(data).multilabel
    data.mask_format = "ids"
    assert not class_table(data).multilabel
    del data.mask_format  # a run of an earlier version
    assert not class_table(data).multilabel


@pytest.mark.parametrize(
    "options, words",
    [
        ({"mask_format": "bit"}, r"data\.mask_format='bit' is unknown; use ids, bits, per_class, "),
        (
            {"name": "streets"},
            r"data\.mask_format='bits', but masks of streets hold class ids; use data",
        ),
        ({"class_map": "map.yml"}, r"data\.class_map=map\.yml with a bit for each class"),
        (
            {"classes": "a,b,c,d,e,f,g,h"},
            r"8 classes, of which a pixel may have several; use at "
            r"most 7: a label map keeps a bit for each in one byte",
        ),
    ],
)
def test_options_that_contradict_bits(options, words):
    given = {"name": "folder", "root": ".", "classes": "a,b", "mask_format": "bits"} | options
    with pytest.raises(ValueError, match=words):
        class_table(data_config(**given))


def test_a_table_knows_its_values_and_colours():
    assert (list(THREE.values), list(BOTH.values)) == ([0, 1, 2], [0, 1, 2, 3])
    np.testing.assert_array_equal(BOTH.classes_of[:5], [[0, 0], [1, 0], [0, 1], [1, 1], [0, 0]])
    np.testing.assert_array_equal(THREE.classes_of[:4], [*np.eye(3), [0, 0, 0]])
    assert not BOTH.classes_of[4:].any()
    label = uint8([0, 1, 2, 3, 255])
    colors = [[0, 0, 0], [200, 0, 0], [0, 100, 50], [100, 50, 25], [0, 0, 0]]
    np.testing.assert_array_equal(BOTH.colorize(label)[0], colors)
    np.testing.assert_array_equal(BOTH.is_painted(label)[0], [0, 1, 1, 1, 0])
    np.testing.assert_array_equal(THREE.is_painted(label)[0], [1, 1, 1, 0, 0])
