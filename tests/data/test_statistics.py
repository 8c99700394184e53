"""Counts of classes, kept until the data change, and the weights that follow from them."""

import json
import os

import numpy as np
import pytest

from segjax.data.classes import from_names
from segjax.data.sets.camvid import CAMVID, open_segnet
from segjax.data.sets.folder import open_folder
from segjax.data.statistics import class_statistics
from segjax.data.weightings import median_present
from tests.data.drawn import CAMVID_ROOT, THREE, Drawn, DrawnWithRepr, mask, pairs, uint8


def test_weights_by_hand():
    # Frequencies 8/12, 1/4, 3/6, and one class that never occurs: the median of three is 1/2.
    weights = median_present(np.array([8, 1, 3, 0]), np.array([12, 4, 6, 0]))
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [0.75, 2.0, 1.0, 0.0])
    with pytest.raises(ValueError, match=r"class_pixels=\[0, 0\].*use counts where a class occurs"):
        median_present(np.zeros(2, np.int64), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match=r"class_pixels=\[5\] with present_pixels=\[4\]"):
        median_present(np.array([5]), np.array([4]))


@pytest.mark.skipif(not CAMVID_ROOT.is_dir(), reason="SEGJAX_CAMVID is not CamVid's folder")
def test_camvid_weights_equal_the_published_recount(tmp_path):
    statistics = class_statistics(open_segnet(CAMVID_ROOT, "train"), tmp_path / "statistics.json")
    assert (statistics["images"], statistics["sizes"]) == (367, [(360, 480)])
    void_share = statistics["ignored_pixels"] / (367 * 360 * 480)
    assert round(100 * void_share, 2) == 3.95
    weights = median_present(statistics["class_pixels"], statistics["present_pixels"])
    # Recounted from the 367 masks by others, with the same definition; the weights that the
    # SegNet authors ship differ (9.64 for SignSymbol) and follow from no count of these files.
    expected = dict(
        Sky=0.2793, Building=0.2017, Pole=4.7865, Road=0.1490, Pavement=1.0, Tree=0.4217,
        SignSymbol=3.8467, Fence=1.9736, Car=0.7889, Pedestrian=6.3747, Bicyclist=8.8587,
    )  # fmt: skip
    assert tuple(expected) == CAMVID.names
    np.testing.assert_allclose(weights, list(expected.values()), atol=5e-5)


def test_statistics_are_read_from_the_cache_until_the_data_change(tmp_path):
    data, cache = pairs(tmp_path / "data", "a"), tmp_path / "work" / "statistics.json"

    def pixels(classes=THREE):
        statistics = class_statistics(open_folder(data, "train", classes), cache)
        assert statistics["class_pixels"].dtype == np.int64
        assert statistics["sizes"] == [(4, 6)]
        return statistics["class_pixels"].tolist()

    assert pixels() == [0, 24, 0]
    kept = json.loads(cache.read_text())
    kept["statistics"]["class_pixels"] = [1, 2, 3]
    cache.write_text(json.dumps(kept))
    assert pixels() == [1, 2, 3]
    assert pixels(from_names("abcd")) == [0, 24, 0, 0]
    mask(data / "masks/train/a.png", 2)
    os.utime(data / "masks/train/a.png", ns=(1, 1))
    assert pixels() == [0, 0, 24]
    assert [p.name for p in cache.parent.iterdir()] == [cache.name]
    for damaged in ("", "{", "[]", '{"fingerprint": 1}'):
        cache.write_text(damaged)
        assert pixels() == [0, 0, 24]


def test_a_source_with_nothing_to_tell_it_by_is_not_cached(tmp_path):
    for source, cached in ((Drawn([uint8([0, 2])]), False), (DrawnWithRepr([uint8([0, 2])]), True)):
        statistics = class_statistics(source, tmp_path / "a.json")
        assert statistics["class_pixels"].tolist() == [1, 0, 1]
        assert (tmp_path / "a.json").exists() == cached
    assert class_statistics(source)["ignored_pixels"] == 0
