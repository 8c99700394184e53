"""The EXIF orientation of photos: one rule for training, checks and prediction."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Shaped

from segjax.data.errors import DataError

EXIF = ("auto", "apply", "ignore")  # values of data.exif
TAG = 0x0112

# By orientation, how the stored pixels are turned for viewing.
_TURNS: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


class UnclearOrientation(DataError):
    """An image whose mask's size does not tell whether the mask was drawn on turned pixels."""


def turned(image: Shaped[np.ndarray, "h w *c"], orientation: int) -> Shaped[np.ndarray, "H W *c"]:
    """The image as viewers show it."""
    turn = _TURNS.get(orientation)
    return image if turn is None else np.ascontiguousarray(turn(image))


def to_turn(
    orientation: int,
    size: tuple[int, int],
    exif: str,
    mask_size: tuple[int, int] | None = None,
    path: object = "",
) -> bool:
    """Whether an image of `size` (h, w) is to be turned as its orientation says.

    A mask of the turned size was drawn on the turned image, and one of the stored size on the
    stored pixels. Where the sizes do not tell (half turns, mirrored or square images), `exif` does:
    "apply", "ignore", or "auto", which refuses. Without a mask, for prediction, all but "ignore"
    turn.

    Raises:
      UnclearOrientation: see above.
    """
    if orientation not in _TURNS:
        return False
    if mask_size is None:
        return exif != "ignore"
    turned_size = size[::-1] if orientation >= 5 else size
    if turned_size != size and mask_size in (size, turned_size):
        return mask_size == turned_size
    if exif == "auto" and mask_size == size:
        raise UnclearOrientation(
            f"{path} has the EXIF orientation {orientation}, and its mask's size does not tell "
            "whether the mask was drawn on the turned image",
            "look at the pictures of --mode=doctor: use --config.data.exif=apply if the masks fit "
            "the images as viewers show them, ignore if they fit the stored pixels; or save the "
            "images without the tag",
        )
    return exif == "apply"
