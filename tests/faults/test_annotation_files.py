"""Class lists, lists and polygons that were damaged, or made to break their reader."""

import base64
import contextlib
import itertools
import json
import os
import time
import zlib

import numpy as np
import pytest

from segjax.data import class_lists
from segjax.data.class_map import read_class_map
from segjax.data.datasets import make_source
from segjax.data.errors import DataError
from segjax.data.files.lists import is_list, read_list
from segjax.data.layouts.match import Choice
from segjax.data.layouts.samples import Place
from segjax.data.polygons.class_names import labels_of
from segjax.data.polygons.formats import annotation_of, annotations_of
from segjax.data.sets.idd import draw_polygons
from segjax.inference.inputs import open_inputs
from tests.data.drawn import THREE, data_config, photo
from tests.faults.damaged import png, refused, write

# Polygons.


def idd(points, **more):
    return {
        "imgWidth": 64,
        "imgHeight": 32,
        "objects": [{"label": "road", "polygon": points}],
    } | more


@pytest.mark.fault("polygons claim a huge image, or lie nowhere", "their file is named")
@pytest.mark.parametrize(
    "content",
    [
        idd([], imgWidth=60000, imgHeight=60000),
        idd([], imgWidth=10**9, imgHeight=10**9),
        idd([], imgWidth=-5),
        '{"imgWidth": NaN, "imgHeight": 32, "objects": []}',
        '{"imgWidth": 1e999, "imgHeight": 32, "objects": []}',
        json.dumps(idd([[0, 0], [1, 0], [1, "far"]])).replace('"far"', "1e400"),
        idd([[0, 0], [10**400, 1], [2, 2]]),
        idd([1, 2, 3]),
        idd([[0, 0], ["a", 1], [2, 2]]),
        idd([], objects={"a": 1}),
        idd([], objects=[3]),
        "[]",
        '{"objects": ' + "[" * 100_000,
    ],
)
def test_polygons_of_impossible_images(tmp_path, content):
    path = write(tmp_path / "a.json", content)
    refused(lambda: draw_polygons(path, "level1"), "a.json")


def supervisely(png: bytes) -> dict:
    bitmap = {"origin": [0, 0], "data": base64.b64encode(zlib.compress(png)).decode()}
    item = {"classTitle": "a", "geometryType": "bitmap", "bitmap": bitmap}
    return {"size": {"height": 4, "width": 6}, "objects": [item]}


@pytest.mark.fault("run lengths or bitmaps hold more than an image", "their file is named")
@pytest.mark.parametrize(
    "name, content",
    [
        ("a.json", supervisely(png(20000, 20000))),
        (
            "c.json",
            {
                "images": [{"id": 1, "file_name": "a.png", "height": 10**6, "width": 10**6}],
                "categories": [{"id": 1, "name": "a"}],
                "annotations": [
                    {
                        "image_id": 1,
                        "category_id": 1,
                        "segmentation": {"size": [10**6, 10**6], "counts": [10**12]},
                    }
                ],
            },
        ),
        (
            "c.xml",
            '<annotations><image name="a.png" width="6" height="4"><mask label="a" left="0" '
            'top="0" rle="9000000000" width="90000" height="100000"/></image></annotations>',
        ),
        (
            "d.xml",
            '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;">]>'
            "<annotations>&c;</annotations>",
        ),
        (
            "e.xml",
            '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotations>&b;</annotations>',
        ),
    ],
)
def test_bitmaps_beyond_any_image(tmp_path, name, content):
    path = write(tmp_path / name, content)
    read = annotations_of if name != "a.json" else lambda p: annotation_of(p, (4, 6))
    refused(lambda: read(path), name, "cannot be drawn")


@pytest.mark.fault("polygons by number have a huge number", "their folder is named")
def test_yolo_classes_beyond_any_list(tmp_path):
    photo(tmp_path / "images/a.png")
    write(tmp_path / "labels/a.txt", "999999999999 .1 .1 .9 .1 .9 .9\n")
    place = Place(tmp_path, Choice(), "train")
    refused(lambda: labels_of(place), "labels: polygons of class 999999999999")


# Class lists, class maps, lists of samples.


LETTERS = list(itertools.pairwise("abcdefghijklmnopqrstuvwxyz"))


@pytest.mark.fault("YAML with aliases, tags or deep nesting", "it is refused in time")
@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\n" + "".join(f"{c}: &{c} [*{b}, *{b}]\n" for b, c in LETTERS),
        "a: &a {<<: *a}\n",
        "&a [*a]\n",
        "[" * 100_000,
        "{" * 100_000,
        "? " * 50_000,
        "- " * 20_000,
        "a: 'x" + "y" * 100_000,
        "a: " + "9" * 100_000 + "\n",
        "\ufffe",
        "a: \ud800x".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_yaml_that_would_not_end(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "c.yaml", text)
    refused(lambda: class_lists.read_class_list(path), "c.yaml")
    refused(lambda: read_class_map(path, THREE), "c.yaml")
    assert not (tmp_path / "RAN").exists()


