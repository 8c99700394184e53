"""What is said of versions is the same in each place, and the tests run with any of them."""

import re
import tomllib
from pathlib import Path

import jaxlib
import pytest

from tests.conftest import quick_flags

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = " ".join((ROOT / "README.md").read_text().split())
# Python to jax, as in "on 3.12 with jax 0.11.2".
TESTED = dict(re.findall(r"on (?:Python )?(3\.\d+) with jax ([\d.]*\d)", README))


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def lower_bounds() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text()
    return dict(re.findall(r"^([\w-]+)>=([\d.]+)", lines, re.MULTILINE))


def test_pythons_are_the_same_everywhere():
    """In README, in pyproject.toml, and in what CI runs: the oldest and the newest."""
    pythons = sorted(TESTED, key=numbers)
    assert PROJECT["requires-python"] == f">={pythons[0]}"
    name = "Programming Language :: Python :: "
    classified = [c.removeprefix(name) for c in PROJECT["classifiers"] if c.startswith(name)]
    assert classified == pythons
    assert f"Python {pythons[0]} to {pythons[-1]}" in README
    run = (ROOT / ".ci" / "run").read_text()
    assert set(re.findall(r"find_python python([\d.]+)", run)) == {pythons[0], pythons[-1]}


def test_jax_is_the_same_everywhere():
    """The lower bound is what the oldest Python is tested with; the newest minor is the last."""
    oldest, *_, newest = sorted(TESTED.values(), key=numbers)
    requirements = (ROOT / "requirements.txt").read_text()
    major, minor = numbers(newest)[:2]
    assert f"\njax>={oldest},<{major}.{minor + 1}\n" in requirements
    assert f"jax {oldest} and flax {lower_bounds()['flax']}" in README


@pytest.mark.parametrize(
    ("version", "known"),
    [("0.10.2", True), ("0.11.1", False), ("0.12.0.1", False), ("0.13.0.dev20270101", False)],
)
def test_flags_that_jaxlib_does_not_know_are_not_set(version, known):
    assert ("fusion_emitters" in quick_flags(version)) == known
    assert "--xla_backend_optimization_level=0" in quick_flags(jaxlib.__version__)
