import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from segjax.data.checks import (
    check_source,
    class_statistics,
    labels_from_ids,
    median_frequency_weights,
)
from segjax.data.classes import CAMVID, IGNORE, from_names
from segjax.data.folders import CamVid, Folder

THREE = from_names(["road", "car", "sky"])
TWO = from_names(["background", "crack"])
CAMVID_ROOT = pathlib.Path(
    os.environ.get("SEGJAX_CAMVID", pathlib.Path(__file__).parents[3] / "shared" / "camvid")
)


def photo(path, height=4, width=6):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)


def mask(path, ids=1, height=4, width=6):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.broadcast_to(np.asarray(ids, np.uint8), (height, width))).save(path)


class Drawn:
    """A source without files: every sample is a constant label."""

    def __init__(self, labels, classes=THREE, image=None):
        self.labels, self.classes, self.image = labels, classes, image
        self.reads = []

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.reads.append(index)
        label = np.asarray(self.labels[index])
        image = np.zeros((*label.shape, 3), np.uint8) if self.image is None else self.image
        return {"image": image, "label": label, "name": f"drawn {index}"}


class DrawnWithRepr(Drawn):
    def __repr__(self):
        return f"DrawnWithRepr({[np.asarray(label).tolist() for label in self.labels]})"


def uint8(*rows):
    return np.array(rows, np.uint8)


def test_report_counts_pixels_by_hand():
    source = Drawn([uint8([0, 0, 0, 1]), uint8([0, 255, 255, 255], [0, 0, 0, 0])])
    report = check_source(source, "train")
    assert (report.split, report.images, report.checked) == ("train", 2, 2)
    assert report.class_pixels.tolist() == [8, 1, 0]
    assert report.class_pixels.dtype == report.present_pixels.dtype == np.int64
    # The second image counts with its ignored pixels, as its 8 pixels are all of the image's.
    assert report.present_pixels.tolist() == [12, 4, 0]
    assert report.ignored_pixels == 3
    assert report.sizes == {(1, 4), (2, 4)}


def test_fewer_images_than_the_batch_size():
    with pytest.raises(ValueError) as error:
        check_source(Drawn([uint8([0])] * 3), "train", min_images=8)
    assert str(error.value) == (
        "data split 'train' has 3 images but train.batch_size=8; "
        "use train.batch_size<=3 or more images"
    )
    with pytest.raises(ValueError, match="data split 'val' has no images"):
        check_source(Drawn([]), "val", min_images=8)


def test_limit_checks_samples_that_are_spread_evenly():
    source, calls = Drawn([uint8([0, 1])] * 101), []
    report = check_source(source, "train", limit=5, progress=lambda *c: calls.append(c))
    assert sorted(source.reads) == [0, 25, 50, 75, 100]
    assert (report.images, report.checked) == (101, 5)
    assert calls == [(k, 5) for k in range(1, 6)]
    assert check_source(source, "train", limit=1000).checked == 101
    with pytest.raises(ValueError, match="limit=0"):
        check_source(source, "train", limit=0)


def test_every_kind_of_bad_file_is_in_one_error(tmp_path):
    for name in "abcdef":
        photo(tmp_path / f"images/train/{name}.png")
        mask(tmp_path / f"masks/train/{name}.png")
    (tmp_path / "images/train/a.png").write_bytes(b"")
    mask(tmp_path / "masks/train/b.png", 1, 2, 2)
    photo(tmp_path / "masks/train/c.png")
    mask(tmp_path / "masks/train/d.png", 9)
    source = Folder(tmp_path, "train", THREE)
    (tmp_path / "masks/train/e.png").unlink()  # gone after the source was made
    with pytest.raises(ValueError) as error:
        check_source(source, "train")
    with pytest.raises(ValueError, match="5 of 6 samples are bad"):
        class_statistics(source, tmp_path / "statistics.json")
    heading, *lines = str(error.value).splitlines()
    assert heading == "data split 'train': 5 of 6 samples are bad:"
    for line, words in zip(
        lines,
        (
            "images/train/a.png cannot be read",
            "masks/train/b.png is 2x2 (height x width)",
            "masks/train/c.png: masks must hold one class id per pixel, found mode RGB",
            "masks/train/d.png: bad ids 9 (24 pixels); allowed are 0..2 and data.ignore_ids=(255,)",
            "masks/train/e.png cannot be read: [Errno 2]",
        ),
        strict=True,
    ):
        assert words in line


