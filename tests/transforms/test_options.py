"""The options of random views: defaults, ranges, and what is refused."""

import dataclasses
import math

import pytest

from configs import base
from segjax.transforms.options import Augmentation

PLAIN = Augmentation(crop_size=(6, 10), scale=(1.0, 1.0), flip=False)


def changed(**options):
    return dataclasses.replace(PLAIN, **options)


def test_from_config():
    config = base.get_config()
    views = Augmentation.from_config(config)
    assert views.crop_size == (97, 193)
    assert (views.scale, views.flip, views.hue) == ((0.5, 2.0), True, 0.02)
    config.augment.crop_size = (64, 80)
    config.augment.rotate = 200.0
    with pytest.raises(ValueError, match=r"augment\.rotate=200\.0; use degrees in \[0, 180\]"):
        Augmentation.from_config(config)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"scale": (0.0, 1.0)}, r"augment\.scale=\(0\.0, 1\.0\)"),
        ({"scale": (2.0, 1.0)}, r"augment\.scale=\(2\.0, 1\.0\); use \(lowest, highest\)"),
        ({"crop_size": (0, 4)}, r"augment\.crop_size=\(0, 4\)"),
        ({"rotate": -1.0}, r"augment\.rotate=-1\.0; use degrees in \[0, 180\]"),
        (
            {"max_class_share": 0.0},
            r"augment\.max_class_share=0\.0; use a share in \(0, 1\]",
        ),
        ({"max_class_share": 75}, r"augment\.max_class_share=75"),
        ({"blur": 1.5}, r"augment\.blur=1\.5; use a probability in \[0, 1\]"),
        ({"brightness": 1.0}, r"augment\.brightness=1\.0; use a number in \[0, 1\)"),
        ({"contrast": -0.1}, r"augment\.contrast=-0\.1"),
        ({"saturation": 3}, r"augment\.saturation=3"),
        ({"hue": 0.6}, r"augment\.hue=0\.6; use a number of turns in \[0, 0\.5\]"),
        ({"scale": (1.0, math.inf)}, r"augment\.scale=\(1\.0, inf\)"),
        ({"aspect": (1.2, 0.9)}, r"augment\.aspect=\(1\.2, 0\.9\); use \(lowest, highest\)"),
        ({"noise": -0.1}, r"augment\.noise=-0\.1; use a standard deviation in \[0, 1\]"),
        ({"cutout": -1}, r"augment\.cutout=-1; use a number of squares from 0 to 64"),
        ({"cutout_size": 0.0}, r"augment\.cutout_size=0\.0; use a share .* in \(0, 1\]"),
        ({"colour_model": "rgb"}, r"augment\.colour_model='rgb'; use yiq or hsv"),
        ({"padding": "left"}, r"augment\.padding='left'; use around or centre or end"),
        ({"cutout_labels": "all"}, r"augment\.cutout_labels='all'; use kept or ignored"),
    ],
)
def test_bad_options_raise_naming_the_field(options, message):
    with pytest.raises(ValueError, match=message):
        changed(**options)


PROBABILITIES = [
    *(f"{name}_probability" for name in ("rotate", "flip", "noise", "cutout")),
    *(f"{name}_probability" for name in ("brightness", "contrast", "saturation", "hue")),
    *("flip_vertical", "quarter_turns", "blur", "cutmix", "classmix"),
]


@pytest.mark.parametrize("name", PROBABILITIES)
@pytest.mark.parametrize("value", [-0.1, 1.5, math.nan])
def test_probabilities_are_in_0_to_1(name, value):
    with pytest.raises(
        ValueError, match=rf"augment\.{name}={value}; use a probability in \[0, 1\]"
    ):
        changed(**{name: value})


def test_nan_is_refused_in_every_number():
    numbers = {
        field.name: math.nan
        for field in dataclasses.fields(PLAIN)
        if field.type in ("float", float)
    }
    numbers |= {"scale": (1.0, math.nan), "aspect": (math.nan, 1.0)}
    assert len(numbers) == 23
    for name, value in numbers.items():
        with pytest.raises(ValueError, match=rf"augment\.{name}="):
            changed(**{name: value})


def test_the_config_has_every_option_and_leaves_new_changes_off():
    options = base.get_config().augment.to_dict()
    fields = {field.name: field.default for field in dataclasses.fields(Augmentation)}
    assert set(options) == set(fields)
    differs = {name for name, value in options.items() if value != fields[name]}
    assert differs == {"crop_size", "brightness", "contrast", "saturation", "hue"}


def test_a_run_from_before_an_option_has_it_off():
    config = base.get_config().to_dict()
    old = ("crop_size", "scale", "rotate", "flip", "max_class_share", "blur", "hue")
    config["augment"] = {name: config["augment"][name] for name in old}
    assert Augmentation.from_config(config) == Augmentation((97, 193), hue=0.02)


@pytest.mark.parametrize("name", ["cutmix", "classmix"])
def test_a_batch_of_one_cannot_be_mixed(name):
    config = base.get_config()
    config.augment[name], config.train.batch_size = 0.5, 1
    with pytest.raises(ValueError, match=rf"augment\.{name}=0\.5.* train\.batch_size=1; use 2 or"):
        Augmentation.from_config(config)
