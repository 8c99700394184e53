"""Dense CRF: the scores of a network refined by the image's colours, on the host.

Every pixel is connected with every other. Two pixels of different classes cost the more, the nearer
they lie to each other (Gaussian kernel), and the more so if their colours are alike (bilateral
kernel). Mean-field inference (Krähenbühl and Koltun, "Efficient inference in fully connected CRFs
with Gaussian edge potentials", NIPS 2011, arXiv 1210.5644, algorithm 1) repeats

    Q = softmax(log p + sum over kernels m of weight_m * K_m Q)

with K_m = D^(-1/2) k_m D^(-1/2), where D is the diagonal of k_m's row sums. As in the authors'
code, though not in the paper's energy, a pixel's own term stays in the sum.

The Gaussian kernel is separable, and cut off at 5 standard deviations. The bilateral kernel is
filtered on the permutohedral lattice (Adams, Baek and Davis, "Fast high-dimensional filtering using
the permutohedral lattice", Eurographics 2010). That is an approximation, of the authors too: its
sums are off by about 3 % (root mean square), and on crops of CamVid probabilities by at most
0.0015 in the mean and 0.21 in the worst pixel; 99.2 to 100 % of the labels are those of the exact
sums.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
import scipy
from jaxtyping import Float, Int, UInt8

Filter = Callable[[Float[np.ndarray, "n k"]], Float[np.ndarray, "n k"]]

# Standard deviations at which the Gaussian kernel ends: beyond them it is below 4e-6.
_REACH = 5
# Smallest probability of a class, so that its logarithm is finite; the authors' own 1e-5 would
# change what a confident network says.
_SMALLEST = np.finfo(np.float32).tiny


@dataclasses.dataclass(frozen=True)
class DenseCRF:
    """The options of a dense CRF, all of them above 0.

    The defaults are those that the authors of DeepLab-LargeFOV released for PASCAL VOC
    (run_densecrf.sh: MAX_ITER 10, POS_W 3, POS_X_STD 3, Bi_W 4, Bi_X_STD 49, Bi_R_STD 5), found by
    cross-validation on images of about 375x500. The SegNet paper does not state the values of its
    row "DeepLab-LargeFOV + denseCRF".

    Attributes:
      iterations: of mean-field inference.
      gaussian_weight: of the kernel over positions.
      gaussian_std: of that kernel, in pixels.
      bilateral_weight: of the kernel over positions and colours.
      bilateral_spatial_std: of that kernel, in pixels.
      bilateral_color_std: of that kernel, in levels of 0 to 255.

    Raises:
      ValueError: naming the option, the value and what is allowed.
    """

    iterations: int = 10
    gaussian_weight: float = 3.0
    gaussian_std: float = 3.0
    bilateral_weight: float = 4.0
    bilateral_spatial_std: float = 49.0
    bilateral_color_std: float = 5.0

    def __post_init__(self):
        if not 1 <= self.iterations <= 1000:
            raise ValueError(
                f"crf: iterations={self.iterations}; use a whole number, 1 or more, 1000 at most"
            )
        for name, value in dataclasses.asdict(self).items():
            if not 0 < value <= 1e6:
                raise ValueError(f"crf: {name}={value}; use a number above 0, 1e6 at most")

    @classmethod
    def from_options(cls, options: Mapping[str, float]) -> "DenseCRF":
        """The options by name, and the defaults of the others; ValueError for an unknown name."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                raise ValueError(f"crf: the option {name!r} is unknown; use {', '.join(known)}")
        options = dict(options)
        iterations = options.pop("iterations", cls.iterations)
        if not float(iterations).is_integer():
            raise ValueError(f"crf: iterations={iterations:g}; use a whole number, 1 or more")
        return cls(int(iterations), **options)

    def __str__(self) -> str:
        return (
            f"dense CRF, {self.iterations} iterations, Gaussian kernel {self.gaussian_weight:g} "
            f"(std {self.gaussian_std:g} px), bilateral kernel {self.bilateral_weight:g} (std "
            f"{self.bilateral_spatial_std:g} px, {self.bilateral_color_std:g} of 255)"
        )


