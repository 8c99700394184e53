"""Bad data are found before training, and named."""

import numpy as np
import pytest

from segjax.data.checks import check_source, quick_check
from segjax.data.sets.folder import open_folder
from segjax.data.statistics import class_statistics
from tests.data.drawn import THREE, TWO, Around, Broken, Drawn, mask, pairs, save, uint8


def test_counts_by_hand():
    source = Drawn([uint8([0, 0, 0, 1]), uint8([0, 255, 255, 255], [0, 0, 0, 0])])
    counts = check_source(source, "train")
    assert (counts.images, counts.counted) == (2, 2)
    assert counts.class_pixels.tolist() == [8, 1, 0]
    assert counts.class_images.tolist() == [2, 1, 0]
    assert counts.class_pixels.dtype == counts.present_pixels.dtype == np.int64
    # The second image counts with its ignored pixels, as its 8 pixels are all of the image's.
    assert counts.present_pixels.tolist() == [12, 4, 0]
    assert (counts.ignored_pixels, counts.void_images, counts.void_share) == (3, 0, 0.25)
    assert counts.sizes == {(1, 4): 1, (2, 4): 1}


def test_limit_checks_samples_that_are_spread_evenly():
    source, calls = Drawn([uint8([0, 1])] * 101), []
    counts = check_source(source, "train", limit=5, progress=lambda *c: calls.append(c))
    assert sorted(source.reads) == [0, 25, 50, 75, 100]
    assert (counts.images, counts.counted) == (101, 5)
    assert calls == [(k, 5) for k in range(1, 6)]
    assert check_source(source, "train", limit=1000).counted == 101
    with pytest.raises(ValueError, match="limit=0"):
        check_source(source, "train", limit=0)


def test_every_kind_of_bad_file_is_in_one_error(tmp_path):
    pairs(tmp_path, "abcdef")
    (tmp_path / "images/train/a.png").write_bytes(b"")
    mask(tmp_path / "masks/train/b.png", 1, 2, 2)
    save(tmp_path / "masks/train/c.png", np.full((4, 6, 3), [128, 64, 128], np.uint8))
    mask(tmp_path / "masks/train/d.png", 9)
    source = open_folder(tmp_path, "train", THREE)
    (tmp_path / "masks/train/e.png").unlink()  # gone after the source was made
    with pytest.raises(ValueError, match="5 of 6 samples are bad"):
        class_statistics(source, tmp_path / "statistics.json")
    with pytest.raises(ValueError) as error:
        check_source(source, "train")
    heading, *lines = str(error.value).splitlines()
    assert heading == "data split 'train': 5 of 6 samples are bad:"
    expected = (
        "images/train/a.png cannot be read",
        "masks/train/b.png is 2x2 (height x width)",
        "masks/train/c.png: masks must hold one class id per pixel, found mode RGB",
        "masks/train/d.png: bad ids 9 (24 pixels); allowed are 0..2 and data.ignore_ids=(255,)",
        "masks/train/e.png cannot be read: No such file",
    )
    assert all(words in line for line, words in zip(lines, expected, strict=True))


def test_unreadable_samples_are_left_out_where_they_may_be(tmp_path):
    source = open_folder(pairs(tmp_path, "abc"), "train", THREE)
    complete = check_source(source, "train")
    (tmp_path / "images/train/b.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"b\.png"):
        quick_check({"train": source})
    counts = quick_check({"train": source}, skip_unreadable=["train"])["train"].usable_counts
    np.testing.assert_array_equal(3 * counts.class_pixels, 2 * complete.class_pixels)
    statistics = class_statistics(source, skip_unreadable=True)
    np.testing.assert_array_equal(statistics["class_pixels"], counts.class_pixels)
    for name in "ac":
        (tmp_path / f"images/train/{name}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="3 of 3 samples are bad"):
        quick_check({"train": source}, skip_unreadable=["train"])


def test_ten_problems_are_listed_with_the_remedy_once():
    with pytest.raises(ValueError) as error:
        check_source(Drawn([uint8([3])] * 14 + [uint8([0])]), "train")
    lines = str(error.value).splitlines()
    assert lines[0] == "data split 'train': 14 of 15 samples are bad:"
    assert len(lines) == 12
    assert lines[1].startswith("  drawn 0: bad ids 3 (1 pixels); allowed are 0..2 and")
    assert lines[-1] == "  and 4 more; --mode=doctor reports each of them in full"
    assert str(error.value).count("; use ") == 1


LABEL = np.zeros((2, 3), np.uint8)


@pytest.mark.parametrize(
    "label, image, words",
    [
        (LABEL.astype(np.int32), None, r"drawn 0: label is int32 \[2, 3\]; use uint8 \[2, 3\]"),
        (LABEL[..., None], np.zeros((2, 3, 3), np.uint8), r"label is uint8 \[2, 3, 1\]"),
        (LABEL, LABEL, r"image is uint8 \[2, 3\]; use uin"),
        (LABEL, np.zeros((2, 3, 3)), r"image is float64 \[2, 3, 3\]; use uint8"),
    ],
)
def test_a_source_that_breaks_the_protocol(label, image, words):
    with pytest.raises(ValueError, match=words):
        check_source(Drawn([label], image=image), "train")


def test_errors_that_are_no_data_errors_pass_through():
    with pytest.raises(RuntimeError, match="a bug in the source"):
        check_source(Broken([0]), "train")


def test_masks_of_0_and_255_whose_foreground_is_ignored(tmp_path):
    pairs(tmp_path, "ab", ids=[0, 0, 0, 255, 255, 255])
    source = open_folder(tmp_path, "train", TWO)
    message = r"no pixel of class 1 \('crack'\) in 2 masks, but 24 ign.*use data\.ignore_ids=\(\)"
    with pytest.raises(ValueError, match=message):
        check_source(source, "train")
    mask(tmp_path / "masks/train/b.png", [0, 1, 0, 255, 255, 255])
    assert check_source(source, "train").class_pixels.tolist() == [20, 4]


def test_quick_check_lists_the_problems_of_all_splits():
    sources = {"train": Drawn([uint8([0])] * 3), "val": Drawn([uint8([7])]), "test": Drawn([])}
    with pytest.raises(ValueError) as error:
        quick_check(sources, min_images={"train": 4})
    text = str(error.value)
    few = "data split 'train' has 3 images but train.batch_size=4; use train.batch_size<=3 or more"
    assert few in text
    assert "data split 'val': 1 of 1 samples are bad:\n  drawn 0: bad ids 7 (1 pixels)" in text
    assert "data split 'test' has no images" in text


def test_quick_check_decodes_few_of_what_is_drawn_and_many_files(tmp_path):
    files = open_folder(pairs(tmp_path, "abcdef"), "train", THREE)
    drawn = Drawn([uint8([0])] * 9)
    looked = quick_check({"train": files, "around": Around(files), "drawn": Around(drawn)})
    assert [len(split.facts) for split in looked.values()] == [6, 6, 4]
    assert [split.complete for split in looked.values()] == [True, True, False]