def test_ten_problems_are_listed_with_the_remedy_once():
    with pytest.raises(ValueError) as error:
        check_source(Drawn([uint8([3])] * 14 + [uint8([0])]), "train")
    lines = str(error.value).splitlines()
    assert lines[0] == "data split 'train': 14 of 15 samples are bad:"
    assert len(lines) == 12
    assert lines[1].startswith("  drawn 0: bad ids 3 (1 pixels); allowed are 0..2 and")
    assert lines[-1] == "  and 4 more"
    assert str(error.value).count("; use ") == 1


@pytest.mark.parametrize(
    "label, image, words",
    [
        (np.zeros((2, 3), np.int32), None, r"drawn 0: label is int32 \[2, 3\]; use uint8 \[2, 3\]"),
        (
            np.zeros((2, 3, 1), np.uint8),
            np.zeros((2, 3, 3), np.uint8),
            r"label is uint8 \[2, 3, 1\]",
        ),
        (
            np.zeros((2, 3), np.uint8),
            np.zeros((2, 3), np.uint8),
            r"image is uint8 \[2, 3\]; use uin",
        ),
        (
            np.zeros((2, 3), np.uint8),
            np.zeros((2, 3, 3)),
            r"image is float64 \[2, 3, 3\]; use uint8",
        ),
    ],
)
def test_a_source_that_breaks_the_protocol_is_told_so(label, image, words):
    with pytest.raises(ValueError, match=words):
        check_source(Drawn([label], image=image), "train")


def test_errors_that_are_no_data_errors_pass_through():
    class Broken(Drawn):
        def __getitem__(self, index):
            raise RuntimeError("a bug in the source")

    with pytest.raises(RuntimeError, match="a bug in the source"):
        check_source(Broken([0]), "train")


def test_masks_of_0_and_255_whose_foreground_is_ignored(tmp_path):
    for name in "ab":
        photo(tmp_path / f"images/train/{name}.png")
        mask(tmp_path / f"masks/train/{name}.png", [0, 0, 0, 255, 255, 255])
    source = Folder(tmp_path, "train", TWO)
    with pytest.raises(
        ValueError, match=r"no pixel of class 1 \('crack'\) in 2 masks, but 24 ign.*"
    ):
        check_source(source, "train")
    mask(tmp_path / "masks/train/b.png", [0, 1, 0, 255, 255, 255])
    assert check_source(source, "train").class_pixels.tolist() == [20, 4]


@pytest.mark.parametrize(
    "ids, num_classes, ignore_ids, words",
    [
        (
            [0, 5],
            3,
            (255,),
            r"m\.png: bad ids 5 \(1 pixels\); allowed are 0\.\.2 and .*\(255,\); use",
        ),
        (
            [0, 255],
            2,
            (),
            r"use ids 0 and 1 \(np\.asarray\(mask\) // 255\) if .*=\(255,\) if it is void",
        ),
        ([0, 1, 255], 2, (254,), r"use data\.ignore_ids=\(254, 255\) if 255 is void"),
        ([1, 2, 3, 255], 3, (255,), "these run from 1 to 3, so subtract 1"),
        ([0, 1, 11], 11, (255,), r"=\(11, 255\) if 11 is void; if ids count from 1, subtract 1"),
        ([0, 1, 90], 11, (255,), r"=\(90, 255\) if 90 is void, else ids in 0\.\.10"),
        ([7, 8, 9], 3, (255,), r"bad ids 7 \(1 pixels\), 8 .*use a class list \(data\.classes\)"),
        ([-1, 0, 70000], 3, (255,), r"bad ids -1 \(1 pixels\), 70000 \(1 pixels\); allowed"),
    ],
)
def test_bad_ids_come_with_a_guess_at_the_cause(ids, num_classes, ignore_ids, words):
    with pytest.raises(ValueError, match=words):
        labels_from_ids(np.array([ids]), num_classes, ignore_ids, "m.png")


def test_jpeg_masks_are_recognised(tmp_path):
    photo(tmp_path / "images/train/a.png", 16, 16)
    ids = np.random.default_rng(0).integers(0, 3, (16, 16), np.uint8)
    mask(tmp_path / "masks/train/a.jpg", ids * 50, 16, 16)
    with pytest.raises(
        ValueError, match=r"a\.jpg: bad ids .*, \.\.\.; allowed .*use PNG for masks"
    ):
        Folder(tmp_path, "train", THREE)[0]


def test_labels_do_not_change_the_ids_they_are_made_of():
    ids = np.array([[-1, 0, 2]], np.int32)
    labels = labels_from_ids(ids, 3, (-1,), "m.tif")
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[IGNORE, 0, 2]]
    assert ids.tolist() == [[-1, 0, 2]]


