"""The dense CRF against sums over all pairs of pixels, and against its authors' own code."""

import concurrent.futures
import pathlib

import numpy as np
import pytest
import scipy.spatial
import scipy.special

from segjax.data.streets.dataset import Streets
from segjax.inference.crf import DenseCRF, dense_crf, lattice_filter

GOLDEN = pathlib.Path(__file__).parents[1] / "goldens" / "crf.npz"
SIZE, K = (40, 56), 7
NEGLIGIBLE = 1e-30  # a weight; 0 is refused


def street() -> tuple[np.ndarray, np.ndarray]:
    """A street scene, and probabilities of its classes as of a network that is often wrong."""
    sample = Streets("val", SIZE, length=1)[0]
    rng = np.random.default_rng(0)
    right = np.eye(K)[np.minimum(sample["label"], K - 1)]
    scores = 2 * right + rng.normal(size=(*SIZE, K))
    return scipy.special.softmax(scores, -1).astype(np.float32), sample["image"]


def exact(probabilities: np.ndarray, image: np.ndarray, options: DenseCRF) -> np.ndarray:
    """Mean-field inference with every pair of pixels, in float64."""
    height, width, classes = probabilities.shape
    where = [(y, x) for y in range(height) for x in range(width)]
    distance = scipy.spatial.distance.cdist(where, where, "sqeuclidean")
    colours = image.reshape(height * width, -1).astype(float)
    difference = scipy.spatial.distance.cdist(colours, colours, "sqeuclidean")
    gaussian = np.exp(-distance / (2 * options.gaussian_std**2))
    bilateral = np.exp(
        -distance / (2 * options.bilateral_spatial_std**2)
        - difference / (2 * options.bilateral_color_std**2)
    )
    weights = options.gaussian_weight, options.bilateral_weight
    pairwise = sum(
        weight * kernel / np.sqrt(np.outer(kernel.sum(0), kernel.sum(0)))
        for weight, kernel in zip(weights, (gaussian, bilateral), strict=True)
    )
    unary = np.log(probabilities.reshape(-1, classes).astype(float))
    refined = scipy.special.softmax(unary, 1)
    for _ in range(options.iterations):
        refined = scipy.special.softmax(unary + pairwise @ refined, 1)
    return refined.reshape(probabilities.shape)


@pytest.mark.parametrize(
    "options",
    [
        DenseCRF(),
        DenseCRF(bilateral_spatial_std=8, bilateral_color_std=20),
        DenseCRF(iterations=3, gaussian_weight=1, gaussian_std=1.5, bilateral_weight=2),
    ],
)
def test_inference_is_that_of_all_pairs_up_to_the_lattice(options):
    probabilities, image = street()
    wanted, found = exact(probabilities, image, options), dense_crf(probabilities, image, options)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    changed = np.mean(wanted.argmax(-1) != probabilities.argmax(-1))
    assert changed > 0.1
    assert np.abs(found - wanted).mean() < 0.005
    assert np.mean(found.argmax(-1) == wanted.argmax(-1)) > 0.99


def test_the_gaussian_kernel_alone_is_exact():
    probabilities, image = street()
    options = DenseCRF(bilateral_weight=NEGLIGIBLE, gaussian_weight=5, gaussian_std=2.5)
    wanted = exact(probabilities, image, options)
    np.testing.assert_allclose(dense_crf(probabilities, image, options), wanted, atol=2e-5)