def dense_crf(
    probabilities: Float[np.ndarray, "h w k"],
    image: UInt8[np.ndarray, "_ _ c"],
    options: DenseCRF = DenseCRF(),
) -> Float[np.ndarray, "h w k"]:
    """The class probabilities of an image after mean-field inference, float32.

    An image of 360x480 with 11 classes takes one to three seconds on one core, and 120 MB; both
    grow with the number of pixels, and with that of different colours (pure noise takes 15
    seconds). Several threads may call it at once.

    Args:
      probabilities: of each class, which sum to 1 over the last axis.
      image: of the same size, with its own colours, not normalised.

    Raises:
      ValueError: for an image of another size, or standard deviations of the bilateral kernel that
        are too small for the image.
    """
    height, width, classes = probabilities.shape
    if image.shape[:2] != (height, width):
        raise ValueError(
            f"dense_crf has probabilities of {height}x{width} pixels and an image of "
            f"{image.shape[0]}x{image.shape[1]}; use one size"
        )
    rows, columns = np.mgrid[:height, :width]
    # In this order, on which the lattice's error depends, results are those of the authors' code.
    positions = np.stack([columns, rows], -1).reshape(-1, 2) / options.bilateral_spatial_std
    colours = image.reshape(height * width, -1) / options.bilateral_color_std
    kernels = (
        (options.gaussian_weight, _gaussian_filter((height, width), options.gaussian_std)),
        (options.bilateral_weight, lattice_filter(np.concatenate([positions, colours], 1))),
    )
    kernels = [(weight, _normalized(kernel, height * width)) for weight, kernel in kernels]
    scores = np.log(np.maximum(probabilities.reshape(-1, classes), _SMALLEST), dtype=np.float32)
    refined = scipy.special.softmax(scores, 1)
    for _ in range(options.iterations):
        refined = scipy.special.softmax(sum((w * k(refined) for w, k in kernels), scores), 1)
    return refined.reshape(probabilities.shape)


def _normalized(kernel: Filter, pixels: int) -> Filter:
    """The kernel divided by the root of its row sums on both sides."""
    scale = 1 / np.sqrt(kernel(np.ones((pixels, 1), np.float32)))
    return lambda values: scale * kernel(scale * values)


def _gaussian_filter(size: tuple[int, int], std: float) -> Filter:
    """The sum over all pixels weighted by exp(-distance^2 / (2 std^2)), rows first."""
    height, width = size
    over_rows, over_columns = (_band(n, std) for n in size)

    def kernel(values):
        classes = values.shape[1]
        values = over_rows @ values.reshape(height, -1)
        values = values.reshape(height, width, classes).swapaxes(0, 1).reshape(width, -1)
        values = over_columns @ values
        return values.reshape(width, height, classes).swapaxes(0, 1).reshape(-1, classes)

    return kernel


def _band(size: int, std: float) -> "scipy.sparse.csr_array":
    """[size, size], the weights between the pixels of one axis."""
    reach = min(math.ceil(_REACH * std), size - 1)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / std) ** 2).astype(np.float32)
    data = np.repeat(weights[:, None], size, 1)
    return scipy.sparse.dia_array((data, offsets), shape=(size, size)).tocsr()


