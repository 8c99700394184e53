"""Boundary metrics on real masks: time, and nearest-pixel against one-to-one matching.

    python -m benchmarks.boundary DIR [--images 20]

DIR holds CamVid's label images (ids 0-10, 11 = void). Predictions are the labels, disturbed. The
whole set is timed on one thread and on two; the matchings are compared on the first `--images`.
"""

import argparse
import math
import pathlib
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image
from scipy import ndimage, sparse, spatial

from segjax.metrics import boundary, by_object

CLASSES = 11


def read(file: pathlib.Path) -> np.ndarray:
    label = np.asarray(Image.open(file))
    return np.where(label < CLASSES, label, 255).astype(np.uint8)


def filled(label: np.ndarray) -> np.ndarray:
    """Void takes the nearest class: predictions have no void."""
    nearest = ndimage.distance_transform_edt(label == 255, return_distances=False, return_indices=1)
    return label[tuple(nearest)]


def shifted(label, rng, pixels):
    """Moved down and right."""
    return np.pad(label, ((pixels, 0), (pixels, 0)), mode="edge")[:-pixels, :-pixels]


def warped(label, rng, pixels):
    """Moved by a smooth random field of this standard deviation."""
    fields = [ndimage.gaussian_filter(rng.normal(size=label.shape), 8) for _ in range(2)]
    moves = [pixels * field / field.std() for field in fields]
    grid = np.indices(label.shape)
    return ndimage.map_coordinates(
        label, [g + m for g, m in zip(grid, moves, strict=True)], order=0
    )


