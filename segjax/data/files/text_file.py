"""Text files that others made: one bounded reader, whatever their encoding."""

import codecs
import io
import os
import re

from segjax.data.errors import DataError
from segjax.data.files.regular import read_bytes

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it starts with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(
    path: str | os.PathLike,
    remedy: str = "use a text file in UTF-8",
    *,
    most_bytes: int = 64 << 20,
    what: str = "",
) -> tuple[str, str]:
    """The text of a file in UTF-8, UTF-16 or UTF-32, or in Windows-1252 where no text of another
    one-byte encoding looks like it; and a note about the latter. Lines end with `\\n`.

    Args:
      path: of the file.
      remedy: what to do if it is missing or too large.
      most_bytes: a larger file is not read.
      what: words before the file's name in messages.

    Raises:
      DataError: naming the file, for one that cannot be read, is too large or has another encoding.
    """
    try:
        data = read_bytes(path, remedy, most_bytes)
    except DataError as error:
        raise DataError(what + error.found, error.remedy) from error
    title = f"{what}{path}"
    encoding = next((e for mark, e in _MARKS.items() if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in data:  # UTF-16 without a mark
        encoding = "utf-16-le" if data[1::2].count(0) > data[::2].count(0) else "utf-16-be"
    note = ""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        text, note = data.decode("cp1252", "replace"), "read as Windows-1252"
        # Two such letters side by side are rare in the languages of Windows-1252, and the rule in
        # others: Cyrillic, Greek and Asian text would become another text without a word.
        others = re.findall(r"[^\x00-\x7f]+", text)
        if encoding != "utf-8" or not all(len(run) == 1 and run.isalpha() for run in others):
            line = data[: error.start].count(b"\n") + 1
            found = f"{title}, line {line}: byte {data[error.start]:#x} is not of"
            raise DataError(f"{found} {encoding.upper()}", "save the file as UTF-8") from error
    if re.search(r"[\x00-\x08\x0e-\x1f\ufffd]", text):
        raise DataError(f"{title} is no text file", "use a text file in UTF-8")
    return io.StringIO(text.removeprefix("\ufeff"), newline=None).read(), note
