"""docs/extending.md: its code is added as the page says, in one file and one row each, and used."""

import io
import pathlib
import re
import sys
import types

import pytest
from rich.console import Console

import segjax
from segjax import cli
from segjax.commands.train import train
from segjax.data import datasets
from segjax.models import registry

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "extending.md"


@pytest.fixture
def add(monkeypatch):
    """A function that makes a file of the page a module, as if it lay at its path."""
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    files = dict(blocks)

    def make(path, **given):
        name = path.removesuffix(".py").replace("/", ".")
        module = types.ModuleType(name)
        module.__dict__.update(given)
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, module)
        exec(compile(files[path], path, "exec"), module.__dict__)
        return module

    return make


def test_a_model_a_config_and_a_data_set(add, monkeypatch, tmp_path):
    monkeypatch.setitem(registry.MODELS, "local", add("segjax/models/local.py").Local)
    monkeypatch.setitem(datasets.DATASETS, "stripes", add("segjax/data/sets/stripes.py").SPEC)
    model, variables = segjax.create_model("local", num_classes=2, features=8)
    assert variables["params"]["conv"]["conv"]["kernel"].shape == (5, 5, 3, 8)
    assert model.features == 8

    config = add("configs/local.py").get_config()
    config.data.update(name="stripes", image_size=(48, 64))
    config.train.update(steps=20, batch_size=4, eval_every=20)
    config.parallel.data = 1
    config.report.samples = 2
    results = train(config, tmp_path, console=Console(file=io.StringIO()))
    assert results["val"]["images"] == 32
    assert results["val"]["miou"] > 0.9
    assert "stripes" in (tmp_path / "report.html").read_text()


def test_a_command(add, monkeypatch, tiny_config):
    monkeypatch.setitem(cli.COMMANDS, "classes", add("segjax/cli.py", Command=cli.Command).row)
    add("segjax/commands/classes.py")
    console = Console(file=io.StringIO())
    assert cli.function_of("classes")(tiny_config, console=console)[0] == "drivable"
    assert "drivable (" in console.file.getvalue()
    assert "print the classes of a data set" in cli.help_text()