def coarse(label, rng, pixels):
    """One pixel of each square, enlarged: what a network of that output stride can give."""
    small = label[pixels // 2 :: pixels, pixels // 2 :: pixels]
    large = np.kron(small, np.ones((pixels, pixels), np.uint8))
    missing = [(0, max(0, n - m)) for n, m in zip(label.shape, large.shape, strict=True)]
    return np.pad(large, missing, mode="edge")[: label.shape[0], : label.shape[1]]


def ragged(label, rng, pixels):
    """Each pixel taken from a random place that near: frayed boundaries."""
    grid = np.indices(label.shape) + rng.integers(-pixels, pixels + 1, (2, *label.shape))
    limits = np.array(label.shape)[:, None, None] - 1
    return label[tuple(np.clip(grid, 0, limits))]


DISTURBED = {
    f"{make.__name__} {pixels}": (make, pixels)
    for make, sizes in ((shifted, (2, 4)), (warped, (2, 4)), (coarse, (8, 16)), (ragged, (1, 3)))
    for pixels in sizes
}


def one_to_one(wanted, found, tolerance: float) -> int:
    """Most pairs of pixels within the tolerance when each pixel has one partner."""
    if not wanted.any() or not found.any():
        return 0
    trees = [spatial.cKDTree(np.argwhere(edge)) for edge in (wanted, found)]
    pairs = trees[0].sparse_distance_matrix(trees[1], tolerance, output_type="coo_matrix")
    # As a flow from a source over pixels of one map and of the other to a sink: scipy's bipartite
    # matching takes minutes on some of these graphs.
    n, m = pairs.shape
    source, sink = n + m, n + m + 1
    rows = np.concatenate([pairs.row, np.full(n, source), n + np.arange(m)])
    columns = np.concatenate([n + pairs.col, np.arange(n), np.full(m, sink)])
    ones = np.ones(len(rows), np.int32)
    graph = sparse.csr_matrix((ones, (rows, columns)), (n + m + 2, n + m + 2))
    return int(sparse.csgraph.maximum_flow(graph, source, sink).flow_value)


def lattice_edges(label: np.ndarray, class_id: int) -> np.ndarray:
    """BSDS's `seg2bdry(mask, "imageSize")`: the corners between pixels that an edge touches."""
    mask = label == class_id
    below = np.pad(mask[:-1] != mask[1:], ((0, 1), (0, 0)))
    right = np.pad(mask[:, :-1] != mask[:, 1:], ((0, 0), (0, 1)))
    corners = below | right
    corners[:, :-1] |= below[:, 1:]
    corners[:-1] |= right[1:]
    return corners


def pair_f1(wanted, found, pairs: int) -> float:
    return 2 * pairs / (wanted.sum() + found.sum())


def bf_one_to_one(label, prediction) -> float:
    """Our boundary pixels and classes, each pixel with a partner of its own."""
    tolerance = boundary.BF_TOLERANCE * math.hypot(*label.shape)
    prediction = np.where(label == 255, 255, prediction).astype(np.uint8)
    edges = [boundary.boundary_pixels(ids) for ids in (label, prediction)]
    f1 = []
    for c in range(CLASSES):
        wanted, found = edges[0] & (label == c), edges[1] & (prediction == c)
        if wanted.any():
            f1.append(pair_f1(wanted, found, one_to_one(wanted, found, tolerance)))
    return float(np.mean(f1))


def bf_of_the_script(label, prediction) -> float:
    """The SegNet authors' computeBFmeasure.m: void is one more thing beside a class, and a class
    of the prediction alone counts 0."""
    tolerance = boundary.BF_TOLERANCE * math.hypot(*label.shape)
    f1 = []
    for c in range(CLASSES):
        wanted, found = lattice_edges(label, c), lattice_edges(prediction, c)
        if wanted.any() or found.any():
            f1.append(pair_f1(wanted, found, one_to_one(wanted, found, tolerance)))
    return float(np.mean(f1))


def all_counts(pair):
    label, prediction = pair
    distance = boundary.distance_to_boundary(label)
    return (
        boundary.image_counts(label, prediction, CLASSES, distance),
        by_object.image_counts(label, prediction, CLASSES, distance),
    )


def time_set(pairs) -> None:
    for threads in (1, 2):
        boundaries, objects = boundary.Boundaries(CLASSES), by_object.StratifiedIoU(CLASSES)
        start = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            for one, other in pool.map(all_counts, pairs):
                boundaries.add_counts(one)
                objects.add_counts(other)
        boundaries.summary(), objects.summary()
        seconds = time.perf_counter() - start
        print(f"boundaries and objects of {len(pairs)} images, {threads} threads: {seconds:.1f} s")
    start = time.perf_counter()
    for label, prediction in pairs:
        boundary.image_counts(label, prediction, CLASSES)
    print(f"boundaries alone, 1 thread: {time.perf_counter() - start:.1f} s")


def compare_matchings(labels) -> None:
    print("prediction     mIoU at 20   BF      one-to-one   the authors' script")
    rng = np.random.default_rng(0)
    for name, (make, pixels) in DISTURBED.items():
        pairs = [(label, make(filled(label), rng, pixels)) for label in labels]
        ours = boundary.Boundaries(CLASSES)
        for pair in pairs:
            ours.add(*pair)
        summary = ours.summary()
        strict = np.mean([bf_one_to_one(*pair) for pair in pairs])
        script = np.mean([bf_of_the_script(*pair) for pair in pairs])
        print(
            f"{name:14} {summary['trimap'][20]:.4f}       {summary['bf']:.4f}  {strict:.4f} "
            f"({summary['bf'] - strict:+.4f})  {script:.4f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--images", type=int, default=20, help="for the comparison of matchings")
    options = parser.parse_args()
    labels = [read(file) for file in sorted(options.dir.glob("*.png"))]
    if not labels:
        raise SystemExit(f"no *.png in {options.dir}; use CamVid's testannot folder")
    rng = np.random.default_rng(0)
    time_set([(label, warped(filled(label), rng, 3)) for label in labels])
    compare_matchings(labels[:: max(1, len(labels) // options.images)][: options.images])


if __name__ == "__main__":
    main()
