"""Class lists as labelling tools, data sets and people write them."""

import json
import re

import numpy as np
import pytest

from segjax.data.class_lists import given_list, published, read_class_list
from segjax.data.classes import IGNORE, default_palette
from segjax.data.datasets import class_table, classes_in_words, make_source
from segjax.data.errors import DataError
from tests.data.drawn import data_config, mask, photo, save

ROAD, CAR, SKY = (128, 64, 128), (0, 0, 142), (70, 130, 180)
COLORED = (ROAD, CAR, SKY)


def written(tmp_path, name, text, encoding="utf-8"):
    text = text if isinstance(text, str | bytes) else json.dumps(text)
    data = text if isinstance(text, bytes) else text.encode(encoding)
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


# Forms of the classes road, car and sky with the ids 0, 1, 2, in colours.
COLORED_LISTS = {
    "ours.txt": "# ids\nroad 128 64 128\n\ncar 0 0 142\nsky 70 130 180\n",
    "header.csv": "id,name,r,g,b\n0,road,128,64,128\n1,car,0,0,142\n2,sky,70,130,180\n",
    "order.csv": "R,G,B,Class,Index\n70,130,180,sky,2\n128,64,128,road,0\n0,0,142,car,1\n",
    "suite.csv": "name,r,g,b\nroad,128,64,128\ncar,0,0,142\nsky,70,130,180\n",
    "quoted.csv": '"label","red","green","blue"\n"road","128","64","128"\n'
    '"car","0","0","142"\n"sky","70","130","180"\n',
    "semicolons.csv": "name;r;g;b;;\nroad;128;64;128;;\ncar;0;0;142;;\n;;;;;\nsky;70;130;180;;\n",
    "tabs.tsv": "Label\tColour\nroad\t128 64 128\ncar\t(0, 0, 142)\nsky\t#4682b4\n",
    "pandas.csv": ",class,r,g,b\n0,road,128.0,64.0,128.0\n1,car,0,0,142\n2,sky,70,130,180\n",
    "bare.csv": "road,128,64,128\ncar,0,0,142\nsky,70,130,180\n",
    "cells.csv": "road,128 64 128\ncar,0 0 142\nsky,70 130 180\n",
    "camvid.txt": "128 64 128\troad\n0 0 142\t\tcar\n70 130 180\tsky\n",
    "cvat.txt": "# label:color_rgb:parts:actions\nroad:128,64,128::\ncar:0,0,142:door,wheel:drive\n"
    "sky:70,130,180::\n",
    "datumaro.txt": "road:128,64,128::\ncar:0,0,142:door,wheel:drive\nsky:70,130,180::\n",
    "hex.txt": "road #804080\ncar #00008E\nsky #4682b4\n",
    "hex_first.txt": "#804080 road\n#00008e car\n#4682b4 sky\n",
    "rgba.txt": "road 128 64 128 255\ncar 0 0 142 255\nsky 70 130 180 255\n",
    "id_rgb_name.txt": "0 128 64 128 road\n1 0 0 142 car\n2 70 130 180 sky\n",
    "id_name_rgb.txt": "0: road, 128, 64, 128\n1: car, 0, 0, 142\n2: sky, 70, 130, 180\n",
    "name_rgb_id.txt": "road 128 64 128 0\ncar 0 0 142 1\nsky 70 130 180 2\n",
    "header.txt": "Name R G B\nroad 128 64 128\ncar 0 0 142\nsky 70 130 180\n",
    "hash.csv": "#name;r;g;b\nroad;128;64;128\ncar;0;0;142\nsky;70;130;180\n",
    "ours.json": [
        {"name": "road", "color": [128, 64, 128]},
        {"name": "car", "color": [0, 0, 142]},
        {"name": "sky", "color": [70, 130, 180]},
    ],
    "rgba.json": [
        {"name": "road", "color": [128, 64, 128, 255]},
        {"name": "car", "color": "#00008eff"},
        {"name": "sky", "color": "rgb(70, 130, 180)"},
    ],
    "supervisely.json": {
        "classes": [
            {"title": "road", "shape": "polygon", "color": "#804080", "id": 8112541},
            {"title": "car", "shape": "polygon", "color": "#00008E", "id": 8112542},
            {"title": "sky", "shape": "bitmap", "color": "#4682B4", "id": 8112543},
        ],
        "tags": [{"name": "blurred"}],
    },
    "v7.json": {
        "classes": [
            {"name": "road", "type": "mask", "color": "rgba(128,64,128,1.0)"},
            {"name": "car", "type": "mask", "color": "rgba(0,0,142,0.8)"},
            {"name": "sky", "type": "mask", "color": "rgba(70,130,180,1.0)"},
        ]
    },
    "hasty.json": {
        "project_name": "x",
        "label_classes": [
            {"class_id": "8c-1", "class_name": "road", "color": "#804080", "norder": 1.0},
            {"class_id": "8c-2", "class_name": "car", "color": "#00008e", "norder": 2.0},
            {"class_id": "8c-3", "class_name": "sky", "color": "#4682b4", "norder": 3.0},
        ],
    },
    "labelbox.json": {
        "tools": [
            {"tool": "superpixel", "name": "road", "color": "#804080", "classifications": []},
            {"tool": "superpixel", "name": "car", "color": "#00008e", "classifications": []},
            {"tool": "superpixel", "name": "sky", "color": "#4682b4", "classifications": []},
        ],
        "classifications": [],
    },
    "kili.json": {
        "jobs": {
            "J": {
                "content": {
                    "categories": {
                        "ROAD": {"name": "road", "color": "#804080"},
                        "CAR": {"name": "car", "color": "#00008e"},
                        "SKY": {"name": "sky", "color": "#4682b4"},
                    }
                }
            }
        }
    },
    "mmseg.json": {"classes": ["road", "car", "sky"], "palette": [list(c) for c in COLORED]},
    "colors.json": {"road": [128, 64, 128], "car": "#00008e", "sky": [70, 130, 180]},
}


