"""Reading image and mask files: modes, depths, EXIF, damage."""

import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image

from segjax.data.files.images import list_images, read_image
from segjax.data.files.masks import read_mask
from tests.data.drawn import photo, save

GREY = np.full((2, 3), 1, np.uint8)


def palette(path, ids, colors, **options):
    image = Image.fromarray(np.array(ids, np.uint8))
    image.putpalette(colors)
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK"])
def test_read_image_gives_rgb_of_every_colour_mode(tmp_path, mode):
    Image.new("RGB", (3, 2), (204, 0, 51)).convert(mode).save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image, np.broadcast_to((204, 0, 51), (2, 3, 3)), atol=2)


@pytest.mark.parametrize(
    "array, value",
    [
        (GREY * 77, 77),
        (GREY.astype(bool), 255),
        (GREY.astype(np.uint16) * 65535, 255),
        (GREY.astype(np.uint16) * 257 * 5, 5),
    ],
)
def test_grey_images_of_every_depth(tmp_path, array, value):
    path = save(tmp_path / "a.png", array)
    np.testing.assert_array_equal(read_image(path), np.full((2, 3, 3), value))
    np.testing.assert_array_equal(read_image(path, 1), np.full((2, 3, 1), value))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_read_image_turns_by_exif_only_when_asked(tmp_path, suffix):
    exif = Image.Exif()
    exif[274] = 6  # orientation: turn by 90 degrees clockwise to view
    Image.new("RGB", (6, 4)).save(tmp_path / f"a.{suffix}", exif=exif)
    assert read_image(tmp_path / f"a.{suffix}").shape == (4, 6, 3)
    assert read_image(tmp_path / f"a.{suffix}", exif="apply").shape == (6, 4, 3)


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
    for name in ("b.png", "a/c.JPG", "a/.d.png", ".e/f.png"):
        photo(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    assert list_images(tmp_path / "b.png") == [tmp_path / "b.png"]
    assert list_images(str(tmp_path)) == [tmp_path / "a/c.JPG", tmp_path / "b.png"]
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("notes.txt", r"notes\.txt is not of a known image type; use .*\.png"),
        ("nothing", "nothing does not exist; use an image file or a folder"),
        ("empty", r"empty holds no images \(types found: none\)"),
    ):
        with pytest.raises(ValueError, match=words):
            list_images(tmp_path / name)


BANDS = np.random.default_rng(0).integers(0, 256, (7, 6, 5), np.uint8)
PLANES = np.moveaxis(BANDS, -1, 0)
SEPARATE = dict(photometric="minisblack", planarconfig="separate")
TOGETHER = dict(photometric="minisblack", planarconfig="contig")


@pytest.mark.parametrize(
    "array, options",
    [
        (BANDS, TOGETHER),
        (BANDS, TOGETHER | dict(compression="zlib")),
        (BANDS, dict(photometric="rgb", planarconfig="contig")),  # and two more samples
        (PLANES, SEPARATE),
        (PLANES, dict(photometric="minisblack")),  # five pages
        (BANDS, {}),  # seven pages of 6x5, which only the expected channels explain
        (BANDS.astype(np.uint16) * 257, TOGETHER),
        (PLANES.astype(np.uint16) * 257 + 128, SEPARATE),
    ],
)
def test_multi_band_tiffs_planar_and_interleaved(tmp_path, array, options):
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    image = read_image(tmp_path / "a.tif", 5)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, BANDS)


@pytest.mark.parametrize(
    "array",
    [BANDS, BANDS.astype(np.uint16) * 257, (BANDS / 255).astype(np.float32), BANDS / 255],
)
def test_npy_images_of_every_type_with_a_known_range(tmp_path, array):
    for bands, channels in ((slice(None), 5), (2, 1), (slice(3), 3)):
        np.save(tmp_path / "a.npy", array[..., bands])
        image = read_image(tmp_path / "a.npy", channels)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, BANDS[..., bands].reshape(7, 6, channels))


