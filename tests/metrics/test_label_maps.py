"""The accumulator of images, through the metrics that are made of it."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from segjax.metrics.boundary import Boundaries, distance_to_boundary
from segjax.metrics.by_object import StratifiedIoU
from tests.metrics.test_boundary import blobs
from tests.metrics.test_by_object import patches

KINDS = pytest.mark.parametrize(
    ("kind", "classes", "draw"), [(Boundaries, 4, blobs), (StratifiedIoU, 3, patches)]
)


@KINDS
def test_threads_and_given_distances_give_the_same(kind, classes, draw):
    pairs = [draw(seed) for seed in range(8)]
    alone, together = kind(classes), kind(classes)
    for label, prediction in pairs:
        alone.add(label, prediction)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda p: together.add(*p, distance_to_boundary(p[0])), pairs))
    assert json.dumps(alone.summary()) == json.dumps(together.summary())


@KINDS
def test_parts_measured_in_several_processes_give_the_same(kind, classes, draw):
    pairs = [draw(seed) for seed in range(5)]
    alone, parts = kind(classes), [kind(classes) for _ in range(3)]
    for number, (label, prediction) in enumerate(pairs):
        alone.add(label, prediction)
        parts[number % 2].add(label, prediction)  # nothing in the last
    first, *others = (pickle.loads(pickle.dumps(part)) for part in parts)
    for other in others:
        first.merge(other)
    assert json.dumps(alone.summary()) == json.dumps(first.summary())
