"""The files of a run, damaged, cut or written by others, end in one line or do no harm."""

import io
import json
import os
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from segjax import config as configs
from segjax.data import contents, statistics
from segjax.data.files.json_file import parse_json
from segjax.data.sampling import class_presence
from segjax.data.splits import Splits
from segjax.inference.predictor import Predictor
from segjax.metrics.confusion import ImageConfusions
from segjax.report.numbers import no_nan
from segjax.report.places import RESULTS_FILE, check_places
from segjax.report.provenance import save_run
from segjax.report.results_file import read_results
from segjax.training.evaluation import Evaluation
from segjax.training.metrics_file import METRICS_FILE, read_metrics
from segjax.training.options import check_memory, check_options, check_run
from segjax.training.run_record import RUN_FILE, load_record
from segjax.training.writers import MetricsWriter
from tests.conftest import make_tiny_config
from tests.data.drawn import pairs
from tests.faults.fuzzing import fuzz, json_edits, short_and_long, zip_edits

NAMES = ("ece", "brier")


def load_config(workdir):
    """As every command on a finished run does."""
    config = configs.load(workdir)
    check_run(config, workdir)
    return config


READERS = {
    configs.CONFIG_FILE: load_config,
    configs.CLASSES_FILE: lambda workdir: configs.load_classes(make_tiny_config(), workdir),
    contents.FILE: contents.load_contents,
    RUN_FILE: load_record,
    RESULTS_FILE: lambda workdir: read_results(workdir, NAMES),
}


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """The content of each file of a run."""
    workdir = tmp_path_factory.mktemp("run")
    root = tmp_path_factory.mktemp("data")
    for split in ("train", "val"):
        pairs(root, "ab", split)
    config = make_tiny_config()
    config.data.update(name="folder", root=str(root), classes="road,car,sky")
    config.data.update(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    splits = Splits(config.data)
    configs.save(config, workdir)
    configs.save_classes(splits.classes, workdir)
    change = {"step": 6, "found": ["train: 1 of 3 images missing (a)"], "before": {}, "now": {}}
    save_run(workdir, {"seed": 3}, config, splits, changed=change)
    contents.contents_of(splits).save(workdir, weights=())
    results = {"val": {"miou": 0.5, "iou": [0.5, None], "ece": 0.25, "images": 2}}
    saved = {"protocol": "as here", "classes": ["road", "car"], "results": results}
    (workdir / RESULTS_FILE).write_text(json.dumps(saved))
    return {name: (workdir / name).read_bytes() for name in READERS}


DAMAGE = {
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "cut": lambda content: content[: len(content) // 2],
    "not UTF-8": lambda content: b"\xff\xfe\x00\x81" * 75,
    "another kind": lambda content: b"[1, 2]" if content.startswith(b"{") else b'{"a": 1}',
    "a number": lambda content: b"7",
    "deep": lambda content: b"[" * 200_000,
    "deep in a value": lambda content: (
        content.rstrip()[:-1] + b', "x": ' + b"[" * 99 + b"]" * 99 + b"}"
    ),
    "NaN": lambda content: b'{"a": NaN}',
    "two documents": lambda content: content * 2,
}


@pytest.mark.fault(
    "config.json, classes.json, run.json, inputs.json or results.json is empty, cut, binary, of "
    "another kind or nested deep",
    "one line: the file, what is wrong, what to do",
)
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_named(seeds, tmp_path, name, damage):
    path = tmp_path / name
    path.write_bytes(seeds[name])
    READERS[name](tmp_path)
    path.write_bytes(damage(seeds[name]))
    with pytest.raises(ValueError, match="; ") as error:
        READERS[name](tmp_path)
    assert str(error.value).startswith(f"{path} is not ")
    assert "\n" not in str(error.value)


@pytest.mark.fault(
    "one of these files is a folder, a pipe, a device, or has a terabyte",
    "one line, at once; nothing is read",
)
@pytest.mark.parametrize("name", [*READERS, METRICS_FILE])
def test_what_is_no_file_of_a_run(tmp_path, name):
    readers = {**READERS, METRICS_FILE: read_metrics}
    path = tmp_path / name
    for make, words in (
        (lambda: path.mkdir(), "is a folder, not a file"),
        (lambda: os.mkfifo(path), "is a pipe or a device"),
        (lambda: path.symlink_to("/dev/zero"), "is a pipe or a device"),
        (lambda: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 1 << 40), "are the most"),
    ):
        make()
        with pytest.raises(ValueError, match=words) as error:
            readers[name](tmp_path)
        assert str(error.value).startswith(str(path))
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=f"{name} is no file, and will be written as one"):
        check_places(tmp_path, "--workdir")


