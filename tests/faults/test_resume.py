"""A run goes on with what it was made of: data, classes, and the weights that it began with."""

import io
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from segjax import config as configs
from segjax.commands.train import train
from segjax.console import Console
from segjax.data import contents
from segjax.data.classes import from_names
from segjax.data.files.json_file import read_json
from segjax.data.splits import Splits
from segjax.report.provenance import save_run
from segjax.training.inputs import read_inputs
from segjax.training.run_record import load_record
from tests.conftest import make_tiny_config
from tests.data.drawn import pairs

SIZE = (40, 50)


@pytest.fixture
def run(tmp_path):
    """(config, workdir) of a run that stopped at step 6, without the arrays of its checkpoint."""
    root = tmp_path / "data"
    for split, names in {"train": "abcdef", "val": "uv"}.items():
        pairs(root, names, split, size=SIZE)
        for number, path in enumerate(sorted((root / "masks" / split).iterdir())):
            ids = np.random.default_rng(number).integers(0, 3, SIZE, np.uint8)
            Image.fromarray(ids).save(path, compress_level=0)
    (root / "classes.txt").write_text("road\ncar\nsky\n")
    (root / "map.yaml").write_text("x: road\ny: [car, sky]\n")
    config = make_tiny_config()
    config.data.update(name="folder", root=str(root), classes=str(root / "classes.txt"))
    return config, tmp_path / "run"


def stop(config, workdir):
    splits = Splits(config.data, config.seed)
    (workdir / "checkpoints" / "latest" / "6").mkdir(parents=True)
    configs.save(config, workdir)
    configs.save_classes(splits.classes, workdir)
    save_run(workdir, None, config, splits)
    contents.contents_of(splits).save(workdir, weights=())
    (workdir / "metrics.jsonl").write_text('{"step": 6, "split": "train", "loss": 1.0}\n')


def files_in(workdir):
    return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def resumed(config, workdir):
    return read_inputs(config, Splits(config.data, config.seed), workdir)


def assert_refused(config, workdir, words):
    """By the command, and before it writes anything."""
    before = files_in(workdir)
    with pytest.raises(ValueError, match=words) as error:
        train(config, workdir, console=Console(file=io.StringIO()))
    assert "\n" not in str(error.value)
    assert f"workdir {workdir}: " in str(error.value)
    assert files_in(workdir) == before


def root(config):
    return pathlib.Path(config.data.root)


def masks(config, split="train"):
    return sorted((root(config) / "masks" / split).iterdir())


def rewrite(path, change):
    """The mask with other ids, in a file of the same size and time."""
    before = path.stat()
    with Image.open(path) as image:
        ids = np.asarray(image)
    Image.fromarray(change(ids)).save(path, compress_level=0)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swapped(config):
    for path in masks(config):
        rewrite(path, lambda ids: 2 - ids)


def one_pixel(config):
    path = masks(config)[2]
    first = np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) == 0
    rewrite(path, lambda ids: np.where(first, (ids + 1) % 3, ids).astype(np.uint8))


def fewer(config):
    for folder in ("images", "masks"):
        for name in "bcde":
            (root(config) / folder / "train" / f"{name}.png").unlink()


