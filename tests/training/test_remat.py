"""Rematerialised gradients equal plain ones and need less memory."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from segjax.layers.checkpoint_names import BLOCK, CONV, block_output, conv_output
from segjax.losses.pixelwise import cross_entropy_sum
from segjax.models import MODELS, build, model_options
from segjax.models.resnet import VARIANTS, Bottleneck
from segjax.training.mesh import BatchPlacement
from segjax.training.remat import _after, _split, rematerialised
from segjax.training.state import create_state
from segjax.training.step import Objective, make_train_step
from segjax.transforms.augment import Augmentation
from segjax.transforms.normalize import Normalization

K, SIZE = 5, (33, 49)
POLICIES = ("convs", "blocks")


@pytest.fixture(autouse=True)
def shallow_encoder(monkeypatch):
    monkeypatch.setitem(VARIANTS, "shallow", (Bottleneck, (1, 1, 2, 3)))


def toy(params, x, labels, key, *, axis=None):
    """A loss after three blocks with dropout and a mean over the batch; block 1 is used twice."""
    first = None
    for kernel in params:
        x = jnp.sin(conv_output(x @ kernel))
        mean = jnp.mean(x, 0)
        x = block_output(x - (jax.lax.pmean(mean, axis) if axis else mean))
        first = x if first is None else first
        key, drop = jax.random.split(key)
        x *= jax.random.bernoulli(drop, 0.7, x.shape)
    loss = -jnp.sum(jax.nn.one_hot(labels, 3) * jax.nn.log_softmax(x + first))
    return loss, {"mean": jnp.mean(x, 0), "labels": labels + 1}


def toy_arguments(seed=0):
    random = np.random.default_rng(seed)
    params = [jnp.array(random.normal(size=(3, 3)), jnp.float32) for _ in range(3)]
    x = jnp.array(random.normal(size=(8, 3)), jnp.float32)
    return params, x, jnp.arange(8) % 3, jax.random.key(seed)


def gradient(function, policy="none"):
    return jax.value_and_grad(rematerialised(function, policy), has_aux=True)


def assert_close(a, b, rtol=1e-6):
    close = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=1e-6)
    jax.tree.map(close, a, b)


@pytest.mark.parametrize("policy", POLICIES)
def test_values_and_gradients_are_those_of_the_function(policy):
    arguments = toy_arguments()
    expected = jax.jit(gradient(toy))(*arguments)
    assert np.isfinite(expected[0][0])
    assert_close(jax.jit(gradient(toy, policy))(*arguments), expected)


def test_blocks_run_twice_but_the_part_after_the_last_mark_runs_once():
    def count(policy):
        jaxpr = jax.make_jaxpr(gradient(toy, policy))(*toy_arguments())
        return str(jaxpr).count(" sin "), str(jaxpr).count(" log ")

    assert count("none") == (3, 1)
    assert count("blocks") == (6, 1)


def test_a_function_without_marks_and_a_policy_without_cuts():
    plain = lambda params, x: (jnp.sum(jnp.sin(params * x)), x)  # noqa: E731
    assert rematerialised(plain, "none") is plain
    x = jnp.arange(3.0)
    assert_close(gradient(plain, "blocks")(x, x), gradient(plain)(x, x))
    with pytest.raises(ValueError, match=r"train\.remat='all'; use none, convs, blocks"):
        rematerialised(plain, "all")


def test_a_gradient_that_is_not_finite_stays_the_same():
    def function(params, x):
        x = block_output(x * params)
        x = block_output(jnp.where(x > 2, x, 0.0))
        return jnp.sum(jnp.sqrt(x - 1)), x  # NaN below 1; where() keeps it out of x

    x = jnp.arange(1.0, 5.0)
    expected = jax.jit(gradient(function))(jnp.ones(4), x)
    assert np.isnan(expected[0][0])
    assert np.isfinite(expected[1]).any()
    assert_close(jax.jit(gradient(function, "blocks"))(jnp.ones(4), x), expected)


def test_parts_pass_on_exactly_what_later_parts_read():
    """x and s cross the first cut, but only y and s the second one; p is read twice."""

    def function(p, x):
        s = jnp.sin(x)
        x = block_output(x * p)
        y = block_output(x + s)
        return y * s * p

    jaxpr = jax.make_jaxpr(function)(1.0, 2.0).jaxpr
    p, x = jaxpr.invars
    first, second, last = _split(jaxpr, [BLOCK])
    assert set(first.invars) == {p, x}
    assert len(first.outvars) == 2
    assert set(second.invars) == set(first.outvars)
    assert len(second.outvars) == 1
    assert set(last.invars) == {p, *second.outvars} | (set(first.outvars) & set(last.invars))
    assert len(last.invars) == 3
    assert [*last.outvars] == [*jaxpr.outvars]


@pytest.mark.parametrize("cotangent", [0.0, -1.5, np.inf, -np.inf, np.nan])
def test_the_dependence_on_cotangents_adds_zeros(cotangent):
    x = jnp.arange(12.0).reshape(2, 2, 3)
    cotangents = [jnp.full((2, 4, 4, 5), cotangent), jnp.full(2, cotangent), jnp.float32(cotangent)]
    program = jax.jit(_after).lower(cotangents, x).compile()
    np.testing.assert_array_equal(program(cotangents, x), x)
    assert "compare" in program.as_text()  # the compiler did not simplify it


def test_a_deep_function_needs_less_memory():
    def deep(params, x):
        for kernel in params:
            x = block_output(jnp.tanh(jnp.sin(jnp.tanh(x @ kernel))))
        return jnp.sum(x), ()

    def memory(policy):
        arguments = [jnp.ones((8, 8))] * 6, jnp.ones((4096, 8))
        program = jax.jit(gradient(deep, policy)).lower(*arguments).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert memory("blocks") < 0.8 * memory("none")


@pytest.mark.versions
def test_within_scan_and_pmap():
    params, x, labels, key = toy_arguments()

    def summed(policy):
        def body(total, batch):
            return jax.tree.map(jnp.add, total, gradient(toy, policy)(params, *batch, key)[1]), None

        halves = (x.reshape(2, 4, 3), labels.reshape(2, 4))
        return jax.jit(lambda halves: jax.lax.scan(body, params, halves)[0])(halves)

    assert_close(summed("blocks"), summed("none"))

    def on_devices(policy):
        of_share = gradient(functools.partial(toy, axis="data"), policy)
        program = jax.pmap(
            lambda *arguments: jax.lax.psum(of_share(*arguments)[1], "data"),
            axis_name="data",
            in_axes=(None, 0, 0, None),
        )
        return program(params, x.reshape(4, 2, 3), labels.reshape(4, 2), key)

    assert_close(on_devices("blocks"), on_devices("none"))


def small(name):
    thin = {"width": 0.125, "features": 8, "encoder": "shallow", "fc_features": 16}
    options = {**thin, "dropout_rate": 0.3}
    options = {k: v for k, v in options.items() if k in model_options(name)}
    return build({"name": name, **options}, K)


def loss_function(model):
    def loss(params, batch_stats, images, labels, dropout_key):
        outputs, updated = model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
        )
        return sum(cross_entropy_sum(x, labels)[0] for x in outputs.values()), updated

    return loss


@functools.cache
def arguments_of(name):
    model, random = small(name), np.random.default_rng(0)
    images = jnp.array(random.normal(size=(4, *SIZE, 3)), jnp.float32)
    labels = jnp.array(random.integers(0, K + 1, (4, *SIZE)))
    variables = jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(0))
    stats = variables.get("batch_stats", {})
    return variables["params"], stats, images, labels, jax.random.key(1)


@functools.cache
def run(name, policy):
    """Loss, statistics and gradient of a model, and the bytes of temporary memory."""
    arguments = arguments_of(name)
    program = jax.jit(gradient(loss_function(small(name)), policy)).lower(*arguments).compile()
    (loss, stats), grads = program(*arguments)
    memory = program.memory_analysis().temp_size_in_bytes
    return SimpleNamespace(loss=loss, stats=stats, grads=grads, memory=memory)


def distance(a, b):
    """Distance of two trees, relative to the norm of the first."""
    return optax.tree.norm(optax.tree.sub(a, b)) / optax.tree.norm(a)


def assert_same_numbers(name, policy):
    plain, remat = run(name, "none"), run(name, policy)
    assert np.isfinite(plain.loss)
    np.testing.assert_allclose(remat.loss, plain.loss, rtol=1e-6)
    if jax.tree.leaves(plain.stats):  # VGG networks without batch norm have none
        assert distance(plain.stats, remat.stats) < 1e-6
    # The sums run in another order: 1e-6 with the usual compiler options, 2e-6 with the tests'.
    assert distance(plain.grads, remat.grads) < 5e-6


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["blocks", "convs"])
def test_a_network_has_the_same_numbers_in_less_memory(policy):
    assert_same_numbers("segnet_basic", policy)
    assert run("segnet_basic", policy).memory < 0.8 * run("segnet_basic", "none").memory


# Largest memory relative to no policy. Thin networks need the rest for heads and gradients.
SHARE = {"segnet": 0.6, "deconvnet": 0.6, "notebook_segnet": 0.6, "pspnet": 0.7, "deeplabv3": 0.6}


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_the_same_numbers(name, policy):
    assert_same_numbers(name, policy)
    assert run(name, policy).memory < SHARE.get(name, 1.05) * run(name, "none").memory


# Number of block outputs per model: stages, residual blocks and the stem, at the papers' depth.
BLOCKS = {
    "segnet": 5 + 4,
    "segnet_basic": 4 + 3,
    "fcn": 1 + 16,
    "pspnet": 1 + 16,
    "deeplabv3": 1 + 16,
    "fcn_vgg": 5,
    "deeplab_largefov": 5,
    "deconvnet": 5 + 4,
    "notebook_segnet": 5 + 4,
    "notebook_pspnet": 1 + 16,
    "notebook_deeplabv3": 1 + 16,
    "ncsu_segnet": 4 + 3,
    "smp_pspnet": 1 + 3 + 4,
}


@pytest.mark.parametrize(
    "name",
    [n if n == "segnet" else pytest.param(n, marks=pytest.mark.slow) for n in MODELS],
)
def test_every_block_and_every_convolution_is_marked(name):
    model = build({"name": name}, K)
    images = jax.ShapeDtypeStruct((1, 65, 65, 3), jnp.float32)
    init = lambda key: model.init(key, jnp.zeros(images.shape), train=False)  # noqa: E731
    variables = jax.eval_shape(init, jax.random.key(0))

    def forward(variables, images, key):
        return model.apply(
            variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )

    jaxpr = jax.make_jaxpr(forward)(variables, images, jax.random.key(0))
    marks = [e.params["name"] for e in jaxpr.eqns if e.primitive.name == "name"]
    assert marks.count(BLOCK) == BLOCKS[name]
    kernels = [path for path, _ in jax.tree.leaves_with_path(variables["params"])]
    linens = 1 if name == "deconvnet" else 0  # linen's own convolutions have no mark
    assert marks.count(CONV) + linens == sum(path[-1].key == "kernel" for path in kernels)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_a_training_step_on_four_devices(mode):
    """With micro-batches, padded batches, and image rows sharded over devices."""
    model, random, n = small("segnet_basic"), np.random.default_rng(0), 8
    batch = {
        "image": random.integers(0, 256, (n, 64, 64, 3), np.uint8),
        "label": random.integers(0, K, (n, 64, 64)).astype(np.uint8),
        "index": np.arange(n, dtype=np.int32),
    }
    if mode == "jit":
        batch["label"][-1], batch["index"][-1] = 255, -1  # a row of padding
    views = Augmentation(crop_size=(64, 64), scale=(0.8, 1.2))
    optimizer = optax.sgd(0.1, 0.9)

    def after_one_step(policy):
        state = create_state(model, optimizer, (64, 64, 3), jax.random.key(1))
        normalization = Normalization((0.5,) * 3, (0.2,) * 3)
        objective = Objective(views, normalization, accumulate=2, remat=policy)
        make = functools.partial(
            make_train_step, model, optimizer, lambda _: 0.1, objective, jax.random.key(2)
        )
        if mode == "pmap":
            step = jax.pmap(make(BatchPlacement(axis_name="data")), "data", in_axes=(None, 0))
            shares = jax.tree.map(lambda x: x.reshape(4, n // 4, *x.shape[1:]), batch)
            return jax.tree.map(lambda x: x[0], step(state, shares))
        axes = (jax.sharding.AxisType.Auto,) * 2
        mesh = jax.make_mesh((2, 2), ("data", "space"), axis_types=axes)

        def place(x):
            spec = P("data", "space") if x.ndim > 1 else P("data")
            return jax.device_put(x, jax.sharding.NamedSharding(mesh, spec))

        return jax.jit(make(BatchPlacement(padded=True)))(state, jax.tree.map(place, batch))

    start = create_state(model, optimizer, (64, 64, 3), jax.random.key(1))
    state, metrics = after_one_step("none")
    assert distance(start.params, state.params) > 1e-3
    for policy in POLICIES:
        other, other_metrics = after_one_step(policy)
        assert_close(other_metrics["loss"], metrics["loss"])
        np.testing.assert_array_equal(other_metrics["confusion"], metrics["confusion"])
        moved = optax.tree.sub(state.params, start.params)
        assert distance(moved, optax.tree.sub(other.params, start.params)) < 1e-5
        assert distance(state.batch_stats, other.batch_stats) < 1e-6
