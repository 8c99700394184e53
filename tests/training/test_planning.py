"""What a plan compiles: programs without data, and what fits where the config's own does not."""

import io

import jax
import pytest

from configs import base, pspnet
from segjax.accelerators import DEVICES, TooLargeError
from segjax.console import Console
from segjax.data.batches import padding
from segjax.report.plan_tables import plan_table, step_figures
from segjax.training import planning
from segjax.training.setup import setup_programs, setup_run


def near_a_limit(n):
    """As XLA's GPU compiler does: above 300 it rematerialises more and more."""
    return n if n < 300 else 300 + (n - 300) / 10


@pytest.mark.parametrize(
    "needed, count, limit, result, compiled",
    [
        # The line through 1 and 12 is the truth.
        (lambda n: 1.5 + n, 12, 8.5, [7], [1, 7, 8]),
        (lambda n: 1.5 + n, 12, 12.0, [10], [1, 10, 11]),
        (lambda n: 1.5 + n, 2, 3.0, [1], [1]),
        (lambda n: 1.5 + n, 9, 2.0, [1], [1]),  # not even one
        (lambda n: 1.5 + n, 1, 0.5, [], []),
        (lambda n: n**2, 20, 50, [7], None),
        (near_a_limit, 1000, 310, range(385, 401), None),
    ],
)
def test_the_largest_batch_that_fits(needed, count, limit, result, compiled):
    tried = []

    def batch(n):
        tried.append(n)
        return planning.Change({"train.batch_size": n}, needed(n), needed(n) <= limit)

    changes = planning.largest(batch, count, needed(count), limit)
    assert len(changes) == bool(result)
    for change in changes:
        n = change.options["train.batch_size"]
        assert n in result
        assert change.fits == (needed(n) <= limit)
    assert tried == compiled if compiled is not None else len(tried) < 12


@pytest.mark.slow
def test_what_fits_is_compiled(tiny_config):
    """On two devices of this machine, with a limit between what some of them need."""
    devices, console = jax.devices()[:2], Console(file=io.StringIO(), width=200)
    tiny_config.parallel.data, tiny_config.train.batch_size = 0, 8
    peak = planning.compiled(setup_programs(tiny_config, devices), "train").peak
    changes = planning.what_fits(tiny_config, devices, 0.6 * peak, peak, console)
    names = [tuple(change.options) for change in changes]
    assert names == [
        ("train.remat",),
        ("train.remat",),
        ("parallel.space", "parallel.data"),
        ("train.batch_size",),
    ]
    batch = changes[-1]
    assert batch.fits
    assert 2 <= batch.options["train.batch_size"] < 8
    assert batch.peak <= 0.6 * peak
    printed = console.file.getvalue()
    assert "--config.train.remat=convs: " in printed
    assert f"{batch}: {batch.peak / 2**30:,.2f} GiB, fits" in printed


def test_programs_need_no_files():
    """The paper's PSPNet on ADE20K, which lies nowhere; all classes weigh 1 where they would be
    counted."""
    config = pspnet.get_config("paper")
    config.data.root = "/nowhere"
    config.loss.class_weights = "median_present"
    config.parallel.data = 1
    setup = setup_programs(config, jax.devices())
    assert setup.objective.class_weights == (1.0,) * 150
    assert (setup.train, setup.total_steps) == (None, 150_000)
    assert setup.abstract_batch()["image"].shape == (16, 473, 473, 3)
    with pytest.raises(ValueError, match="/nowhere"):
        setup_run(config)


def test_classes_that_only_files_know_are_asked_for():
    config = base.get_config()
    config.train.steps, config.data.name = 1, "folder"
    with pytest.raises(ValueError, match=r"data.classes is empty, .* at least data.num_classes"):
        setup_programs(config)
    config.data.num_classes = 5
    assert len(setup_programs(config).classes) == 5
    config.data.name = "prepared"
    assert len(setup_programs(config).classes) == 5
    config.data.classes, config.data.name = "/nowhere/classes.txt", "folder"
    with pytest.raises(ValueError, match=r"class list /nowhere/classes.txt is missing"):
        setup_programs(config)


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_the_programs_are_those_of_the_run(tiny_config, mode):
    """With the data at hand, the abstract batch is laid out as a real one is."""
    tiny_config.parallel.data, tiny_config.parallel.mode = 2, mode
    tiny_config.train.batch_size = 3 if mode == "jit" else 4
    setup = setup_run(tiny_config)
    real = setup.devices.put(padding(setup.train, setup.padded_batch_size))
    described = {name: (x.shape, x.dtype, x.sharding) for name, x in real.items()}
    for abstract in (setup.abstract_batch(), setup_programs(tiny_config).abstract_batch()):
        assert {k: (x.shape, x.dtype, x.sharding) for k, x in abstract.items()} == described


def test_the_table_of_a_plan(tiny_config):
    console = Console(file=io.StringIO(), width=120)
    program = planning.compiled(setup_programs(tiny_config), "evaluate")
    device = DEVICES["v5e"]
    figures = {
        "train": step_figures(
            TooLargeError(20 * 2**30, 15.75 * 2**30), device, images=2, dtype="float32"
        ),
        "evaluate": step_figures(program, device, images=2, dtype="float32"),
    }
    assert figures["train"]["fits"] is False
    least = figures["evaluate"]["bound"]["seconds"]
    assert figures["evaluate"]["images_per_second"] == pytest.approx(2 / least)
    console.print(plan_table(figures))
    printed = console.file.getvalue()
    assert "127.0%, does not fit" in printed
    assert "fits" in printed.split("does not fit")[1]
    assert "20.00 GiB" in printed
    assert "images/s" in printed
