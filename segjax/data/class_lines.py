"""The rows of a class list in text: a table with a header, or lines of numbers and a name."""

import csv
import dataclasses
import re
from collections.abc import Sequence

from segjax.data.class_rows import (
    CHANNEL_WORDS,
    COLOR_WORDS,
    HEX_COLOR,
    KNOWN,
    MARK,
    NAME_WORDS,
    TITLES,
    Record,
    Row,
    Unclear,
    rows_of,
    word_of,
)

_MOST_COMMENTS, _MOST_COLUMNS = 100, 1000
_SEPARATORS = "\t;,|:"
_NUMBER = re.compile(rf"[-+]?\d+(?:\.\d*)?|{HEX_COLOR}")
_TOKEN = re.compile(r'"[^"]*"|\'[^\']*\'|[^\s,;:=|()\[\]]+')
_HEADER = "use a header line such as `id,name,r,g,b` to say which column is which"
_COLORED = {*COLOR_WORDS, *sum(CHANNEL_WORDS, ())}


@dataclasses.dataclass(frozen=True)
class _Line:
    """A line without a header: numbers, a name, numbers."""

    place: str
    name: str
    before: tuple[str, ...]  # numbers and #rrggbb in front of the name, or without a name
    after: tuple[str, ...]
    ignored: bool

    @property
    def shape(self) -> tuple[int, int, int, bool]:
        """Numbers before and after the name, colours as #rrggbb, and whether there is a name."""
        hexes = sum(n.startswith("#") for n in self.numbers)
        return len(self.before), len(self.after), hexes, bool(self.name)

    @property
    def numbers(self) -> tuple[str, ...]:
        return self.before + self.after


def line_rows(text: str) -> list[Row]:
    """The rows of a class list in text.

    Raises:
      Unclear: naming the line.
    """
    lines, comments = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") and not re.match(rf"\s*{HEX_COLOR}(?!\w)", line):
            if not lines and len(comments) < _MOST_COMMENTS:
                comments.append(line.lstrip("# \t"))
        elif _TOKEN.search(line) and not re.fullmatch(r"sep=.", line.strip()):  # Excel's
            lines.append((f"line {number}", re.sub(r"\s#\s.*", "", line)))
    if not lines:
        return []
    for place, line in lines:
        if re.search(r"[{}<>]|=\s*[\[(]", line):  # of another language
            raise Unclear(f"{place}: {line.strip()[:40]!r} is no class")
    header, separator = _header(lines[0][1], [line for _, line in lines[1:]])
    if header:
        lines = lines[1:]
    else:
        for comment in comments:
            header, separator = _header(comment, [line for _, line in lines], comment=True)
            if header:
                break
    if not header and all(line.count(":") == 3 for _, line in lines):  # CVAT's and Datumaro's
        header, separator = ["label", "colorrgb", "parts", "actions"], ":"
    if len(header) > _MOST_COLUMNS:
        raise Unclear(f"the header has {len(header)} columns")
    if header and separator:
        return rows_of(_records(header, separator, lines))
    if not lines:
        return []
    if not header and len(lines) == 1 and (names := _names(*lines[0])):
        return names
    parsed = [_parse(place, line) for place, line in lines]
    if not header:
        _refuse_unknown_columns(lines, parsed)
    return rows_of(_meaning(parsed, [word for word in header if word not in NAME_WORDS]))


def _cells(line: str, separator: str) -> list[str]:
    """The cells of a line; "" separates by white space."""
    if not separator:
        return line.split()
    return [c.strip() for c in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]


