"""The procedural street scenes: reproducible, disjoint, varied, not solvable by colour alone."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from segjax import metrics
from segjax.data.class_lists import IDD_LEVEL1
from segjax.data.classes import IGNORE
from segjax.data.streets import dataset as streets
from segjax.data.streets.dataset import Streets, render

NUM_CLASSES = len(IDD_LEVEL1)


@pytest.fixture(scope="module")
def sixty():
    source = Streets("train", (64, 128), length=60)
    samples = [source[i] for i in range(len(source))]
    return np.stack([s["image"] for s in samples]), np.stack([s["label"] for s in samples])


def test_a_scene_is_the_same_in_a_fresh_process_whatever_is_drawn_before():
    render(4, 9, (31, 40))
    image, label = render(11, 2, (40, 60), split="val")
    code = (
        "import sys; from segjax.data.streets.dataset import render; "
        "image, label = render(11, 2, (40, 60), split='val'); "
        "sys.stdout.buffer.write(image.tobytes() + label.tobytes())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout == image.tobytes() + label.tobytes()


@pytest.mark.parametrize(
    "split, colour, pixels",
    [
        ("train", (115.6, 116.4, 114.2), [2211, 791, 1153, 435, 831, 1720, 1051, 0]),
        ("val", (116.8, 110.9, 98.2), [1599, 671, 1079, 784, 941, 1749, 1057, 312]),
        ("test", (110.2, 117.1, 114.1), [1701, 210, 1794, 1025, 1165, 1570, 701, 26]),
    ],
)
def test_scenes_are_pinned(split, colour, pixels):
    """Results name a seed and mean these pictures: mean colour, pixels of each class and void."""
    image, label = render(3, 1, (64, 128), split=split)
    np.testing.assert_allclose(image.mean((0, 1)), colour, atol=0.2)
    counts = np.bincount(label.ravel(), minlength=256)[[*range(NUM_CLASSES), IGNORE]]
    np.testing.assert_allclose(counts, pixels, atol=10)


@pytest.mark.parametrize(
    "seed, index, split", [(0, 2, "train"), (1, 1, "train"), (0, 1, "val"), (0, 1, "test")]
)
def test_index_seed_and_split_each_give_another_scene(seed, index, split):
    other = render(seed, index, (48, 96), split=split)[1]
    assert (render(0, 1, (48, 96))[1] != other).mean() > 0.1


@pytest.mark.parametrize("size", [(16, 16), (97, 131), (96, 192), (120, 80), (17, 300)])
def test_shapes_types_and_values(size):
    image, label = render(0, 4, size)
    assert image.shape == (*size, 3)
    assert label.shape == size
    assert image.dtype == label.dtype == np.uint8
    assert set(np.unique(label)) <= {*range(NUM_CLASSES), IGNORE}
    assert image.std() > 10


@pytest.mark.parametrize("index", range(6))
def test_size_changes_resolution_not_the_scene(index):
    small_image, small = render(0, index, (64, 128))
    large_image, large = render(0, index, (128, 256))
    assert (large[1::2, 1::2] == small).mean() > 0.9
    blocks = large_image.reshape(64, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(blocks - small_image).mean() < 20


def test_shares_of_the_classes(sixty):
    labels = sixty[1]
    bands = {
        "drivable": (0.20, 0.35),
        "non-drivable": (0.06, 0.15),
        "living things": (0.06, 0.14),
        "vehicles": (0.06, 0.15),
        "roadside objects": (0.09, 0.18),
        "far objects": (0.15, 0.30),
        "sky": (0.09, 0.20),
    }
    for class_id, name in enumerate(IDD_LEVEL1.names):
        low, high = bands[name]
        shares = (labels == class_id).mean((1, 2))
        assert low < shares.mean() < high, name
        # In most scenes at least 0.3% of the picture, 24 pixels here: not a sliver.
        assert (shares > 0.003).mean() >= 0.85, name
    assert 0.01 < (labels == IGNORE).mean() < 0.04


def test_people_and_animals_are_large_enough_to_learn(sixty):
    living = sixty[1] == IDD_LEVEL1.names.index("living things")
    rows = living.any(2).sum(1) / living.shape[1]
    assert np.median(rows) > 0.2
    # A pixel whose four neighbours are living too lies inside a body, not on a sliver.
    inside = living[:, 1:-1, 1:-1] & living[:, :-2, 1:-1] & living[:, 2:, 1:-1]
    inside &= living[:, 1:-1, :-2] & living[:, 1:-1, 2:]
    assert inside.sum() > 0.3 * living.sum()


def test_labels_lie_on_the_picture(sixty):
    images, labels = sixty
    rows = np.broadcast_to(np.arange(64)[:, None], labels.shape[1:])
    sky, road = (labels == 6), (labels == 0)
    brighter = [i[s].mean() > i[r].mean() for i, s, r in zip(images, sky, road, strict=True)]
    assert np.mean(brighter) > 0.9
    for s, r in zip(sky, road, strict=True):
        assert rows[s].mean() < rows[r].mean()
    # Where the class changes, so does the colour; inside a class it changes less.
    step = np.abs(np.diff(images.astype(int), axis=2)).mean(-1)
    edge = labels[:, :, 1:] != labels[:, :, :-1]
    assert step[edge].mean() > 2 * step[~edge].mean()


def test_colour_alone_does_not_give_the_class(sixty):
    images, labels = sixty[0].astype(float), sixty[1]
    valid = labels != IGNORE
    means = np.stack([images[labels == k].mean(0) for k in range(NUM_CLASSES)])
    distance = ((images[..., None, :] - means) ** 2).sum(-1)
    prediction = distance.argmin(-1)
    pairs = labels[valid].astype(int) * NUM_CLASSES + prediction[valid]
    confusion = np.bincount(pairs, minlength=NUM_CLASSES**2).reshape(NUM_CLASSES, NUM_CLASSES)
    assert metrics.mean_iou(confusion)[0] < 0.35


def test_light_varies_between_scenes(sixty):
    assert sixty[0].mean((1, 2, 3)).std() > 12


def test_source():
    source = Streets("val", (32, 64), length=3, seed=2)
    assert len(source) == 3
    assert source.classes is IDD_LEVEL1
    sample = source[2]
    assert sorted(sample) == ["image", "label", "name"]
    assert sample["name"] == "streets_val_00002"
    image, label = render(2, 2, (32, 64), split="val")
    np.testing.assert_array_equal(sample["image"], image)
    np.testing.assert_array_equal(sample["label"], label)
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[2]["image"], image)
    assert len(list(source)) == 3  # ends by IndexError
    with pytest.raises(IndexError, match=r"index -1 .*0\.\.2"):
        source[-1]


def test_nothing_is_drawn_before_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(streets, "render", None)
    assert len(Streets("train", (4096, 8192), length=10**9)) == 10**9


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"split": "trian"}, r"split 'trian'.*train, val, test"),
        ({"image_size": (15, 64)}, r"image_size=\(15, 64\).*16 or more"),
        ({"image_size": (64, 8)}, r"image_size=\(64, 8\).*16 or more"),
        ({"image_size": (64, 64, 3)}, r"image_size=\(64, 64, 3\).*height, width"),
        ({"length": 0}, r"length=0.*at least 1"),
        ({"seed": -1}, r"seed=-1.*0 or more"),
    ],
)
def test_bad_arguments(arguments, message):
    good = {"split": "train", "image_size": (32, 64), "length": 4}
    with pytest.raises(ValueError, match=message):
        Streets(**{**good, **arguments})
