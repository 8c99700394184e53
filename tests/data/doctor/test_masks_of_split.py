"""Masks of one split that contradict each other."""

import numpy as np
import pytest
from PIL import Image

from configs import base
from segjax.data.checks import check_source, quick_check
from segjax.data.class_lists import read_class_list
from segjax.data.classes import from_names
from segjax.data.doctor import ERROR, INFO, WARNING, diagnose
from segjax.data.sets.folder import open_folder
from tests.data.drawn import THREE, TWO, mask, pairs, photo

ONES, HIGHS, VOIDS, EMPTY = [0, 1, 1], [0, 255, 255], [0, 1, 255], [0, 0, 0]


def masks(root, *rows):
    """A data set of masks whose columns have these ids."""
    for k, ids in enumerate(rows):
        pairs(root, [str(k)], ids=np.repeat(ids, 2))
    return root


@pytest.mark.parametrize(
    "rows, words",
    [
        ((ONES, HIGHS, EMPTY, ONES), "1 of 4 masks hold only 0 and 255"),
        ((HIGHS, ONES, HIGHS), "2 of 3 masks hold only 0 and 255"),
        ((ONES, HIGHS, VOIDS), ""),  # 255 is void
        ((ONES, EMPTY, [255] * 3), ""),
        ((ONES, EMPTY), ""),
    ],
)
def test_0_and_255_beside_0_and_1(tmp_path, rows, words):
    source = open_folder(masks(tmp_path, *rows), "train", TWO)
    found = [f for f in diagnose({"train": source}).of(ERROR) if f.code == "mixed-encodings"]
    if not words:
        assert not found
        check_source(source, "train")
        return
    assert words in found[0].title
    assert len(found[0].files) == sum(row is HIGHS for row in rows)
    with pytest.raises(ValueError, match=rf"'train': {words}.*data\.ignore_ids=\"\(\)\""):
        quick_check({"train": source})
    everything = open_folder(tmp_path, "train", TWO, ignore_ids=())
    counts = check_source(everything, "train").class_pixels
    assert counts[1] == sum(8 * np.count_nonzero(row) for row in rows)


def test_three_classes_may_have_images_of_ground_and_void_alone(tmp_path):
    check_source(open_folder(masks(tmp_path, ONES, HIGHS), "train", THREE), "train")


def test_files_for_each_class_of_two_encodings(tmp_path):
    photo(tmp_path / "images/train/a.png")
    mask(tmp_path / "masks/train/crack/a.png", np.repeat(ONES, 2))
    mask(tmp_path / "masks/train/stain/a.png", [255, 255, 0, 0, 0, 0])
    cracks = from_names(["crack", "stain"])
    source = open_folder(tmp_path, "train", cracks, mask_format="per_class")
    with pytest.raises(ValueError, match=r"1 of 1 masks hold only 0 and 255, 1 hold 1 for"):
        check_source(source, "train")
    source = open_folder(tmp_path, "train", cracks, mask_format="one_per_class")
    with pytest.raises(ValueError, match=r"1 of 1 masks hold only 0 and 255, 1 hold 1 for"):
        check_source(source, "train")


def paletted(root, *palettes):
    for k, (ids, colors) in enumerate(palettes):
        pairs(root, [str(k)])
        picture = Image.fromarray(np.broadcast_to(np.uint8(np.repeat(ids, 2)), (4, 6)).copy())
        picture.putpalette([channel for color in colors for channel in color])
        picture.save(root / f"masks/train/{k}.png")
    return root


BLACK, RED, BLUE = (0, 0, 0), (200, 0, 0), (0, 0, 200)


@pytest.mark.parametrize(
    "palettes, moved",
    [
        ([([0, 1, 1], [BLACK, RED]), ([0, 1, 1], [RED, BLACK])], True),
        ([([0, 1, 2], [BLACK, RED, BLUE]), ([0, 2, 2], [BLACK, RED, BLUE])], False),
        ([([0, 1, 1], [BLACK, RED]), ([0, 1, 1], [BLACK, BLUE])], False),  # for show
        ([([0, 0, 0], [BLACK, BLACK, RED]), ([1, 1, 1], [BLACK, BLACK, BLUE])], False),
    ],
)
def test_palettes_in_another_order_count_where_indices_are_read(tmp_path, palettes, moved):
    def orders(classes):
        diagnosis = diagnose({"train": open_folder(tmp_path, "train", classes)})
        return [f.severity for f in diagnosis.findings if f.code == "palette-order"]

    paletted(tmp_path, *palettes)
    assert orders(THREE) == [WARNING] * moved
    (tmp_path / "colors.txt").write_text("a 0 0 0\nb 200 0 0\nc 0 0 200\n")
    assert not orders(read_class_list(tmp_path / "colors.txt"))


def test_jpeg_masks_are_worth_a_line_where_an_option_mends_them(tmp_path):
    photo(tmp_path / "images/train/a.png", 16, 16)
    mask(tmp_path / "masks/train/a.jpg", 0, 16, 16)
    for threshold, severity in ((0, WARNING), (128, INFO)):
        config = base.get_config()
        config.data.mask_threshold = float(threshold)
        source = open_folder(tmp_path, "train", TWO, mask_threshold=threshold)
        findings = diagnose({"train": source}, config=config).findings
        assert [f.severity for f in findings if f.code == "jpeg-mask"] == [severity]
