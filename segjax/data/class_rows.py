"""The rows of a class list, from columns or keys of any usual names."""

import dataclasses
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from segjax.data.classes import Color

# What the columns of tables and the keys of JSON are called, without case, spaces and signs. Of
# several in one file the first counts.
NAME_WORDS = (
    *("displayname", "name", "names", "classname", "labelname", "categoryname", "title", "class"),
    *("label", "category", "object", "classes", "labels", "text", "value"),
)
_ID = (
    *("pixelvalue", "maskvalue", "grayvalue", "greyvalue", "pngindex", "id", "classid", "labelid"),
    *("categoryid", "idx", "index", "value", "pixel", "code", "number", "unnamed0"),
)
_TRAIN_ID = ("trainid", "trainids", "labeltrainid")
COLOR_WORDS = (
    *("color", "colour", "rgb", "rgba", "hex", "colorrgb", "colorhex", "hexcolor", "rgbcolor"),
    *("colors", "colours", "colourrgb", "colourhex", "hexcolour", "rgbcolour", "maskcolor"),
)
CHANNEL_WORDS = (("r", "red"), ("g", "green"), ("b", "blue"))
_IGNORE = ("ignore", "ignored", "ignoreineval", "void", "isvoid")
_EVALUATE = ("evaluate", "evaluated", "ineval")
KNOWN = {*NAME_WORDS, *_ID, *_TRAIN_ID, *COLOR_WORDS, *_IGNORE, *_EVALUATE, *sum(CHANNEL_WORDS, ())}
# One of these alone in the first line is a header.
TITLES = {
    *("name", "names", "class", "classes", "label", "labels", "category", "categories", "title"),
    *("classname", "labelname", "categoryname"),
}
HEX_COLOR = r"#(?:[0-9a-fA-F]{8}|[0-9a-fA-F]{6}|[0-9a-fA-F]{3})"
_BYTE = range(256)
_TRUTH = dict.fromkeys(("true", "1", "yes", "ignore"), True)
_TRUTH |= dict.fromkeys(("false", "0", "no", "none", ""), False)


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a class list."""

    place: str  # in the file, such as "line 3"
    name: str | None = None
    id: int | None = None  # in mask files
    train_id: int | None = None
    color: Color | None = None
    ignored: bool = False


class Unclear(ValueError):
    """What is wrong with a row, and its place; and what to do, if more is known than the forms."""

    def __init__(self, found: str, remedy: str = ""):
        super().__init__(found)
        self.remedy = remedy


# A place, and what the row gives by `word_of`, and `MARK` for a line that ends with `ignore`.
MARK = "ignore mark"
Record = tuple[str, Mapping[str, Any]]


def rows_of(records: Sequence[Record], named: bool = False) -> list[Row]:
    """The rows of records; with `named` each needs a name."""

    def first(words: Iterable[str]) -> str | None:
        return next((word for word in words if word in keys), None)

    def wholes(word: str) -> list[int | None]:
        return [whole(record.get(word)) for _, record in records]

    keys = dict.fromkeys(key for _, record in records for key in record)
    names = [word for word in NAME_WORDS if word in keys]
    textual = [word for word in names if None in wholes(word)]
    if not names and not named:  # a word of another language
        textual = [word for word in keys.keys() - KNOWN - {MARK} if {*wholes(word)} == {None}]
        if len(textual) > 1:
            raise Unclear(f"no column is called name, and {', '.join(sorted(textual))} may be it")
    name = (textual or names or [None])[0]
    # A column of no number at all holds keys of a database.
    ids = [word for word in _ID if word in keys and word != name and {*wholes(word)} != {None}]
    ids += [word for word in names if word not in textual]
    id_, train_id, color = ids[0] if ids else None, first(_TRAIN_ID), first(COLOR_WORDS)
    channels = [first(words) for words in CHANNEL_WORDS]
    if color is None and any(channels) and not all(channels):
        raise Unclear(f"there is a column {', '.join(filter(None, channels))}, but not all of rgb")
    ignore, evaluate = first(_IGNORE), first(_EVALUATE)
    rows = []
    for place, record in records:
        try:
            train = _number(record, train_id)
            values = record.get(color) if color else [record.get(c, "") for c in channels if c]
            empty = values in (None, "") or (isinstance(values, list) and not any(map(str, values)))
            ignored = _truth(record, ignore) or train in (-1, 255) or MARK in record
            ignored |= evaluate is not None and evaluate in record and not _truth(record, evaluate)
            text = record.get(name) if name else None
            if isinstance(text, list | tuple | dict) or (named and text in (None, "")):
                raise ValueError(f"the name is {reprlib.repr(text)}" if text else "no name")
            rows.append(
                Row(
                    place,
                    None if text is None else str(text).strip() or None,
                    _number(record, id_),
                    None if ignored else train,
                    None if empty else read_color(values),
                    ignored,
                )
            )
        except ValueError as error:
            raise Unclear(f"{place}: {error}") from error
    return rows


def _number(record: Mapping[str, Any], key: str | None) -> int | None:
    value = record.get(key) if key else None
    number = whole(value)
    if number is None and value not in (None, ""):
        raise ValueError(f"{key} {reprlib.repr(value)} is no whole number")
    return number


def _truth(record: Mapping[str, Any], key: str | None) -> bool:
    value = record.get(key, "") if key else ""
    truth = _TRUTH.get(str(value).strip().lower())
    if truth is None:
        raise ValueError(f"{key} {reprlib.repr(value)} is neither true nor false")
    return truth


def read_color(value: Any) -> Color:
    """A colour of a file; ValueError for anything else.

    It is [r, g, b] or [r, g, b, a], as numbers or their digits, or a text: "#rrggbb",
    "#rrggbbaa", "#rgb", or three or four numbers such as "128 64 128" and "rgb(128, 64, 128)".
    Alpha does not count.
    """
    parts = value
    if isinstance(value, str):
        digits = re.fullmatch(HEX_COLOR + "|[0-9a-fA-F]{6}", value.strip())
        if digits:
            digits = digits[0].removeprefix("#")
            parts = list(
                bytes.fromhex(digits if len(digits) > 3 else re.sub("(.)", r"\1\1", digits))
            )
        else:
            parts = re.split(r"[\s,]+", re.sub(r"^rgba?(?=\W)|[()\[\]]", " ", value).strip())
    if isinstance(parts, list) and len(parts) in (3, 4):
        red, green, blue = (whole(part) for part in parts[:3])
        if red in _BYTE and green in _BYTE and blue in _BYTE:
            return red, green, blue
    shown = reprlib.repr(value)
    raise ValueError(f"colour {shown} is not three whole numbers in 0..255, nor #rrggbb")


def whole(value: Any) -> int | None:
    """7 of 7, 7.0 and their texts; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    match = re.fullmatch(r"\s*([-+]?\d{1,18})(\.0*)?\s*", str(value))
    return int(match[1]) if match else None


def word_of(value: Any) -> str:
    """A header word without case, spaces and signs; unnamed0, as pandas says, for an empty one."""
    return re.sub(r"[\W_]", "", str(value).lower()) or "unnamed0"
