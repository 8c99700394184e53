"""Reading image and mask files: modes, depths, EXIF, damage."""

import pathlib
import warnings

import numpy as np
import pytest
from PIL import Image

from segjax.data.images import list_images, read_image, read_mask


def save(path: pathlib.Path, array) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)
    return path


def photo(path, height=4, width=6):
    return save(path, np.full((height, width, 3), 90, np.uint8))


def test_read_image_gives_rgb_whatever_the_mode(tmp_path):
    red = Image.new("RGB", (3, 2), (204, 0, 51))
    for mode in ("RGBA", "P", "CMYK"):
        red.convert(mode).save(tmp_path / f"{mode}.tif")
        image = read_image(tmp_path / f"{mode}.tif")
        assert image.dtype == np.uint8
        np.testing.assert_allclose(image, np.broadcast_to((204, 0, 51), (2, 3, 3)), atol=2)
    for name, array, value in (
        ("grey", np.full((2, 3), 77, np.uint8), 77),
        ("one bit", np.ones((2, 3), bool), 255),
        ("grey16", np.full((2, 3), 65535, np.uint16), 255),
        ("grey16 low", np.full((2, 3), 257 * 5, np.uint16), 5),
    ):
        np.testing.assert_array_equal(
            read_image(save(tmp_path / f"{name}.png", array)), np.full((2, 3, 3), value)
        )


def test_read_image_refuses_values_without_a_known_range(tmp_path):
    path = save(tmp_path / "a.tif", np.array([[0.0, 0.5]], np.float32))
    with pytest.raises(ValueError, match=r"a\.tif: float32 values from 0\.0 to 0\.5.*use 8-bit"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_read_image_turns_by_exif_only_when_asked(tmp_path, suffix):
    exif = Image.Exif()
    exif[274] = 6  # orientation: turn by 90 degrees clockwise to view
    Image.new("RGB", (6, 4)).save(tmp_path / f"a.{suffix}", exif=exif)
    assert read_image(tmp_path / f"a.{suffix}").shape == (4, 6, 3)
    assert read_image(tmp_path / f"a.{suffix}", exif=True).shape == (6, 4, 3)


def test_read_mask_gives_the_ids_of_every_one_channel_mode(tmp_path):
    ids = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    palette = Image.fromarray(ids)
    palette.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    palette.save(tmp_path / "palette.png")
    assert Image.open(tmp_path / "palette.png").mode == "P"
    save(tmp_path / "grey.png", ids)
    save(tmp_path / "grey16.png", ids.astype(np.uint16))
    save(tmp_path / "grey32.tif", ids.astype(np.int32))
    for name in ("palette.png", "grey.png", "grey16.png", "grey32.tif"):
        np.testing.assert_array_equal(read_mask(tmp_path / name), ids, err_msg=name)
    assert read_mask(tmp_path / "grey.png").dtype == np.uint8
    one_bit = read_mask(save(tmp_path / "one bit.png", ids > 0))
    assert one_bit.dtype == np.uint8
    np.testing.assert_array_equal(one_bit, ids > 0)


@pytest.mark.parametrize(
    "pixels, words",
    [
        (
            [[(0, 0, 0), (128, 64, 128)]],
            r"found mode RGB with 2 colours \(#000000, #804080\); use id",
        ),
        ([[(1, 1, 1, 255)]], r"mode RGBA .*use one of the channels, which are equal: np\.asarray"),
        ([[(1, 255)]], "one class id per pixel, found mode LA; use a one-channel PNG"),
    ],
)
def test_read_mask_refuses_colours_and_says_how_to_convert(tmp_path, pixels, words):
    with pytest.raises(ValueError, match=words):
        read_mask(save(tmp_path / "a.png", np.array(pixels, np.uint8)))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
def test_a_truncated_file_is_named_with_the_reason(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    path = save(tmp_path / f"a.{suffix}", noise)
    path.write_bytes(path.read_bytes()[:-400])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of a cut TIFF before it raises
        for read in (read_image, read_mask):
            with pytest.raises(ValueError, match=rf"a\.{suffix} cannot be read: .+; use"):
                read(path)


def test_list_images_takes_a_file_or_a_folder(tmp_path):
    for name in ("b.png", "a/c.JPG", "a/.d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photo(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    assert list_images(tmp_path / "b.png") == [tmp_path / "b.png"]
    assert list_images(str(tmp_path)) == [tmp_path / "a/c.JPG", tmp_path / "b.png"]
    with pytest.raises(ValueError, match=r"notes\.txt is not of a known image type; use .*\.png"):
        list_images(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match="nothing does not exist; use an image file or a folder"):
        list_images(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no images \(types found: none\)"):
        list_images(tmp_path / "empty")
