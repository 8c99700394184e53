"""docs/extending.md: its code is added as the page says, in one file and one row each, and used."""

import io
import json
import pathlib
import re
import sys
import types

import pytest
from absl import flags

import segjax
from segjax import cli, config_files
from segjax import config as configs
from segjax.commands.evaluate import evaluate
from segjax.commands.train import train
from segjax.console import Console
from segjax.data import datasets
from segjax.flags import define_flags
from segjax.models import registry
from segjax.training import loop
from segjax.training.setup import setup_run
from tests.training.runs import left_by

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "extending.md"


FILES = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL))


@pytest.fixture
def add(monkeypatch):
    """A function that makes a file of the page a module, as if it lay at its path."""

    def make(path, **given):
        name = path.removesuffix(".py").replace("/", ".")
        module = types.ModuleType(name)
        module.__dict__.update(given)
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, module)
        exec(compile(FILES[path], path, "exec"), module.__dict__)
        return module

    return make


@pytest.mark.usefixtures("blank_figures")
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


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.slow
def test_an_optimiser_and_a_schedule(monkeypatch, tmp_path):
    """From the command line's --config to a run that was killed and goes on."""
    file = tmp_path / "lars.py"
    file.write_text(FILES["configs/lars.py"])

    def given(*options):
        """The config as the command line reads it, its file loaded anew."""
        arguments = ["segjax", f"--config={file}", *(f"--config.{each}" for each in options)]
        values = flags.FlagValues()
        define_flags(values, tuple(cli.COMMANDS))
        monkeypatch.setattr(sys, "argv", config_files.with_paths(arguments))
        values(sys.argv)
        return values.config

    small = ["data.image_size=(32, 48)", "data.train_images=8", "data.eval_images=3"]
    small += ["model.features=4", "train.batch_size=2", "train.steps=6", "train.eval_every=3"]
    small += ["train.log_every=1", "report.samples=2", "parallel.data=1"]

    def run(workdir, *options):
        console = Console(file=io.StringIO(), width=120)
        train(given(*small, *options), workdir, console=console)
        return console.file.getvalue()

    whole, workdir = tmp_path / "whole", tmp_path / "run"
    run(whole)
    save = loop._Run.save

    def save_and_die(run, *state):
        save(run, *state)
        run.store.finish()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "save", save_and_die)
        with pytest.raises(Killed):
            run(workdir)
    assert "resumed at step 3 of 6" in run(workdir)
    left = left_by(workdir, 6, given(*small))
    left.assert_equals(left_by(whole, 6, given(*small)))
    rates = [row["learning_rate"] for row in left.rows if row["split"] == "train"]
    assert rates == pytest.approx([0.5 * (1 - step / 6) for step in range(6)])

    # The workdir has the function's name, of which nothing is ever run.
    saved = json.loads((workdir / "config.json").read_text())["optim"]
    assert saved["optimizer_function"].startswith("lars, source ")
    assert evaluate(workdir, console=Console(file=io.StringIO()))["val"]["images"] == 3
    with pytest.raises(ValueError, match=r"schedule_function='linear, .*' is no function; only a"):
        setup_run(configs.load(workdir))
    file.write_text(FILES["configs/lars.py"].replace("=momentum)", "=momentum, nesterov=True)"))
    with pytest.raises(
        ValueError, match=r"optim\.optimizer_function: 'lars, source \w+' there, 'l"
    ):
        run(workdir)


def test_a_command(add, monkeypatch, tiny_config):
    monkeypatch.setitem(cli.COMMANDS, "classes", add("segjax/cli.py", Command=cli.Command).row)
    add("segjax/commands/classes.py")
    console = Console(file=io.StringIO())
    assert cli.function_of("classes")(tiny_config, console=console)[0] == "drivable"
    assert "drivable (" in console.file.getvalue()
    assert "print the classes of a data set" in cli.help_text()
