"""What image files say of themselves, read without decoding them."""

import contextlib
import dataclasses
import pathlib
import re
from typing import BinaryIO

from PIL import Image

from segjax.data.files.pixels import ARRAY_SUFFIX, mapped_npy, opened
from segjax.data.files.regular import regular
from segjax.data.files.tiff import TiffPixels, is_tiff

_ORIENTATION = 0x0112  # the EXIF tag
_CHUNKS, _EXIF_BYTES = 100_000, 1 << 16  # of a PNG; more are no photo's


@dataclasses.dataclass(frozen=True)
class Header:
    """The form of an image or mask file; one that cannot be opened has the defaults."""

    format: str = ""  # as Pillow says: "PNG", "JPEG", "TIFF"; "NPY"
    mode: str = ""  # as Pillow says: "RGB", "L", "P", "I;16"; of a .npy file "3 x uint8"
    bits: int = 8  # per channel: 8, 16, 32
    orientation: int = 1  # the EXIF tag; 1 = upright
    palette: bytes = b""  # of a palette file, three bytes a colour
    size: int = 0  # bytes of the file
    frames: int = 1  # of an animation, or pages in colour
    shape: tuple[int, int] = (0, 0)  # height and width as stored

    @property
    def may_be_shallow(self) -> bool:
        """Whether samples are whole numbers that may be far below the 65535 of their type."""
        return self.bits == 16 and not self.mode.endswith((" int16", " float16"))

    @property
    def is_colored(self) -> bool:
        """Whether the file holds colours, not grey levels or indices."""
        return self.mode in ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")

    def __str__(self) -> str:
        names = {"1": "black and white", "L": "grey", "LA": "grey with alpha", "P": "palette"}
        mode = "grey" if self.mode[:1] in ("I", "F") else names.get(self.mode, self.mode)
        return mode if " x " in self.mode or self.mode == "1" else f"{self.bits}-bit {mode}"


NO_HEADER = Header()


def read_header(path: pathlib.Path) -> Header:
    """The header of a file; its pixels are not decoded."""
    try:
        size = regular(path).stat().st_size
        if path.suffix.lower() == ARRAY_SUFFIX:
            array = mapped_npy(path)
            channels = array.shape[2] if array.ndim == 3 else 1
            mode, bits = f"{channels} x {array.dtype}", 8 * array.dtype.itemsize
            return Header("NPY", mode, bits, size=size, shape=array.shape[:2])
        if is_tiff(path):
            return _tiff_header(path, size)
        with opened(path) as image:
            palette = image.palette.palette if image.mode == "P" and image.palette else b""
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            return Header(
                image.format or "",
                image.mode,
                _bits(image),
                _orientation(image),
                bytes(palette),
                size,
                frames,
                (image.height, image.width),
            )
    except Exception:  # its decoders raise many kinds; whoever reads the file reports them
        return NO_HEADER


def _tiff_header(path: pathlib.Path, size: int) -> Header:
    """As tifffile sees it, for Pillow does not open all; the mode is Pillow's where it does."""
    with TiffPixels(path) as pixels:
        mode, palette = f"{pixels.shape[2]} x {pixels.dtype}", b""
        if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
            with contextlib.suppress(Exception), opened(path) as image:
                mode = image.mode
                palette = image.palette.palette if mode == "P" and image.palette else b""
        more = pixels.depth, pixels.orientation, bytes(palette), size, pixels.pages
        return Header("TIFF", mode, *more, pixels.shape[:2])


def _bits(image: Image.Image) -> int:
    """The depth in the file: Pillow reads 16-bit colours as 8-bit ones, and names both "RGB"."""
    if image.mode in ("I", "F"):
        return 32
    raw = [image.mode, *(str(tile[3]) for tile in getattr(image, "tile", ()))]
    return 16 if any(re.search(r";16", text) for text in raw) else 8


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info and (exif := _late_exif(image.filename)):
        image.info["exif"] = exif
    # Not `PngImageFile.getexif`, which decodes the image, as the chunk may follow the pixels.
    return int(Image.Image.getexif(image).get(_ORIENTATION, 1) or 1)


def _late_exif(path: str) -> bytes:
    """The EXIF of a PNG, wherever in the file it is."""
    with contextlib.suppress(OSError), open(regular(path), "rb") as file:
        file.seek(8)
        for _ in range(_CHUNKS):
            size, kind = _chunk(file)
            if kind == b"eXIf":
                return b"Exif\0\0" + file.read(min(size, _EXIF_BYTES))
            if kind in (b"IEND", b""):
                break
            file.seek(size + 4, 1)
    return b""


def _chunk(file: BinaryIO) -> tuple[int, bytes]:
    head = file.read(8)
    return int.from_bytes(head[:4], "big"), head[4:]