def lattice_filter(features: Float[np.ndarray, "n d"]) -> Filter:
    """The sum over all n points weighted by about exp(-distance^2 / 2), on the lattice.

    Each point spreads its value over the d + 1 corners of the simplex that holds it, values are
    blurred along the d + 1 directions of the lattice, and each point gathers them again. (In the
    paper: splat, blur, slice.) All weights have a common factor besides.

    Args:
      features: of the points, in standard deviations.

    Raises:
      ValueError: if the features reach so far that a corner has no 64-bit number.
    """
    points, dims = features.shape
    corners = dims + 1
    # Onto the plane of d + 1 coordinates that sum to 0 (the paper's section 3.1), at the scale at
    # which spread, blur and gathering have together the variance of the kernel.
    basis = np.triu(np.ones((corners, dims))) - np.diag(np.arange(1.0, corners), -1)[:, :dims]
    axes = np.arange(1, corners)
    scale = math.sqrt(2 / 3) * corners / np.sqrt(axes * (axes + 1))
    position = (features * scale) @ basis.T / corners
    # The nearest point whose coordinates are multiples of d + 1 (here divided by it) and sum to 0.
    nearest = np.rint(position)
    rank = np.argsort(np.argsort(nearest - position, 1, kind="stable"), 1, kind="stable")
    rank += nearest.sum(1, dtype=np.int64, keepdims=True).astype(rank.dtype)
    nearest += (rank < 0).astype(float) - (rank > dims)
    rank = rank % corners
    # The order of the rest's coordinates says which simplex it is, and gives the weights.
    order = np.argsort(rank, 1)
    rest = np.take_along_axis(position - nearest, order, 1)
    weights = np.empty((points, corners), np.float32)
    weights[:, 0] = 1 + rest[:, -1] - rest[:, 0]
    weights[:, 1:] = (rest[:, :-1] - rest[:, 1:])[:, ::-1]
    numbers, direction = _corner_numbers(nearest.astype(np.int64) * corners, order)
    numbers, corner = np.unique(numbers, return_inverse=True)
    starts = np.arange(0, points * corners + 1, corners)
    gather = scipy.sparse.csr_array(
        (weights.reshape(-1), corner.reshape(-1), starts), shape=(points, len(numbers))
    )
    spread = gather.T.tocsr()
    blurs = [_blur(numbers, step) for step in direction]

    def kernel(values):
        values = spread @ values
        for blur in blurs:
            values = blur @ values
        return gather @ values

    return kernel


def _corner_numbers(
    nearest: Int[np.ndarray, "n c"], order: Int[np.ndarray, "n c"]
) -> tuple[Int[np.ndarray, "n c"], Int[np.ndarray, "c"]]:
    """A number for each corner of each point's simplex, and the differences to its neighbours.

    Corner c has the coordinates of `nearest` plus c, less d + 1 in those of the c last ranks. A
    corner's number is a linear function of its coordinates but the last, which follows from them.
    """
    corners = nearest.shape[1]
    low = nearest.min(0)[:-1] - 2 * corners  # with room for the neighbours
    sizes = (nearest.max(0)[:-1] + 2 * corners - low + 1).tolist()
    if math.prod(sizes) >= 2**63:
        raise ValueError(
            "crf: bilateral_spatial_std and bilateral_color_std are too small for this image; use "
            "larger ones"
        )
    factors = np.array([math.prod(sizes[i + 1 :]) for i in range(corners - 1)] + [0], np.int64)
    base = (nearest[:, :-1] - low) @ factors[:-1]
    last = np.cumsum(factors[order[:, :0:-1]], 1)
    numbers = np.repeat(base[:, None], corners, 1)
    numbers[:, 1:] += np.arange(1, corners) * factors.sum() - corners * last
    return numbers, factors.sum() - corners * factors


def _blur(numbers: Int[np.ndarray, "m"], step: int) -> "scipy.sparse.csr_array":
    """(1/2, 1, 1/2) over the corners along one direction; corners that no point has are 0."""
    count = len(numbers)
    after = np.minimum(np.searchsorted(numbers, numbers + step), count - 1)
    here = np.flatnonzero(numbers[after] == numbers + step)
    after = after[here]
    every = np.arange(count)
    weights = np.concatenate([np.ones(count), np.full(2 * len(here), 0.5)]).astype(np.float32)
    places = np.concatenate([every, here, after]), np.concatenate([every, after, here])
    return scipy.sparse.csr_array((weights, places), shape=(count, count))
