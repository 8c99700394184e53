"""The table of writers, and what is said of one that is not installed."""

import inspect
import re
import sys
import tomllib
import types
from pathlib import Path

import pytest

from configs import base
from segjax.commands.train import train
from segjax.training.tracking import writer
from segjax.training.tracking.writer import WRITERS, Writer, need_package, writer_class

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_has_the_methods_of_the_protocol(name):
    """With its parameters."""
    kind = writer_class(name)
    for method, declared in vars(Writer).items():
        if inspect.isfunction(declared) and (method == "__init__" or not method.startswith("_")):
            given = inspect.signature(getattr(kind, method)).parameters
            assert [*given] == [*inspect.signature(declared).parameters], method


def test_every_writer_but_tensorboard_has_an_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {*WRITERS} - {"tensorboard"} <= {*extras["optional-dependencies"]}


def test_writers_are_imported_only_when_they_are_asked_for():
    for name in WRITERS:
        writer_class(name)
    writer_class("tensorboard").check()
    assert not {"tensorflow"} & {*sys.modules}


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_package_that_is_missing_is_named_with_what_to_install(tmp_path, monkeypatch, name):
    """Before anything is read or compiled."""
    monkeypatch.setitem(sys.modules, name, None)
    config = base.get_config("pspnet")
    config.data.update(name="camvid", root="nowhere")
    config.report.writers = ("tensorboard", name)
    message = rf"report.writers has '{name}'.*pip install 'segjax\[{name}\]'"
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_is_no_package(tmp_path, monkeypatch):
    """W&B leaves one of its own name where it is run."""
    (tmp_path / "package_of_a_writer").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    message = f"only a folder {re.escape(str(tmp_path))}.*or leave 'w' out"
    with pytest.raises(ValueError, match=message):
        need_package("w", "package_of_a_writer")


def test_a_package_that_is_there_is_returned(monkeypatch):
    module = types.ModuleType("package_of_a_writer")
    module.__file__ = "package_of_a_writer.py"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert need_package("w", module.__name__) is module


def test_a_package_that_cannot_be_imported_is_named_with_its_error(tmp_path, monkeypatch):
    (tmp_path / "damaged_package.py").write_text("raise RuntimeError('of another glibc')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"damaged_package cannot be imported .of another glibc"):
        need_package("w", "damaged_package")


def test_a_note_appears_whole(tmp_path):
    writer.write_note(tmp_path / "note.json", "{}\n")
    assert (tmp_path / "note.json").read_text() == "{}\n"
