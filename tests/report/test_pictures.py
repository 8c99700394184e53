"""Pictures of single images: overlays, error maps, sheets, embedded samples."""

import io

import numpy as np
import pytest
from PIL import Image

from segjax.data.class_lists import IDD_LEVEL1
from segjax.data.classes import IGNORE, ClassTable, from_names
from segjax.data.sets.camvid import CAMVID
from segjax.report import pictures

RNG = np.random.default_rng(0)


def numbered(k) -> ClassTable:
    return from_names([str(i) for i in range(k)])


def sample(height=24, width=40, k=7, name="street"):
    label = RNG.integers(0, k, (height, width)).astype(np.uint8)
    prediction = np.where(RNG.random(label.shape) < 0.3, (label + 1) % k, label).astype(np.uint8)
    label[:4] = IGNORE
    image = RNG.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return {"name": name, "image": image, "label": label, "prediction": prediction, "miou": 0.5}


def drawn(samples, classes) -> np.ndarray:
    buffer = io.BytesIO()
    pictures.sample_grid(samples, classes, buffer)
    return np.asarray(Image.open(buffer).convert("RGB"))


def test_error_map_is_red_exactly_where_a_labelled_pixel_is_wrong():
    s = sample()
    s["image"][:] = pictures.WRONG  # a red image must not look like errors
    errors = pictures.error_map(s["image"], s["label"], s["prediction"])
    wrong = (s["label"] != s["prediction"]) & (s["label"] != IGNORE)
    np.testing.assert_array_equal((errors == pictures.WRONG).all(-1), wrong)
    assert errors.dtype == np.uint8
    grey = errors[~wrong]
    assert (grey.max(-1) == grey.min(-1)).all()
    ignored, right = errors[s["label"] == IGNORE], errors[~wrong & (s["label"] != IGNORE)]
    assert len(np.unique(ignored)) == 2  # stripes
    assert ignored.mean() < right.mean()


def test_error_map_does_not_look_at_predictions_of_ignored_pixels():
    s = sample()
    before = pictures.error_map(s["image"], s["label"], s["prediction"])
    s["prediction"][s["label"] == IGNORE] = 6
    after = pictures.error_map(s["image"], s["label"], s["prediction"])
    np.testing.assert_array_equal(after, before)


def test_error_map_names_shapes_that_differ():
    s = sample()
    with pytest.raises(ValueError, match=r"label \(24, 40\) and prediction \(23, 40\)"):
        pictures.error_map(s["image"], s["label"], s["prediction"][1:])


def test_overlay_blends_and_leaves_ignored_pixels():
    image = np.full((1, 3, 3), 100, np.uint8)
    label = np.array([[0, 1, IGNORE]], np.uint8)
    classes = ClassTable(("a", "b"), ((200, 0, 100), (0, 0, 0)))
    expected = [[[125, 75, 100], [75, 75, 75], [100, 100, 100]]]
    np.testing.assert_array_equal(pictures.overlay(image, label, classes, alpha=0.25), expected)
    np.testing.assert_array_equal(pictures.overlay(image, label, classes, alpha=0.0), image)
    colours = pictures.overlay(image, label, classes, alpha=1.0)
    np.testing.assert_array_equal(colours[0, :2], classes.palette)


def test_sample_grid_places_every_pixel():
    s = sample(height=30, width=100)
    grid = drawn([s, sample(height=20, width=90)], IDD_LEVEL1)
    zoom, gap = 4, 8
    assert grid.shape[1] == 4 * (400 + gap) + gap
    panels = [
        np.kron(p, np.ones((zoom, zoom, 1), np.uint8))
        for p in pictures.sample_panels(s, IDD_LEVEL1)
    ]
    # The row starts below the titles and the name.
    top = next(y for y in range(100) if (grid[y, gap : gap + 400] == panels[0][0]).all())
    for i, panel in enumerate(panels):
        left = gap + i * (400 + gap)
        np.testing.assert_array_equal(grid[top : top + 120, left : left + 400], panel)
    legend = grid[top + 120 + 80 :]
    for color in (*IDD_LEVEL1.palette, pictures.WRONG):
        assert (legend == color).all(-1).any()


def test_sample_grid_stays_below_its_bound(tmp_path):
    path = tmp_path / "grid.png"
    pictures.sample_grid([sample(120, 200)] * 2, CAMVID, path, max_bytes=150_000)
    assert path.stat().st_size <= 150_000
    assert Image.open(path).size[0] < 4 * 208 + 8


def test_sample_grid_without_samples_or_with_an_odd_name():
    with pytest.raises(ValueError, match="at least one sample"):
        drawn([], CAMVID)
    drawn([{**sample(4, 6), "name": "$x_{", "miou": float("nan")}], IDD_LEVEL1)


def test_legend_of_many_classes_shows_those_that_occur():
    names = [name for name, _ in pictures.sample_legend([sample(k=7)], numbered(150))]
    assert names == [*map(str, range(7)), "wrong", "ignored"]
    assert len(pictures.classes_shown([], CAMVID)) == 11
    assert pictures.classes_shown([], numbered(150)) == []


def test_embedded_pictures_shrink_to_their_bound():
    group = {"best": [sample(height=240, width=320, name=str(i)) for i in range(3)]}
    sizes = []
    for bound in (10**7, 300_000):
        (samples,) = pictures.embedded_samples(group, IDD_LEVEL1, bound).values()
        uris = [uri for s in samples for _, uri in s["pictures"]]
        assert sum(map(len, uris)) <= bound
        sizes.append(sum(map(len, uris)))
    assert sizes[1] < 300_000 < sizes[0]