def test_weights_by_hand():
    # Frequencies 8/12, 1/4, 3/6, and one class that never occurs: the median of three is 1/2.
    weights = median_frequency_weights(np.array([8, 1, 3, 0]), np.array([12, 4, 6, 0]))
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [0.75, 2.0, 1.0, 0.0])


def test_weights_refuse_counts_that_make_no_sense():
    with pytest.raises(
        ValueError, match=r"class_pixels has shape \(2,\) and present_pixels \(3,\)"
    ):
        median_frequency_weights(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match=r"class_pixels=\[0, 0\].*use counts where a class occurs"):
        median_frequency_weights(np.zeros(2), np.zeros(2))
    with pytest.raises(ValueError, match=r"class_pixels=\[5\] with present_pixels=\[4\]"):
        median_frequency_weights(np.array([5]), np.array([4]))


@pytest.mark.skipif(not CAMVID_ROOT.is_dir(), reason="SEGJAX_CAMVID is not CamVid's folder")
def test_camvid_weights_equal_the_published_recount(tmp_path):
    statistics = class_statistics(CamVid(CAMVID_ROOT, "train"), tmp_path / "statistics.json")
    assert statistics["images"] == 367
    assert statistics["sizes"] == [(360, 480)]
    void_share = statistics["ignored_pixels"] / (367 * 360 * 480)
    assert round(100 * void_share, 2) == 3.95
    weights = median_frequency_weights(statistics["class_pixels"], statistics["present_pixels"])
    # Recounted from the 367 masks by others, with the same definition; the weights that the
    # SegNet authors ship differ (9.64 for SignSymbol) and follow from no count of these files.
    expected = dict(
        Sky=0.2793, Building=0.2017, Pole=4.7865, Road=0.1490, Pavement=1.0, Tree=0.4217,
        SignSymbol=3.8467, Fence=1.9736, Car=0.7889, Pedestrian=6.3747, Bicyclist=8.8587,
    )  # fmt: skip
    assert tuple(expected) == CAMVID.names
    np.testing.assert_allclose(weights, list(expected.values()), atol=5e-5)


def test_statistics_are_read_from_the_cache_until_the_data_change(tmp_path):
    data, cache = tmp_path / "data", tmp_path / "work" / "statistics.json"
    photo(data / "images/train/a.png")
    mask(data / "masks/train/a.png", 1)
    first = class_statistics(Folder(data, "train", THREE), cache)
    assert first["class_pixels"].tolist() == [0, 24, 0]
    assert first["class_pixels"].dtype == np.int64
    assert first["sizes"] == [(4, 6)]

    kept = json.loads(cache.read_text())
    kept["statistics"]["class_pixels"] = [1, 2, 3]
    cache.write_text(json.dumps(kept))
    again = class_statistics(Folder(data, "train", THREE), cache)
    assert again["class_pixels"].tolist() == [1, 2, 3]
    assert again["sizes"] == first["sizes"]

    other_table = class_statistics(Folder(data, "train", from_names("abcd")), cache)
    assert other_table["class_pixels"].tolist() == [0, 24, 0, 0]

    mask(data / "masks/train/a.png", 2)
    os.utime(data / "masks/train/a.png", ns=(1, 1))
    changed = class_statistics(Folder(data, "train", THREE), cache)
    assert changed["class_pixels"].tolist() == [0, 0, 24]
    assert [p.name for p in cache.parent.iterdir()] == [cache.name]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"fingerprint": 1}'])
def test_a_damaged_cache_is_counted_anew(tmp_path, text):
    cache = tmp_path / "statistics.json"
    cache.write_text(text)
    statistics = class_statistics(DrawnWithRepr([uint8([0, 1])]), cache)
    assert statistics["class_pixels"].tolist() == [1, 1, 0]


def test_sources_without_files_are_told_apart_by_their_repr(tmp_path):
    cache = tmp_path / "statistics.json"
    class_statistics(DrawnWithRepr([uint8([0, 1])]), cache)
    same, other = DrawnWithRepr([uint8([0, 1])]), DrawnWithRepr([uint8([1, 1])])
    class_statistics(same, cache)
    assert same.reads == []
    assert class_statistics(other, cache)["class_pixels"].tolist() == [0, 2, 0]


def test_a_source_with_nothing_to_tell_it_by_is_not_cached(tmp_path):
    source = Drawn([uint8([0, 2])])
    assert class_statistics(source, tmp_path / "a.json")["class_pixels"].tolist() == [1, 0, 1]
    assert not (tmp_path / "a.json").exists()
    assert class_statistics(source)["ignored_pixels"] == 0
