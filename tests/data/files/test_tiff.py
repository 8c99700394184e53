"""TIFFs of every layout, whole and by window, against the arrays that were written."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from segjax.data.files import tiff
from segjax.data.files.headers import read_header
from segjax.data.files.images import read_image
from segjax.data.files.tiff import TiffPixels
from segjax.data.files.windowed import WindowedImage

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 60000, (37, 50, 3)).astype(np.uint16)
WINDOWS = ((slice(None), slice(None)), (slice(5, 20), slice(7, 33)), (slice(36, 37), slice(0, 1)))


def agrees(path, expected):
    with TiffPixels(path) as pixels:
        assert (pixels.reads(), pixels.shape) == ("", expected.shape)
        for window in WINDOWS:
            np.testing.assert_array_equal(pixels[window], expected[window])
            assert pixels[window].dtype == expected.dtype


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize(
    "options",
    [
        dict(planarconfig="separate", rowsperstrip=7),
        dict(planarconfig="separate", tile=(16, 32), compression="zlib"),
        dict(planarconfig="contig", tile=(16, 32), byteorder=">"),
        dict(planarconfig="contig", rowsperstrip=9, compression="zlib", predictor=2),
    ],
)
def test_strips_and_tiles_of_bands_together_and_apart(tmp_path, dtype, options):
    values = RGB.astype(dtype)
    if options.get("predictor") and dtype[0] == "f":
        options = options | {"predictor": 1}
    apart = options["planarconfig"] == "separate"
    written = np.moveaxis(values, -1, 0) if apart else values
    tifffile.imwrite(tmp_path / "a.tif", written, photometric="rgb", **options)
    agrees(tmp_path / "a.tif", values)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "zstd", "lzma"])
def test_compressions_that_libtiff_decodes(tmp_path, compression):
    for values in (RGB[..., :1], (RGB >> 8).astype(np.uint8)):
        image = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
        try:
            image.save(tmp_path / "a.tif", compression=compression)
        except OSError:  # this Pillow has a libtiff without it
            pytest.skip(compression)
        agrees(tmp_path / "a.tif", values)


def test_floats_with_adobes_predictor(tmp_path):
    values = RANDOM.normal(size=(6, 5, 2)).astype(np.float32)
    # By the note: the bytes of a row by significance, then differences at the distance of samples.
    planes = values.astype(">f4").view(np.uint8).reshape(6, 10, 4).swapaxes(1, 2).reshape(6, 20, 2)
    differences = planes.copy()
    differences[:, 1:] -= planes[:, :-1]
    raw = differences.reshape(6, 40)
    np.testing.assert_array_equal(
        tiff._unpredicted_floats(raw, 2, np.dtype("f4")).reshape(6, 5, 2), values
    )


def jpeg_tiff(streams, size, tile, colour):
    """A TIFF of JPEG tiles, by its specification."""
    offsets = np.cumsum([8, *map(len, streams)]).tolist()
    samples = 3 if colour else 1
    tags = {256: size[1], 257: size[0], 258: (8,) * samples, 259: 7, 262: 6 if colour else 1}
    tags |= {277: samples, 322: tile, 323: tile, 324: offsets[:-1], 325: [*map(len, streams)]}
    tags |= {530: (1, 1)} if colour else {}
    start = offsets[-1] + offsets[-1] % 2
    entries, after = b"", b""
    for code, value in sorted(tags.items()):
        values = value if isinstance(value, list | tuple) else (value,)
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(packed) > 4:
            place = start + 2 + 12 * len(tags) + 4 + len(after)
            after, packed = after + packed, struct.pack("<I", place)
        entries += struct.pack("<HHI", code, 4, len(values)) + packed
    content = struct.pack("<2sHI", b"II", 42, start) + b"".join(streams)
    return content.ljust(start, b"\0") + struct.pack("<H", len(tags)) + entries + bytes(4) + after


@pytest.mark.parametrize("colour", [True, False])
def test_tiles_of_jpeg(tmp_path, colour):
    """As a cloud-optimised GeoTIFF: each tile is what Pillow makes of the same JPEG."""
    picture = (RGB[:32, :48] >> 8).astype(np.uint8)
    picture = np.asarray(
        Image.fromarray(picture).resize((48, 32)).convert("RGB" if colour else "L")
    )
    streams, expected = [], np.zeros((32, 48, 3 if colour else 1), np.uint8)
    for top in (0, 16):
        for left in (0, 16, 32):
            file, place = io.BytesIO(), (slice(top, top + 16), slice(left, left + 16))
            Image.fromarray(picture[place]).save(file, "JPEG", subsampling=0)
            streams.append(file.getvalue())
            expected[place] = np.asarray(Image.open(file)).reshape(16, 16, -1)
    (tmp_path / "a.tif").write_bytes(jpeg_tiff(streams, (32, 48), 16, colour))
    agrees(tmp_path / "a.tif", expected)


def test_the_first_full_size_image_is_read(tmp_path):
    """Not the thumbnail before it, nor its overview, nor a mask of its size."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(RGB[:9, :9], photometric="rgb", subfiletype=1)
        file.write(RGB, photometric="rgb", subifds=1, tile=(16, 16))
        file.write(RGB[::2, ::2], photometric="rgb", subfiletype=1)
        file.write(RGB[..., 0] > 0, photometric="mask", subfiletype=4)
    agrees(tmp_path / "a.tif", RGB)
    header = read_header(tmp_path / "a.tif")
    assert (header.format, header.bits, header.frames, header.shape) == ("TIFF", 16, 1, (37, 50))


