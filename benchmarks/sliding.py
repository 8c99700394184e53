"""A 9000x9000 image by sliding windows: time and peak memory.

python -m benchmarks.sliding [--side 9000] [--features 4] [--classes 11]

The image and the result are files (`np.memmap`), so that what is left of the peak resident memory
after the interpreter's and the libraries' is the method's; pages of the two files that the system
keeps in memory count as well.
"""

import argparse
import pathlib
import resource
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from configs import base
from segjax.data.classes import from_names
from segjax.inference.options import InferenceOptions
from segjax.inference.predictor import Predictor
from segjax.models import build


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=9000)
    parser.add_argument("--features", type=int, default=4)
    parser.add_argument("--classes", type=int, default=11)
    arguments = parser.parse_args()
    side = arguments.side
    config = base.get_config()
    config.model.name, config.model.features = "segnet_basic", arguments.features
    config.data.image_size = (360, 480)
    config.data.mean, config.data.std = (0.5,) * 3, (0.25,) * 3
    model = build(config.model, arguments.classes)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    classes = from_names([f"class {k}" for k in range(arguments.classes)])
    predictor = Predictor(model, variables, classes, config, InferenceOptions(inference="slide"))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        image = np.memmap(folder / "image", np.uint8, "w+", shape=(side, side, 3))
        rng = np.random.default_rng(0)
        for top in range(0, side, 100):
            image[top : top + 100] = rng.integers(0, 256, image[top : top + 100].shape)
        image.flush()
        predictor.predict(np.asarray(image[:400, :1000]))
        before, start = peak_mb(), time.perf_counter()
        out = np.memmap(folder / "labels", np.uint8, "w+", shape=(side, side))
        predictor.predict(image, out)
        seconds = time.perf_counter() - start
        print(
            f"{side}x{side}, {arguments.classes} classes: {seconds:.0f} s; peak resident memory "
            f"{peak_mb():.0f} MB ({before:.0f} MB before, image and result {4 * side**2 / 1e6:.0f} "
            f"MB); labels found: {np.unique(out[::97]).tolist()}"
        )


if __name__ == "__main__":
    main()
