"""The reader of published tables: what it reads, and what it says of each kind of mistake."""

import dataclasses
import re

import pytest

from segjax.data.errors import DataError
from segjax.published.table import Column, Row, Scale, names, read_table

TEXT = """
title: two decoders
source: nobody, table 1
about: >
  two lines
  of text
columns:
  mIoU: {measure: miou}
  G: {measure: global_accuracy, split: notebook_test, protocol: notebooks, factor: 1, digits: 3}
scales:
  cpu:
    about: small
    options: {train.steps: 10, data.image_size: [32, 48], loss.class_weights: none}
    first: [B, D]
    splits: {notebook_test: val}
rows:
  - {name: A, config: "segnet_basic:paper", options: {train.steps: 100}, paper: {mIoU: 47.7}}
  - {name: B, config: segnet_basic, continues: A, options: {train.steps: 200}, paper: {G: 0.8},
     scales: {cpu: {train.steps: 20}}}
  - {name: "A, CRF", of: A, then: {crf: {iterations: 5}, recalibrate: }, paper: {}, note: refined}
  - {name: C, paper: {mIoU: 50}, note: a network that is not here}
  - {name: D, config: segnet_basic, paper: {mIoU: 1}, incomparable: other data,
     scales: {cpu: left out}}
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "some.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_a_table_is_read(write):
    table = read_table(write(TEXT))
    assert (table.name, table.title, table.source) == ("some", "two decoders", "nobody, table 1")
    assert table.about == "two lines of text"
    assert [*table.columns] == [
        Column("mIoU", "miou"),
        Column("G", "global_accuracy", "notebook_test", "notebooks", 1, 3),
    ]
    a, b, crf, _, d = table.rows
    assert a == Row("A", {"mIoU": 47.7}, "segnet_basic:paper", {"train.steps": "100"})
    assert (b.continues, b.paper, b.scales) == ("A", {"G": 0.8}, {"cpu": {"train.steps": "20"}})
    assert (crf.of, crf.then) == ("A", {"crf": {"iterations": "5"}, "recalibrate": {}})
    assert (crf.note, crf.folder) == ("refined", "A_CRF")
    assert [row.is_run for row in table.rows] == [True, True, True, False, True]
    assert (d.incomparable, d.scales) == ("other data", {"cpu": None})
    assert table.scales["paper"] == Scale("as published")
    assert table.scales["cpu"].options["data.image_size"] == "32,48"


def test_rows_at_a_scale_come_first_as_asked_and_after_those_that_they_need(write):
    table = read_table(write(TEXT))
    assert [row.name for row in table.rows_at("paper")] == ["A", "B", "A, CRF", "C", "D"]
    text = TEXT.replace("first: [B, D]", 'first: ["A, CRF", B, D]')
    table = read_table(write(text))
    assert [row.name for row in table.rows_at("cpu")] == ["A", "A, CRF", "B", "C"]
    for call in (table.rows_at, table.at):
        with pytest.raises(ValueError, match="--scale=big is unknown; some has paper, cpu"):
            call("big")


def test_options_of_a_row_its_scale_and_both(write):
    table = read_table(write(TEXT))
    rows = {row.name: row for row in table.rows}
    assert table.options_of(rows["A"], "paper") == {"train.steps": "100"}
    assert table.options_of(rows["A"], "cpu")["train.steps"] == "10"
    assert table.options_of(rows["B"], "cpu")["train.steps"] == "20"
    assert table.options_of(rows["D"], "cpu")["train.steps"] == "10"


def test_a_scale_measures_on_another_split(write):
    table = read_table(write(TEXT))
    assert [c.split for c in table.at("cpu").columns] == ["test", "val"]
    assert table.at("paper") == table
    assert dataclasses.replace(table.at("cpu"), columns=table.columns) == table


BROKEN = [
    ("title: two", "titel: two", "it has no 'title'"),
    ("about: >", "abaut: >", "it has the unknown field 'abaut'; known are .*about, columns"),
    ("source: nobody", "source: [nobody", "expected ',' or ']'"),
    ("title: two", "title: [1]\ntitle: two", "it has 'title' twice"),
    ("title: two decoders", "title: [1, 2]", "title of it is not text"),
    ("{measure: miou}", "{measure: miou, splits: val}", "column mIoU has the unknown field 'spl"),
    ("{measure: miou}", "{split: val}", "column mIoU has no 'measure'"),
    ("{measure: miou}", "miou", "column mIoU is not a mapping"),
    ("measure: miou", "measure: IoU", "column 'mIoU': measure names 'IoU'; known are miou, glob"),
    ("protocol: notebooks", "protocol: mine", "column 'G': protocol names 'mine'; known are segj"),
    ("factor: 1,", "factor: one,", "factor of column G is 'one', not a number"),
    ("digits: 3", "digits: nan", "digits of column G is 'nan', not a number"),
    ("  G: {", "  mIoU: {", "columns of it has 'mIoU' twice"),
    ("name: A, config", "named: A, config", "row 1 has no 'name'"),
    (
        "{name: C, paper: {mIoU: 50}",
        "{name: C, papers: {mIoU: 50}",
        "row 'C' has the unknown field",
    ),
    ("- {name: D, ", "- {name: '!', ", "row '!' has a name without letters"),
    ("name: D,", "name: A,", "two rows have the name 'A'"),
    ("name: D,", "name: A CRF,", "two rows have the name 'A_CRF'"),
    ("paper: {mIoU: 47.7}", "paper: {mIoU: high}", "mIoU of row 'A' is 'high', not a number"),
    ("paper: {mIoU: 47.7}", "paper: {mIoU: [1]}", r"mIoU of row 'A' is \['1'\], not a number"),
    ("paper: {mIoU: 47.7}", "paper: {IoU: 1}", "row 'A': paper names 'IoU'; known are mIoU, G"),
    ("paper: {mIoU: 47.7}", "paper: 47.7", "paper of row 'A' is not a mapping"),
    ("of: A, ", "of: A, config: segnet, ", "row 'A, CRF' has config and of; give one of them"),
    ("of: A, then: {crf: {iterations: 5}, recalibrate: }", "of: A", "'A, CRF' has of, so it needs"),
    ("of: A, ", "of: A, options: {seed: 1}, ", "'A, CRF' has of, .* takes no options or continues"),
    ("of: A, ", "of: A, continues: A, ", "'A, CRF' has of, .* takes no options or continues"),
    ("of: A, ", "of: Z, ", "row 'A, CRF': of or continues names 'Z'; known are A, B, A, CRF, C"),
    ("of: A, ", "of: D, ", "row 'A, CRF' needs the row 'D', which must stand before it"),
    ("of: A, ", "of: 'A, CRF', ", "needs the row 'A, CRF', which must stand before it"),
    ("continues: A", "continues: D", "row 'B' needs the row 'D', which must stand before it"),
    ("name: D,", "name: D, continues: 'A, CRF',", "'D' needs the row 'A, CRF', which trains noth"),
    ("name: D,", "name: D, continues: C,", "row 'D' needs the row 'C', which trains nothing its"),
    ("then: {crf", "then: {CRF", "row 'A, CRF': then names 'CRF'; known are rec"),
    ("crf: {iterations: 5}", "crf: 5", "crf of row 'A, CRF' is not a mapping"),
    (", note: a network that is not here", "", "'C' has neither config nor of, so .* needs a note"),
    ("name: C,", "name: C, options: {seed: 1},", "'C' has neither config nor of, .* takes no opt"),
    ("options: {train.steps: 100}", "options: {train: {steps: 1}}", "train of row 'A' is neither"),
    ("scales: {cpu: left out}", "scales: {big: left out}", "'D': scales names 'big'; known are pa"),
    ("scales: {cpu: left out}", "scales: {cpu: out}", "row 'D' is not a mapping"),
    ("first: [B, D]", "first: [B, E]", "scale cpu: first names 'E'; known are A, B, A, CRF, C, D"),
    ("first: [B, D]", "first: B", "first of scale cpu is not a list"),
    ("first: [B, D]", "last: [B, D]", "scale cpu has the unknown field 'last'; known are"),
    ("{notebook_test: val}", "{train: val}", "scale cpu: splits names 'train'; known are test"),
    ("rows:", "rows: []\nrow:", "it has the unknown field 'row'; known are name, title, source"),
]


@pytest.mark.parametrize("old, new, message", BROKEN, ids=[message for *_, message in BROKEN])
def test_a_mistake_is_named(write, old, new, message):
    assert TEXT.count(old) == 1
    with pytest.raises(DataError, match=message) as error:
        read_table(write(TEXT.replace(old, new)))
    assert re.search(r"some\.yaml is not a published table: .*README\.md", str(error.value))


def test_tables_that_are_none(write, tmp_path):
    with pytest.raises(DataError, match="it has no columns or no rows"):
        read_table(write("title: a\nsource: b"))
    for text in ("", "[1, 2]", "title"):
        with pytest.raises(DataError, match="is not a published table"):
            read_table(write(text))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="is not a published table"):
        read_table(str(tmp_path / "bytes.yaml"))
    with pytest.raises(ValueError, match=r"none\.yaml"):
        read_table(str(tmp_path / "none.yaml"))


def test_an_unknown_name_lists_the_tables():
    with pytest.raises(ValueError, match=r"--table=segnet/9 is unknown; .*segnet/1, .*\.yaml"):
        read_table("segnet/9")
    assert "segnet/1" in names()
    assert read_table("segnet/1").name == "segnet/1"
