import json
import os
import tracemalloc

import pytest

from segjax.data.errors import DataError
from segjax.data.files import json_file
from segjax.data.files.json_file import need_form, need_type, parse_json, read_bytes, read_json

DEEP = "[" * 64 + "]" * 64


def read(path, **options):
    return read_json(path, "the record of a test", "write it again", **options)


def test_values_are_those_of_json(tmp_path):
    value = {"a": [1, -2.5, None, True, "ü"], "b": {}, "n": -(2**63)}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    assert read(path, fields={"a": list, "b": dict, "n": (int, str)}) == value
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert read(path, kind=list) == [1]
    assert parse_json(DEEP) == json.loads(DEEP)
    assert parse_json('"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b" \n", "it holds no value"),
        (b"\0" * 9, "it holds no value"),
        (b'{"a": 1', "ends too early, in line 1"),
        (b'{"a": "1', "in line 1, column 7"),
        (b'{\n"a" 1}', "in line 2, column 5"),
        (b"{} {}", "extra data in line 1, column 4"),
        (b"\xff\xfe{\0}\0", "byte 0 is not of UTF-8"),
        (b'{"a": "\xe9"}', "byte 7 is not of UTF-8"),
        (b"[1]", "it is a list, not an object"),
        (b"7", "it is a whole number, not an object"),
        (b'{"b": 1}', "'a' is missing"),
        (b'{"a": "1"}', "a is text, not a whole number or null"),
        (b'{"a": true}', "a is true or false, not a whole number or null"),
        (b'{"a": 1, "a": 2}', "'a' occurs twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'{"a": 1e999}', "'1e999' is no number"),
        (b'{"a": 9223372036854775808}', "is beyond 64 bits"),
        (b'{"a": ' + b"9" * 5000 + b"}", "9...' is beyond 64 bits"),
        (b'{"a": "\\udc80"}', "half of a surrogate pair"),
        (f'{{"a": {DEEP}}}'.encode(), "more than 64 lists and objects"),
        (b'{"a": ' + b"[" * 200_000, "more than 64 lists and objects"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, content, words):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read(path, fields={"a": (int, type(None))})
    text = str(caught.value)
    assert text.startswith(f"{path} is not the record of a test: ")
    assert "\n" not in text
    assert text.endswith("; write it again")


def test_large_annotations_are_read_as_they_are():
    assert parse_json('{"a": 1, "a": 2, "b": 12345678901234567890}', strict=False)["a"] == 2
    with pytest.raises(ValueError, match="lie in one another"):
        parse_json("[" * 200_000, strict=False)


def test_what_is_no_file_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, words in {
        "absent": "is missing",
        "folder": "is a folder, not a file",
        "pipe": "is a pipe or a device, not a file",
        "n" * 300: "File name too long",
    }.items():
        with pytest.raises(DataError, match=words):
            read(tmp_path / name)
    with pytest.raises(DataError, match="is a pipe or a device"):
        read("/dev/zero")


def test_a_large_file_is_not_read(tmp_path):
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # without a block on the disk
    tracemalloc.start()
    with pytest.raises(DataError, match="has 1,099,511,627,776 bytes; 67,108,864 are the most"):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    path.write_bytes(b"[12]")
    with pytest.raises(DataError, match="has 4 bytes; 3 are the most"):
        read_bytes(path, "use a smaller one", 3)


def test_types_of_json():
    need_type(3, float, "a")
    with pytest.raises(ValueError, match="a is a number, not a whole number"):
        need_type(3.0, int, "a")
    assert set(json_file._KINDS) == {dict, list, str, bool, int, float, type(None)}


FORM = {"rows": [{"name": str, "step": (int, float)}], "more": {str: [object]}}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"rows": 1, "more": {}}, r"v\.rows is a whole number, not a list"),
        ({"rows": [{"name": "a"}], "more": {}}, r"v\.rows\[0\] has no 'step'"),
        ({"rows": [{"name": 1, "step": 1}], "more": {}}, r"\[0\]\.name is a whole number"),
        ({"rows": [], "more": {"x": None}}, r"v\.more\.x is null, not a list"),
        ({"rows": []}, "v has no 'more'"),
        ([], "v is a list, not an object"),
    ],
)
def test_another_form_is_named(value, words):
    need_form({"rows": [{"name": "a", "step": 1.5}], "more": {"x": [None, 1]}}, FORM, "v")
    with pytest.raises(ValueError, match=words):
        need_form(value, FORM, "v")