@pytest.mark.parametrize("file", COLORED_LISTS)
def test_names_ids_and_colours(tmp_path, file):
    listed = read_class_list(written(tmp_path, file, COLORED_LISTS[file]))
    assert (listed.classes.names, listed.classes.palette) == (("road", "car", "sky"), COLORED)
    assert listed.classes.raw_ids == (0, 1, 2)
    rows = zip(listed.ids, listed.names, listed.colors, listed.labels, strict=True)
    assert sorted(rows) == [(0, "road", ROAD, 0), (1, "car", CAR, 1), (2, "sky", SKY, 2)]
    assert listed.further()[0] == "colours"


# Forms of ids with gaps: (id, name) of each class, and the ids of void rows.
GAPS = (((0, "unlabelled"), (7, "road"), (23, "sky"), (26, "car")), ())
CLASSES = (((7, "road"), (11, "car")), ())
ID_LISTS = {
    "ids.txt": ("0 unlabelled\n7 road\n26 car\n23 sky\n", *GAPS),
    "last.txt": ("unlabelled 0\nroad 7\ncar 26\nsky 23\n", *GAPS),
    "colons.txt": ("0: unlabelled\n7: road\n26: car\n23: sky\n", *GAPS),
    "dashes.txt": ("0 - unlabelled\n7 - road\n26 - car\n23 - sky\n", *GAPS),
    "equals.txt": ("unlabelled = 0\nroad = 7\ncar = 26\nsky = 23\n", *GAPS),
    "label2id.json": ({"sky": 23, "unlabelled": 0, "road": 7, "car": 26}, *GAPS),
    "id2label.json": ({"0": "unlabelled", "7": "road", "26": "car", "23": "sky"}, *GAPS),
    "kitti.yaml": (
        "labels:\n  0: unlabelled\n  7: 'road'\n  23: sky\n  26: car\ncolor_map:\n  0: [1, 2, 3]\n",
        *GAPS,
    ),
    "german.csv": ("sep=;\nID;Klasse;R;G;B\n7;road;1;2;3\n11;car;4;5;6\n", *CLASSES),
    "ignored.txt": ("0 ignore\n7 road  # asphalt\n11 car\n", CLASSES[0], (0,)),
    "hex.txt": ("7 road #4df3ce\n11 car #4c4ffc\n", *CLASSES),
    "label_class.csv": ("label,class\n7,road\n11,car\n", *CLASSES),
    "ids.json": ([{"id": 11, "name": "car"}, {"id": 7, "name": "road"}], *CLASSES),
    "png_index.json": (
        [{"png_index": 7, "class_name": "road"}, {"png_index": 11, "class_name": "car"}],
        *CLASSES,
    ),
    "named.json": ({"road": {"id": 7, "color": [1, 2, 3]}, "car": {"id": 11}}, *CLASSES),
    "tf.pbtxt": ("item {\n  id: 7\n  name: 'road'\n}\nitem { id: 11 name: \"car\" }\n", *CLASSES),
    "coco.json": (
        {
            "info": {},
            "images": [{"id": 1, "file_name": "a.jpg"}],
            "annotations": [{"id": 1, "category_id": 7}],
            "categories": [
                {"supercategory": "ground", "id": 7, "name": "road", "isthing": 0},
                {"supercategory": "vehicle", "id": 11, "name": "car", "color": [0, 0, 142]},
            ],
        },
        *CLASSES,
    ),
    "roboflow.csv": ("Pixel Value, Class\n7, road\n11, car\n", *CLASSES),
    "labelme.txt": (
        "__ignore__\n_background_\ncrack\ntv/monitor\n",
        ((0, "_background_"), (1, "crack"), (2, "tv/monitor")),
        (-1, 255),
    ),
    "ade.txt": (
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1576\t11664\t1172\t1\twall\n"
        "2\t0.1072\t6046\t612\t1\tbuilding, edifice\n",
        ((1, "wall"), (2, "building, edifice")),
        (),
    ),
    "ade.csv": (
        "Idx,Ratio,Train,Val,Stuff,Name\n1,0.15,11664,1172,1,wall\n2,0.1,6046,612,1,sky;air\n",
        ((1, "wall"), (2, "sky;air")),
        (),
    ),
    "cityscapes.csv": (
        "name,id,trainId,category,catId,hasInstances,ignoreInEval,color\n"
        'unlabeled,0,255,void,0,False,True,"(  0,  0,  0)"\n'
        "car,26,13,vehicle,7,True,False,(  0,  0,142)\n"
        'road,7,0,flat,1,False,False,"(128, 64,128)"\n'
        'license plate,-1,-1,vehicle,7,False,True,"(  0,  0,142)"\n',
        ((7, "road"), (26, "car")),
        (0, -1, 255),
    ),
    "mapillary.json": (
        {
            "labels": [
                {"name": "construction--road", "readable": "Road", "evaluate": True},
                {"name": "void--unlabeled", "readable": "Unlabeled", "evaluate": False},
            ]
        },
        ((0, "construction--road"),),
        (1,),
    ),
    "void.txt": ("255 void\n0 road\n1 car\n", ((0, "road"), (1, "car")), (255,)),
    "minus.txt": ("-1 nothing\n0 road\n1 car\n", ((0, "road"), (1, "car")), (-1, 255)),
    "levels.txt": (
        "0 ground\n150 crack\n250 spall\n",
        ((0, "ground"), (150, "crack"), (250, "spall")),
        (),
    ),
    "sixteen.csv": (
        "value;name\n0;bg\n1000;a\n2000;b\n",
        ((0, "bg"), (1000, "a"), (2000, "b")),
        (),
    ),
    "marked.txt": ("void 0 0 0 ignore\nroad 1 2 3\ncar\n", ((1, "road"), (2, "car")), (0,)),
    "marked.csv": (
        "name, r, g, b\nroad,1,2,3\nvoid,0,0,0,ignore\nliving things\n",
        ((0, "road"), (2, "living things")),
        (1,),
    ),
    "marked.json": (
        [{"name": "road"}, {"name": "void", "color": [0, 0, 0], "ignore": True}, "car"],
        ((0, "road"), (2, "car")),
        (1,),
    ),
}


