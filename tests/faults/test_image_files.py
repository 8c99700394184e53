"""Image files that were damaged, or made to break their reader."""

import io
import struct
import sys
import time
import zlib

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from segjax.data.doctor.jpeg_ends import end_of_jpeg
from segjax.data.errors import DataError
from segjax.data.files.headers import NO_HEADER, read_header
from segjax.data.files.images import read_image
from segjax.data.files.masks import read_mask
from segjax.data.files.mat import load_mat
from segjax.data.files.tiff import TiffPixels
from segjax.data.sets.sunrgbd import read_seglabel
from tests.faults.damaged import IDS, RGB, chunk, encoded, png, refused, write

# Headers that claim more than there is.


def npy(header: str) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + b"\0" * 64


def claimed_bmp() -> bytes:
    data = bytearray(encoded(RGB, "BMP"))
    data[18:26] = struct.pack("<ii", 60000, 60000)
    return bytes(data)


def claimed_gif() -> bytes:
    data = bytearray(encoded(RGB, "GIF"))
    data[6:10] = struct.pack("<HH", 60000, 60000)
    return bytes(data)


def claimed_jpeg() -> bytes:
    data = bytearray(encoded(RGB, "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    return bytes(data)


def tiff(**tags: int) -> bytes:
    """A TIFF with other values of tags."""
    file = io.BytesIO()
    tifffile.imwrite(file, RGB, photometric="rgb")
    data = bytearray(file.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as read:
        for name, value in tags.items():
            offset = read.pages[0].tags[name].offset
            data[offset + 2 : offset + 12] = struct.pack("<HII", 4, 1, value)
    return bytes(data)


ZEROS_GZIP = zlib.compress(bytes(64 << 20), 9)
CLAIMS = {
    "a.png": [
        png(60000, 60000),
        png(2**31 - 1, 2**31 - 1),
        png(4, 4, chunk(b"zTXt", b"k\0\0" + ZEROS_GZIP)),
        png(4, 4, chunk(b"iTXt", b"k\0\1\0\0\0" + ZEROS_GZIP)),
        png(4, 4, chunk(b"iCCP", b"k\0\0" + ZEROS_GZIP)),
    ],
    "a.bmp": [claimed_bmp()],
    "a.gif": [claimed_gif()],
    "a.jpg": [claimed_jpeg()],
    "a.ppm": [b"P6 60000 60000 255\n" + bytes(100), b"P6 " + b"9" * 5000 + b" 4 255\n"],
    "a.tif": [
        tiff(ImageWidth=400000, ImageLength=400000),
        tiff(StripOffsets=2**31),
        tiff(StripByteCounts=2**31),
        tiff(RowsPerStrip=1),
        tiff(BitsPerSample=2**16),
        tiff(SamplesPerPixel=2**31),
    ],
    "a.npy": [
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (100000, 100000, 4)}"),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 4)}"),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (" + "(" * 60),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (4, 4)}"),
        npy("{'descr': '<U9', 'fortran_order': False, 'shape': (1, 1)}"),
        npy("{'descr': [('r', 'u1'), ('g', 'u1')], 'fortran_order': False, 'shape': (4, 4)}"),
        npy("__import__('os').system('touch RAN')"),
        b"PK\3\4" + bytes(200),
        b"",
    ],
}


@pytest.mark.fault("an image's header claims more than there is", "it is refused, unread")
@pytest.mark.parametrize(
    "name, place", [(n, k) for n, each in CLAIMS.items() for k in range(len(each))]
)
def test_claimed_sizes_are_not_believed(tmp_path, name, place):
    path = write(tmp_path / name, CLAIMS[name][place])
    if (name, place) != ("a.png", 4):  # a profile is left out, and the image is
        refused(lambda: read_image(path), name)
    refused(lambda: read_mask(path), name)
    read_header(path)


@pytest.mark.fault("an image file holds a program or names other files", "they are left alone")
def test_formats_that_run_programs_or_open_files_are_no_images(tmp_path):
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n%%EndComments\nshowpage\n"
    refused(lambda: read_image(write(tmp_path / "a.png", eps)), "cannot identify image file")
    ome = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels DimensionOrder="XYCZT" ID="Pixels:0" SizeC="1" SizeT="2" '
        'SizeX="6" SizeY="4" SizeZ="1" Type="uint8"><TiffData FirstT="1" IFD="0"><UUID '
        'FileName="other.tif">urn:uuid:1</UUID></TiffData></Pixels></Image></OME>'
    )
    tifffile.imwrite(tmp_path / "other.tif", IDS)
    tifffile.imwrite(tmp_path / "a.ome.tif", IDS, description=ome, metadata=None)
    opened = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    with TiffPixels(tmp_path / "a.ome.tif") as pixels:
        np.testing.assert_array_equal(pixels[:, :][..., 0], IDS)
    assert not any(name.endswith("other.tif") for name in opened)


@pytest.mark.fault("the headers of a TIFF are a long chain", "it is refused in time")
def test_a_tiff_of_thousands_of_headers(tmp_path):
    body = bytearray(b"II*\0" + struct.pack("<I", 8))
    for k in range(5000):
        at = 8 + 18 * k
        body += struct.pack("<HHHIII", 1, 256, 4, 1, 6, at + 18)
    path = write(tmp_path / "a.tif", bytes(body) + bytes(6))
    start = time.process_time()
    refused(lambda: read_image(path), "a.tif has over 4096 pages")
    assert time.process_time() - start < 2


@pytest.mark.fault(
    "one byte of a TIFF mask's header is another", "it is read, or named in one line"
)
@pytest.mark.parametrize("change", [1, 255])
def test_any_byte_of_a_tiff_header(tmp_path, change):
    file = io.BytesIO()
    tifffile.imwrite(file, IDS.astype(np.int32), compression="zlib")
    intact = file.getvalue()
    for place in range(256):
        path = tmp_path / "m.tif"
        path.write_bytes(intact[:place] + bytes([intact[place] ^ change]) + intact[place + 1 :])
        message = "m.tif is read"
        try:
            read_mask(path)
        except DataError as error:
            message = str(error)
        assert "m.tif" in message, place


@pytest.mark.fault("the strips of a mask inflate to more than its size", "its size is what is read")
def test_strips_that_inflate(tmp_path):
    file = io.BytesIO()
    tifffile.imwrite(file, IDS.astype(np.int32), compression="zlib")
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as read:
        offset, count = (read.pages[0].tags[n].offset for n in ("StripOffsets", "StripByteCounts"))
    data = bytearray(file.getvalue())
    data[offset + 2 : offset + 12] = struct.pack("<HII", 4, 1, len(data))
    data[count + 2 : count + 12] = struct.pack("<HII", 4, 1, len(ZEROS_GZIP))
    assert read_mask(write(tmp_path / "m.tif", bytes(data + ZEROS_GZIP))).max() == 0


def matlab(dims: tuple[int, ...], kind: int = 1, size: int = 200) -> bytes:
    element = lambda t, d: struct.pack("<II", t, len(d)) + d.ljust(-(-len(d) // 8) * 8, b"\0")  # noqa: E731
    body = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack("<ii", *dims))
    body += element(1, b"GTcls")
    return b" " * 124 + b"\0\1IM" + struct.pack("<II", 14, len(body) + size) + body + bytes(size)


@pytest.mark.fault("a MATLAB file claims more than it holds", "it is refused")
@pytest.mark.parametrize(
    "data",
    [
        matlab((2**31 - 1, 2**31 - 1)),
        matlab((40000, 40000), kind=2),
        matlab((-4, 4), kind=9),
        b" " * 124 + b"\0\1IM" + struct.pack("<II", 15, len(ZEROS_GZIP) * 3) + ZEROS_GZIP,
        b" " * 124 + b"\0\1IM" + struct.pack("<II", 14, 2**31),
        b"",
    ],
)
def test_matlab_files_that_claim_more(tmp_path, data):
    path = write(tmp_path / "a.mat", data)
    refused(lambda: load_mat(path, "GTcls", "use another"), "a.mat no GTcls can be read")


@pytest.mark.fault("an HDF5 file takes its content from another", "it is refused")
@pytest.mark.parametrize("how", ["virtual", "link", "storage", "huge"])
def test_hdf5_of_other_files_is_not_read(tmp_path, how):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = IDS
    path = tmp_path / "SUNRGBD2Dseg.mat"
    with h5py.File(path, "w") as file:
        if how == "virtual":
            layout = h5py.VirtualLayout((4, 6), np.uint8)
            layout[...] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", (4, 6))
            file.create_virtual_dataset("x", layout)
        elif how == "storage":
            external = [(str(tmp_path / "secret.h5"), 0, 24)]
            file.create_dataset("x", (4, 6), np.uint8, external=external)
        elif how == "huge":
            file.create_dataset("x", (10**6, 10**6), np.uint8, chunks=(10, 10))
        if how == "link":
            file["SUNRGBD2Dseg"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/")
        else:
            references = np.array([[file["x"].ref]], h5py.ref_dtype)
            file.create_dataset("SUNRGBD2Dseg/seglabel", data=references)
    refused(lambda: read_seglabel(path, 0), "SUNRGBD2Dseg.mat cannot be read as")


# JPEG files that end early.


@pytest.mark.fault("a JPEG file is cut and closed again", "the doctor names it")
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
@pytest.mark.parametrize("turned", [1, 6])
def test_a_cut_jpeg_is_seen(tmp_path, options, turned):
    exif = Image.Exif()
    exif[0x0112] = turned
    noise = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    large = np.asarray(Image.fromarray(noise).resize((360, 200)))
    whole = encoded(large, "JPEG", exif=exif, **options)
    path = tmp_path / "a.jpg"
    for cut in (0, 500, 2500):
        write(path, whole if not cut else whole[:-cut] + b"\xff\xd9")
        assert bool(end_of_jpeg(path, read_image(path, exif="apply"))) == bool(cut)


def test_grey_pictures_are_whole(tmp_path):
    grey = np.full((40, 64, 3), 128, np.uint8)
    path = write(tmp_path / "a.jpg", encoded(grey, "JPEG"))
    assert end_of_jpeg(path, read_image(path)) == ""
    assert read_header(path) != NO_HEADER
