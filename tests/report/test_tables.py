import io
import math

import numpy as np
import pytest

from segjax.console import Console
from segjax.data.classes import from_names
from segjax.metrics.confusion import summarize
from segjax.metrics.protocols import DEFAULT_PROTOCOL, PROTOCOLS, compare_protocols
from segjax.report import numbers, tables

# Truth a: 6 right, 2 taken for b. Truth b: 1 taken for a, 3 right. c never occurs.
CONFUSION = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
CLASSES = from_names(["a", "b", "c"])


def results():
    return {
        "val": {**summarize(CONFUSION), "loss": 0.5, "images": 1234},
        "test": {**summarize(CONFUSION * 3), "loss": None, "images": 7},
    }


def printed(table_results, classes=CLASSES, width=80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(tables.results_table(table_results, classes))
    return console.file.getvalue()


def test_printed_table_holds_hand_computed_numbers_within_80_columns():
    lines = printed(results()).splitlines()
    cells = {line.split()[0]: line.split()[-2:] for line in lines if len(line.split()) > 2}
    # IoU a = 6 / (6 + 2 + 1), b = 3 / (3 + 1 + 2); mean over the two that occur.
    assert cells["a"] == ["0.6667", "0.6667"]
    assert cells["b"] == ["0.5000", "0.5000"]
    assert cells["c"] == ["–", "–"]
    assert cells["mIoU"] == ["0.5833", "0.5833"]
    assert cells["global"] == ["0.7500", "0.7500"]
    assert cells["loss"] == ["0.5000", "–"]
    assert cells["images"] == ["1,234", "7"]
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in printed(results())


def test_caption_is_the_protocol():
    text = " ".join(printed(results()).split())
    assert DEFAULT_PROTOCOL.description[1:] in text


def test_names_are_text_not_markup():
    classes = from_names(["[bold]road[/bold]", "<b>", "pipe|name"])
    assert "[bold]road[/bold]" in printed(results(), classes)
    markdown = tables.results_markdown(results(), classes)
    assert "&lt;b&gt;" in markdown
    assert "<b>" not in markdown
    assert "pipe\\|name" in markdown


def test_long_names_fold_and_keep_the_numbers():
    classes = from_names(["x" * 120, "b", "c"])
    text = printed(results(), classes)
    assert "".join(text.split()).count("x") >= 120
    assert "0.6667" in text


def test_markdown_is_one_table_and_the_protocol():
    lines = tables.results_markdown(results(), CLASSES).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in rows} == {4}
    assert "| **mIoU** | **0.5833** | **0.5833** |" in rows
    assert "| IoU: c | – | – |" in rows
    assert len(rows) == 2 + 6 + 3
    assert DEFAULT_PROTOCOL.description[1:] in lines[-1]


def test_results_read_back_from_json_with_null_and_a_missing_key():
    row = {"miou": 0.5, "global_accuracy": 0.5, "fw_iou": 0.5, "iou": [0.5, None, math.nan]}
    overall, per_class = numbers.result_rows({"val": row}, CLASSES)
    assert per_class == [("a", ["0.5000"]), ("b", ["–"]), ("c", ["–"])]
    assert dict(overall)["class average accuracy"] == ["–"]


def test_boundary_rows_only_where_measured():
    assert "boundary F1" not in printed(results())
    with_boundary = results()
    with_boundary["val"]["boundary_f1"] = 0.4321
    row = dict(numbers.result_rows(with_boundary, CLASSES)[0])["boundary F1"]
    assert row == ["0.4321", "–"]


def evaluated(protocol="segjax"):
    """Two splits, in one of which class c occurs, as a full evaluation gives them."""
    full = CONFUSION.copy()
    full[2, 2] = 5
    out = {}
    for split, confusion in (("val", CONFUSION), ("test", full)):
        numbers = summarize(confusion) | PROTOCOLS[protocol].score(confusion[None])
        rows = compare_protocols(confusion[None])
        out[split] = {**numbers, "loss": 0.5, "images": 1, "protocol": protocol, "protocols": rows}
    return out


def test_the_rule_stands_above_every_number():
    lines = printed(evaluated("segnet2017")).splitlines()
    cells = {line.split()[0]: line.split()[-2:] for line in lines if len(line.split()) > 1}
    assert cells["segnet2017"] == ["segnet2017", "segnet2017"]
    assert cells["mIoU"] == ["0.3889", "0.7222"]  # (6/9 + 3/6 + 0) / 3 and (6/9 + 3/6 + 1) / 3
    assert "| val (segnet2017) | test (segnet2017) |" in tables.results_markdown(
        evaluated("segnet2017"), CLASSES
    )


def test_other_rules_and_why_they_differ():
    console = Console(file=io.StringIO(), width=100)
    console.print(tables.protocols_table(evaluated("semseg")))
    lines = console.file.getvalue().splitlines()
    cells = {line.split()[0]: line.split() for line in lines if line.strip()}
    assert cells["segjax"][1:3] == ["0.5833", "0.7222"]
    assert cells["semseg"][1:4] == ["*", "0.3889", "0.7222"]
    assert cells["torchvision"][1:3] == ["–", "0.7222"]
    text = " ".join(console.file.getvalue().split())
    assert "val: 1 of 3 classes absent" in text
    assert "test: no class is absent" in text
    markdown = tables.results_markdown(evaluated(), CLASSES)
    assert "| torchvision | – | 0.7222 | torchvision's references" in markdown


def test_wrong_class_table_is_named():
    with pytest.raises(ValueError, match="'val' have 3 per-class values but there are 2 classes"):
        tables.results_table(results(), from_names(["a", "b"]))


def test_most_confused_by_share_then_pixels():
    assert numbers.most_confused(CONFUSION, CLASSES) == [("a", "b", 0.25, 2), ("b", "a", 0.25, 1)]
    assert numbers.most_confused(CONFUSION, CLASSES, top=1) == [("a", "b", 0.25, 2)]
    assert numbers.most_confused(np.eye(3, dtype=int), CLASSES) == []


def test_series_later_row_wins_and_null_is_nan():
    history = [
        {"step": 20, "split": "train", "loss": 9.0},
        {"step": 10, "split": "train", "loss": None},
        {"step": 20, "split": "train", "loss": 2.0},
        {"step": 20, "split": "val", "loss": 7.0},
        {"step": 30, "split": "train", "loss": math.inf},
        {"step": 40, "split": "train", "accuracy": 1.0},
    ]
    steps, values = numbers.series(history, "train", "loss")
    np.testing.assert_array_equal(steps, [10, 20, 30])
    np.testing.assert_array_equal(values, [np.nan, 2.0, np.nan])


def test_best_step_is_the_first_highest():
    rows = [(10, 0.4), (20, None), (30, 0.6), (40, 0.6), (50, 0.5)]
    history = [{"step": s, "split": "val", "miou": m} for s, m in rows]
    assert numbers.best_step(history) == (30, 0.6)
    assert numbers.best_step(history[1:2]) is None
    assert numbers.best_step([]) is None
