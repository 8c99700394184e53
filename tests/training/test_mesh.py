"""A run on any number of devices has the same inputs, losses, parameters and counts.

Sums in another order round differently. In float32 that is enough to make the runs of a deep
network (random weights, batch normalisation, small maps) diverge within these 20 steps. So is a
change of its initial parameters by one unit in the last place, on one device
(`python -m tests.training.rounding`). In float64 the runs agree to 1e-8.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.accelerators.collectives import collectives
from segjax.data.batches import train_iterator
from segjax.training.evaluation import evaluate
from segjax.training.mesh import evaluation_devices, make_devices
from segjax.training.setup import setup_programs, setup_run
from segjax.training.step import augmented
from tests.conftest import make_tiny_config

STEPS = 20

pytestmark = pytest.mark.usefixtures("toy")


def small_config(model="segnet_basic", **train):
    """A network with batch normalisation and dropout, on 12 scenes; 5 are evaluated."""
    config = make_tiny_config()
    config.model = {
        "toy": {"name": "toy"},
        "segnet_basic": {"name": "segnet_basic", "features": 4, "dropout_rate": 0.3},
        "pspnet": {"name": "pspnet", "encoder": "resnet18", "width": 0.125},
        "deeplabv3": {"name": "deeplabv3", "encoder": "resnet18", "width": 0.125},
    }[model]
    config.data.train_images, config.data.eval_images = 12, 5
    config.train.steps, config.train.batch_size = STEPS, 6
    config.optim.clip_norm = 1.0
    config.train.update(train)
    return config


@dataclasses.dataclass
class Run:
    drawn: object
    losses: list
    state: object
    confusion: np.ndarray
    evaluation: object


@functools.cache
def run(
    model="segnet_basic",
    mode="jit",
    data=1,
    *,
    space=1,
    shard=False,
    steps=STEPS,
    rate=0.05,
    dtype="float32",
    nudge=None,
    **train,
):
    """The first steps of a run on `data` devices, and an evaluation in batches of 3.

    `nudge`: a seed; moves every initial parameter by one unit in the last place, up or down.
    """
    config = small_config(model, **train)
    config.optim.learning_rate = rate
    config.parallel.update({"mode": mode, "data": data, "space": space, "shard_optimizer": shard})
    with jax.enable_x64(dtype == "float64"):
        setup = setup_run(config)
        setup = dataclasses.replace(setup, model=setup.model.clone(dtype=jnp.dtype(dtype)))
        state = jax.tree.map(
            lambda x: x.astype(dtype) if x.dtype == jnp.float32 else x, setup.init_state()
        )
        if nudge is not None:
            state = state.replace(params=nudged(state.params, jax.random.key(nudge)))
        drawn = jax.device_get(state.params)
        step, losses = setup.train_step(), []
        batches = train_iterator(setup.train, config.train.batch_size, seed=0, rows=setup.rows)
        for batch in itertools.islice(batches, steps):
            state, metrics = step(state, setup.devices.put(batch))
            losses.append(float(metrics["loss"]))
        evaluation = evaluate(
            setup.eval_step(), state.eval_variables(), setup.validation, 3, setup.devices
        )
        confusion = np.asarray(metrics["confusion"])
        return Run(drawn, losses, jax.device_get(state), confusion, evaluation)


def nudged(params, key):
    def moved(x):
        up = jax.random.bernoulli(key, 0.5, x.shape)
        return jnp.nextafter(x, jnp.where(up, jnp.inf, -jnp.inf).astype(x.dtype))

    return jax.tree.map(moved, params)


def assert_same(ours: Run, alone: Run, tolerance=1e-5, rate=1.0):
    """The tolerance is well above the effect of sums in another order. The optimiser's sums of
    gradients count by how far they move the parameters, `rate` times as far."""
    np.testing.assert_allclose(ours.losses, alone.losses, rtol=0, atol=tolerance)
    for name in ("params", "batch_stats", "opt_state"):
        for a, b in zip(
            jax.tree.leaves(getattr(ours.state, name)),
            jax.tree.leaves(getattr(alone.state, name)),
            strict=True,
        ):
            assert a.dtype == b.dtype
            atol = tolerance / rate if name == "opt_state" else tolerance
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=atol, err_msg=name)
    np.testing.assert_array_equal(ours.confusion, alone.confusion)
    assert ours.evaluation.names == alone.evaluation.names
    np.testing.assert_array_equal(ours.evaluation.confusion, alone.evaluation.confusion)
    assert ours.evaluation.loss == pytest.approx(alone.evaluation.loss, rel=1e-5)


def largest_move(run: Run) -> float:
    """The largest change of any parameter since the start."""
    moves = jax.tree.map(lambda a, b: np.abs(a - b).max(), run.state.params, run.drawn)
    return max(jax.tree.leaves(moves))


@pytest.mark.versions
@pytest.mark.parametrize(
    "options", [{"mode": "pmap", "data": 2}, {"mode": "jit", "data": 4, "shard": True}], ids=str
)
def test_devices_are_one(options):
    """Training batches of 6, which jit pads for 4 devices; evaluation batches of 3, the last of 2,
    which both modes pad."""
    alone = run("toy", steps=5)
    assert alone.losses[-1] < alone.losses[0]
    assert_same(run("toy", steps=5, **options), alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"mode": "pmap", "data": 2}, {"mode": "jit", "data": 4, "shard": True}], ids=str
)
def test_devices_are_one_where_a_part_is_frozen(options):
    """Clipping included: the gradient's norm is over what is trained."""
    freeze = ("encoder[12]", "decoder.*/norm")
    alone = run(steps=5, freeze=freeze)
    assert alone.losses[-1] < alone.losses[0]
    assert_same(run(steps=5, freeze=freeze, **options), alone)


