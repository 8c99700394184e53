"""The presets that bear a source's name have its values, or their config's head says which not."""

import importlib
import re
from collections.abc import Mapping

import ml_collections
import pytest

from tests.configs import published

# Options and presets that are not there yet: remove a name once it is.
PENDING_OPTIONS = {
    "loss.terms",
    "optim.lr_scale",
    "optim.decay_scale",
    "optim.eta_min",
    "train.freeze",
    "augment.rotate_probability",
    "augment.aspect",
    "augment.antialias",
    "augment.padding",
    "augment.colour_model",
    "augment.brightness_probability",
    "augment.contrast_probability",
    "augment.saturation_probability",
    "augment.hue_probability",
}
PENDING_PRESETS = {
    "largefov:voc",
    "pspnet:semseg",
    "pspnet:idd_lite",
    "deeplabv3:paper_stage2",
    "deeplabv3:mmseg",
    "deeplabv3:idd_lite",
}


def module_of(name):
    return importlib.import_module(f"configs.{name.partition(':')[0]}")


def config_of(name):
    """The preset; skips where it is still to come."""
    preset = name.partition(":")[2]
    if preset not in module_of(name).PRESETS:
        assert name in PENDING_PRESETS, f"configs have no preset {name}"
        pytest.skip(f"{name} is still to come")
    assert name not in PENDING_PRESETS, f"{name} is there: take it from PENDING_PRESETS"
    return module_of(name).get_config(preset)


def value_of(config, option):
    """The value of "section.option" as the table writes it."""
    section, name = option.split(".")
    value = config[section][name]
    if name.endswith("_scale") and isinstance(value, str):  # "head=10,bias=2"
        pairs = (part.split("=") for part in value.split(",") if part)
        return {part.strip(): float(factor) for part, factor in pairs}
    if isinstance(value, Mapping | ml_collections.ConfigDict):
        return dict(value)
    if option == "loss.terms":
        return value.replace(" ", "")
    return tuple(value) if isinstance(value, list | tuple) else value


def same(found, wanted):
    if isinstance(wanted, str):
        return found == wanted.replace(" ", "")
    if isinstance(wanted, float) or (isinstance(wanted, tuple) and wanted):
        return found == pytest.approx(wanted, rel=1e-6) if not _texts(wanted) else found == wanted
    return found == wanted


def _texts(value):
    return isinstance(value, tuple) and isinstance(value[0], str)


def named_as_different(name):
    """The options that the head of a config says are different in a preset."""
    preset = name.partition(":")[2]
    found = re.search(
        rf"^Different in {preset}: (.*?)(?=\n\S|\Z)", module_of(name).__doc__, re.M | re.S
    )
    return set(re.findall(r"\b[a-z]+\.[a-z_]+\b", found[1])) if found else set()


@pytest.mark.parametrize("name", published.TABLE)
def test_a_preset_has_its_sources_values_or_its_head_names_the_difference(name):
    config, different, compared = config_of(name), {}, set()
    for option, wanted in published.options(name).items():
        section, _, last = option.partition(".")
        if last not in config[section]:
            assert option in PENDING_OPTIONS, f"{name}: configs have no option {option}"
            continue
        compared.add(option)
        found = value_of(config, option)
        if not same(found, wanted):
            different[option] = f"{found!r}, and in its source {wanted!r}"
    named = named_as_different(name) & (compared | set(published.options(name)) - PENDING_OPTIONS)
    unnamed = {option: text for option, text in different.items() if option not in named}
    assert not unnamed, f"{name}: the head of the config does not name {unnamed}"
    stale = named - different.keys()
    assert not stale, f"{name}: the head of the config says that {sorted(stale)} differ"


@pytest.mark.parametrize("name", published.TABLE)
def test_a_head_lists_what_the_sources_say(name):
    config_of(name)  # skips
    lines = re.sub(r"\s+", " ", module_of(name).__doc__)
    for line in published.head(name).splitlines():
        assert re.sub(r"\s+", " ", line).strip() in lines, f"{name}: its head lacks {line!r}"


def test_nothing_that_is_there_is_still_to_come():
    plain = importlib.import_module("configs.base").get_config("segnet")
    there = {o for o in PENDING_OPTIONS if o.partition(".")[2] in plain[o.partition(".")[0]]}
    assert not there, f"take these from PENDING_OPTIONS: {', '.join(sorted(there))}"


def test_a_difference_is_found_and_must_be_named():
    assert same((0.5, 2), (0.5, 2.0))
    assert same({"bias": 2.0}, {"bias": 2})
    assert same(5e-4, 0.0005)
    assert same(("norm",), ("norm",))
    assert not same(("encoder",), ("norm",))
    assert not same({"bias": 2.0, "head": 10.0}, {"bias": 2})
    assert not same((0.5, 2.0), (1.0, 2.0))
    assert not same("cross_entropy", "cross_entropy + 0.5 * lovasz")