@pytest.mark.fault(
    "an option in config.json has another type, is missing, or is out of range",
    "one line that names the option, before the data are opened",
)
@pytest.mark.parametrize(
    "option, value, words",
    [
        ("train.batch_size", "4", r"train\.batch_size is text, not a whole number"),
        ("train.batch_size", 2.5, r"train\.batch_size is a number, not a whole number"),
        ("train.batch_size", -4, r"train\.batch_size=-4; use"),
        ("train.eval_batch_size", [4], r"train\.eval_batch_size is a list"),
        ("optim.learning_rate", True, r"optim\.learning_rate is true or false, not a number"),
        ("data.image_size", [320_000, 640_000], r"data\.image_size=\(?\[?320000, 640000"),
        ("data.image_size", [32_000, 32_000], r"1,024,000,000 pixels; use 268,435,456 at most"),
        ("data.image_size", [32], r"data\.image_size="),
        ("data.image_size", None, r"data\.image_size is null, not a list"),
        ("data.mean", "abc", r"data\.mean is text, not a list"),
        ("data.mean", [0.5], r"data\.mean and data\.std have 1 and 3 numbers"),
        ("data.name", 3, r"data\.name is a whole number, not text"),
        ("model.name", [], r"model\.name is a list, not text"),
        ("model.features", "many", r"model\.features is text, not a whole number"),
        ("report.samples", 10**9, r"report\.samples=1000000000; use"),
        ("data.workers", 10**6, r"data\.workers=1000000; use"),
        ("augment", 3, "augment is a whole number, not an object"),
        ("optim", None, "optim is null, not an object"),
        ("data.local_contrast", {"a": 1}, r"data\.local_contrast is an object, not a whole"),
        ("seed", 10**25, "beyond 64 bits"),
        ("dtype", None, r"dtype is null, not text"),
    ],
)
def test_a_wrong_option_in_config_json_is_named(tmp_path, option, value, words):
    config = make_tiny_config()
    config.data.update(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    values = configs.plain(config)
    *sections, name = option.split(".")
    inner = values
    for section in sections:
        inner = inner[section]
    inner[name] = value
    (tmp_path / configs.CONFIG_FILE).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=words) as error:
        load_config(tmp_path)
    assert "\n" not in str(error.value)


def test_names_of_options_are_printed_safely(tmp_path):
    values = configs.plain(make_tiny_config())
    values["augment"]["\x1b[31m\n"] = 2**40
    (tmp_path / configs.CONFIG_FILE).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"augment\.\\x1b\[31m\\n=1099511627776; use") as error:
        load_config(tmp_path)
    assert str(error.value).isprintable()


def test_options_that_a_run_lacks_have_their_defaults(tmp_path):
    values = configs.plain(make_tiny_config())
    del values["train"]["ema_warmup"], values["augment"]
    (tmp_path / configs.CONFIG_FILE).write_text(json.dumps(values))
    config = load_config(tmp_path)
    assert config.train.ema_warmup is False
    assert config.augment.flip is True
    for name in ("seed", "data", "model"):
        (tmp_path / configs.CONFIG_FILE).write_text(json.dumps({**values, name: {}}))
        with pytest.raises(ValueError, match=r"config\.json is not the config of a run: "):
            load_config(tmp_path)