def _header(line: str, others: Sequence[str], comment: bool = False) -> tuple[list[str], str]:
    """The words of a header and the separator of the table; ([], "") for another line."""
    counts = {s: len(_cells(line, s)) for s in _SEPARATORS}
    separator = max(counts, key=lambda s: counts[s])
    separator = separator if counts[separator] > 1 else ""
    cells = _cells(line, separator)
    words = [word_of(cell) for cell in cells]
    known = [word for word in words if word in KNOWN]
    titled = not {*words}.isdisjoint(NAME_WORDS if not others else {*NAME_WORDS, *_COLORED})
    if any(map(_NUMBER.fullmatch, cells)) or not titled:
        return [], ""
    if len(words) == 1:
        return ([], "") if comment or words[0] not in TITLES else (words, "")
    split = [bool(separator) and len(_cells(other, separator)) > 1 for other in others]
    tabular = all(split) if comment else any(split)
    aligned = any(len(_cells(other, separator)) == len(words) for other in others)
    if len(known) < 2 and not (tabular and aligned and not comment):
        return [], ""
    if comment and not tabular and len(known) < len(words):  # a sentence
        return [], ""
    numbers = any(map(_NUMBER.fullmatch, " ".join(others).split()))
    if others and not tabular and not numbers:  # names such as `class b`
        return [], ""
    twice = sorted({word for word in known if words.count(word) > 1} - {"unnamed0"})
    if twice:
        raise Unclear(f"the header has two columns {', '.join(twice)}")
    return words, separator if tabular else ""


def _records(
    header: Sequence[str], separator: str, lines: Sequence[tuple[str, str]]
) -> list[Record]:
    records = []
    for place, line in lines:
        cells = _cells(line, separator)
        while cells and not cells[-1]:
            cells.pop()
        marked = len(cells) > 1 and cells[-1] == "ignore" and len(cells) != len(header)
        cells = cells[: len(cells) - marked]
        if len(cells) > len(header) and header[-1] in COLOR_WORDS:  # (128, 64, 128) without quotes
            last = len(header) - 1
            cells[last:] = [" ".join(cells[last:])]
        if len(cells) > len(header) or (len(cells) == 1 and _parse(place, line).numbers):
            raise Unclear(f"{place} has {len(cells)} columns, but the header {len(header)}")
        if cells:
            record = dict(zip(header, cells, strict=False))
            records.append((place, {**record, MARK: True} if marked else record))
    return records


def _names(place: str, line: str) -> list[Row] | None:
    """The classes of one line `road,car,sky`; None for another line."""
    for separator in "\t;,":
        cells = [cell for cell in _cells(line, separator) if cell]
        if len(cells) > 1 and not any(map(_NUMBER.fullmatch, " ".join(cells).split())):
            return [Row(place, cell) for cell in cells]
    return None


def _parse(place: str, line: str) -> _Line:
    tokens = list(_TOKEN.finditer(line))
    ignored = len(tokens) > 1 and tokens[-1][0] == "ignore"
    if ignored:
        line = line[: tokens.pop().start()]
    numeric = [bool(_NUMBER.fullmatch(token[0])) for token in tokens]
    first = numeric.index(False) if False in numeric else len(tokens)
    last = len(tokens) - numeric[::-1].index(False) if False in numeric else len(tokens)
    name = "ignore" if ignored and first == len(tokens) else ""
    if first < len(tokens):
        end = tokens[last].start() if last < len(tokens) else len(line)
        name = line[tokens[first].start() : end].strip(" \t,;:=|")
        name = name.rstrip("([ \t,;:=|") if last < len(tokens) else name
        name = re.sub(r"^-\s+|(?<!\s)\s+-$", "", name)
        if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'":
            name = name[1:-1].strip()
    texts = [token[0].rstrip(".") for token in tokens]
    return _Line(place, name, tuple(texts[:first]), tuple(texts[last:]), ignored)


def _refuse_unknown_columns(lines: Sequence[tuple[str, str]], parsed: Sequence[_Line]) -> None:
    """Raises Unclear for a first line that may be a header, and for several texts in each line."""
    (place, first), others = lines[0], lines[1:]
    if others and not parsed[0].numbers and all(line.numbers for line in parsed[1:]):
        for separator in ("\t", ";", ",", ""):
            count = len(_cells(first, separator))
            if count > 1 and any(len(_cells(line, separator)) == count for _, line in others):
                raise Unclear(f"{place}: {first.strip()[:60]!r} may be a header", _HEADER)
    for separator in "\t;,":
        texts = [
            sum(not all(map(_NUMBER.fullmatch, cell.split())) for cell in _cells(line, separator))
            for _, line in lines
        ]
        if len(lines) > 1 and min(texts) > 1 and len({*texts}) == 1:
            raise Unclear(f"{place}: {first.strip()[:60]!r} has {texts[0]} texts", _HEADER)