@pytest.mark.parametrize("iterations", [1, 10])
def test_the_bilateral_kernel_alone_is_the_authors_own(iterations):
    golden = np.load(GOLDEN)
    options = DenseCRF(iterations, NEGLIGIBLE, 3, 4, 9, 20)  # those of make_crf.py
    found = dense_crf(golden["probabilities"], golden["image"], options)
    wanted = golden[f"refined_{iterations}"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.abs(wanted - golden["probabilities"]).mean() > 0.1


@pytest.mark.parametrize("dims", [1, 2, 3, 5])
def test_the_lattice_sums_as_the_gaussian_does(dims):
    rng = np.random.default_rng(dims)
    features, values = rng.normal(0, 0.8, (600, dims)), rng.random((600, 2)).astype(np.float32)
    wanted = np.exp(-scipy.spatial.distance.cdist(features, features, "sqeuclidean") / 2) @ values
    found = lattice_filter(features)(values)
    found *= wanted.mean() / found.mean()  # weights have one common factor
    assert np.sqrt(np.mean((found - wanted) ** 2)) < 0.08 * np.sqrt(np.mean(wanted**2))


def test_the_lattice_s_weights_fall_with_distance_and_end():
    features = np.array([[0.0, 0], [1, 0], [2, 0], [6, 0]])
    weights = lattice_filter(features)(np.eye(4, dtype=np.float32))
    assert weights[0, 0] > weights[0, 1] > weights[0, 2] >= weights[0, 3] == 0


def test_it_mends_speckles_and_stops_at_edges():
    """Two halves of other colours; a tenth of the pixels is taken for the other half."""
    label = np.repeat([[0, 1]], 12, 0).repeat(12, 1)
    image = np.where(label[..., None] == 0, (200, 40, 40), (40, 40, 200)).astype(np.uint8)
    wrong = np.random.default_rng(0).random(label.shape) < 0.1
    probabilities = np.eye(2, dtype=np.float32)[np.where(wrong, 1 - label, label)] * 0.6 + 0.2
    assert wrong[:, 11:13].any()  # at the edge too
    np.testing.assert_array_equal(dense_crf(probabilities, image).argmax(-1), label)


def test_classes_are_treated_alike():
    probabilities, image = street()
    order = np.random.default_rng(1).permutation(K)
    found = dense_crf(probabilities[..., order], image)
    np.testing.assert_allclose(found, dense_crf(probabilities, image)[..., order], atol=1e-5)


def test_a_class_without_probability_and_images_of_one_channel_or_one_pixel():
    probabilities, image = street()
    probabilities[..., 3] = 0
    assert np.isfinite(dense_crf(probabilities, image)).all()
    grey = np.repeat(image[..., :1], 3, -1)
    options = DenseCRF(bilateral_color_std=10)
    spread = DenseCRF(bilateral_color_std=10 * 3**0.5)  # three equal channels differ thrice
    np.testing.assert_allclose(
        exact(probabilities + 1e-9, grey[..., :1], options),
        exact(probabilities + 1e-9, grey, spread),
        atol=1e-6,
    )
    one = dense_crf(probabilities + 1e-9, grey[..., :1], options)
    wanted = exact(probabilities + 1e-9, grey[..., :1], options)
    assert np.abs(one - wanted).mean() < 0.003
    pixel = dense_crf(probabilities[:1, :1], image[:1, :1])
    assert pixel.argmax() == probabilities[0, 0].argmax()


def test_threads_change_nothing():
    probabilities, image = street()
    alone = dense_crf(probabilities, image)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for together in pool.map(lambda _: dense_crf(probabilities, image), range(3)):
            np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"iterations": 0}, "iterations=0; use a whole number, 1 or more"),
        ({"iterations": 2.5}, "iterations=2.5; use a whole number"),
        ({"iterations": float("nan")}, "iterations=nan; use a whole number"),
        ({"gaussian_std": 0.0}, "gaussian_std=0.0; use a number above 0"),
        ({"bilateral_weight": -1.0}, "bilateral_weight=-1.0; use a number above 0"),
        ({"bilateral_color_std": float("nan")}, "bilateral_color_std=nan; use a number above 0"),
        ({"color": 5.0}, "'color' is unknown; use iterations, gaussian_weight, gaussian_std, bil"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=f"crf: .*{message}"):
        DenseCRF.from_options(options)


def test_options_are_told_in_words():
    assert DenseCRF.from_options({}) == DenseCRF()
    assert str(DenseCRF.from_options({"iterations": 5.0, "gaussian_std": 1.5})) == (
        "dense CRF, 5 iterations, Gaussian kernel 3 (std 1.5 px), bilateral kernel 4 "
        "(std 49 px, 5 of 255)"
    )


def test_images_that_do_not_fit_are_refused():
    probabilities, image = street()
    with pytest.raises(ValueError, match="probabilities of 40x56 pixels and an image of 40x55"):
        dense_crf(probabilities, image[:, :55])
    with pytest.raises(ValueError, match="bilateral_color_std are too small for this image"):
        dense_crf(probabilities, image, DenseCRF(bilateral_color_std=1e-3))