@pytest.mark.parametrize("file", ID_LISTS)
def test_ids_of_the_file_become_labels_in_their_order(tmp_path, file):
    content, classes, void = ID_LISTS[file]
    listed = read_class_list(written(tmp_path, file, content))
    assert listed.classes.raw_ids == tuple(id_ for id_, _ in classes)
    assert listed.classes.names == tuple(name for _, name in classes)
    expected = {id_: k for k, (id_, _) in enumerate(classes)} | dict.fromkeys(void, IGNORE)
    assert dict(zip(listed.ids, listed.labels, strict=True)) == expected


# Lists of names alone, and what may be taken for something else.
NAME_LISTS = {
    "lines.txt": ("road \r\n car\r\n\r\nsky", ("road", "car", "sky")),
    "one_line.txt": ("road,car,sky\n", ("road", "car", "sky")),
    "lights.txt": ("red,green,yellow\n", ("red", "green", "yellow")),
    "synonyms.txt": ("wall\nbuilding, edifice\nsky\n", ("wall", "building, edifice", "sky")),
    "title.csv": ("class\nroad\ncar\n", ("road", "car")),
    "titled.txt": ("ignore\nname\nroad\n", ("ignore", "name", "road")),
    "parts.txt": ("road\ncar (parked)\nzone 1\n", ("road", "car (parked)", "zone 1")),
    "letters.txt": ("class b\nclass c\n", ("class b", "class c")),
    "zones.txt": ("zone 1\nzone 2\n", ("zone 1", "zone 2")),
    "wheels.txt": ('"2 wheeler"\n"4 wheeler"\nroad\n', ("2 wheeler", "4 wheeler", "road")),
    "colors.txt": ("0 0 0\n128 64 128\n", ("class 0", "class 1")),
    "numbers.txt": ("0\n1\n2\n", ("class 0", "class 1", "class 2")),
    "names.json": (["road", "car"], ("road", "car")),
    "names.names": ('["road", "car"]', ("road", "car")),
    "hub.json": ({"features": {"label": {"feature": {"names": ["road", "car"]}}}}, ("road", "car")),
    "via.json": (
        {"_via_attributes": {"region": {"kind": {"options": {"road": "", "car": ""}}}, "file": {}}},
        ("road", "car"),
    ),
    "config.json": (
        {"num_labels": 2, "id2label": {"0": "road", "1": "car"}, "label2id": {"road": 0, "car": 1}},
        ("road", "car"),
    ),
    "data.yaml": ("path: ../x\nnc: 2\nnames: [person, no]\n", ("person", "no")),
    "data.yml": ("names:\n  0: person\n  1: no\n", ("person", "no")),
}