def _meaning(lines: Sequence[_Line], columns: Sequence[str]) -> list[Record]:
    """Records of lines whose numbers all mean the same; `columns` are those of a header."""
    shapes = [line.shape for line in lines]
    bare = (0, 0, 0, True)
    others = list(dict.fromkeys(shape for shape in shapes if shape != bare))
    share = 1 - shapes.count(bare) / len(lines)
    if others == [(0, 1, 0, True)] and len({line.name for line in lines}) < len(lines):
        others, lines = [], [_as_name(line) for line in lines]  # `zone 1`, `zone 2`
    elif len(others) == 1 and share < 1:
        kept = [line for line in lines if line.shape != bare]
        if not _is_color(others[0]):
            if share > 0.5:
                odd = next(line for line in lines if line.shape == bare)
                raise Unclear(
                    f"{odd.place}: {odd.name[:60]!r} has no number, unlike other lines",
                    "use the same form in all lines, or quotes around names that have numbers",
                )
            others, lines = [], [_as_name(line) for line in lines]
        elif share < 0.5 and not all(line.ignored for line in kept):
            raise Unclear(
                f"{kept[0].place}: {' '.join((kept[0].name, *kept[0].numbers))!r} may be a name "
                "with numbers, or a name and its colour, which other lines lack",
                "use quotes around such a name, or colours in all lines",
            )
    elif len(others) > 1:
        if share > 0.5 or not all(shape in ((0, 1, 0, True), (1, 0, 0, True)) for shape in others):
            odd = next(line for line in lines if line.shape not in (bare, others[0]))
            raise Unclear(f"{odd.place} has another form than the lines before", _HEADER)
        others, lines = [], [_as_name(line) for line in lines]  # `zone 1`, `2 wheeler`, `road`
    if not others:
        return [_record(line, ()) for line in lines]
    meaning = _columns(lines, others[0], columns)
    return [_record(line, meaning) for line in lines]


def _is_color(shape: tuple[int, int, int, bool]) -> bool:
    return shape[:3] in ((3, 0, 0), (0, 3, 0), (1, 0, 1), (0, 1, 1), (0, 4, 0), (4, 0, 0))


def _as_name(line: _Line) -> _Line:
    name = " ".join((*line.before, line.name, *line.after))
    return dataclasses.replace(line, name=name, before=(), after=())


def _record(line: _Line, columns: Sequence[str]) -> Record:
    numbers = line.numbers
    record: dict[str, object] = dict(zip(columns, numbers, strict=bool(numbers)))
    if line.name:
        record["name"] = line.name
    return line.place, {**record, MARK: True} if line.ignored else record


def _columns(
    lines: Sequence[_Line], shape: tuple[int, int, int, bool], columns: Sequence[str]
) -> Sequence[str]:
    """What the numbers of each line are."""
    before, after, hexes, _ = shape
    count = before + after
    table = [line.numbers for line in lines if line.numbers]
    if len(columns) == count:
        return columns
    if hexes == 1 and count == 1:
        return ("color",)
    if hexes == 1 and count == 2:
        return ("color", "id") if table[0][0].startswith("#") else ("id", "color")
    if not hexes and count == 1:
        return ("id",)
    if not hexes and count == 3:
        return ("r", "g", "b")
    first, last = ([row[place] for row in table] for place in (0, -1))
    if not hexes and count == 5 and before == 1:
        return ("id", "r", "g", "b", "a")
    if not hexes and count == 4:
        if before == 1:
            return ("id", "r", "g", "b")
        if after == 1:
            return ("r", "g", "b", "id")
        counted = [str(k) for k in range(len(table))]
        one_each = [len({*column}) == len(table) for column in (first, last)]
        if {*last} == {"255"} and len(table) > 1:
            return ("r", "g", "b", "a")
        if first == counted or (one_each == [True, False]):
            return ("id", "r", "g", "b")
        if last == counted or (one_each == [False, True]):
            return ("r", "g", "b", "id")
    raise Unclear(f"{lines[0].place}: {' '.join(table[0])} may mean several things", _HEADER)