def test_pages_of_one_sample_are_bands_and_pages_in_colour_are_frames(tmp_path):
    tifffile.imwrite(tmp_path / "bands.tif", np.moveaxis(RGB, -1, 0), photometric="minisblack")
    agrees(tmp_path / "bands.tif", RGB)
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([RGB, RGB[::-1]]), photometric="rgb")
    agrees(tmp_path / "pages.tif", RGB)
    assert read_header(tmp_path / "pages.tif").frames == 2


def test_large_strips_without_compression_are_read_by_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "_STRIP_BYTES", 1000)
    for apart in (False, True):
        tifffile.imwrite(
            tmp_path / "a.tif",
            np.moveaxis(RGB, -1, 0) if apart else RGB,
            photometric="rgb",
            planarconfig="separate" if apart else "contig",
            rowsperstrip=37,
        )
        agrees(tmp_path / "a.tif", RGB)
        with TiffPixels(tmp_path / "a.tif") as pixels:
            assert pixels.tile_bytes <= 1000


def test_few_decoded_tiles_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "_CACHE_BYTES", 4000)
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", tile=(16, 16), compression="zlib")
    with TiffPixels(tmp_path / "a.tif") as pixels:
        np.testing.assert_array_equal(pixels[:, :], RGB)
        assert sum(tile.nbytes for tile in pixels._cache.values()) <= 4000


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_file_that_is_cut_off_or_damaged(tmp_path, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", compression=compression, rowsperstrip=8)
    content = path.read_bytes()
    path.write_bytes(content[:-200])
    with pytest.raises(ValueError, match=r"a\.tif cannot be read: .*cut off; use an intact TIFF"):
        read_image(path)
    if compression:
        path.write_bytes(content[:-200] + bytes(200))
        with pytest.raises(ValueError, match=r"a\.tif (cannot be read|holds)"):
            read_image(path)


def test_a_strip_decodes_to_no_more_than_the_header_says():
    bomb = zlib.compress(bytes(10**7))
    assert len(tiff._decompressed(bomb, 8, 2, 50)) == 100


def test_what_is_not_decoded_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    entry = content.index(struct.pack("<HHI", 259, 3, 1))
    content[entry + 8 : entry + 10] = struct.pack("<H", 34887)  # LERC
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(ValueError, match=r"compression LERC.*; use a TIFF without .*COMPRESS="):
        read_image(tmp_path / "a.tif")


def test_an_image_of_windows_is_the_image(tmp_path):
    four = np.dstack([RGB, RGB[..., 0]])
    options = dict(photometric="rgb", tile=(16, 16), extrasamples=["unassalpha"])
    tifffile.imwrite(tmp_path / "a.tif", four, **options)
    tifffile.imwrite(tmp_path / "grey.tif", RGB[..., 0])
    for name in ("a.tif", "grey.tif"):
        for ranges in ((), ((100, 30000),)):
            whole = read_image(tmp_path / name, value_range=ranges)
            windowed = WindowedImage(tmp_path / name, 3, ranges)
            assert (windowed.shape, windowed.dtype, windowed.ndim) == (whole.shape, np.uint8, 3)
            np.testing.assert_array_equal(windowed[3:20, 8:11], whole[3:20, 8:11])
            np.testing.assert_array_equal(windowed[3:20], whole[3:20])
            np.testing.assert_array_equal(np.asarray(windowed), whole)
            windowed.close()
    with pytest.raises(ValueError, match=r"has 4 channels, but data\.channels=5"):
        WindowedImage(tmp_path / "a.tif", 5)