@pytest.mark.parametrize("file", NAME_LISTS)
def test_names_count_from_0(tmp_path, file):
    content, names = NAME_LISTS[file]
    listed = read_class_list(written(tmp_path, file, content))
    assert (listed.names, listed.ids, listed.labels) == (names, *2 * (tuple(range(len(names))),))
    if file != "colors.txt":
        assert listed.classes.palette == default_palette(len(names))


@pytest.mark.parametrize(
    "encoding, note",
    [(e, []) for e in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")]
    + [("cp1252", ["read as Windows-1252"]), ("latin-1", ["read as Windows-1252"])],
)
def test_encodings(tmp_path, encoding, note):
    path = written(tmp_path, "c.csv", "id;name\n0;Straße\n7;Bäume\n", encoding)
    assert read_class_list(path).classes.names == ("Straße", "Bäume")
    assert read_class_list(path).further() == note


@pytest.mark.parametrize("encoding", ["cp1251", "gbk", "shift-jis", "mac-roman"])
def test_encodings_that_could_be_any_name_the_line(tmp_path, encoding):
    text = {"cp1251": "дорога", "mac-roman": "Straße"}.get(encoding, "道路")
    path = written(tmp_path, "c.txt", f"car\n{text}\n", encoding)
    with pytest.raises(DataError, match=r"c\.txt, line 2: byte 0x\w\w is not of UTF-8; save .* as"):
        read_class_list(path)


FORMS = r"use a class a line .* a table with a header .* or JSON such as"


@pytest.mark.parametrize(
    "file, content, words",
    [
        ("c.txt", "road 1 2 3\nsky 1 2 300\n", rf"line 2: colour .*300.* in 0\.\.255.*{FORMS}"),
        ("c.txt", "road 0.5 0.25 0.5\ncar 0 0 0.55\n", "line 1: colour .*0.25.* whole numbers"),
        ("c.txt", "void 0 0 0 ignore", "a class table needs 1 to 255 classes, found 0"),
        ("c.csv", "name,r,g,b\n", "a class table needs 1 to 255 classes, found 0"),
        ("c.txt", "a\nb\na", r"class names occur twice: a \(line 1, line 3\)"),
        ("c.csv", "id,name\n0,road\n0,car\n", r"class ids occur twice: 0 \(line 2, line 3\)"),
        ("c.csv", "id,trainId,name\n7,0,road\n8,0,car\n", r"train ids occur twice: 0 \(line 2, l"),
        ("c.json", '{"names": {"0": "a", "0": "b"}}', r"ids occur twice: 0 \(entry 1, entry 2\)"),
        ("c.csv", "id,name\n0,road\n1O,car\n", "line 3: id '1O' is no whole number"),
        ("c.csv", "id,name\n0,road\n,car\n", "line 3: 'car' has no id, unlike other rows"),
        ("c.csv", "name,r,g\nroad,1,2\n", "there is a column r, g, but not all of rgb"),
        ("c.csv", "name,r,g,b\nroad,1,2,3\ncar 4 5 6\n", "line 3 has 1 columns, but the header 4"),
        ("c.csv", "name,r,g,b\nroad,1,2,3,4\n", "line 2 has 5 columns, but the header 4"),
        ("c.csv", "id,Art,Klasse,R,G,B\n0,flat,road,1,2,3\n", "art, klasse may be it"),
        ("c.csv", "name,name,r\n", "the header has two columns name"),
        ("c.csv", "name,r,g,b,ignore\nroad,1,2,3,maybe", "ignore 'maybe' is neither true nor"),
        ("c.csv", "Klasse;Rot;Gruen;Blau\nA;1;2;3\nB;4;5;6\n", "line 1: .* may be a header; use"),
        ("c.txt", "Name Rot Gruen Blau\nA 1 2 3\nB 4 5 6\n", "line 1: .* may be a header; use a h"),
        ("c.csv", "road,flat\ncar,vehicle\n", "line 1: 'road,flat' has 2 texts; use a header"),
        ("c.txt", "road\nzone 1 2 3\nsky\n", "line 2: 'zone 1 2 3' may be a name with numbers, or"),
        ("c.txt", "0 road\n1 car\nsky\n", "line 3: 'sky' has no number, unlike other lines"),
        ("c.txt", "0 road\n1 2 3 car\n", "line 2 has another form than the lines before"),
        ("c.txt", "a 1 2 3 4\nb 1 2 3 5\nc 1 2 3 5\n", "line 1: 1 2 3 4 may mean several things"),
        ("c.txt", "<annotation/>", "line 1: '<annotation/>' is no class"),
        ("c.txt", "CLASSES = ('road', 'car')\n", "line 1: .* is no class"),
        ("c.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is no text file; use a text file in UTF-8"),
        ("c.json", "[", rf"not a class list.*{FORMS}"),
        ("c.json", "3", "not a class list"),
        ("c.json", "[" * 100_000, "not a class list.*nested too deeply"),
        ("c.yaml", "[" * 100_000, "not a class list.*nested too deeply"),
        ("c.yaml", "a: [b", "not a class list.*while parsing"),
        ("c.json", [1, 2], "entry 1 is 1, no class"),
        ("c.json", [{"color": [1, 2, 3]}], "entry 1: no name"),
        ("c.json", [{"name": "a", "ignore": "maybe"}], "ignore 'maybe' is neither true nor false"),
        ("c.json", {"classes": ["a"], "palette": [[1, 2, 3]] * 2}, "1 classes but 2 colours"),
        ("c.json", {"a": {"names": ["x"]}, "b": {"names": ["y"]}}, "2 lists are called 'names'"),
        ("c.json", {"1": 2}, "entry 1 is '1': 2, no class"),
        ("rellis.yaml", "- {0: void, 1: dirt}\n- {0: [0, 0, 0]}\n", "entry 1: no name"),
    ],
)
def test_lists_that_will_not_do(tmp_path, file, content, words):
    with pytest.raises(DataError, match=rf"class list .*{re.escape(file)}.*{words}"):
        read_class_list(written(tmp_path, file, content))


def test_files_that_are_not_there_or_too_large(tmp_path):
    with pytest.raises(
        DataError,
        match=r"no\.txt is missing; use a file with the classes alone, or names with commas",
    ):
        read_class_list(tmp_path / "no.txt")
    path = written(tmp_path, "large.txt", "a\n" * 600_000)
    with pytest.raises(
        DataError, match=r"large\.txt has 1,200,000 bytes; 1,048,576 are the most; use a file w"
    ):
        read_class_list(path)


@pytest.mark.parametrize("line", ["{c}: &{c} [{items}]", "{c}: &{c} {{{pairs}}}"])
def test_aliases_in_yaml_do_not_multiply(tmp_path, line):
    text = "a: &a {x: [y]}\n"
    for before, c in zip("abcdefghijk", "bcdefghijkl", strict=True):
        items = ", ".join([f"*{before}"] * 9)
        pairs = ", ".join(f"k{i}: *{before}" for i in range(9))
        text += line.format(c=c, items=items, pairs=pairs) + "\n"
    with pytest.raises(DataError, match=r"an alias \(\*\) in line \d"):
        read_class_list(written(tmp_path, "bomb.yaml", text))


@pytest.mark.parametrize(
    "color", ["red", [1, 2], [1, 2, 300], [-1, 2, 3], [0.5, 0.5, 0.5], 7, {"r": 1}, "#12345"]
)
def test_a_colour_that_is_none_names_the_file_and_the_value(tmp_path, color):
    path = written(tmp_path, "c.json", [{"name": "road", "color": color}])
    with pytest.raises(DataError, match=r"c\.json: entry 1: colour .* is not three whole numbers"):
        read_class_list(path)


def test_what_a_user_should_know_is_said(tmp_path):
    path = written(tmp_path, "c.json", [{"id": 70_001, "name": "a"}, {"id": 70_000, "name": "b"}])
    assert read_class_list(path).further() == ["ids by the order, as 70001 fits no mask"]
    assert read_class_list(path).classes.raw_ids == (0, 1)
    path = written(tmp_path, "c.txt", "a 1 2 3\nb 1 2 3\nvoid 0 0 0 ignore\n")
    config = data_config(name="folder", classes=str(path))
    assert classes_in_words(config) == (
        "classes: 2 of c.txt (a, b), ids 0, 1, colours, ignored 2, the colour of several classes: "
        "(1, 2, 3) (line 1, line 2)"
    )
    config.classes, config.mask_format = "a,b", "bits"
    assert classes_in_words(config) == "classes: 2 of folder (a, b), ids 0, 1"
    assert classes_in_words(data_config(name="ade20k")).endswith(", ...), ids 1..150")


def test_names_or_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "classes", "7 road\n8 car\n")
    assert given_list("classes").classes.raw_ids == (7, 8)
    assert given_list(" tv/monitor , road,").classes.names == ("tv/monitor", "road")
    assert given_list("road;car").classes.names == ("road", "car")
    assert given_list("", 2).classes.names == ("class 0", "class 1")
    long = [f"class number {k}" for k in range(200)]
    assert given_list(",".join(long)).classes.names == tuple(long)
    assert given_list("a" * 300).classes.names == ("a" * 300,)
    for missing in ("no.csv", "labels/classes", "C:\\data\\classes"):
        with pytest.raises(DataError, match=re.escape(f"class list {missing} is missing")):
            given_list(missing)