@pytest.mark.fault(
    "config.json asks for a batch that is larger than the machine's memory",
    "one line, before anything is allocated",
)
def test_a_batch_larger_than_the_memory_is_refused(tiny_config):
    check_memory(tiny_config)
    tiny_config.train.eval_batch_size = 2**31 - 1
    check_options(tiny_config)  # a plan for other machines may say so
    with pytest.raises(ValueError, match=r"eval_batch_size=2147483647: a batch .* GB of memory"):
        check_memory(tiny_config)


@pytest.mark.fault(
    "classes.json or config.json has another network than the checkpoint",
    "one line, at the first image",
)
@pytest.mark.parametrize("other", [{"num_classes": 5}, {"features": 6}])
def test_a_checkpoint_of_another_network_is_named(tiny_config, monkeypatch, unchecked, other):
    import jax

    from segjax.data.classes import from_names
    from segjax.models import build
    from segjax.weights.transfer import abstract_variables

    trained = build(tiny_config.model, 3, "float32")
    shapes = abstract_variables(trained, 3)
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    classes = from_names("abcde"[: other.get("num_classes", 3)])
    tiny_config.model.update({k: v for k, v in other.items() if k == "features"})
    tiny_config.data.update(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    model = build(tiny_config.model, len(classes), "float32")
    predictor = Predictor(model, variables, classes, tiny_config)
    with pytest.raises(ValueError, match="the weights are not those of this network") as error:
        predictor.predict(np.zeros((32, 48, 3), np.uint8))
    assert "\n" not in str(error.value)
    assert "config.json and classes.json" in str(error.value)


ROW = {"step": 2, "split": "train", "loss": 0.5}


@pytest.mark.fault(
    "lines of metrics.jsonl are damaged, of another shape or binary",
    "they are left out with a warning, and a copy is kept",
)
@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\x81",
        b"\0" * 4096,
        b"7",
        b"[]",
        b'"x"',
        b"null",
        b'{"loss": 1}',
        b'{"step": "3", "split": "train"}',
        b'{"step": 3, "split": "train", "loss": "abc"}',
        b'{"step": 3, "split": "train", "loss": NaN}',
        b"[" * 100_000,
        b'{"step": 3, "split": "tr',
    ],
)
def test_damaged_lines_of_a_log_are_left_out(tmp_path, line):
    path = tmp_path / METRICS_FILE
    intact = json.dumps(ROW).encode() + b"\n"
    path.write_bytes(intact + line + b"\n" + intact)
    with pytest.warns(UserWarning, match=f"{METRICS_FILE}: 1 of 4 lines are no rows .*line 2"):
        assert read_metrics(tmp_path) == [ROW, ROW]
    content = path.read_bytes()
    with pytest.warns(UserWarning, match="left out"), MetricsWriter(tmp_path, 2):
        pass
    assert path.read_bytes() == intact * 2
    assert path.with_name("metrics.jsonl.damaged").read_bytes() == content


@pytest.mark.fault(
    "a crash cuts the last line of metrics.jsonl off, or leaves zeros in its place",
    "the run goes on without that line",
)
@pytest.mark.parametrize("end", [b'{"step": 4, "split": "tra', b"\0" * 4096, b'{"step\xc3', b""])
def test_a_last_line_that_is_cut_is_left_out_without_a_word(tmp_path, end):
    path = tmp_path / METRICS_FILE
    path.write_bytes(json.dumps(ROW).encode() + b"\n" + end)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_metrics(tmp_path) == [ROW]
        with MetricsWriter(tmp_path, 2):
            pass
    assert sorted(p.name for p in tmp_path.glob("metrics*")) == [METRICS_FILE]


