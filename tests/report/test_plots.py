import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from segjax.data.classes import IDD_LEVEL1, IGNORE, ClassTable, from_names
from segjax.data.sets.camvid import CAMVID
from segjax.metrics.confusion import summarize
from segjax.report import plots

RNG = np.random.default_rng(0)


def numbered(k) -> ClassTable:
    return from_names([str(i) for i in range(k)])


def sample(height=24, width=40, k=7, name="street"):
    label = RNG.integers(0, k, (height, width)).astype(np.uint8)
    prediction = np.where(RNG.random(label.shape) < 0.3, (label + 1) % k, label).astype(np.uint8)
    label[:4] = IGNORE
    image = RNG.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return {"name": name, "image": image, "label": label, "prediction": prediction, "miou": 0.5}


def history(rows=60):
    train = [
        {"step": s, "split": "train", "loss": 2.0 / s, "learning_rate": 0.01}
        for s in range(1, rows + 1)
    ]
    val = [{"step": s, "split": "val", "loss": 1.0, "miou": s / 100} for s in range(10, rows, 10)]
    return train + val


def drawn(draw, *arguments, **options) -> np.ndarray:
    buffer = io.BytesIO()
    draw(*arguments, buffer, **options)
    assert buffer.getvalue().startswith(b"\x89PNG")
    return np.asarray(Image.open(buffer).convert("RGB"))


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, to ask them what they show."""
    saved, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: saved.append(self) or save(self, *a, **k)
    )
    return saved


def test_error_map_is_red_exactly_where_a_labelled_pixel_is_wrong():
    s = sample()
    s["image"][:] = plots.WRONG  # a red image must not look like errors
    errors = plots.error_map(s["image"], s["label"], s["prediction"])
    wrong = (s["label"] != s["prediction"]) & (s["label"] != IGNORE)
    np.testing.assert_array_equal((errors == plots.WRONG).all(-1), wrong)
    assert errors.dtype == np.uint8
    grey = errors[~wrong]
    assert (grey.max(-1) == grey.min(-1)).all()
    ignored, right = errors[s["label"] == IGNORE], errors[~wrong & (s["label"] != IGNORE)]
    assert len(np.unique(ignored)) == 2  # stripes
    assert ignored.mean() < right.mean()


def test_error_map_does_not_look_at_predictions_of_ignored_pixels():
    s = sample()
    before = plots.error_map(s["image"], s["label"], s["prediction"])
    s["prediction"][s["label"] == IGNORE] = 6
    np.testing.assert_array_equal(plots.error_map(s["image"], s["label"], s["prediction"]), before)


def test_error_map_names_shapes_that_differ():
    s = sample()
    with pytest.raises(ValueError, match=r"label \(24, 40\) and prediction \(23, 40\)"):
        plots.error_map(s["image"], s["label"], s["prediction"][1:])


def test_overlay_blends_and_leaves_ignored_pixels():
    image = np.full((1, 3, 3), 100, np.uint8)
    label = np.array([[0, 1, IGNORE]], np.uint8)
    classes = ClassTable(("a", "b"), ((200, 0, 100), (0, 0, 0)))
    expected = [[[125, 75, 100], [75, 75, 75], [100, 100, 100]]]
    np.testing.assert_array_equal(plots.overlay(image, label, classes, alpha=0.25), expected)
    np.testing.assert_array_equal(plots.overlay(image, label, classes, alpha=0.0), image)
    colours = plots.overlay(image, label, classes, alpha=1.0)
    np.testing.assert_array_equal(colours[0, :2], classes.palette)


def test_curves_mark_the_best_step(figures):
    wide = drawn(plots.plot_curves, history())
    assert wide.shape[1] > 2 * wide.shape[0]
    labels = [line.get_label() for line in figures[0].axes[1].lines]
    assert "best mIoU 0.5000, step 50" in labels
    tall = drawn(plots.plot_curves, history(), stacked=True)
    assert tall.shape[0] > tall.shape[1]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"step": 1, "split": "train", "loss": 1.0}],
        [{"step": s, "split": "train", "loss": None, "learning_rate": 0.1} for s in (1, 2)],
        [{"step": 5, "split": "val", "loss": float("nan"), "miou": None}],
        [{"step": 5, "split": "val", "loss": 0.3, "miou": 0.4}],
    ],
)
def test_curves_of_odd_histories(rows):
    assert drawn(plots.plot_curves, rows).shape[2] == 3


def test_confusion_shows_percent_of_the_row_and_an_empty_row(figures):
    confusion = np.array([[3, 1, 0], [0, 0, 0], [1, 0, 1]])
    drawn(plots.plot_confusion, confusion, from_names(["a", "b", "$c"]))
    axes = figures[0].axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {
        **{(0, 0): "75.0", (1, 0): "25.0", (2, 0): "0"},
        **{(0, 2): "50.0", (1, 2): "0", (2, 2): "50.0"},
    }
    assert "row = truth, column = prediction" in axes.get_title(loc="left")
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b", "$c"]
    drawn_rows = np.ma.getmaskarray(axes.images[0].get_array()).all(1)
    np.testing.assert_array_equal(drawn_rows, [False, True, False])


@pytest.mark.parametrize("k", [1, 21, 150])
def test_confusion_of_few_and_many_classes(k, figures):
    picture = drawn(plots.plot_confusion, np.eye(k, dtype=np.int64), numbered(k))
    assert 300 < picture.shape[0] < 4000
    assert len(figures[0].axes[0].texts) == (1 if k == 1 else 0)


def test_confusion_must_fit_the_classes():
    with pytest.raises(ValueError, match=r"7 classes need \(7, 7\)"):
        plots.plot_confusion(np.eye(6), IDD_LEVEL1, io.BytesIO())


def test_class_iou_bars_have_the_values_and_the_palette(figures):
    confusion = np.diag([5, 0, 3, 2, 2, 2, 2])
    confusion[0, 2] = 5
    drawn(plots.plot_class_iou, summarize(confusion), IDD_LEVEL1)
    axes = figures[0].axes[0]
    bars = sorted(axes.patches, key=lambda bar: bar.get_y())[:7]
    assert [round(bar.get_width(), 4) for bar in bars][:3] == [0.5, 0, 0.375]
    for bar, color in zip(bars, IDD_LEVEL1.palette, strict=True):
        np.testing.assert_allclose(bar.get_facecolor()[:3], np.array(color) / 255)
    assert "does not occur" in axes.texts[1].get_text()
    assert axes.texts[0].get_text() == "0.5000"


def test_class_iou_without_any_class():
    drawn(plots.plot_class_iou, {"iou": [None] * 7, "miou": None}, IDD_LEVEL1)


def test_sample_grid_places_every_pixel():
    s = sample(height=30, width=100)
    grid = drawn(plots.sample_grid, [s, sample(height=20, width=90)], IDD_LEVEL1)
    zoom, gap = 4, 8
    assert grid.shape[1] == 4 * (400 + gap) + gap
    panels = [
        np.kron(p, np.ones((zoom, zoom, 1), np.uint8)) for p in plots.sample_panels(s, IDD_LEVEL1)
    ]
    # The row starts below the titles and the name.
    top = next(y for y in range(100) if (grid[y, gap : gap + 400] == panels[0][0]).all())
    for i, panel in enumerate(panels):
        left = gap + i * (400 + gap)
        np.testing.assert_array_equal(grid[top : top + 120, left : left + 400], panel)
    legend = grid[top + 120 + 80 :]
    for color in (*IDD_LEVEL1.palette, plots.WRONG):
        assert (legend == color).all(-1).any()


def test_sample_grid_stays_below_its_bound(tmp_path):
    path = tmp_path / "grid.png"
    plots.sample_grid([sample(120, 200)] * 2, CAMVID, path, max_bytes=150_000)
    assert path.stat().st_size <= 150_000
    assert Image.open(path).size[0] < 4 * 208 + 8


def test_sample_grid_without_samples_or_with_an_odd_name():
    with pytest.raises(ValueError, match="at least one sample"):
        plots.sample_grid([], CAMVID, io.BytesIO())
    drawn(plots.sample_grid, [{**sample(4, 6), "name": "$x_{", "miou": float("nan")}], IDD_LEVEL1)


def test_legend_of_many_classes_shows_those_that_occur():
    s = sample(k=7)
    assert plots.classes_shown([s], CAMVID) == list(range(11))
    assert plots.classes_shown([s], numbered(150)) == list(range(7))
    assert plots.classes_shown([], numbered(150)) == []
