"""Two stages, as DeepLabV3 is trained (Chen et al., arXiv 1706.05587, section 4.1).

First at output stride 16, then at 8 from its weights, with frozen batch norms and another rate.
"""

import functools
import io

import flax
import jax
import numpy as np
import pytest

from segjax.commands.train import train
from segjax.console import Console
from segjax.inference.predictor import Predictor
from segjax.training.setup import setup_run
from tests.conftest import make_tiny_config
from tests.training.runs import left_by


def stage(output_stride, **options):
    config = make_tiny_config()
    config.model = {
        "name": "deeplabv3",
        "encoder": "resnet18",
        "width": 0.0625,
        "output_stride": output_stride,
    }
    config.data.image_size = (33, 49)
    config.train.steps, config.train.eval_every = 2, 2
    config.optim.schedule = "poly"
    config.update_from_flattened_dict(options)
    return config


def run(config, workdir):
    console = Console(file=io.StringIO(), width=200)
    train(config, workdir, console=console)
    return console.file.getvalue()


def leaves(tree):
    return flax.traverse_util.flatten_dict(tree, sep="/")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("first")
    run(stage(16), workdir)
    return workdir


@pytest.mark.slow
def test_the_second_stage_starts_from_all_of_the_first_and_keeps_its_norms(first, tmp_path):
    trained = leaves(Predictor.from_workdir(first).variables)
    config = stage(8, **{"init_from": str(first), "train.freeze": ("norm",)})
    config.optim.learning_rate, config.train.batch_size = 0.001, 1
    setup = setup_run(config)
    assert not setup.initial.report.fresh
    assert not setup.initial.report.left_over
    assert any("output_stride is 8 here and 16" in note for note in setup.initial.report.notes)
    assert setup.warning() == ""  # frozen norms need no second value
    state = setup.init_state()
    start = leaves({"params": state.params, "batch_stats": state.batch_stats})
    assert start.keys() == trained.keys()
    for path, value in start.items():
        np.testing.assert_array_equal(value, trained[path], err_msg=path)
    printed = run(config, tmp_path)
    assert "frozen" in printed
    after = left_by(tmp_path, 2, config).state
    after = leaves({"params": after.params, "batch_stats": after.batch_stats})
    for path, value in after.items():
        still = path.startswith("batch_stats") or "/norm/" in path
        assert np.array_equal(value, start[path]) == still, path


def test_a_batch_of_one_image_is_warned_of(tmp_path):
    config = stage(8, **{"train.batch_size": 2, "train.accumulate": 2})
    config.model = {"name": "pspnet", "encoder": "resnet18", "width": 0.0625}
    setup = setup_run(config)
    assert setup.warning().startswith(
        "warning: train.batch_size=2 leaves pyramid/bin1/norm one value to normalise by"
    )
    assert "fewer micro-batches than train.accumulate=2" in setup.warning()
    config.train.accumulate = 1
    assert setup_run(config).warning() == ""


def test_an_option_that_is_no_more_says_what_is():
    config = stage(16)
    config.optim.decay_biases_and_norms = True
    with pytest.raises(ValueError, match=r'is now optim\.decay_scale: "" in place of True'):
        setup_run(config)


def test_parts_are_checked_before_anything_is_compiled(monkeypatch):
    monkeypatch.setattr(jax.stages.Traced, "lower", None)
    monkeypatch.setattr(jax, "jit", lambda function: functools.partial(jax.eval_shape, function))
    config = stage(16, **{"train.freeze": ("stem",)})
    with pytest.raises(ValueError, match=r"train\.freeze: 'stem' matches no parameter"):
        setup_run(config)
    config.train.freeze = ()
    config.optim.layer_decay = float("nan")
    with pytest.raises(ValueError, match=r"optim\.layer_decay=nan; use a number in \(0, 1\]"):
        setup_run(config)
