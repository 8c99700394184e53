"""From a row to its config: options, warm-up, folders of data, hashes and differences."""

import pytest

from segjax import config_files
from segjax.config import difference
from segjax.published.runs import config_hash, config_of, options_changed
from segjax.published.table import Column, PublishedTable, Row, Scale


def table_of(rows, **scales):
    known = {"paper": Scale("as published"), **{k: Scale("", v) for k, v in scales.items()}}
    return PublishedTable("some", "", "", "", [Column("mIoU", "miou")], rows, known)


PLAIN = Row("plain", {}, "segnet_basic:paper", {"train.steps": "1000"})
WARM = Row("warm", {}, "pspnet:streets", {"data.train_images": "8"})
SMALL = {"data.image_size": "180,240", "train.steps": "100", "model.features": "32"}


def test_a_row_is_its_config_with_its_options():
    config = config_of(table_of([PLAIN]), PLAIN, "paper")
    published = config_files.get("segnet_basic:paper")
    assert config.train.steps == 1000
    assert difference(published, config) == {"train.steps": (20_000, 1000)}
    small = config_of(table_of([PLAIN], cpu=SMALL), PLAIN, "cpu")
    assert (small.train.steps, tuple(small.data.image_size)) == (100, (180, 240))
    assert small.model.features == 32


@pytest.mark.parametrize(
    "option, text, value",
    [
        ("data.eval_splits", "val,train", ("val", "train")),
        ("data.eval_splits", "val", ("val",)),
        ("data.eval_splits", "()", ()),
        ("data.label_size", "own", ("own",)),
        ("data.label_size", "360,480", (360, 480)),
        ("train.freeze", "encoder,norm", ("encoder", "norm")),
        ("report.measures", "boundary,calibration", ("boundary", "calibration")),
        ("optim.lr_scale", "bias=2", "bias=2"),
        ("optim.lr_scale", "", ""),
        ("init_from", "", ""),
        ("data.local_contrast", "0", 0),
    ],
)
def test_options_as_text(option, text, value):
    row = Row("row", {}, "segnet_basic:paper", {option: text})
    config = config_of(table_of([row]), row, "paper")
    for name in option.split("."):
        config = config[name]
    assert (tuple(config) if isinstance(value, tuple) else config) == value


def test_a_warm_up_keeps_its_share_of_the_run():
    published = config_files.get("pspnet:streets")
    assert (published.optim.warmup_steps, published.train.steps) == (50, 1500)
    table = table_of([WARM], cpu={"train.steps": "300"}, own={"optim.warmup_steps": "7"})
    assert config_of(table, WARM, "paper").optim.warmup_steps == 50
    assert config_of(table, WARM, "cpu").optim.warmup_steps == 10
    assert config_of(table, WARM, "own").optim.warmup_steps == 7
    # The row's own length is the published one.
    longer = Row(
        "longer", {}, "pspnet:streets", {"train.steps": "3000", "optim.warmup_steps": "60"}
    )
    table = table_of([longer], cpu={"train.steps": "300"})
    assert config_of(table, longer, "cpu").optim.warmup_steps == 60  # as the row says
    longer = Row("longer", {}, "pspnet:streets", {"train.steps": "3000"})
    assert config_of(table_of([longer]), longer, "paper").optim.warmup_steps == 50
    assert config_of(table, longer, "cpu").optim.warmup_steps == 5
    # Without steps nobody knows the share.
    epochs = Row("epochs", {}, "pspnet:streets", {"train.steps": "0", "train.epochs": "2"})
    table = table_of([epochs], cpu={"train.steps": "10", "train.epochs": "0"})
    assert config_of(table, epochs, "cpu").optim.warmup_steps == 50


def test_the_folder_of_the_data():
    table = table_of([PLAIN, WARM])
    assert config_of(table, PLAIN, "paper").data.root == "data/camvid"
    assert config_of(table, PLAIN, "paper", data_dir="/sets").data.root == "/sets/camvid"
    assert config_of(table, WARM, "paper", data_dir="/sets").data.root == ""
    own = Row("own", {}, "segnet_basic:paper", {"data.root": "/mine/camvid"})
    assert config_of(table_of([own]), own, "paper", data_dir="/sets").data.root == "/mine/camvid"


def test_the_hash_is_that_of_what_is_learned():
    table = table_of([PLAIN, WARM], cpu=SMALL)
    found = config_hash(config_of(table, PLAIN, "paper"))
    assert len(found) == 12
    assert found == config_hash(config_of(table, PLAIN, "paper", seed=3, data_dir="/sets"))
    options = {"report.measures": "()", "data.workers": "4", "parallel.data": "1"}
    same = Row("plain", {}, PLAIN.config, {**PLAIN.options, **options})
    assert found == config_hash(config_of(table, same, "paper"))
    assert found != config_hash(config_of(table, PLAIN, "cpu"))
    other = Row("plain", {}, PLAIN.config, {**PLAIN.options, "optim.learning_rate": "0.2"})
    assert found != config_hash(config_of(table, other, "paper"))
    assert config_of(table, PLAIN, "paper", seed=3).seed == 3


def test_what_differs_from_the_published():
    table = table_of([PLAIN, WARM], cpu={**SMALL, "report.measures": "()", "parallel.data": "1"})
    assert options_changed(table, PLAIN, "paper") == {}
    assert options_changed(table, PLAIN, "cpu") == {
        "data.image_size": ([360, 480], [180, 240]),
        "train.steps": (1000, 100),
        "model.features": (64, 32),
    }
    table = table_of([WARM], cpu={"train.steps": "150"})
    assert options_changed(table, WARM, "cpu") == {
        "train.steps": (1500, 150),
        "optim.warmup_steps": (50, 5),
    }


@pytest.mark.parametrize(
    "config, options, message",
    [
        ("segnot", {}, "config 'segnot' is unknown"),
        ("segnet:papers", {}, "preset 'papers' is unknown; segnet has streets"),
        ("segnet", {"train.step": "1"}, "train.step is unknown"),
        ("segnet", {"train.steps": "few"}, "train.steps"),
        ("segnet", {"train.steps": "0"}, "train.steps=0 and train.epochs=0"),
        ("segnet", {"train.batch_size": "-1"}, "train.batch_size=-1"),
    ],
)
def test_a_row_that_no_run_can_have_is_named(config, options, message):
    row = Row("A row", {}, config, options)
    with pytest.raises(ValueError, match="row 'A row' of table some at scale cpu: ") as error:
        config_of(table_of([row], cpu={}), row, "cpu")
    assert message in str(error.value)
