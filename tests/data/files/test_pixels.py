"""Modes, depths and frames of files that Pillow opens; the limit of megapixels; headers."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from segjax.data.files import pixels
from segjax.data.files.headers import read_header
from segjax.data.files.images import read_image
from segjax.data.files.pixels import open_image, read_raw
from tests.data.drawn import save

RANDOM = np.random.default_rng(0)
RED = (204, 0, 51)


def png(values, depth=16, size=None):
    """A PNG by its specification, with a filter of each kind in turn."""
    height, width, samples = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[samples]
    rows = np.frombuffer(values.astype(f">u{depth // 8}").tobytes(), np.uint8).reshape(height, -1)
    near, lines = samples * depth // 8, b""
    for y, row in enumerate(rows):
        left = np.concatenate([np.zeros(near, np.uint8), row[:-near]])
        filtered = (row, row - left, row - (rows[y - 1] if y else 0))[y % 3]
        lines += bytes([y % 3]) + filtered.tobytes()

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    shape = struct.pack(">IIBBBBB", *(size or (width, height)), depth, kind, 0, 0, 0)
    body = chunk(b"IHDR", shape) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("samples, channels", [(1, 1), (2, 2), (2, 3), (3, 3), (4, 3), (4, 4)])
def test_16_bit_pngs_keep_all_their_bits(tmp_path, samples, channels):
    values = RANDOM.integers(0, 4096, (7, 5, samples)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(png(values))
    kept = values[..., : 1 if samples < 3 and channels == 3 else channels]
    np.testing.assert_array_equal(read_raw(tmp_path / "a.png", channels).values, kept)
    image = read_image(tmp_path / "a.png", channels, value_range=((0, 4095),))
    np.testing.assert_array_equal(
        image, np.broadcast_to(np.floor(kept / 4095 * 255 + 0.5), image.shape)
    )
    assert read_header(tmp_path / "a.png").may_be_shallow


def twelve_bits(values):
    """A TIFF of packed 12-bit samples, by its specification."""
    height, width = values.shape
    pairs = values.reshape(height, -1, 2).astype(int)
    first, second = pairs[..., 0], pairs[..., 1]
    data = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
    data = data.astype(np.uint8).tobytes()
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    tags[279] = len(data)
    entries = b"".join(struct.pack("<HHII", code, 4, 1, tags[code]) for code in sorted(tags))
    start = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    return start + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_depths_of_which_the_header_tells_the_range(tmp_path):
    values = RANDOM.integers(0, 4096, (8, 6))
    (tmp_path / "a.tif").write_bytes(twelve_bits(values))
    expected = np.floor(values / 4095 * 255 + 0.5)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", 1)[..., 0], expected)
    assert not read_header(tmp_path / "a.tif").may_be_shallow
    (tmp_path / "a.pgm").write_bytes(b"P5 6 8 4095\n" + values.astype(">u2").tobytes())
    np.testing.assert_allclose(read_image(tmp_path / "a.pgm", 1)[..., 0], expected, atol=1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_where_zero_is_white(tmp_path, dtype):
    values = RANDOM.integers(0, np.iinfo(dtype).max, (4, 5)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "b.tif", values, photometric="minisblack")
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.tif"), 255 - read_image(tmp_path / "b.tif")
    )


@pytest.mark.parametrize(
    "mode, suffix",
    [
        ("CMYK", "jpg"),
        ("CMYK", "tif"),
        ("YCbCr", "tif"),
        ("P", "gif"),
        ("LAB", "tif"),
        ("P", "bmp"),
    ],
)
def test_colour_modes_become_rgb(tmp_path, mode, suffix):
    """Pillow writes CMYK JPEGs inverted and marked, as Adobe does."""
    image = Image.new("RGB", (8, 6), RED)
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    else:
        image = image.convert(mode)
    image.save(tmp_path / f"a.{suffix}")
    read = read_image(tmp_path / f"a.{suffix}").astype(int)
    assert read.shape == (6, 8, 3)
    assert np.abs(read - RED).max() <= 9


def test_palettes_with_transparent_colours(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    for transparency in (b"\x00\xff", 1):
        image.save(tmp_path / "a.png", transparency=transparency)
        assert read_image(tmp_path / "a.png").tolist() == [[[10, 20, 30], [40, 50, 60]]]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_the_first_of_several_frames(tmp_path, suffix):
    frames = [Image.new("RGB", (5, 4), colour) for colour in (RED, (0, 204, 51), (51, 0, 204))]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert (read_image(tmp_path / f"a.{suffix}") == RED).all()
    assert read_header(tmp_path / f"a.{suffix}").frames == 3


def test_a_file_is_what_it_begins_as(tmp_path):
    bands = RANDOM.integers(0, 60000, (3, 9, 8)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.png", bands, photometric="rgb", planarconfig="separate")
    expected = np.round(np.moveaxis(bands, 0, -1) / 257)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)
    save(tmp_path / "b.png", expected.astype(np.uint8)).rename(tmp_path / "b.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif"), expected)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy", "cmyk.tif"])
def test_files_of_any_claimed_size_are_refused_from_a_limit_on(tmp_path, monkeypatch, name):
    values = np.zeros((300, 200, 3), np.uint8)
    if name == "a.npy":
        np.save(tmp_path / name, values)
    else:
        image = Image.fromarray(values)
        image.convert("CMYK" if "cmyk" in name else "RGB").save(tmp_path / name)
    monkeypatch.setenv("SEGJAX_MAX_MEGAPIXELS", "0.05")
    with pytest.raises(
        ValueError, match=r"has 300x200 .*limit is 0\.05 .*SEGJAX_MAX_MEGAPIXELS=1;"
    ):
        read_image(tmp_path / name)
    monkeypatch.setenv("SEGJAX_MAX_MEGAPIXELS", "1")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's, which would refuse it
    assert read_image(tmp_path / name).shape == values.shape
    if name != "a.npy":
        assert open_image(tmp_path / name).size == (200, 300)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_a_bomb_is_refused_by_its_header(tmp_path):
    (tmp_path / "a.png").write_bytes(png(np.zeros((2, 2, 3)), 8, size=(60000, 60000)))
    with pytest.raises(ValueError, match=r"60000x60000 .*\(3,600 megapixels\); the limit is 500"):
        read_image(tmp_path / "a.png")
    assert pixels.MAX_MEGAPIXELS == 500


def test_arrays_with_bands_first_are_told_how(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 9, 8), np.uint8))
    with pytest.raises(ValueError, match=r"its first axis has 4; .*np\.moveaxis\(array, 0, -1\)"):
        read_image(tmp_path / "a.npy", 4)
