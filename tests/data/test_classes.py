import dataclasses
import json

import numpy as np
import pytest

from segjax.data.classes import (
    IGNORE,
    ClassTable,
    default_palette,
    from_names,
    from_rows,
    in_words,
)


def test_colorize_paints_the_palette_and_leaves_all_other_ids_black():
    table = ClassTable(("road", "sky"), ((128, 64, 128), (70, 130, 180)))
    painted = table.colorize(np.array([[0, 1], [IGNORE, 2]]))
    assert painted.dtype == np.uint8
    expected = [[(128, 64, 128), (70, 130, 180)], [(0, 0, 0), (0, 0, 0)]]
    np.testing.assert_array_equal(painted, expected)


@pytest.mark.parametrize(
    "names, colours, message",
    [
        ([], 0, "needs 1 to 255 classes, found 0"),
        ([str(k) for k in range(256)], 256, "needs 1 to 255 classes, found 256"),
        (["a", "b"], 1, "2 class names but 1 colours"),
        (["sky", "car", "sky", "car", "road"], 5, "twice: car, sky"),
    ],
)
def test_tables_that_will_not_do(names, colours, message):
    with pytest.raises(ValueError, match=message):
        ClassTable(tuple(names), default_palette(colours))


def test_default_palette_is_stable_distinct_and_never_black():
    palette = default_palette(40)
    assert len({*palette, (0, 0, 0)}) == 41
    assert palette[:7] == default_palette(7)
    assert from_names("ab").palette == palette[:2]
    assert all(0 <= c <= 255 for color in palette for c in color)


def test_ids_of_the_data_set_and_back():
    table = ClassTable(("road", "sky"), ((1, 1, 1), (2, 2, 2)), ids=(7, 300))
    assert (table.raw_ids, from_names("ab").raw_ids) == ((7, 300), (0, 1))
    raw = table.to_raw_ids(np.array([[0, 1], [IGNORE, 0]], np.uint8))
    assert (raw.dtype, raw.tolist()) == (np.uint16, [[7, 300], [IGNORE, 7]])
    assert dataclasses.replace(table, ids=(7, 8)).to_raw_ids([[1]]).dtype == np.uint8
    crack = dataclasses.replace(table, ids=(0, IGNORE))
    assert crack.to_raw_ids([[0, 1, IGNORE]]).tolist() == [[0, IGNORE, 254]]
    assert dataclasses.replace(table, ids=(0, 1)) == dataclasses.replace(table, ids=())
    assert from_rows(json.loads(json.dumps(table.to_rows()))) == table
    assert from_rows([{"name": "a", "color": [1, 2, 3]}]).ids == ()  # of earlier versions
    with pytest.raises(ValueError, match="occur twice"):
        dataclasses.replace(table, ids=(7, 7))
    bits = dataclasses.replace(table, ids=(), multilabel=True)
    assert bits.to_raw_ids([[3]]).tolist() == [[3]]


@pytest.mark.parametrize(
    "ids, words",
    [((), ""), ((0,), "0"), ((2, 0, 1), "0..2"), ((0, 7, 8, 26, 27, 28), "0, 7, 8, 26..28")],
)
def test_ids_in_words(ids, words):
    assert in_words(ids) == words