def test_16_bit_values_round_to_the_nearest_of_8_bits(tmp_path):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.save(tmp_path / "a.npy", values)
    expected = np.round(values / 257)[..., None]
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy", 1), expected)


@pytest.mark.parametrize(
    "mode, channels, suffix",
    [
        *(("1", 1, "png"), ("L", 1, "png"), ("L", 1, "jpg"), ("L", 1, "tif")),
        *(("LA", 2, "png"), ("LA", 2, "tif"), ("RGBA", 4, "png"), ("RGBA", 4, "tif")),
        *(("CMYK", 4, "tif"), ("RGBA", 4, "webp")),
    ],
)
def test_pillow_modes_keep_their_channels(tmp_path, mode, channels, suffix):
    image = Image.fromarray(np.full((4, 6, 4), (60, 60, 60, 200), np.uint8)).convert(mode)
    image.save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    expected = np.asarray(image, np.uint8).reshape(4, 6, channels) * (255 if mode == "1" else 1)
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}", channels), expected)


def test_palettes_with_transparency_have_four_channels(tmp_path):
    colors = [10, 20, 30, 40, 50, 60]
    path = palette(tmp_path / "p.png", [[0, 1]], colors, transparency=b"\xff\x07")
    np.testing.assert_array_equal(read_image(path, 4), [[[10, 20, 30, 255], [40, 50, 60, 7]]])


FLOATS = BANDS / np.float32(255)


@pytest.mark.parametrize(
    "name, array, channels, words",
    [
        ("a.png", BANDS[..., :3], 4, r"a\.png has 3 channels, but data\.channels=4; use .*=3 if"),
        ("a.png", BANDS[..., 0], 5, "has 1 channels"),
        ("a.tif", BANDS[..., :4], 5, "has 4 channels"),
        ("a.tif", BANDS, 3, r"a\.tif has 5 channels, but data\.channels=3; .*data\.channels=5 if"),
        ("a.tif", BANDS[..., :4], 3, "has 4 channels"),  # the fourth is not said to be alpha
        ("a.tif", PLANES, 3, "has 5 channels"),  # pages
        ("a.tif", FLOATS * 300, 5, r"float32 values .*value_range=\(0,293\)', .* auto$"),
        ("a.tif", BANDS.astype(np.uint32), 5, r"uint32 values .*data\.value_range=\(0,255\)'"),
        ("a.npy", BANDS, 4, "has 5 channels"),
        ("a.npy", BANDS[..., 0], 3, "has 1 channels, but data.channels=3"),
        ("a.npy", BANDS[None], 5, r"a\.npy is \[1, 7, 6, 5\]; use an array \[height, width"),
        ("a.npy", BANDS.astype(np.int64), 5, r"int64 values from 0 to 2\d\d, whose full range is"),
        ("a.npy", BANDS / 200, 5, r"float64 values from 0\.0 to 1\.\d+, .*_range=\(0,1\.\d+\)'"),
        ("a.npy", np.full((2, 2, 5), np.nan), 5, "float64 values from nan to nan"),
        ("a.npy", np.array([None]), 5, r"a\.npy cannot be read: .*; use an intact \.npy"),
    ],
)
def test_other_channels_or_values_than_expected(tmp_path, name, array, channels, words):
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".tif" and array.ndim > 2:
        pages = dict(photometric="minisblack")
        tifffile.imwrite(path, array, **(pages if array is PLANES else TOGETHER))
    else:
        save(path, array)
    with pytest.raises(ValueError, match=words):
        read_image(path, channels)


def test_a_truncated_tiff_of_bands(tmp_path):
    tifffile.imwrite(tmp_path / "c.tif", BANDS, **TOGETHER)
    (tmp_path / "c.tif").write_bytes((tmp_path / "c.tif").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"c\.tif cannot be read: .+; use an intact TIFF"):
        read_image(tmp_path / "c.tif", 5)
