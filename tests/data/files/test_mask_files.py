"""Mask files of every type and depth, to the values that they hold."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from segjax.data.files.mask_files import read_stored
from segjax.data.files.masks import read_mask
from tests.data.drawn import save

IDS = np.array([[0, 1, 2], [2, 1, 0]])


@pytest.mark.parametrize("suffix", ["npy", "tif"])
@pytest.mark.parametrize(
    "dtype",
    ["bool", *(f"{k}int{b}" for k in ("", "u") for b in (8, 16, 32, 64)), "float32", "float64"],
)
def test_whole_numbers_of_any_type(tmp_path, suffix, dtype):
    if (dtype, suffix) == ("bool", "tif"):
        pytest.skip("tifffile writes none")
    path, ids = tmp_path / f"m.{suffix}", (IDS % 2 if dtype == "bool" else IDS).astype(dtype)
    if dtype in ("int16", "int32", "int64", "float32", "float64"):
        ids[0, 0] = -9999
    if dtype == "int8":
        ids[0, 0] = -1
    if dtype in ("uint16", "uint32", "uint64"):
        ids[0, 0] = 65000
    if suffix == "npy":
        np.save(path, ids)
    else:
        tifffile.imwrite(path, ids)
    read = read_mask(path)
    assert read.dtype == (np.uint8 if dtype in ("bool", "uint8") else np.int32)
    np.testing.assert_array_equal(read, ids)


@pytest.mark.parametrize("compression", [None, "tiff_deflate", "tiff_lzw", "group4"])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int32])
def test_compressed_tiffs(tmp_path, compression, dtype):
    if compression == "group4" and dtype is not bool:
        pytest.skip("of one bit alone")
    path = save(tmp_path / "m.tif", IDS.astype(dtype), compression=compression)
    np.testing.assert_array_equal(read_mask(path), IDS.astype(dtype))


def test_a_tiff_with_smaller_copies_and_a_palette(tmp_path):
    with tifffile.TiffWriter(tmp_path / "m.tif") as writer:
        writer.write(np.arange(64 * 64).astype(np.uint16).reshape(64, 64))
        writer.write(np.zeros((32, 32), np.uint16), subfiletype=1)
    assert read_mask(tmp_path / "m.tif")[63, 63] == 64 * 64 - 1
    picture = Image.fromarray(IDS.astype(np.uint8))
    picture.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    for suffix in ("tif", "png"):
        picture.save(tmp_path / f"p.{suffix}")
        stored = read_stored(tmp_path / f"p.{suffix}")
        assert (stored.values.tolist(), stored.palette[3:6]) == (IDS.tolist(), b"\xc8\0\0")


@pytest.mark.parametrize("shape", [(2, 3, 1), (1, 2, 3)])
def test_an_axis_of_one(tmp_path, shape):
    np.save(tmp_path / "m.npy", IDS.reshape(shape))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.npy"), IDS)


STACK = np.eye(4, dtype=np.uint8)[np.array([[0, 1, 2, 3, 0]])]  # [h, w, classes]


@pytest.mark.parametrize("suffix", ["npy", "tif"])
@pytest.mark.parametrize("first", [False, True])
def test_a_channel_for_each_class_is_refused_unless_it_is_asked_for(tmp_path, suffix, first):
    stack, path = np.repeat(STACK, 6, 0), tmp_path / f"m.{suffix}"
    stored = np.moveaxis(stack, -1, 0) if first else stack
    if suffix == "npy":
        np.save(path, stored)
    else:
        options = {} if first else {"planarconfig": "contig"}
        tifffile.imwrite(path, np.ascontiguousarray(stored), photometric="minisblack", **options)
    words = r"is a stack \[.*use np\.argmax\(mask, " + ("0" if first else "-1")
    with pytest.raises(ValueError, match=words):
        read_mask(path)
    read = read_stored(path, channels=4)
    assert read.is_stack
    np.testing.assert_array_equal(read.values, stack)
    with pytest.raises(ValueError, match="is a stack"):
        read_stored(path, channels=3)


@pytest.mark.parametrize(
    "values, words",
    [
        (
            np.array([[0, np.nan]]),
            r"1 of 2 pixels are NaN or infinite.*use one of data\.ig",
        ),
        (np.array([[0, 0.25]]), r"values that are no whole numbers, such as 0\.25; use whole"),
        (np.array([[0, -3.4e38]]), r"values from -3\.4e\+38 to 0.*use whole numbers of 64 bits"),
        (np.array([[0, 2**64 - 1]], np.uint64), "values from 0 to 18446744073709551615"),
        (np.array([["a"]]), r"holds <U1 \[1, 1\]; use an array"),
        (np.zeros((0, 3)), r"holds float64 \[0, 3\]; use an array"),
        (np.zeros((1, 2, 2, 2)), r"has the shape \[1, 2, 2, 2\]; use an array"),
        (np.array([[{}]], object), r"cannot be read: .*; use an intact \.npy file of numbers"),
        (np.array([[1j]]), "holds complex128"),
    ],
)
def test_arrays_that_hold_no_ids(tmp_path, values, words):
    np.save(tmp_path / "m.npy", values, allow_pickle=True)
    with pytest.raises(ValueError, match=rf"m\.npy:? {words}"):
        read_mask(tmp_path / "m.npy")


def test_a_header_that_states_more_than_the_file_holds(tmp_path):
    path = tmp_path / "m.npy"
    np.save(path, np.zeros((3, 4), np.uint8))
    path.write_bytes(path.read_bytes().replace(b"(3, 4)", b"(3000000, 4000000)"))
    with pytest.raises(ValueError, match=r"m\.npy cannot be read"):
        read_mask(path)


def test_several_frames_or_pages_are_no_mask(tmp_path):
    frames = [Image.fromarray(np.full((4, 5), k, np.uint8)) for k in (0, 200)]
    for suffix, words in (("gif", "has 2 frames"), ("webp", "has 2 frames"), ("tif", "is a stack")):
        path = tmp_path / f"m.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        with pytest.raises(ValueError, match=rf"m\.{suffix} {words}"):
            read_mask(path)


@pytest.mark.parametrize(
    "pixels, words",
    [
        (
            [[(0, 0, 0), (128, 64, 128)]],
            r"RGB with 2 colours \(#000000, #804080\); use a class list",
        ),
        ([[(9, 9, 9, 0), (9, 9, 9, 255)]], r"only the alpha channel varies; use .*\[\.\.\., -1\]"),
        ([[(9, 0), (9, 255)]], "only the alpha channel varies"),
    ],
)
def test_channels_that_are_no_ids(tmp_path, pixels, words):
    with pytest.raises(ValueError, match=rf"a\.png: .*{words}"):
        read_mask(save(tmp_path / "a.png", np.array(pixels, np.uint8)))
    Image.new("CMYK", (2, 2)).save(tmp_path / "c.tif")
    with pytest.raises(ValueError, match=r"c\.tif: .*found mode CMYK; use a one-channel PNG"):
        read_mask(tmp_path / "c.tif")
