"""The presets that bear a source's name have its values, or their config's head says which not."""

import importlib
import re
from collections.abc import Mapping

import ml_collections
import pytest

from tests.configs import published

SECTIONS = "augment|data|loss|model|optim|train"


def module_of(name):
    return importlib.import_module(f"configs.{name.partition(':')[0]}")


def config_of(name):
    return module_of(name).get_config(name.partition(":")[2])


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
    return set(re.findall(rf"\b(?:{SECTIONS})\.[a-z_]+\b", found[1])) if found else set()


@pytest.mark.parametrize("name", published.TABLE)
def test_a_preset_has_its_sources_values_or_its_head_names_the_difference(name):
    config, different = config_of(name), {}
    for option, wanted in published.options(name).items():
        found = value_of(config, option)
        if not same(found, wanted):
            different[option] = f"{found!r}, and in its source {wanted!r}"
    named = named_as_different(name)
    unnamed = {option: text for option, text in different.items() if option not in named}
    assert not unnamed, f"{name}: the head of the config does not name {unnamed}"
    stale = named - different.keys()
    assert not stale, f"{name}: the head of the config says that {sorted(stale)} differ"


@pytest.mark.parametrize("name", published.TABLE)
def test_a_head_lists_what_the_sources_say(name):
    lines = re.sub(r"\s+", " ", module_of(name).__doc__)
    for line in published.head(name).splitlines():
        assert re.sub(r"\s+", " ", line).strip() in lines, f"{name}: its head lacks {line!r}"


def test_a_difference_is_found_and_must_be_named():
    assert same((0.5, 2), (0.5, 2.0))
    assert same({"bias": 2.0}, {"bias": 2})
    assert same(5e-4, 0.0005)
    assert same(("norm",), ("norm",))
    assert not same(("encoder",), ("norm",))
    assert not same({"bias": 2.0, "head": 10.0}, {"bias": 2})
    assert not same((0.5, 2.0), (1.0, 2.0))
    assert not same("cross_entropy", "cross_entropy + 0.5 * lovasz")
