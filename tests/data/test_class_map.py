"""Classes kept, merged and ignored by a file."""

import dataclasses
import json
import pickle

import numpy as np
import pytest

from segjax.data.class_map import MappedClasses, map_classes, read_class_map
from segjax.data.classes import ClassTable
from segjax.data.datasets import class_table, make_source
from segjax.data.sets.folder import open_folder
from segjax.data.statistics import class_statistics
from tests.data.drawn import THREE, DrawnWithRepr, data_config, mask, pairs, uint8

FIVE = ClassTable(
    ("road", "car", "bus", "person", "sky"),
    ((1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4), (5, 5, 5)),
)


def written(tmp_path, text, name="map.yaml"):
    (tmp_path / name).write_text(text if isinstance(text, str) else json.dumps(text))
    return tmp_path / name


@pytest.mark.parametrize(
    "name, text",
    [
        ("map.json", {"vehicle": ["car", "bus"], "person": "person", "background": "*"}),
        ("map.json", '{\n\t"vehicle": ["car", "bus"],\n\t"person": null, "background": "*"}'),
        ("map.yaml", "vehicle: [car, bus]\nperson:\nbackground: '*'\n"),
        (
            "map.yml",
            "- {name: vehicle, from: [car, bus]}\n- name: person\n- {name: background, from: '*'}",
        ),
    ],
)
def test_classes_are_merged_kept_and_the_rest_taken(tmp_path, name, text):
    class_map = read_class_map(written(tmp_path, text, name), FIVE)
    assert class_map.classes.names == ("vehicle", "person", "background")
    assert class_map.classes.palette == ((2, 2, 2), (4, 4, 4), (1, 1, 1))
    assert class_map.labels == {0: 2, 1: 0, 2: 0, 3: 1, 4: 2}


def test_classes_that_are_not_named_are_ignored_and_colours_may_be_given(tmp_path):
    rows = [{"name": "car", "color": [9, 8, 7]}, {"name": "no", "from": ["sky", "road"]}]
    class_map = read_class_map(written(tmp_path, rows, "map.json"), FIVE)
    assert class_map.classes == ClassTable(("car", "no"), ((9, 8, 7), (5, 5, 5)))
    assert class_map.labels == {0: 1, 1: 0, 2: 255, 3: 255, 4: 1}
    text = "- {name: car, color: [9, 8, 7]}\n- {name: no, from: [sky, road]}"
    assert read_class_map(written(tmp_path, text), FIVE) == class_map  # YAML's no is a name here


def test_everything_else_may_be_taken_together_with_a_name(tmp_path):
    class_map = read_class_map(written(tmp_path, {"car": ["car"], "rest": ["sky", "*"]}), FIVE)
    assert class_map.labels == {0: 1, 1: 0, 2: 1, 3: 1, 4: 1}
    assert class_map.classes.palette[1] == (5, 5, 5)


@pytest.mark.parametrize(
    "text, words",
    [
        ({"vehicle": ["car", "van", "lorry"]}, r"unknown classes van, lorry; use those .*: road, "),
        ({"a": ["car"], "b": ["bus", "car"]}, "'car' is in 'a' and in 'b'; use it once"),
        ({"a": "*", "b": "*"}, r"'\*' is in 'a' and in 'b'"),
        ({"a": list(FIVE.names), "b": "*"}, r"'b' is \"\*\", all other classes, but all are named"),
        ("car: car\ncar: bus", "class names occur twice: car"),
        ("", "names no classes; use `vehicle"),
        ({}, "names no classes"),
        ([], "names no classes"),
        ("car", "names no classes"),
        ("a: []", r"'a' has \[\]; use `vehicle"),
        ("a: [[car]]", r"'a' has \[\['car'\]\]; use"),
        ("a: *\n", r"cannot be read: while scanning an alias.*\"\*\" in quotes"),
        ("a: [car", "cannot be read: while parsing"),
        ([{"from": "car"}], r"an entry has \{'from': 'car'\}; use"),
        ([{"name": "car", "colour": [1, 2, 3]}], "an entry has .*colour"),
        ([{"name": "car", "color": [1, 2, 300]}], r"'car': colour \['1', '2', '300'\] is not"),
        ([{"name": "car", "color": "red"}], "'car': colour 'red' is not three .*; use color"),
    ],
)
def test_maps_that_will_not_do(tmp_path, text, words):
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=rf"data\.class_map=.*map\.yaml:? .*{words}"):
        read_class_map(path, FIVE)

    with pytest.raises(ValueError, match=r"data\.class_map=.*no\.yaml is missing; use a YAML"):
        read_class_map(tmp_path / "no.yaml", FIVE)