@pytest.mark.fault("tags of YAML name code", "they mean nothing")
def test_tags_of_yaml_are_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "c.yaml", "- !!python/object/apply:os.system ['touch RAN']\n- car\n")
    refused(lambda: class_lists.read_class_list(path), "c.yaml")
    path = write(tmp_path / "c.yaml", "!!python/object/apply:os.system ['touch RAN']\n")
    assert class_lists.read_class_list(path).names == ("touch RAN",)
    assert not (tmp_path / "RAN").exists()


SLOW = {
    "c.pbtxt": "item { " + "a" * 900_000 + " }",
    "spaces.txt": "a" + " " * 900_000 + "b\n" + "c\n",
    "comments.txt": "# name id\n" * 5000 + "b 1 2 3\n" * 5000,
    "columns.csv": "id," * 100_000 + "label\n" + "1,2\n" * 40_000,
    "quotes.txt": "'\"" * 400_000,
    "signs.txt": "= " * 400_000,
    "rows.json": "[" + ",".join(f'{{"k{i}": 1}}' for i in range(30_000)) + "]",
    "map.yaml": "a: [" + "'*', " * 8000 + "car]\n",
}


@pytest.mark.fault("a class list takes a reader much longer than its size", "it ends in seconds")
@pytest.mark.parametrize("name", SLOW)
def test_time_grows_with_the_size(tmp_path, name):
    path = write(tmp_path / name, SLOW[name])
    start = time.process_time()
    for read in (class_lists.read_class_list, lambda p: read_class_map(p, THREE)):
        with contextlib.suppress(DataError):
            read(path)
    assert time.process_time() - start < 4


FOLDER = {"name": "folder", "classes": "a,b"}
NO_TEXT = {
    "binary": bytes(range(256)) * 4,
    "NUL bytes": b"a\0b.png m.png\n",
    "Cyrillic in an old encoding": "дорога\nнебо\n".encode("cp1251"),
    "half of a UTF-16 letter": b"\xff\xfea\0b",
    "a field of a megabyte": b'"' + b"x" * (1 << 19) + b'","y\n',
    "a name longer than any": b"x" * 5000 + b".png y.png\n",
    "a JSON line that is none": b'{"image": \n',
    "a JSON line of another form": b'[1]\n{"image": {"a": 1}}\n',
    "deep JSON": b'{"image": ' + b"[" * 100_000 + b"\n",
}


@pytest.mark.fault("a list of samples is no text", "the list is named, and the line")
@pytest.mark.parametrize("name", NO_TEXT)
@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl"])
def test_lists_that_are_no_text(tmp_path, name, suffix):
    photo(tmp_path / "images/train/a.png")
    photo(tmp_path / "masks/train/a.png")
    path = write(tmp_path / f"train{suffix}", NO_TEXT[name])
    is_list(path)
    refused(lambda: make_source(data_config(**FOLDER, root=str(tmp_path)), "train"), path.name)


def test_lists_as_windows_writes_them(tmp_path):
    for encoding in ("utf-8-sig", "utf-16"):
        for end in ("\r\n", "\r"):
            text = end.join(["images/a.png masks/a.png", "images/b.png masks/b.png", ""])
            path = write(tmp_path / "train.txt", text.encode(encoding))
            assert [row.image for row in read_list(path)] == ["images/a.png", "images/b.png"]


@pytest.mark.fault("a list for predict begins with a byte-order mark", "it is read")
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_lists_of_predict_with_a_mark(tmp_path, encoding):
    photo(tmp_path / "a.png")
    path = write(tmp_path / "list.txt", f"{tmp_path / 'a.png'}\r\n".encode(encoding))
    (item,) = open_inputs(path).read()
    assert np.shape(item.image) == (4, 6, 3)


@pytest.mark.fault("a file of data is none, or has a gigabyte", "it is refused, unread")
@pytest.mark.parametrize("name", ["c.txt", "c.json", "c.yaml", "c.csv"])
@pytest.mark.parametrize("kind", ["absent", "folder", "pipe", "device", "gigabyte"])
def test_what_is_no_file_of_classes(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "gigabyte":
        with path.open("wb") as file:
            file.truncate(1 << 30)
    refused(lambda: class_lists.read_class_list(path), name)
    refused(lambda: read_class_map(path, THREE), name)
    refused(lambda: read_list(path), name)
    refused(lambda: annotation_of(path, (4, 6)), name)
    refused(lambda: draw_polygons(path, "level1"), name)


@pytest.mark.fault("names in data move the cursor or have a megabyte", "messages stay one line")
@pytest.mark.parametrize("name", ["\x1b[31mred", "a\nb", "x" * (1 << 19), "\u202eabc", "\x9b2J"])
def test_names_in_messages_are_printable(tmp_path, name):
    path = write(tmp_path / "c.json", [name, name])
    refused(lambda: class_lists.read_class_list(path), "c.json", "class names occur twice")
    refused(lambda: read_class_map(write(tmp_path / "m.json", {"a": name}), THREE), "m.json")
    content = idd([], objects=[{"label": name, "polygon": [[0, 0], [1, 0], [1, 1]]}])
    path = write(tmp_path / "a.json", content)
    refused(lambda: draw_polygons(path, "level1"), "a.json: label")
