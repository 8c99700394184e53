"""EXIF orientations: as Pillow turns them, and one rule for which images are turned."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from segjax.data.checks import check_source
from segjax.data.files.headers import read_header
from segjax.data.files.images import read_image
from segjax.data.files.orientation import TAG
from segjax.data.sets.folder import open_folder
from tests.data.drawn import TWO, save

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def tagged(path, orientation, pixels=PIXELS, mode="RGB"):
    exif = Image.Exif()
    exif[TAG] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(pixels).convert(mode).save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "cmyk.tif"])
def test_stored_and_turned_pixels(tmp_path, orientation, name):
    mode = "CMYK" if "cmyk" in name else "RGB"
    path = tagged(tmp_path / name, orientation, mode=mode)
    viewed = tagged(tmp_path / "b.png", orientation)
    with Image.open(viewed) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_image(path, exif="ignore"), PIXELS)
    np.testing.assert_array_equal(read_image(path, exif="apply"), expected)
    np.testing.assert_array_equal(read_image(path, exif="auto"), expected)  # without a mask
    assert read_header(path).orientation == orientation


def data(root, orientation, mask_shape, pixels=PIXELS, exif="auto"):
    tagged(root / "images/train/a.jpg", orientation, pixels)
    save(root / "masks/train/a.png", np.zeros(mask_shape, np.uint8))
    return open_folder(root, "train", TWO, exif=exif)


@pytest.mark.parametrize("exif", ["auto", "apply", "ignore"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_the_size_of_the_mask_tells(tmp_path, exif, orientation):
    for mask_shape in ((4, 6), (6, 4)):
        source = data(tmp_path, orientation, mask_shape, exif=exif)
        assert source[0]["image"].shape == (*mask_shape, 3)
        assert source[0]["label"].shape == mask_shape
        assert check_source(source, "train").counted == 1


@pytest.mark.parametrize(
    "orientation, pixels", [(3, PIXELS), (2, PIXELS), (4, PIXELS), (6, PIXELS[:4, :4])]
)
def test_where_it_does_not_tell_the_option_does(tmp_path, orientation, pixels):
    size = pixels.shape[:2]
    with pytest.raises(
        ValueError, match=rf"a\.jpg has the EXIF orientation {orientation}.*exif=app"
    ):
        data(tmp_path, orientation, size, pixels)[0]
    stored = data(tmp_path, orientation, size, pixels, "ignore")[0]["image"]
    turned = data(tmp_path, orientation, size, pixels, "apply")[0]["image"]
    path = tmp_path / "images/train/a.jpg"
    np.testing.assert_array_equal(stored, read_image(path))
    np.testing.assert_array_equal(turned, read_image(path, exif="apply"))
    assert not np.array_equal(stored, turned)