@pytest.mark.parametrize("ids", [(0, 7, 26), (0, 150, 250), (0, 1000, 2000)])
def test_sparse_ids_in_masks_are_read_and_said(tmp_path, ids):
    """Of the classes road, car and sky; the mask holds the first and the last."""
    photo(tmp_path / "images/train/a.png", 1, 2)
    save(tmp_path / "masks/train/a.png", np.array([[ids[0], ids[2]]], np.uint16))
    path = written(tmp_path, "classes.csv", f"{ids[0]},a\n{ids[1]},b\n{ids[2]},c\n")
    config = data_config(name="folder", root=str(tmp_path), classes=str(path))
    assert class_table(config).raw_ids == ids
    assert np.unique(make_source(config, "train")[0]["label"]).tolist() == [0, 2]
    said = f"classes: 3 of classes.csv (a, b, c), ids {', '.join(map(str, ids))}"
    assert classes_in_words(config) == said
    config.class_map = str(written(tmp_path, "map.json", {"b": ["b", "a"], "c": "c"}))
    assert classes_in_words(config) == f"{said}; data.class_map makes 2, ids 0, 1"


def test_a_class_of_id_255_and_255_ignored_is_refused(tmp_path):
    photo(tmp_path / "images/train/a.png", 1, 2)
    mask(tmp_path / "masks/train/a.png", [0, 255], 1, 2)
    path = written(tmp_path, "c.txt", "0 background\n255 crack\n")
    config = data_config(name="folder", root=str(tmp_path), classes=str(path))
    with pytest.raises(
        DataError, match=r"class 'crack' of id 255, .*=\(255,\) ignores; use data\."
    ):
        make_source(config, "train")
    config.ignore_ids = ()
    assert np.unique(make_source(config, "train")[0]["label"]).tolist() == [0, 1]


@pytest.mark.parametrize(
    "name, ids",
    [
        ("cityscapes", (7, 8, 11, 12, 13, *range(17, 18), *range(19, 29), 31, 32, 33)),
        ("ade20k", tuple(range(1, 151))),
        ("sunrgbd", tuple(range(1, 38))),
        ("voc", tuple(range(21))),
        ("camvid11", tuple(range(11))),
    ],
)
def test_published_sets_have_the_ids_of_their_masks(name, ids):
    assert published(name).classes.raw_ids == ids
