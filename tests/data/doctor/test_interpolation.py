"""Interpolated masks are told from honest ones."""

import numpy as np
import pytest
from PIL import Image

from segjax.data.doctor.interpolation import looks_interpolated, total, transitions
from segjax.data.streets.dataset import Streets
from tests.data.drawn import uint8

FILTERS = Image.Resampling


def brute_force(ids):
    """Row by row and column by column, pixel by pixel."""
    ramps = thin = clean = 0
    for line in [*ids.tolist(), *ids.T.tolist()]:
        for a, b, c in zip(line, line[1:], line[2:], strict=False):
            ramps += min(a, c) < b < max(a, c)
            thin += b not in (a, c) and a != c
        for a, b, c, d in zip(line, line[1:], line[2:], line[3:], strict=False):
            clean += a == b and c == d and abs(b - c) >= 2
    return ramps, thin, clean


def test_transitions_by_hand():
    found = transitions(uint8([1, 1, 4, 8, 8, 8, 2, 2, 1]))
    # 4 is between 1 and 8; 8 to 2 is clean; 2 to 1 is a step of one.
    assert found == (1, 1, 1, {4: 1})
    assert transitions(uint8([1], [1], [4], [8], [8], [8], [2], [2], [1])) == found
    assert transitions(uint8([5, 9, 2])) == (0, 1, 0, {}), "thin, but outside its neighbours' range"
    assert transitions(uint8([5, 9, 5])) == (0, 0, 0, {}), "a pole before one class"


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_transitions_agree_with_brute_force(dtype):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 5, (40, 30)).repeat(rng.integers(1, 3, 40), 0).astype(dtype)
    ids = ids * (200 if dtype == np.int32 else 50)
    assert transitions(ids)[:3] == brute_force(ids)
    parts = [transitions(ids), transitions(ids[:, ::2])]
    assert total(parts)[:3] == tuple(np.add(brute_force(ids), brute_force(ids[:, ::2])))
    assert sum(total(parts).ramp_ids.values()) == total(parts).ramps


@pytest.fixture(scope="module")
def masks():
    scenes = Streets("train", (120, 240), length=6, seed=1)
    return [scenes[i]["label"] for i in range(6)]


@pytest.mark.parametrize("zoom", [0.25, 0.5, 0.75, 1, 1.33, 2, 4])
def test_nearest_neighbour_is_never_accused(masks, zoom):
    size = round(240 * zoom), round(120 * zoom)
    for mask in masks:
        resized = Image.fromarray(mask).resize(size, FILTERS.NEAREST)
        assert not looks_interpolated(transitions(np.asarray(resized)))


@pytest.mark.parametrize(
    "kind, zoom",
    [
        (kind, zoom)
        for kind in ("BOX", "BILINEAR", "BICUBIC", "LANCZOS")
        for zoom in (0.25, 0.5, 0.75, 1.33, 2, 4)
        if kind != "BOX" or zoom < 1  # enlarging, a box is nearest neighbour
    ],
)
def test_filters_are_found_in_a_set_of_masks(masks, kind, zoom):
    size = round(240 * zoom), round(120 * zoom)
    resized = [Image.fromarray(m).resize(size, FILTERS[kind]) for m in masks]
    assert looks_interpolated(total(transitions(np.asarray(m)) for m in resized))


def test_a_few_pixels_prove_nothing():
    assert not looks_interpolated(transitions(uint8([1, 4, 8, 8])))
    assert looks_interpolated(transitions(uint8([1, 4, 8, 8]).repeat(40, 0)))