CHANGES = {
    "masks swapped": (swapped, "train: the mask of 6 of 6 images changed \\(a, b, c, \\.\\.\\.\\)"),
    "a pixel": (one_pixel, "train: the mask of 1 of 6 images changed \\(c\\)"),
    "val mask": (
        lambda config: rewrite(masks(config, "val")[0], lambda ids: 2 - ids),
        "val: the mask of 1 of 2 images changed \\(u\\)",
    ),
    "image": (
        lambda config: (
            pairs(root(config), "a", size=SIZE)
            and Image.new("RGB", SIZE[::-1]).save(root(config) / "images" / "train" / "a.png")
        ),
        "the image of 1 of 6 images changed \\(a\\); train: the mask of 1 of 6",
    ),
    "images missing": (fewer, "train: 4 of 6 images missing \\(b, c, d, \\.\\.\\.\\)"),
    "images added": (
        lambda config: pairs(root(config), "gh", size=SIZE),
        "train: 2 of 6 images added \\(g, h\\)",
    ),
    "classes renamed": (
        lambda config: (root(config) / "classes.txt").write_text("street\ncar\nsky\n"),
        "other names: class 0 was 'road', is 'street'",
    ),
    "ids": (
        lambda config: (root(config) / "classes.txt").write_text(
            "0 road\n1 car\n2 sky\n7 mud ignore\n"
        ),
        "ids in masks mean other classes: 7 was unknown, is ignored",
    ),
    "colours": (
        lambda config: (root(config) / "classes.txt").write_text(
            "road 1 2 3\ncar 4 5 6\nsky 7 8 9\n"
        ),
        "the classes have other colours",
    ),
}


@pytest.mark.fault(
    "masks, images, ids, names or colours are changed between a stop and the resume",
    "nothing is written; one line names what changed, and how to go on all the same",
)
@pytest.mark.parametrize("change, words", CHANGES.values(), ids=CHANGES)
def test_a_resume_with_changed_data_is_refused(run, change, words):
    config, workdir = run
    stop(config, workdir)
    change(config)
    assert_refused(config, workdir, words)
    config.data.on_changed = "accept"
    accepted = resumed(config, workdir)
    assert len(accepted.changes) >= 1
    assert accepted.step == 6


@pytest.mark.fault(
    "the classes are reordered, or one is added, between a stop and the resume",
    "it is refused, whatever the options; classes.json stays",
)
@pytest.mark.parametrize(
    "classes, words",
    [
        ("sky\ncar\nroad\n", "another order: 'sky' was class 2, is 0, 'road' was class 0, is 2"),
        ("car\nsea\nsky\n", "another order: 'car' was class 1, is 0"),
        ("road\ncar\nsky\nmud\n", "the run has 3 classes .*, the data now have 4"),
        ("road\ncar\n", "the run has 3 classes .*, the data now have 2"),
    ],
)
@pytest.mark.parametrize("on_changed", ["stop", "accept"])
def test_a_resume_with_other_classes_is_refused(run, classes, words, on_changed):
    config, workdir = run
    stop(config, workdir)
    (root(config) / "classes.txt").write_text(classes)
    config.data.on_changed = on_changed
    assert_refused(config, workdir, words)


@pytest.mark.fault(
    "the class map is changed between a stop and the resume",
    "nothing is written; one line names the ids that mean something else",
)
def test_a_resume_with_another_class_map_is_refused(run):
    config, workdir = run
    config.data.class_map = str(root(config) / "map.yaml")
    stop(config, workdir)
    (root(config) / "map.yaml").write_text("x: [car, sky]\ny: road\n")
    assert_refused(
        config, workdir, "mean other classes: 0 was 'x', is 'y', 1 was 'y', is 'x', 2 was 'y'"
    )


@pytest.mark.fault(
    "the data are copied to another place, or touched, between a stop and the resume",
    "the run goes on",
)
def test_copied_and_touched_data_are_the_same(run, tmp_path):
    config, workdir = run
    stop(config, workdir)
    shutil.copytree(root(config), tmp_path / "elsewhere" / "deeper", copy_function=shutil.copyfile)
    config.data.root = str(tmp_path / "elsewhere" / "deeper")
    assert resumed(config, workdir).changes == ()
    for path in masks(config):
        os.utime(path, (1, 1))
    again = resumed(config, workdir)
    assert again.changes == ()
    assert again.note == ""


def test_what_is_not_touched_is_not_read_again(run, monkeypatch):
    config, workdir = run
    stop(config, workdir)
    masks(config)[0].touch()
    read = []
    stamp_of = contents.stamp_of

    def noted(path, whole, known):
        stamp = stamp_of(path, whole, known)
        if stamp is not known:
            read.append(path.name)
        return stamp

    monkeypatch.setattr(contents, "stamp_of", noted)
    assert resumed(config, workdir).changes == ()
    assert read == ["a.png"]