def test_raw_ids_stay_where_each_class_is_made_of_one(tmp_path):
    raw = dataclasses.replace(FIVE, ids=(3, 7, 8, 300, 9))
    kept = read_class_map(written(tmp_path, {"sky": "sky", "auto": ["car"]}, "a.json"), raw)
    assert kept.classes.raw_ids == (9, 7)
    rest = read_class_map(written(tmp_path, {"sky": "sky", "others": "*"}, "b.json"), raw)
    assert rest.classes.raw_ids == (0, 1)
    one = dict.fromkeys(FIVE.names[:4])
    everything = read_class_map(written(tmp_path, {**one, "rest": "*"}, "c.json"), raw)
    assert everything.classes.raw_ids == (3, 7, 8, 300, 9)


def test_maps_in_the_encodings_of_windows(tmp_path):
    (tmp_path / "map.yaml").write_bytes("Straße: [car, bus]\n".encode("utf-16"))
    assert read_class_map(tmp_path / "map.yaml", FIVE).classes.names == ("Straße",)
    (tmp_path / "map.yaml").write_bytes("дорога: [car, bus]\n".encode("cp1251"))
    with pytest.raises(ValueError, match=r"class_map=.*map\.yaml, line 1: byte .* not of UTF-8"):
        read_class_map(tmp_path / "map.yaml", FIVE)


def test_files_keep_their_source_with_another_id_map(tmp_path):
    pairs(tmp_path, "a", ids=[0, 1, 2, 7], size=(1, 4))
    source = open_folder(tmp_path, "train", THREE, ignore_ids=(7,))
    class_map = read_class_map(written(tmp_path, {"sky": "sky", "ground": "*"}), THREE)
    mapped = pickle.loads(pickle.dumps(map_classes(source, class_map)))
    assert mapped.classes.names == ("sky", "ground")
    np.testing.assert_array_equal(mapped[0]["label"], [[1, 1, 0, 255]])
    np.testing.assert_array_equal(mapped.ids(0), [[0, 1, 2, 7]])
    np.testing.assert_array_equal(source[0]["label"], [[0, 1, 2, 255]])
    mask(tmp_path / "masks/train/a.png", [0, 1, 2, 3], 1, 4)
    with pytest.raises(ValueError, match=r"bad ids 3 .*ids count from 1|bad ids 3 .* if 3 is void"):
        mapped[0]


def test_sources_without_files_are_wrapped_and_counted_by_their_map(tmp_path):
    source = DrawnWithRepr([uint8([0, 1, 2, 255]), uint8([2, 2, 2, 2])])
    class_map = read_class_map(written(tmp_path, {"sky": "sky", "car": "car"}), THREE)
    mapped = pickle.loads(pickle.dumps(map_classes(source, class_map)))
    assert isinstance(mapped, MappedClasses)
    assert (len(mapped), mapped.split, mapped.classes.names) == (2, "DrawnWithRepr", ("sky", "car"))
    sample = mapped[0]
    assert sample["label"].dtype == np.uint8
    np.testing.assert_array_equal(sample["label"], [[255, 1, 0, 255]])
    assert (sample["name"], sample["image"].shape) == ("drawn 0", (1, 4, 3))
    np.testing.assert_array_equal(source[0]["label"], [[0, 1, 2, 255]])
    # Cached counts tell two maps apart.
    other = map_classes(source, read_class_map(written(tmp_path, {"sky": "*"}), THREE))
    counts = [class_statistics(s, tmp_path / "s.json")["class_pixels"] for s in (mapped, other)]
    assert [c.tolist() for c in counts] == [[5, 1], [7]]


def test_the_config_names_the_map_of_any_data_set(tmp_path):
    path = written(tmp_path, {"traffic": ["vehicles", "living things"], "all": "*"})
    config = data_config(image_size=(24, 32), class_map=str(path))
    assert class_table(config).names == ("traffic", "all")
    source = make_source(config, "val")
    original = make_source(data_config(image_size=(24, 32)), "val")
    assert source.classes.names == ("traffic", "all")
    assert (len(source), source.split) == (len(original), "val")
    label, raw = source[3]["label"], original[3]["label"]
    expected = np.where(raw == 255, 255, np.where(np.isin(raw, [2, 3]), 0, 1))
    assert (expected == 0).any()
    np.testing.assert_array_equal(label, expected)
    config.num_classes = 7  # counts the data set's own classes
    assert len(class_table(config)) == 2
    config.num_classes = 2
    with pytest.raises(ValueError, match=r"data\.num_classes=2 but streets has 7 classes"):
        make_source(config, "val")
