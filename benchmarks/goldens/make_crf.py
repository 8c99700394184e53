"""Writes tests/goldens/crf.npz: the dense CRF's own authors' inference on one small picture.

Needs pydensecrf2 (their C++ code, MIT licence; a source distribution that g++ compiles, for Python
up to 3.12) and numpy. With one iteration and with ten, of the bilateral kernel alone: that is the
one that both filter on the permutohedral lattice.
  python -m benchmarks.goldens.make_crf
"""

import pathlib

import numpy as np
import pydensecrf.densecrf

FILE = pathlib.Path(__file__).parents[2] / "tests" / "goldens" / "crf.npz"
HEIGHT, WIDTH, CLASSES = 30, 44, 4
WEIGHT, SPATIAL_STD, COLOR_STD = 4.0, 9.0, 20.0


def main():
    rng = np.random.default_rng(0)
    shapes = np.add.outer(np.arange(HEIGHT) > 12, np.arange(WIDTH) // 15)  # 0 to 3
    image = rng.integers(40, 216, (CLASSES, 3))[shapes] + rng.normal(0, 8, (HEIGHT, WIDTH, 3))
    image = image.clip(0, 255).astype(np.uint8)
    scores = 1.5 * np.eye(CLASSES)[shapes] + rng.normal(0, 1, (HEIGHT, WIDTH, CLASSES))
    probabilities = np.exp(scores)
    probabilities = (probabilities / probabilities.sum(-1, keepdims=True)).astype(np.float32)
    refined = {f"refined_{n}": infer(probabilities, image, n) for n in (1, 10)}
    np.savez_compressed(FILE, image=image, probabilities=probabilities, **refined)


def infer(probabilities: np.ndarray, image: np.ndarray, iterations: int) -> np.ndarray:
    crf = pydensecrf.densecrf.DenseCRF2D(WIDTH, HEIGHT, CLASSES)
    energy = -np.log(probabilities).transpose(2, 0, 1).reshape(CLASSES, -1)
    crf.setUnaryEnergy(np.ascontiguousarray(energy))
    crf.addPairwiseBilateral(SPATIAL_STD, COLOR_STD, image, WEIGHT)
    refined = np.array(crf.inference(iterations), np.float32)
    return refined.reshape(CLASSES, HEIGHT, WIDTH).transpose(1, 2, 0)


if __name__ == "__main__":
    main()
