"""Label maps of any program: found by the samples' names, and read as labels."""

import numpy as np
import pytest
from PIL import Image

from segjax.data.classes import ClassTable
from segjax.data.files.predictions import find_predictions, label_of_ids, read_prediction
from tests.data.drawn import mask, save, uint8

CLASSES = ClassTable(("road", "car"), ((128, 64, 128), (0, 0, 142)), ids=(7, 26))


@pytest.mark.parametrize(
    "names, files, rule",
    [
        (["a", "b"], ["a", "b"], "*"),
        (["a", "b"], ["masks/a", "masks/b", "overlays/a"], "*"),  # as --mode=predict writes
        (["d1/7", "d2/7"], ["d1/7_label", "d2/7_label"], "*_label"),
        (["d1/7", "d2/7"], ["val/d1/7_image", "val/d2/7_image"], "val/*_image"),
        (["frankfurt/f_01", "munster/m_02"], ["f_01_pred", "m_02_pred"], "*_pred"),
        (["f_01", "m_02"], ["frankfurt/f_01*", "munster/m_02*"], "*"),
        (["1", "2", "12"], ["img_1_m", "img_2_m", "img_12_m"], "img_*_m"),
        (["a", "b"], ["a", "a_color", "b", "b_color"], "*"),
    ],
)
def test_files_are_named_as_the_samples_but_for_what_all_share(tmp_path, names, files, rule):
    paths = [mask(tmp_path / f"{file.strip('*')}.png") for file in files]
    found = find_predictions(tmp_path, names)
    assert found.rule == rule
    kept = [p for p in paths if "color" not in p.name and "overlays" not in str(p)]
    assert list(found.paths) == kept
    assert len(found.extra) == sum("color" in p.name for p in paths)


def test_what_is_missing_is_named(tmp_path):
    for name in ("a_p", "c_p", "x"):
        mask(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match=r"1 of 3 images have no .* \(b\); it holds 3 .*\*_p; use"):
        find_predictions(tmp_path, ["a", "b", "c"])
    np.save(tmp_path / "x.npy", uint8([1]))
    with pytest.raises(ValueError, match=r"x\.png and x\.npy have one name"):
        find_predictions(tmp_path, ["a"])
    with pytest.raises(ValueError, match="gone is not an existing folder"):
        find_predictions(tmp_path / "gone", ["a"])


def written(path, kind):
    """A prediction of car, road, road, and no class in the fourth pixel."""
    raw = uint8([26, 7], [7, 0])
    rgb = np.array([[(0, 0, 142), (128, 64, 128)], [(128, 64, 128), (0, 0, 0)]], np.uint8)
    if kind == "npy":
        np.save(path / "p.npy", raw.astype(np.float32))
        return path / "p.npy"
    if kind == "palette":
        picture = Image.fromarray(raw, "P")
        picture.putpalette([0, 0, 9] * 40)
        picture.save(path / "p.png")
        return path / "p.png"
    arrays = {
        "ids": raw,
        "16 bit": raw.astype(np.uint16),
        "three equal channels": raw[..., None].repeat(3, -1),
        "colours": rgb,
        "colours with alpha": np.dstack([rgb, np.full((2, 2), 9, np.uint8)]),
    }
    return save(path / "p.png", arrays[kind])


@pytest.mark.parametrize(
    "kind",
    ["ids", "16 bit", "npy", "palette", "three equal channels", "colours", "colours with alpha"],
)
def test_ids_and_colours_become_labels(tmp_path, kind):
    _, labels = read_prediction(written(tmp_path, kind), CLASSES, label_of_ids(CLASSES, "raw"))
    np.testing.assert_array_equal(labels, [[1, 0], [0, 255]])


def test_equal_channels_of_zeros_are_ids_and_not_black(tmp_path):
    path = save(tmp_path / "p.png", np.zeros((2, 2, 3), np.uint8))
    _, labels = read_prediction(path, CLASSES, label_of_ids(CLASSES, "train"))
    np.testing.assert_array_equal(labels, np.zeros((2, 2)))


def test_ids_of_training_of_the_masks_and_bits(tmp_path):
    assert label_of_ids(CLASSES, "train") == {0: 0, 1: 1}
    masks = {7: 0, 8: 0, 26: 1, 0: 255}  # 8 is road too, 0 is void
    assert label_of_ids(CLASSES, "raw", masks) == {7: 0, 8: 0, 26: 1}
    bits = ClassTable(("a", "b"), ((1, 1, 1), (2, 2, 2)), multilabel=True)
    assert label_of_ids(bits, "raw") == {0: 0, 1: 1, 2: 2, 3: 3}


def test_what_cannot_be_read(tmp_path):
    known = label_of_ids(CLASSES, "raw")
    other = save(tmp_path / "o.png", np.array([[(0, 0, 140), (0, 0, 0)]], np.uint8))
    with pytest.raises(ValueError, match=r"o\.png: 2 colours of no class: .*nearest is car"):
        read_prediction(other, CLASSES, known)
    np.save(tmp_path / "n.npy", np.full((2, 2), 0.5))
    with pytest.raises(ValueError, match=r"n\.npy: values that are no whole numbers"):
        read_prediction(tmp_path / "n.npy", CLASSES, known)
