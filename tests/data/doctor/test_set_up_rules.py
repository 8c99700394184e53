"""Set-ups that learn little or nothing are named, and others are not."""

import numpy as np
import pytest

from configs import base, pspnet
from segjax.data.classes import from_names
from segjax.data.doctor import ERROR, WARNING, diagnose
from tests.data.drawn import Drawn, uint8

HALVES = uint8(*[[0, 0, 0, 1, 1, 1]] * 4)
NOISE = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def found(names="ab", label=HALVES, image=NOISE, config=None, **options):
    """The findings about one split, by code; options are "section.name"."""
    config = config or base.get_config("pspnet")
    config.data.image_size = image.shape[:2] if config.data.name == "streets" else (145, 289)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in options.items()})
    sources = {"train": Drawn([label] * 2, from_names(list(names)), image=image)}
    return {f.code: f for f in diagnose(sources, config=config).findings}


def test_one_class_of_a_softmax():
    finding = found("a", 0 * HALVES)["one-class"]
    assert finding.severity == ERROR
    assert "--config.data.classes=background,a" in finding.remedy
    assert "one-class" not in found()


@pytest.mark.parametrize(
    "weights, severity, line",
    [
        ("1,0,0", WARNING, "b: 24 pixels"),
        ((0.0, 0.0, 1.0), ERROR, "a: 24 pixels"),
        ("1,1,0", None, ""),  # c never occurs
        ("median_present", None, ""),
        ("1,1", None, ""),  # refused when weights are read
    ],
)
def test_weights_of_0(weights, severity, line):
    config = base.get_config("pspnet")
    config.loss.class_weights = "none"
    with config.unlocked(), config.ignore_type():
        config.loss.class_weights = weights
    finding = found("abc", config=config).get("zero-weight")
    assert (finding and finding.severity) == severity
    assert finding is None or finding.found[0] == line


@pytest.mark.parametrize(
    "options, code, words",
    [
        ({"train__freeze": ("encoder",)}, "frozen-at-random", "train.freeze=encoder keeps random"),
        ({"train__freeze": ("encoder",), "init_from": "imagenet"}, None, ""),
        (
            {"train__ema_decay": 0.999, "train__steps": 100},
            "long-average",
            "train.ema_decay=0.999 over 100 steps: 90% of the average",
        ),
        ({"train__ema_decay": 0.999, "train__steps": 9000}, None, ""),
        ({"train__ema_decay": 0.999, "train__steps": 9, "train__ema_warmup": True}, None, ""),
    ],
)
def test_options_that_leave_the_first_weights(options, code, words):
    findings = found(**options)
    assert {"frozen-at-random", "long-average"} & findings.keys() == ({code} if code else set())
    assert code is None or words in findings[code].title


def test_the_toy_of_the_street_scenes_on_photos():
    config = pspnet.get_config()
    photo = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    label = np.zeros((600, 800), np.uint8)
    label[:5, :9] = 1  # 45 pixels, of which 3 are left on the canvas
    label[300:] = 2
    config.data.name = "folder"
    findings = found("abc", label, photo, config)
    toy = findings["toy-network"]
    assert toy.severity == findings["canvas-size"].severity == WARNING
    assert toy.title.startswith("model.width=0.25 at 145x289 is made for the small drawn street")
    assert toy.title.endswith("these images are 600x800")
    for option in ("width=1", "image_size=(600, 800)", "crop_size=(480, 480)"):
        assert option in toy.remedy
    config.model.width = 1.0
    assert "toy-network" not in found("abc", label, photo, config)


def test_a_class_that_the_canvas_shrinks_away():
    label = np.zeros((200, 300), np.uint8)
    label[:10, :10], label[100:] = 1, 2
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    config = base.get_config("pspnet")
    config.data.name = "folder"
    config.data.image_size = (60, 90)
    sources = {"train": Drawn([label], from_names("abc"), image=image)}
    (finding,) = (f for f in diagnose(sources, config=config).findings if f.code == "canvas-size")
    assert finding.severity == WARNING
    assert finding.title == "train: data.image_size=60x90 shrinks 1 classes to a few pixels"
    assert finding.found[-1] == "b: 100 pixels an image, 9 on the canvas (median)"
    config.data.image_size = (140, 210)
    assert "canvas-size" not in {f.code for f in diagnose(sources, config=config).findings}


def test_names_that_are_rows_of_a_file():
    rows = ["Pixel Value Class", "0 background", "class r g b", "id name", "64 128 64", "cat:4::"]
    rows += ["__ignore__", "tree 1 2 3", "name;r;g;b"]
    names = ["class 1", "tv/monitor", "potted plant", "building, edifice", "T-1000", "0", "road r"]
    for name in rows:
        assert found([name, "b"])["class-names"].severity == WARNING, name
    for name in names:
        assert "class-names" not in found([name, "b"]), name
