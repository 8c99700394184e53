"""Runs that start from weights: the effect of `init_from` on config, state and resume."""

import io
import json
import pathlib
import shutil

import flax
import jax
import numpy as np
import pytest

from segjax import config as configs
from segjax import weights
from segjax.commands.export import export
from segjax.commands.train import train
from segjax.console import Console
from segjax.inference.predictor import Predictor
from segjax.models import build
from segjax.training.checkpoint import has_checkpoint
from segjax.training.setup import setup_run
from segjax.weights.layout import IMAGENET_MEAN, IMAGENET_STD
from segjax.weights.transfer import abstract_variables
from tests.conftest import make_tiny_config
from tests.goldens.draw import draw

pytestmark = pytest.mark.usefixtures("toy", "blank_figures")

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


@pytest.fixture
def tiny_config():
    return make_tiny_config("toy")


@pytest.fixture(scope="module")
def network(tmp_path_factory, toy):
    """A weight file of the tiny config's network with 7 classes, and its variables by leaf."""
    model = build({"name": "toy"}, 7)
    flat = leaves(abstract_variables(model))
    flat = {leaf: draw(leaf, value.shape, channels_last=True) for leaf, value in flat.items()}
    path = tmp_path_factory.mktemp("network") / "network.safetensors"
    variables = flax.traverse_util.unflatten_dict(flat, sep="/")
    weights.save(path, model, variables, mean=MEAN, std=STD)
    return path, flat


def leaves(tree):
    return flax.traverse_util.flatten_dict(tree, sep="/")


def state_leaves(state):
    return leaves({"params": state.params, "batch_stats": state.batch_stats})


def assert_equal(ours, expected):
    for leaf, value in ours.items():
        np.testing.assert_array_equal(value, expected[leaf], err_msg=leaf)


def test_the_state_starts_from_the_file(tiny_config, network):
    path, flat = network
    tiny_config.init_from = str(path)
    tiny_config.train.ema_decay = 0.9
    setup = setup_run(tiny_config)
    state = setup.init_state()
    ours, average = state_leaves(state), leaves(state.ema)
    assert_equal(ours, flat)
    assert_equal(average, flat)
    for leaf, value in ours.items():
        assert value.sharding == jax.tree.leaves(state.opt_state)[-1].sharding
        assert value is not average[leaf]  # the step donates each buffer once
    assert (setup.config.data.mean, setup.config.data.std) == (MEAN, STD)
    normalization = setup.objective.normalization
    assert (normalization.mean, normalization.std) == (MEAN, STD)


def test_leaves_that_are_not_loaded_are_drawn_as_without_a_file(tiny_config, network):
    plain = state_leaves(setup_run(tiny_config).init_state())
    tiny_config.init_from = str(network[0])
    tiny_config.init_parts = "encoder"
    state = state_leaves(setup_run(tiny_config).init_state())
    assert_equal(state, plain | {leaf: v for leaf, v in network[1].items() if "/encoder" in leaf})


def test_normalization_is_imagenets_without_a_file_and_a_given_one_stays(tiny_config, network):
    data = setup_run(tiny_config).config.data
    assert (data.mean, data.std) == (IMAGENET_MEAN, IMAGENET_STD)
    tiny_config.init_from = str(network[0])
    setup_run(tiny_config)
    assert tiny_config.data.mean == ()  # the given config does not change
    tiny_config.data.mean, tiny_config.data.std = (0.5,) * 3, (0.25,) * 3
    data = setup_run(tiny_config).config.data
    assert (data.mean, data.std) == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"init_from": "/nowhere/x.pth"}, r"init_from: weight file /nowhere/x\.pth does not exist"),
        ({"init_from": "configs"}, r"init_from: workdir configs holds no run"),
        ({"init_parts": "decoder"}, r"init_from: init_parts='decoder'; use all or encoder"),
        ({"model.features": 8}, r"init_from: \d+ arrays of .*segjax export .*do not fit"),
        (
            {"data.mean": (0.5, 0.5, 0.5)},
            r"data\.std have 3 and 0 numbers; use 3 each",
        ),
    ],
    ids=str,
)
def test_errors_come_before_the_run(tiny_config, network, change, message):
    tiny_config.init_from = str(network[0])
    tiny_config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=message):
        setup_run(tiny_config)


@pytest.fixture(scope="module")
def trained(network, blank_figures, tmp_path_factory):
    """The workdir of a run of two steps from the file, its config and its output."""
    config = make_tiny_config("toy")
    config.init_from = str(shutil.copy(network[0], tmp_path_factory.mktemp("file")))
    config.train.steps = 2
    console = Console(file=io.StringIO(), width=200)
    workdir = tmp_path_factory.mktemp("run")
    train(config, workdir, console=console)
    pathlib.Path(config.init_from).unlink()
    return workdir, config, console.file.getvalue()


def test_a_run_from_a_file_reports_what_it_loaded(trained):
    workdir, config, printed = trained
    assert f"weights: {config.init_from}: segjax export" in printed
    assert "classifier (2 arrays, 35 values)" in printed
    saved = configs.load(workdir)
    assert (tuple(saved.data.mean), tuple(saved.data.std)) == (MEAN, STD)


def test_a_run_resumes_without_its_file(trained, tmp_path):
    workdir, config, _ = trained
    run = shutil.copytree(workdir, tmp_path / "run")
    assert has_checkpoint(run)
    setup = setup_run(config, run)
    assert setup.initial is None
    assert (setup.config.data.mean, setup.config.data.std) == (MEAN, STD)
    shutil.rmtree(run / "checkpoints")
    assert not has_checkpoint(run)
    with pytest.raises(ValueError, match=r"init_from: weight file .* does not exist"):
        train(config, run)


def test_another_run_is_a_source(trained, tiny_config, tmp_path, capsys):
    run = trained[0]
    exported = export(run, tmp_path / "model.safetensors")
    assert "values, under segjax's own names" in capsys.readouterr().out
    states = []
    for source in (run, exported):
        tiny_config.init_from = str(source)
        setup = setup_run(tiny_config)
        assert (setup.config.data.mean, setup.config.data.std) == (MEAN, STD)
        assert not setup.initial.report.fresh
        assert not setup.initial.report.left_over
        states.append(state_leaves(setup.init_state()))
    assert_equal(*states)


def test_no_steps_evaluate_the_weights_as_they_are(tiny_config, network, tmp_path):
    tiny_config.init_from = str(network[0])
    tiny_config.train.steps = 0
    results = train(tiny_config, tmp_path / "run")
    variables = Predictor.from_workdir(tmp_path / "run").variables
    assert_equal(leaves(variables), network[1])
    again = train(tiny_config, tmp_path / "run")  # only evaluates
    assert json.dumps(results) == json.dumps(again)  # NaN equals NaN there
    tiny_config.init_from = ""
    with pytest.raises(ValueError, match=r"train\.epochs=0; set one of them, or init_from to"):
        setup_run(tiny_config)
