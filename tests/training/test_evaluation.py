"""Evaluation of a split with a step that needs no model, and the evaluation's file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.data.fitted import FittedDataset
from segjax.metrics.confusion import ImageConfusions, confusion_matrix, mean_iou
from segjax.training import evaluation
from segjax.training.evaluation import Evaluation, evaluate, evaluated_splits, evaluation_path
from segjax.training.mesh import make_devices

K, SIZE = 3, (4, 6)
NONE = {"none": {"x": np.zeros(1)}}  # pmap of JAX 0.10 fails without any array
ONE = {"mode": "jit", "data": 1, "space": 1, "shard_optimizer": False}


class Scenes:
    """Labels drawn from the index; the image's red channel holds the prediction of `step`."""

    def __init__(self, length: int):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        label = rng.integers(0, K, SIZE).astype(np.uint8)
        guess = np.where(rng.random(SIZE) < 0.5, label, rng.integers(0, K, SIZE))
        label[0] = 255
        image = np.zeros((*SIZE, 3), np.uint8)
        image[..., 0] = guess
        return {"image": image, "label": label, "name": f"scene {index}"}


def step(variables, batch):
    """The outputs of an evaluation step whose loss is 0.25 for every labelled pixel."""
    label, guess = batch["label"].astype(jnp.int32), batch["image"][..., 0]
    confusion = jax.vmap(confusion_matrix, (0, 0, None))(label, guess, K)
    pixels = jnp.sum(label < K)
    return {"confusion": confusion}, {"loss_sum": 0.25 * pixels, "pixels": pixels}


def matrices(source):
    samples = [source[i] for i in range(len(source))]
    return np.stack([confusion_matrix(s["label"], s["image"][..., 0], K) for s in samples])


def evaluated(length=5, batch_size=2, **options) -> Evaluation:
    devices = make_devices({**ONE, **options})
    program, canvas = devices.compile_eval(step), FittedDataset(Scenes(length), SIZE, cache_mb=1)
    evaluate(program, NONE, canvas, batch_size, devices)  # then its samples are cached
    return evaluate(program, NONE, canvas, batch_size, devices)


@pytest.mark.parametrize(
    "length, batch_size, options",
    [
        (5, 2, {}),
        (4, 2, {}),
        (1, 3, {}),
        (5, 3, {"data": 4}),  # a batch of 3 does not divide over 4 devices
        (5, 3, {"data": 4, "mode": "pmap"}),
        (5, 2, {"data": 2, "space": 4}),
    ],
)
def test_every_image_once_with_its_name(length, batch_size, options):
    result, expected = evaluated(length, batch_size, **options), matrices(Scenes(length))
    assert list(result.names) == [f"scene {i}" for i in range(length)]
    for result_matrix, matrix in zip(result.confusions, expected, strict=True):
        np.testing.assert_array_equal(result_matrix, matrix)
    np.testing.assert_array_equal(result.confusion, expected.sum(0))
    np.testing.assert_allclose(result.image_miou, [mean_iou(m)[0] for m in expected])
    summary = result.summary()
    assert summary["images"] == length
    assert summary["loss"] == pytest.approx(0.25)
    assert summary["miou"] == mean_iou(expected.sum(0))[0]


def test_stops_when_asked():
    devices, asked = make_devices(ONE), iter(["", "SIGTERM"])
    canvas = FittedDataset(Scenes(9), SIZE)
    stop = lambda: next(asked)  # noqa: E731  a third call would raise
    assert evaluate(devices.compile_eval(step), NONE, canvas, 2, devices, stop=stop) is None


def test_file_and_back(tmp_path):
    result, path = evaluated(), evaluation_path(tmp_path, "test[:10%]")
    result.save(path)
    back = Evaluation.load(path)
    assert back.names == list(result.names)
    assert back.summary() == result.summary()
    for ours, theirs in zip(back.confusions, result.confusions, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [p.name for p in path.parent.iterdir()] == ["test%5B%3A10%25%5D.npz"]
    evaluated(2).save(path)  # over the old one
    assert len(Evaluation.load(path).names) == 2
    assert evaluated_splits(tmp_path) == ["test[:10%]"]


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = evaluation_path(tmp_path, "val")
    evaluated(2).save(path)

    def half(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(evaluation.np, "savez_compressed", half)
    with pytest.raises(OSError, match="disk full"):
        evaluated(5).save(path)
    assert len(Evaluation.load(path).names) == 2
    assert evaluated_splits(tmp_path) == ["val"]
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "change, message",
    [
        ({"names": np.array(["a"])}, "1 names, 6 starts"),
        ({"cells": np.full(3, 1)}, "3 cells"),
        ({"starts": np.array([0, 9, 3, 9, 9, 9])}, "do not follow one another"),
        ({"num_classes": 2}, "outside 2 x 2"),
        ({"counts": None}, "KeyError"),
        ({"cells": np.array([["x"]])}, "dimensions"),
        ({"loss": np.array("high")}, "could not convert"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_damaged_file(tmp_path, change, message):
    path = tmp_path / "val.npz"
    evaluated().save(path)
    with np.load(path) as file:
        arrays = {**dict(file), **change}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ValueError, match=rf"val\.npz cannot be read \(.*{message}.*evaluate"):
        Evaluation.load(path)


@pytest.mark.parametrize(
    "content, message",
    [
        (None, r"there is no evaluation .*val\.npz; write it with"),
        (200, r"read \(File is not a zip"),
    ],
)
def test_no_file_and_half_of_one(tmp_path, content, message):
    path = tmp_path / "val.npz"
    if content:
        evaluated().save(path)
        path.write_bytes(path.read_bytes()[:content])
    with pytest.raises(ValueError, match=message):
        Evaluation.load(path)


def test_names_and_matrices_belong_together():
    with pytest.raises(ValueError, match="1 names for 2 images"):
        Evaluation(["a"], ImageConfusions.from_dense(np.zeros((2, K, K), int)), 0.0)
