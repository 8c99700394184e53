"""The sizes that label maps are compared at."""

import numpy as np
import pytest
from PIL import Image

from segjax.data.scored import OWN, label_size, nearest_pixels, resize_label, row_length
from tests.data.drawn import data_config


@pytest.mark.parametrize(
    "option, size",
    [
        ((0, 0), None),
        ([0, 0], None),  # as config.json has it
        (("own",), OWN),
        ("own", OWN),
        ((128, 256), (128, 256)),
        ([227, 320], (227, 320)),
        (("server",), (128, 256)),
    ],
)
def test_options(option, size):
    assert label_size({**data_config(name="idd_lite"), "label_size": option}) == size


@pytest.mark.parametrize("option", [(1,), (0, 4), (4, -1), (4.0, 4), ("own", "own"), ("big",)])
def test_options_that_name_no_size(option):
    with pytest.raises(ValueError, match=r"data\.label_size=.*; use own \(the labels' own size\)"):
        label_size({**data_config(), "label_size": option})


def test_a_benchmark_without_a_size_of_its_own():
    with pytest.raises(ValueError, match="but the scorer of camvid states no size; use own"):
        label_size({**data_config(name="camvid"), "label_size": "server"})


@pytest.mark.parametrize("size", [(227, 320), (224, 320), (5, 7), (1, 1), (300, 2)])
def test_labels_are_resized_as_by_pillow(size):
    label = np.random.default_rng(0).integers(0, 9, size).astype(np.uint8)
    found = resize_label(label, (128, 256))
    expected = Image.fromarray(label).resize((256, 128), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(found, np.asarray(expected))
    assert resize_label(label, size) is label
    rows, _ = nearest_pixels((4, 1), (2, 1))
    assert rows.ravel().tolist() == [1, 3]


def test_few_lengths():
    assert [row_length(n) for n in (1, 1024, 1025, 227 * 320)] == [1024, 1024, 2048, 131072]
