"""A published table beside our numbers: what is written of rows that are run, and of others."""

import io
import json

from segjax.console import Console
from segjax.published.runs import config_hash, config_of
from segjax.published.table import Column, PublishedTable, Row, Scale
from segjax.report.published import (
    Measured,
    Outcome,
    Reproduction,
    print_reproduction,
    write_reproduction,
)

ROWS = [
    Row("ours", {"mIoU": 50.0}, "segnet_basic:paper", {"data.eval_splits": "val,test"}),
    Row("theirs", {"mIoU": 51.0}, note="not run, as it is not here"),
]
TABLE = PublishedTable(
    "some",
    "a table",
    "nobody, table 1",
    "",
    [Column("mIoU", "miou", split="notebook_test")],
    ROWS,
    {
        "paper": Scale("as published"),
        "cpu": Scale(
            "small",
            {"train.steps": "10", "data.eval_splits": "val", "data.image_size": "32,48"},
            splits={"notebook_test": "val"},
        ),
    },
)


def test_a_row_that_is_not_run_is_shown_with_its_note(tmp_path):
    outcomes = [Outcome(ROWS[0], [Measured({"val": {"miou": 0.4}}, {})], [])]
    result = Reproduction(TABLE.at("cpu"), "cpu", 1, [*outcomes, Outcome(ROWS[1], [], [])])
    write_reproduction(result, tmp_path)
    ours, theirs = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert ours["cells"]["mIoU"]["mean"] == 40  # of the split that stands for the published one
    assert ours["made"]["changed"]["data.eval_splits"] == [["val", "test"], ["val"]]
    assert theirs["cells"]["mIoU"] | {"verdict": ""} == {
        "paper": 51.0,
        "values": [],
        "mean": None,
        "deviation": None,
        "difference": None,
        "verdict": "",
    }
    assert theirs["made"] == {}
    text = (tmp_path / "table.md").read_text()
    assert "| theirs | 51.0 | – |" in text
    assert "- theirs: not run, as it is not here" in text
    assert "In all rows, instead of the published: data.eval\\_splits val (val, test), " in text
    assert "data.image\\_size 32x48 (360x480), train.steps 10 (20000)." in text
    assert "Measured on val, protocol segjax" in text
    how = text.partition("How the rows were made")[2]
    assert "| ours |" in how
    assert "theirs" not in how


def test_rows_with_the_same_remark_share_a_line(tmp_path):
    rows = [
        Row(name, {"mIoU": 1.0}, note=note) for name, note in (("a", "x"), ("b", "y"), ("c", "x"))
    ]
    rows.append(Row("d", {}, "segnet_basic:paper", incomparable="other data"))
    table = PublishedTable("some", "", "", "", TABLE.columns, rows, TABLE.scales)
    outcomes = [Outcome(row, [], ["seed 0: why"] if row.name == "d" else []) for row in rows]
    write_reproduction(Reproduction(table, "paper", 1, outcomes), tmp_path)
    lines = (tmp_path / "table.md").read_text().splitlines()
    remarks = ["- a; c: x", "- b: y", "- not comparable, d: other data", "- d failed, seed 0: why"]
    assert [line for line in lines if line.startswith("- ")] == remarks


def test_what_all_rows_share_is_said_once(tmp_path):
    rows = [Row(name, {"mIoU": 1.0}, "segnet_basic:paper") for name in ("a", "b")]
    table = PublishedTable("some", "", "", "", TABLE.columns, rows, TABLE.scales)
    codes = ("1111111", "2222222")
    records = [
        {
            "seconds": 7200.0,
            "environment": {"device": "1 x cpu", "commit": code},
            "data": {"val": {"fingerprint": "f1"}},
        }
        for code in codes
    ]
    outcomes = [
        Outcome(row, [Measured({}, record)], []) for row, record in zip(rows, records, strict=True)
    ]
    write_reproduction(Reproduction(table, "paper", 1, outcomes), tmp_path)
    how = (tmp_path / "table.md").read_text().partition("How the rows were made")[2]
    assert "\ndata: val f1.\n" in how
    assert "\ndevice: 1 x cpu.\n" in how
    assert "|  | config | seeds | hours | config hash | code |" in how
    assert all(
        f"| 1 of 1 | 2.00 | {config_hash(config_of(table, row, 'paper'))} | {code} |" in how
        for row, code in zip(rows, codes, strict=True)
    )


def test_columns_without_a_number_of_the_paper(tmp_path):
    rows = [Row("a", {}, "segnet_basic:paper"), Row("b", {}, "segnet_basic:paper")]
    columns = [*TABLE.columns, Column("loss", "loss", split="notebook_test", factor=1)]
    table = PublishedTable("some", "", "", "", columns, rows, TABLE.scales)
    measured = Measured({"notebook_test": {"miou": 0.4, "loss": 2.0}}, {})
    result = Reproduction(table, "paper", 1, [Outcome(row, [measured], []) for row in rows])
    write_reproduction(result, tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "|  | mIoU, ours | loss, ours |" in text
    assert "| a | 40.0 | 2.0 |" in text
    assert "the paper's" not in text
    console = Console(file=io.StringIO(), width=80)
    print_reproduction(result, console)
    assert "/" not in console.file.getvalue()