def test_an_accepted_change_is_on_record(run):
    """Old and new fingerprints, and the step; the next start compares with the new state."""
    config, workdir = run
    stop(config, workdir)
    swapped(config)
    config.data.on_changed = "accept"
    splits = Splits(config.data, config.seed)
    inputs = read_inputs(config, splits, workdir)
    inputs.save(workdir)
    save_run(workdir, None, config, splits, changed=inputs.record())
    save_run(workdir, None, config, splits)  # a later start keeps it
    (change,) = load_record(workdir)["data_changes"]
    assert change["step"] == 6
    assert change["found"] == ["train: the mask of 6 of 6 images changed (a, b, c, ...)"]
    assert change["before"]["train"]["images"] == change["now"]["train"]["images"] == 6
    assert change["before"]["train"]["fingerprint"] != change["now"]["train"]["fingerprint"]
    assert change["before"]["val"] == change["now"]["val"]
    config.data.on_changed = "stop"
    assert resumed(config, workdir).changes == ()


@pytest.mark.fault(
    "a run of an earlier version, which recorded less of its data, resumes",
    "it says so once, compares classes and numbers of images, and makes the record",
)
def test_runs_of_earlier_versions_resume(run):
    config, workdir = run
    stop(config, workdir)
    (workdir / contents.FILE).unlink()
    inputs = resumed(config, workdir)
    assert inputs.note.startswith("the run is of a version that did not record its data")
    inputs.save(workdir)
    assert resumed(config, workdir).note == ""
    (workdir / contents.FILE).unlink()
    fewer(config)
    assert_refused(config, workdir, "train: 6 images then, 2 now")
    (root(config) / "classes.txt").write_text("sky\ncar\nroad\n")
    assert_refused(config, workdir, "the classes have another order")


@pytest.mark.fault(
    "the weight file of init_from is another one when the run resumes",
    "it is refused; a file that is gone is not missed",
)
def test_the_file_of_init_from_is_compared(run, tmp_path):
    config, workdir = run
    file = tmp_path / "weights.pth"
    file.write_bytes(bytes(100_000))
    config.init_from = str(file)
    stop(config, workdir)
    contents.contents_of(Splits(config.data)).save(workdir, weights=contents.stamp_of(file))
    assert resumed(config, workdir).changes == ()
    file.write_bytes(bytes(99_999) + b"1")
    assert_refused(config, workdir, "the file init_from=.*weights.pth has changed")
    file.unlink()
    assert resumed(config, workdir).changes == ()


def test_a_start_without_a_checkpoint_compares_nothing(run):
    config, workdir = run
    stop(config, workdir)
    shutil.rmtree(workdir / "checkpoints")
    (root(config) / "classes.txt").write_text("sky\ncar\nroad\n")
    assert resumed(config, workdir).changes == ()


def test_contents_of_sources_without_files_are_those_of_samples():
    config = make_tiny_config()
    one = contents.contents_of(Splits(config.data, 0))
    assert contents.changes(one, contents.contents_of(Splits(config.data, 0))) == []
    other = contents.contents_of(Splits(config.data, 1))
    expected = [f"{split}: its samples differ" for split in ("train", "val", "test")]
    assert contents.changes(one, other) == expected
    assert contents.class_changes(from_names("ab"), from_names("ab")) == ""


def test_the_record_is_read_as_it_was_written(run):
    config, workdir = run
    stop(config, workdir)
    written = contents.contents_of(Splits(config.data))
    loaded, values = contents.load_contents(workdir)
    assert loaded == written
    assert values["weights"] == []
    assert read_json(workdir / contents.FILE, "", "")["splits"].keys() == {"train", "val"}