@pytest.mark.fault(
    "a cache of class counts is damaged or of another data set", "the counts are made anew"
)
@pytest.mark.parametrize("content", [b"", b"[", b"[" * 100_000, b"{}", b"\xff", b"7", None, "more"])
def test_damaged_caches_of_counts_are_made_anew(tmp_path, content):
    pairs(tmp_path, "ab")
    config = make_tiny_config()
    config.data.update(name="folder", root=str(tmp_path), classes="road,car,sky")
    source = Splits(config.data).source("train")
    for count, value in (
        (statistics.class_statistics, "class_pixels"),
        (class_presence, "classes"),
    ):
        cache = tmp_path / f"{count.__name__}.json"
        expected = count(source, cache)
        values = json.loads(cache.read_bytes())
        if content == "more":
            values["statistics"][value].append([7] if value == "classes" else 7)
        elif content is None:
            values["statistics"][value] = "abc"
        damaged = json.dumps(values).encode() if content in (None, "more") else content
        cache.write_bytes(damaged)
        np.testing.assert_equal(count(source, cache), expected)
        assert cache.read_bytes() != damaged


def evaluation(images=3):
    confusions = np.zeros((images, 4, 4), np.int64)
    confusions[:, 0, 0], confusions[:, 1, 2] = 40, 2
    return Evaluation([f"{k}" for k in range(images)], ImageConfusions.from_dense(confusions), 0.5)


def bomb(path):
    """64 MB of zeros in 64 kB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("counts.npy", bytes(1 << 26))


def declared(path):
    """A header that promises an array of a terabyte."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<i8", "fortran_order": False, "shape": (1 << 37,)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("counts.npy", file.getvalue())


def more_classes(path):
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "num_classes": 10**9})


def of_objects(path):
    np.savez(path, names=np.array([{"a": 1}], object))


@pytest.mark.fault(
    "a stored evaluation (evaluations/*.npz) is cut, a bomb, of objects or declares terabytes",
    "one line; no memory is taken",
)
@pytest.mark.parametrize("harm", [bomb, declared, more_classes, of_objects, None])
def test_damaged_evaluations_are_named(tmp_path, harm):
    path = tmp_path / "val.npz"
    evaluation().save(path)
    assert Evaluation.load(path).confusion[0, 0] == 120
    if harm:
        harm(path)
    else:
        os.truncate(path, path.stat().st_size // 2)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"evaluation .*val\.npz cannot be read \(") as error:
        Evaluation.load(path)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert "\n" not in str(error.value)


@pytest.mark.fault("evaluations/*.npz: fuzzed", "one line")
@short_and_long(60, 2_000)
def test_fuzzed_evaluations(tmp_path, record_property, examples):
    path = tmp_path / "val.npz"
    evaluation().save(path)
    fuzz(
        Evaluation.load,
        [path.read_bytes()],
        path,
        record=record_property,
        examples=examples,
        edits=zip_edits,
    )


def test_results_hold_numbers_of_json_alone(tmp_path):
    results = {"val": {"ece": np.inf, "iou": [0.5, -np.inf, np.nan], "brier": 0.25}}
    text = json.dumps({"results": no_nan(results)}, allow_nan=False)
    assert parse_json(text)["results"]["val"] == {
        "ece": None,
        "iou": [0.5, None, None],
        "brier": 0.25,
    }


@pytest.mark.fault(
    "config.json, classes.json, run.json, inputs.json, results.json: fuzzed", "one line"
)
@pytest.mark.parametrize("name", READERS)
@short_and_long(60, 4_000)
def test_fuzzed_files_of_a_run(seeds, tmp_path, record_property, name, examples):
    read = READERS[name]
    fuzz(
        lambda path: read(path.parent),
        [seeds[name]],
        tmp_path / name,
        record=record_property,
        examples=examples,
        edits=json_edits,
    )


LOG = b"".join(
    json.dumps({**ROW, "step": step, "miou": None}).encode() + b"\n" for step in range(9)
)


def read_log(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = read_metrics(path.parent)
    assert all(type(row["step"]) is int for row in rows)


@pytest.mark.fault("metrics.jsonl: fuzzed", "lines that are no rows are left out")
@short_and_long(100, 4_000)
def test_a_fuzzed_log(tmp_path, record_property, examples):
    fuzz(read_log, [LOG], tmp_path / METRICS_FILE, record=record_property, examples=examples)
