"""The command init: a config for a folder, which then trains as it is."""

import importlib.util
import io
import json

import numpy as np
import pytest
from PIL import Image

from configs import base
from segjax.commands import init as command
from segjax.commands.init import init
from segjax.console import Console
from segjax.data.splits import Splits
from segjax.training.options import check_options
from segjax.weights import hub
from tests.data.drawn import photo


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine that reaches no network and takes half a second a step."""

    def unreachable(row, console=None):
        raise ConnectionError(row.full_name)

    monkeypatch.setattr(hub, "fetch", unreachable)
    monkeypatch.setattr(command, "_seconds_a_step", lambda setup: 0.5)


def folder(root, mask=lambda k: np.where(np.arange(400) < 40 + k, 255, 0)):
    for split, count in (("train", 5), ("val", 2)):
        for k in range(count):
            photo(root / f"images/{split}/p{k}.jpg", 300, 400)
            path = root / f"masks/{split}/p{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.tile(mask(k).astype(np.uint8), (300, 1))).save(path)
    return root


def started(root, **options):
    """The config that init writes, as a user's command reads it, and what it printed."""
    out = io.StringIO()
    path = init(root, base.get_config, console=Console(file=out, width=300), **options)
    spec = importlib.util.spec_from_file_location("written", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(), out.getvalue(), path


def test_black_and_white_masks(tmp_path):
    config, printed, path = started(folder(tmp_path / "mine"))
    assert path == tmp_path / "mine_config.py"
    check_options(config)
    data = Splits(config.data, config.seed)
    assert data.classes.names == ("background", "foreground")
    assert data.classes.raw_ids == (0, 255)
    share = data.looked_at("train").numbers.class_pixels / (5 * 300 * 400)
    assert share[1] == pytest.approx(np.mean([40, 41, 42, 43, 44]) / 400)
    assert data.looked_at("val").numbers.images == 2
    assert config.data.image_size == (192, 256), "the images' shape"
    assert tuple(config.data.label_size) == ("own",)
    assert config.loss.class_weights == "none"
    # 20 minutes of half a second a step would be 1,920 epochs of five images in fours.
    assert (config.train.batch_size, config.train.epochs) == (4, 300.0)
    assert config.init_from == ""
    assert "data.root looks like images/{split} with masks/{split}: train (5), val (2)" in printed
    assert "2 ids in 5 annotations or masks: 0 background, 255 foreground; change" in printed
    assert f"segjax --config={path}" in printed
    with pytest.raises(ValueError, match=r"mine_config\.py exists already; use another --output"):
        init(tmp_path / "mine", base.get_config)


def test_rare_classes_are_weighted_and_the_path_may_be_elsewhere(tmp_path):
    (tmp_path / "a").mkdir()
    root = folder(tmp_path / "b", lambda k: np.where(np.arange(400) < 3, 1, 0))
    config, _, _ = started(root, output=tmp_path / "a/x_config.py")
    assert config.loss.class_weights == "median_present"
    assert config.data.root == str(root)
    assert (tmp_path / "a/x_classes.csv").is_file()


def test_polygons_of_labelme_and_no_splits(tmp_path):
    root = tmp_path / "photos"
    for k in range(10):
        photo(root / f"p{k}.jpg", 60, 80)
        points = [[5, 5], [40 + k, 5], [40, 50]]
        shapes = [{"label": "crack", "shape_type": "polygon", "points": points}]
        text = {"shapes": shapes, "imagePath": f"p{k}.jpg", "imageHeight": 60, "imageWidth": 80}
        (root / f"p{k}.json").write_text(json.dumps(text))
    config, printed, _ = started(root)
    data = Splits(config.data, config.seed)
    assert data.classes.names == ("background", "crack")
    assert config.data.val_share == 0.3, "none of these names falls into 0.2"
    assert len(data.source("train")) + len(data.source("val")) == 10
    assert "2 labels of polygons in" in printed
    assert config.data.image_size == (64, 80), "not enlarged"


def test_a_folder_without_a_layout(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ValueError, match=r"notes\.txt"):
        init(tmp_path, base.get_config)
    with pytest.raises(ValueError, match=r"absent is no folder; use"):
        init(tmp_path / "absent", base.get_config)


def test_soft_edges_numbered_polygons_and_deep_images(tmp_path):
    soft = lambda k: np.clip((np.arange(400) - 100) * 20.0, 0, 255)  # noqa: E731
    config, printed, _ = started(folder(tmp_path / "soft", soft))
    assert (config.data.mask_threshold, tuple(config.data.ignore_ids)) == (128.0, ())
    assert "two values with soft edges: data.mask_threshold=128" in printed
    root = tmp_path / "yolo"
    for split in ("train", "val"):
        for k in range(3):
            deep = np.random.default_rng(k).integers(0, 4096, (40, 60, 5), np.uint16)
            (root / f"images/{split}").mkdir(parents=True, exist_ok=True)
            np.save(root / f"images/{split}/{split}{k}.npy", deep)
            (root / f"labels/{split}").mkdir(parents=True, exist_ok=True)
            (root / f"labels/{split}/{split}{k}.txt").write_text("1 0.1 0.1 0.9 0.1 0.9 0.9\n")
    config, _, _ = started(root)
    names = Splits(config.data, config.seed).classes.names
    assert names == ("background", "class 0", "class 1")
    assert (config.data.channels, tuple(config.data.value_range)) == (5, ("auto",))


def test_a_step_is_measured(tmp_path, monkeypatch):
    monkeypatch.undo()
    states = iter(range(9))

    class Setup:
        def train_step(self):
            return lambda state, batch: (next(states), {})

        def init_state(self):
            return 0

        def abstract_batch(self):
            return {}

    assert 0 < command._seconds_a_step(Setup()) < 1
    assert next(states) == 4
