"""What a weight file may ask of its reader, and how all that goes wrong reaches the user.

Sizes that a file declares are not believed. A file, its arrays as float32 and the content of a zip
have at most `MAX_BYTES`; a compressed one has at most `MAX_RATIO` times the bytes of its file, and
`SLACK`. What is larger is refused before memory is taken.
"""

import contextlib
import os
import zipfile
from collections.abc import Iterator, Mapping

from segjax.data.errors import in_a_line
from segjax.data.files.reading import words_of

MAX_BYTES = 16 * 2**30
MAX_RATIO, SLACK = 64, 2**24


class Refused(Exception):
    """The file is refused; the message says why and what to do, without the file's name."""


@contextlib.contextmanager
def reading(title: str | os.PathLike[str], kind: str = "weight file") -> Iterator[None]:
    """Turns every error inside into a ValueError of one line that names the file.

    Libraries raise errors of any class for a damaged file: all are the file's fault. A ValueError
    that names the file already passes.

    Args:
      title: the file's name in messages.
      kind: what the file should be.
    """
    try:
        yield
    except Refused as refused:
        text = in_a_line(str(refused), 1000)
        raise ValueError(f"weight file {title} cannot be read: {text}") from refused.__cause__
    except Exception as error:
        if isinstance(error, ValueError) and str(title) in str(error):
            raise
        raise ValueError(
            f"weight file {title} cannot be read: it is cut short, damaged, or no {kind} "
            f"({words_of(error)}); copy it again"
        ) from error


def largest(stored: int) -> int:
    """The most bytes that the content of a file of so many bytes may take."""
    return min(MAX_BYTES, MAX_RATIO * stored + SLACK)


def check_size(wanted: int, stored: int, what: str) -> None:
    """Raises `Refused` if something would have more bytes than the bounds of this module.

    Args:
      wanted: its bytes.
      stored: bytes of the file.
      what: its name.
    """
    if wanted > (limit := largest(stored)):
        raise Refused(
            f"{what} would take {wanted:,} bytes, and the file has {stored:,}; at most {limit:,} "
            f"are read ({MAX_RATIO} times the file, and never more than {MAX_BYTES:,})"
        )


def members(archive: zipfile.ZipFile, stored: int) -> Mapping[str, zipfile.ZipInfo]:
    """The files in a zip by name, once each.

    Raises:
      Refused: if a name occurs twice, or all of them together are too large (see `check_size`).
    """
    listed = archive.infolist()
    named = {info.filename: info for info in listed}
    if len(named) < len(listed):
        raise Refused("its zip holds two files of one name; write it again")
    check_size(sum(info.file_size for info in listed), stored, "the content of its zip")
    return named


def member_bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The content of a file in a zip, whose size `members` has checked.

    Raises:
      Refused: if it is encrypted, of an unusual compression, or has not the size that it declares.
    """
    name = info.filename
    if info.flag_bits & 1:
        raise Refused(f"{name} in it is encrypted; write it without a password")
    # The others take any memory for a few bytes, whatever size is declared.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused(
            f"{name} in it is compressed by method {info.compress_type}; store or deflate it"
        )
    with archive.open(info) as file:
        content = file.read(info.file_size)  # without a number it would inflate all at once
    if len(content) != info.file_size:
        raise Refused(f"{name} in it is cut short: {len(content):,} of {info.file_size:,} bytes")
    return content
