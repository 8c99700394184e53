"""Loss weights of classes that follow from their frequencies."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float32, Int64

from segjax.data.errors import DataError


def median_present(
    class_pixels: Int64[np.ndarray, "k"], present_pixels: Int64[np.ndarray, "k"]
) -> Float32[np.ndarray, "k"]:
    """The median of the classes' frequencies, divided by each class's.

    A frequency is a class's pixels divided by all pixels, ignored ones too, of the images that it
    occurs in; the median is over the classes that occur.

    Reference: Eigen and Fergus, "Predicting Depth, Surface Normals and Semantic Labels with a
    Common Multi-Scale Convolutional Architecture", ICCV 2015, section 6.3.2; as in SegNet.
    """
    occurs = _occurring(class_pixels, present_pixels)
    return _median_over(class_pixels[occurs] / present_pixels[occurs], occurs)


def median_global(
    class_pixels: Int64[np.ndarray, "k"], present_pixels: Int64[np.ndarray, "k"]
) -> Float32[np.ndarray, "k"]:
    """As `median_present`, with a class's share of all labelled pixels as its frequency."""
    occurs = _occurring(class_pixels, present_pixels)
    return _median_over(class_pixels[occurs] / class_pixels.sum(), occurs)


def enet(
    class_pixels: Int64[np.ndarray, "k"], present_pixels: Int64[np.ndarray, "k"]
) -> Float32[np.ndarray, "k"]:
    """1 / ln(1.02 + p), p being a class's share of all labelled pixels: from 1.4 to 50.

    Reference: Paszke et al., "ENet", arXiv 1606.02147, section 5.2.
    """
    occurs = _occurring(class_pixels, present_pixels)
    weights = 1 / np.log(1.02 + class_pixels / class_pixels.sum())
    return np.where(occurs, weights, 0).astype(np.float32)


# By their name in loss.class_weights; each takes the pixels of each class and all pixels (ignored
# ones too) of the images each class occurs in. A class that never occurs weighs 0: no label pixel
# could use its weight. DataError if no class occurs or the counts contradict each other.
WEIGHTINGS: Mapping[str, Callable] = {f.__name__: f for f in (median_present, median_global, enet)}


def _median_over(frequency: np.ndarray, occurs: np.ndarray) -> Float32[np.ndarray, "k"]:
    weights = np.zeros(occurs.shape, np.float32)
    weights[occurs] = np.median(frequency) / frequency
    return weights


def _occurring(class_pixels: np.ndarray, present_pixels: np.ndarray) -> np.ndarray:
    pixels, present = np.asarray(class_pixels), np.asarray(present_pixels)
    occurs = pixels > 0
    if not occurs.any() or (present < pixels).any():
        raise DataError(
            f"class_pixels={pixels.astype(int).tolist()} with present_pixels="
            f"{present.astype(int).tolist()}",
            "use counts where a class occurs, each at most the pixels of the images it occurs in",
        )
    return occurs
