"""Writes tests/goldens/opencv.npz: colours and sizes as OpenCV changes them, for the recipes of
mmsegmentation and semseg.

    pip install opencv-python-headless==5.0.0.93 numpy
    python -m benchmarks.goldens.make_opencv
"""

import pathlib

import cv2
import numpy as np

# Of mmsegmentation's PhotoMetricDistortion: what brightness adds, the factor of contrast, whether
# contrast comes first, the factor of saturation, the shift of hue. None = the change is not made.
DISTORTIONS = [
    (None, None, False, None, None),
    (21.7, None, False, None, None),
    (-30.2, None, True, None, None),
    (None, 0.63, True, None, None),
    (None, 1.41, False, None, None),
    (None, None, True, 0.55, None),
    (None, None, True, 1.47, None),
    (None, None, True, None, -18),
    (None, None, True, None, 17),
    (None, None, True, 1.0, 0),
    (13.9, 1.32, True, 1.38, 9),
    (13.9, 1.32, False, 1.38, 9),
    (-27.3, 0.71, True, 0.81, -14),
    (-27.3, 0.71, False, 0.81, -14),
]

# Heights and widths of a 24x32 image, to which it is scaled.
SIZES = [(12, 16), (18, 24), (48, 64), (36, 40), (15, 30)]


def to_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


def distort(rgb, delta, contrast, contrast_first, saturation, shift):
    """The steps of the documentation of PhotoMetricDistortion; its code is not used."""
    if delta is not None:
        rgb = to_bytes(rgb.astype(np.float32) + delta)
    if contrast is not None and contrast_first:
        rgb = to_bytes(rgb.astype(np.float32) * contrast)
    if saturation is not None:
        hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = to_bytes(hsv[..., 1].astype(np.float32) * saturation)
        rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if shift is not None:
        hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + shift) % 180
        rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if contrast is not None and not contrast_first:
        rgb = to_bytes(rgb.astype(np.float32) * contrast)
    return rgb


def main():
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (56, 64, 3), np.uint8)
    dark = random.integers(0, 12, (4, 64, 3), np.uint8)
    grey = np.repeat(np.arange(0, 256, dtype=np.uint8).reshape(4, 64, 1), 3, -1)
    image = np.concatenate([colours, dark, grey])
    hsv = np.stack(
        [random.integers(0, n, (64, 64), np.uint8) for n in (180, 256, 256)], -1, dtype=np.uint8
    )
    photo = random.integers(0, 256, (24, 32, 3), np.uint8).astype(np.float32)
    arrays = {
        "image": image,
        "image_to_hsv": cv2.cvtColor(image, cv2.COLOR_RGB2HSV),
        "hsv": hsv,
        "hsv_to_rgb": cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB),
        "distortions": np.array(DISTORTIONS, np.float64),
        "distorted": np.stack([distort(image, *change) for change in DISTORTIONS]),
        "photo": photo.astype(np.uint8),
    }
    for height, width in SIZES:
        scaled = cv2.resize(photo, (width, height), interpolation=cv2.INTER_LINEAR)
        arrays[f"scaled_{height}x{width}"] = scaled
    path = pathlib.Path(__file__).parents[2] / "tests/goldens/opencv.npz"
    np.savez_compressed(path, **arrays)
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