@pytest.fixture(autouse=True)
def no_program_is_kept():
    """All programs of this file together need more memory maps than Linux gives a process."""
    yield
    jax.clear_caches()


FORMS = [(8, 1), (6, 1), (6, 3)]
PLACES = pytest.mark.parametrize(
    "mode, data, batch_size, accumulate",
    [
        (mode, data, *form)
        for mode, data, form in itertools.product(["jit", "pmap"], [1, 2, 4, 8], FORMS)
        if mode == "jit" or form[0] % (data * form[1]) == 0
    ],
)


@pytest.mark.slow
@PLACES
def test_any_number_of_devices_is_one(mode, data, batch_size, accumulate):
    options = {"batch_size": batch_size, "accumulate": accumulate}
    ours, alone = run(mode=mode, data=data, **options), run(**options)
    assert alone.losses[-1] < alone.losses[0]
    assert_same(ours, alone)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["segnet_basic", "pspnet", "deeplabv3"])
@PLACES
def test_any_number_of_devices_is_one_in_float64(mode, data, model, batch_size, accumulate):
    options = {"batch_size": batch_size, "accumulate": accumulate, "dtype": "float64"}
    options["rate"] = 0.01
    ours, alone = run(model, mode, data, **options), run(model, **options)
    assert {x.dtype for x in jax.tree.leaves(ours.state.params)} == {np.dtype("float64")}
    assert largest_move(alone) > 1e-3
    assert_same(ours, alone, 1e-8, options["rate"])


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("model", ["pspnet", "deeplabv3"])
@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_deep_networks_in_float32_at_a_low_rate(mode, model, accumulate):
    """The first loss and the last parameters agree to 1e-5; rounding grows the losses between."""
    options = {"batch_size": 6, "accumulate": accumulate, "rate": 1e-4}
    data = 8 if mode == "jit" else 2
    ours, alone = run(model, mode, data, **options), run(model, **options)
    assert ours.losses[0] == pytest.approx(alone.losses[0], abs=1e-5)
    np.testing.assert_allclose(ours.losses, alone.losses, rtol=0, atol=1e-3)
    for a, b in zip(*map(jax.tree.leaves, (ours.state.params, alone.state.params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    assert largest_move(alone) > 1e-4


@pytest.mark.parametrize(
    "mixes",
    [{}, pytest.param({"cutmix": 0.5, "classmix": 0.5}, marks=pytest.mark.slow)],
    ids=str,
)
def test_views_are_the_same_on_any_devices(mixes):
    """A batch of 6, with 2 rows of padding."""
    config = small_config("toy")
    config.augment.update(mixes)
    setup = setup_run(config)
    batch = next(train_iterator(setup.train, 6, seed=0, rows=slice(0, 8)))
    views = {}
    for count in (1, 4):
        devices = make_devices({**setup.config.parallel, "data": count})
        view = jax.jit(lambda batch: augmented(jax.random.key(3), batch, setup.objective))
        views[count] = jax.device_get(view(devices.put(batch)))
    np.testing.assert_array_equal(views[1][1], views[4][1])
    # The same draws; XLA fuses, and so rounds, the colours in another order.
    np.testing.assert_allclose(views[1][0], views[4][0], atol=5e-5)


@pytest.mark.parametrize(
    "train, message",
    [
        ({"batch_size": 6}, r"batch_size=6 does not divide over the 4 devices .*=4 or 8, .*=jit"),
        ({"batch_size": 3}, r"batch_size=3 does not divide over the 4 devices .*batch_size=4, "),
        (
            {"batch_size": 8, "accumulate": 4},
            r"batch_size=8 does not .* the 4 devices .*accumulate=4 micro-.*; .*batch_size=16, ",
        ),
    ],
    ids=str,
)
def test_pmap_refuses_a_batch_that_does_not_divide(train, message):
    config = small_config("toy", **train)
    config.parallel.update({"mode": "pmap", "data": 4})
    with pytest.raises(ValueError, match=r"train\." + message):
        setup_programs(config)
    config.parallel.mode = "jit"
    assert setup_programs(config).padded_batch_size in (4, 8, 16)


def test_each_device_keeps_a_part_of_a_sharded_optimiser():
    config = small_config(batch_size=8)
    config.parallel.update({"data": 4, "shard_optimizer": True})
    state = setup_run(config).init_state()
    for part, whole in ((state.opt_state, False), (state.params, True)):
        kernels = [x for x in jax.tree.leaves(part) if x.ndim == 4]
        assert kernels
        assert {x.sharding.is_fully_replicated for x in kernels} == {whole}
    bytes_ = [
        sum(x.addressable_data(0).nbytes for x in jax.tree.leaves(tree))
        for tree in (state.opt_state, state.params)
    ]
    assert bytes_[0] < 0.3 * bytes_[1]  # one momentum, of which each device has a quarter


def test_a_data_parallel_step_moves_the_gradients_once():
    """The program moves gradients once, statistics of batch normalisation, and a few sums."""
    config = small_config()
    config.model = {"name": "toy", "features": 32}  # gradients outweigh all that is small
    config.parallel.data, config.train.batch_size = 4, 4
    setup = setup_run(config)
    state = setup.abstract_state()
    compiled = setup.train_step().lower(state, setup.abstract_batch()).compile()
    found = collectives(compiled.as_text())
    assert {c.kind for c in found} == {"all-reduce"}
    gradients = sum(x.size * 4 for x in jax.tree.leaves(state.params))
    moved = sum(c.bytes for c in found)
    statistics = sum(x.size * 4 for x in jax.tree.leaves(state.batch_stats))
    confusion = 4 * len(setup.classes) ** 2
    # Forward and backward of the statistics, and a few scalars.
    assert gradients <= moved <= gradients + 3 * statistics + confusion + 64


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mode": "xmap"}, r"parallel\.mode='xmap'; use jit or pmap"),
        ({"mode": "pmap", "space": 2}, r"parallel\.mode=pmap with parallel\.space=2"),
        (
            {"mode": "pmap", "shard_optimizer": True},
            r"shard_optimizer=True; use .*mode=jit",
        ),
        ({"data": 99}, r"parallel\.data=99 x parallel\.space=1 needs 99 devices, there are 8"),
        ({"space": 0}, r"parallel\.space=0"),
        ({"space": 8}, r"20 rows does not divide over parallel\.space=8 .*parallel\.space=5"),
    ],
    ids=str,
)
def test_make_devices_names_what_is_wrong(options, message):
    config = {"mode": "jit", "data": 0, "space": 1, "shard_optimizer": False}
    with pytest.raises(ValueError, match=message):
        make_devices({**config, **options}, rows=20)


@pytest.mark.parametrize(
    "options, shape",
    [
        ({}, (8, 1)),
        ({"data": 3}, (3, 1)),
        ({"data": 64, "space": 2}, (4, 2)),
        ({"space": 3}, (8, 1)),
    ],
    ids=str,
)
def test_a_run_is_evaluated_on_the_devices_of_this_machine(options, shape):
    devices = evaluation_devices({"mode": "jit", "data": 0, "space": 1, **options})
    assert tuple(devices.mesh.shape.values()) == shape


def test_devices_give_back_the_rows_they_are_given():
    rows = {"index": np.arange(8, dtype=np.int32), "image": np.arange(64).reshape(8, 4, 2)}
    for options in ({}, {"mode": "pmap"}):
        config = {"mode": "jit", "data": 4, "space": 1, "shard_optimizer": False, **options}
        devices = make_devices(config)
        assert (devices.padded_size(6), devices.padded_size(6, 3)) == (8, 12)
        assert devices.local_rows(6) == slice(0, 8)
        placed = devices.put(rows)
        for name, values in rows.items():
            np.testing.assert_array_equal(devices.local_shard(placed[name]), values)
    devices = make_devices({**config, "mode": "jit", "space": 2})
    np.testing.assert_array_equal(devices.local_shard(devices.put(rows)["index"]), rows["index"])
