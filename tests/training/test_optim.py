"""Optimisers, against values worked out by hand and against torch's."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from segjax.training.checkpoint import CheckpointStore
from segjax.training.optim import OPTIMIZERS, kernels_only, make_optimizer
from segjax.training.rows import options_of
from segjax.training.schedules import SCHEDULES, make_schedule
from tests.conftest import GOLDENS

pytestmark = pytest.mark.versions


def optim_config(**options):
    optim = base.get_config().optim
    optim.update({"learning_rate": 0.2, "schedule": "constant", **options})
    return optim


def steps_of(params, gradients, total=10, mask=kernels_only, **options):
    """The parameters after a step with each of the gradients."""
    config = optim_config(**options)
    optimizer = make_optimizer(config, make_schedule(config, total), mask)
    state, path = optimizer.init(params), []
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path


KERNEL = np.array([[2.0, -4.0]], np.float32)
GRADIENTS = [np.array([[0.5, 0.25]]), np.array([[-1.0, 0.75]])]


def kernels(**options):
    path = steps_of({"kernel": KERNEL}, [{"kernel": g} for g in GRADIENTS], **options)
    return [params["kernel"] for params in path]


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torchs_rule(nesterov):
    """torch.optim.SGD: g += wd * p; v = mu * v + g; p -= lr * (g + mu * v if nesterov else v)."""
    lr, mu, wd = 0.1, 0.9, 0.05
    options = dict(learning_rate=lr, momentum=mu, weight_decay=wd, nesterov=nesterov)
    p, v = KERNEL, 0
    for gradient, result in zip(GRADIENTS, kernels(name="sgd", **options), strict=True):
        g = gradient + wd * p
        v = mu * v + g
        p = p - lr * (g + mu * v if nesterov else v)
        np.testing.assert_allclose(result, p, rtol=1e-5)


@pytest.mark.parametrize(
    "name, expected",
    [
        # Adam's first step is lr * sign(g). adamw also takes lr * wd * p off; adam adds wd * p to
        # g, which turns the second sign: 0.25 + 0.1 * -4 = -0.15.
        ("adamw", [[2 - 0.2 - 0.2 * 0.1 * 2, -4 - 0.2 + 0.2 * 0.1 * 4]]),
        ("adam", [[2 - 0.2, -4 + 0.2]]),
    ],
)
def test_first_step_of_adam_and_adamw(name, expected):
    result = kernels(name=name, weight_decay=0.1)[0]
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_adadelta_is_the_papers_rule():
    """Zeiler, "ADADELTA", 2012, algorithm 1, times the learning rate."""
    rho, epsilon = 0.95, 1e-2
    p, squares, moves = KERNEL, 0, 0
    results = kernels(name="adadelta", rho=rho, epsilon=epsilon, weight_decay=0.0)
    for g, result in zip(GRADIENTS, results, strict=True):
        squares = rho * squares + (1 - rho) * g**2
        move = -np.sqrt(moves + epsilon) / np.sqrt(squares + epsilon) * g
        moves = rho * moves + (1 - rho) * move**2
        p = p + 0.2 * move
        np.testing.assert_allclose(result, p, rtol=1e-5)


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_is_for_kernels_unless_asked(name, everywhere):
    params = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 3.0)}
    nothing = jax.tree.map(jnp.zeros_like, params)
    mask = None if everywhere else kernels_only
    (after,) = steps_of(params, [nothing], mask=mask, name=name, weight_decay=0.5)
    assert np.all(after["kernel"] < 3)
    assert np.all(after["bias"] < 3) == everywhere


@pytest.mark.parametrize("clip, expected", [(1.0, (-0.6, -0.8)), (10.0, (-3, -4)), (0.0, (-3, -4))])
def test_clipping_bounds_the_norm_over_all_parameters_before_the_rule(clip, expected):
    params = {"a": jnp.zeros((1, 1)), "b": jnp.zeros(1)}
    gradient = {"a": jnp.full((1, 1), 3.0), "b": jnp.full(1, 4.0)}
    options = dict(name="sgd", momentum=0.0, weight_decay=0.0, learning_rate=1.0, clip_norm=clip)
    (after,) = steps_of(params, [gradient], **options)
    assert (float(after["a"][0, 0]), float(after["b"][0])) == pytest.approx(expected)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(name="sgdd"), r"optim\.name='sgdd' is unknown; known: sgd, adam, adamw, adadelta, n"),
        (dict(weight_decay=-0.1), r"optim\.weight_decay=-0\.1; use 0 or more"),
        (dict(weight_decay=np.nan), r"optim\.weight_decay=nan; use 0 or more"),
        (dict(clip_norm=-1.0), r"optim\.clip_norm=-1\.0; use 0 or more"),
        (dict(momentum=2.0), r"optim\.momentum=2\.0; use a number in \[0, 1\)"),
        (dict(beta1=1.5), r"optim\.beta1=1\.5; use a number in \[0, 1\)"),
        (dict(beta2=1.0), r"optim\.beta2=1\.0; use a number in \[0, 1\)"),
        (dict(rho=-0.1), r"optim\.rho=-0\.1; use a number in \[0, 1\)"),
        (dict(epsilon=0.0), r"optim\.epsilon=0\.0; use a number above 0"),
    ],
    ids=str,
)
def test_errors_name_the_field(options, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(optim_config(**options), optax.constant_schedule(0.1))


# What takes the same steps as the case of benchmarks/goldens/make_optim.py.
ADAM = dict(beta1=0.8, beta2=0.95, epsilon=1e-3)
TORCH = {
    "sgd": dict(name="sgd"),
    "nesterov": dict(name="sgd", nesterov=True),
    "adam": dict(name="adam", **ADAM),
    "adamw": dict(name="adamw", **ADAM),
    "adadelta": dict(name="adadelta", rho=0.9, epsilon=1e-2),
    "nadam": dict(name="nadam", **ADAM),
    "rmsprop": dict(name="rmsprop", rho=0.9, epsilon=1e-3, momentum=0.0),
    "rmsprop_momentum": dict(name="rmsprop", rho=0.9, epsilon=1e-3),
}


@functools.cache
def golden():
    with np.load(GOLDENS / "optim.npz") as file:
        return {name: file[name] for name in file.files}


def test_each_golden_optimiser_is_tested():
    assert {f"optimizer/{name}" for name in TORCH} == {n for n in golden() if "optimizer/" in n}


@pytest.mark.parametrize("name", TORCH)
def test_torchs_optimisers(name):
    options = dict(momentum=0.9, weight_decay=0.05, learning_rate=0.1, schedule="step")
    options |= dict(step_at=(0.5,), **TORCH[name])
    gradients = [{"kernel": gradient} for gradient in golden()["gradients"]]
    path = steps_of({"kernel": golden()["kernel"]}, gradients, total=6, **options)
    result = np.stack([params["kernel"] for params in path])
    np.testing.assert_allclose(result, golden()[f"optimizer/{name}"], rtol=1e-4, atol=1e-6)


def test_lion_is_the_papers_rule():
    """Chen et al., 2023, algorithm 2."""
    lr, b1, b2, wd = 0.2, 0.9, 0.99, 0.1
    p, m = KERNEL, 0
    options = dict(beta1=b1, beta2=b2, weight_decay=wd)
    for g, result in zip(GRADIENTS, kernels(name="lion", **options), strict=True):
        p = p - lr * (np.sign(b1 * m + (1 - b1) * g) + wd * p)
        m = b2 * m + (1 - b2) * g
        np.testing.assert_allclose(result, p, rtol=1e-5)


def test_lamb_is_the_papers_rule():
    """You et al., ICLR 2020, algorithm 2: per layer, a step as long as the weights."""
    lr, b1, b2, epsilon, wd = 0.2, 0.9, 0.999, 1e-6, 0.1
    p, m, v = KERNEL, 0, 0
    options = dict(beta1=b1, beta2=b2, epsilon=epsilon, weight_decay=wd)
    results = kernels(name="lamb", **options)
    for t, (g, result) in enumerate(zip(GRADIENTS, results, strict=True), 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        r = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + epsilon) + wd * p
        p = p - lr * np.linalg.norm(p) / np.linalg.norm(r) * r
        np.testing.assert_allclose(result, p, rtol=1e-4)


def muon_step(kernel, gradient, **options):
    options = dict(name="muon", momentum=0.95, learning_rate=1.0, weight_decay=0.0) | options
    (after,) = steps_of({"kernel": kernel}, [{"kernel": gradient}], **options)
    return after["kernel"] - kernel


def test_muon_makes_the_update_of_a_convolution_orthogonal():
    """[3, 3, 2, 8] is read as 18 rows and 8 columns: all singular values of the step are about the
    same, 0.2 * sqrt(18), whatever the size of the gradient."""
    gradient = np.random.default_rng(0).standard_normal((3, 3, 2, 8)).astype(np.float32)
    kernel = np.ones_like(gradient)
    update = muon_step(kernel, gradient)
    matrix = np.asarray(update).reshape(18, 8)
    values = np.linalg.svd(matrix, compute_uv=False) / (0.2 * 18**0.5)
    assert np.all((values > 0.65) & (values < 1.25))
    # Against the gradient, in its own directions: U V' of its decomposition.
    u, _, v = np.linalg.svd(gradient.reshape(18, 8), full_matrices=False)
    cosine = np.sum(-matrix * (u @ v)) / np.linalg.norm(matrix) / np.linalg.norm(u @ v)
    assert cosine > 0.97
    np.testing.assert_allclose(muon_step(kernel, 100 * gradient), update, rtol=1e-3, atol=1e-3)
    as_matrix = muon_step(kernel.reshape(18, 8), gradient.reshape(18, 8))
    np.testing.assert_allclose(as_matrix, matrix, rtol=1e-5, atol=1e-6)


def test_muon_gives_biases_to_adam_and_decays_apart_from_the_gradient():
    params = {"kernel": jnp.full((1, 1, 3, 4), 3.0), "bias": jnp.full(4, 3.0)}
    gradient = {"kernel": jnp.zeros((1, 1, 3, 4)), "bias": jnp.array([1.0, -1.0, 5.0, 0.0])}
    (after,) = steps_of(params, [gradient], name="muon", weight_decay=0.5)
    np.testing.assert_allclose(after["kernel"], 3 - 0.2 * 0.5 * 3)
    # The first step of Adam with Nesterov momentum is (b1 / (1 + b1) + 1) * sign(g).
    expected = 3 - 0.2 * (0.9 / 1.9 + 1) * np.sign(gradient["bias"])
    np.testing.assert_allclose(after["bias"], expected, rtol=1e-5)


def structure(optimizer):
    params = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    return jax.tree.structure(optimizer.init(params))


def test_checkpoints_of_older_runs_fit():
    """The state's tree of each optimiser that 0.3 had."""
    schedule, decay = optax.linear_schedule(0.1, 0.0, 10), optax.add_decayed_weights(0.1)
    for name, rule in (
        ("sgd", optax.sgd(schedule, 0.9)),
        ("adam", optax.adam(schedule)),
        ("adadelta", optax.adadelta(schedule)),
    ):
        options = optim_config(name=name, weight_decay=0.0)
        assert structure(make_optimizer(options, schedule)) == structure(optax.chain(rule))
        options.update(weight_decay=0.1, clip_norm=1.0)
        expected = optax.chain(optax.clip_by_global_norm(1.0), decay, rule)
        assert structure(make_optimizer(options, schedule, None)) == structure(expected)
        masked = optax.add_decayed_weights(0.1, kernels_only)
        expected = optax.chain(optax.clip_by_global_norm(1.0), masked, rule)
        assert structure(make_optimizer(options, schedule)) == structure(expected)
    expected = optax.chain(optax.adamw(schedule, mask=kernels_only))
    assert structure(make_optimizer(optim_config(name="adamw"), schedule)) == structure(expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_checkpoint_has_the_whole_state(tmp_path, name):
    config = optim_config(name=name, clip_norm=1.0)
    optimizer = make_optimizer(config, make_schedule(config, 10))
    params = {"kernel": jnp.full((2, 3), 3.0), "bias": jnp.full(3, 3.0)}
    empty = optimizer.init(params)
    _, state = optimizer.update(jax.tree.map(jnp.ones_like, params), empty, params)
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"opt_state": state}, {})
    with CheckpointStore(tmp_path, read_only=True) as store:
        restored, _ = store.restore(1, {"opt_state": empty})
    assert jax.tree.structure(restored["opt_state"]) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored["opt_state"], state)


def test_base_says_which_rows_read_an_option():
    """The comment of each option that only some rows read begins with their names."""
    lines = re.findall(r"optim\.(\w+) = .*?  # (.*)", inspect.getsource(base))
    comments = dict(lines)
    for table, of_all in ((OPTIMIZERS, {"weight_decay"}), (SCHEDULES, {"learning_rate"})):
        readers: dict[str, list[str]] = {}
        for row, function in table.items():
            for option in set(options_of(function)) - of_all - {"decay_mask", "warmup_steps"}:
                readers.setdefault(option, []).append(row)
        for option, rows in readers.items():
            named = comments[option].partition(":")[0].split(", ")
            assert sorted(named) == sorted(rows), option
    for named, table in (("name", OPTIMIZERS), ("schedule", SCHEDULES)):
        listed = ", ".join(table)
        assert listed in inspect.getsource(base).replace("\n    # ", " "), named
    decoupled = [row for row in OPTIMIZERS if "weight_decay" in options_of(OPTIMIZERS[row])]
    assert f"(decoupled) for {', '.join(decoupled)}." in inspect.getsource(base)


def signs(rate, *, weight_decay, decay_mask, twice=1.0):
    return optax.chain(
        optax.scale_by_sign(),
        optax.add_decayed_weights(weight_decay, decay_mask),
        optax.scale(twice),
        optax.scale_by_learning_rate(rate),
    )


def test_a_function_of_a_config_file_reads_the_options_that_it_names():
    params = {"kernel": jnp.full((1, 2), 3.0), "bias": jnp.full(2, 3.0)}
    gradient = {"kernel": jnp.array([[0.1, -9.0]]), "bias": jnp.array([0.0, 7.0])}
    options = dict(optimizer_function=signs, name="adam", weight_decay=0.5)
    (after,) = steps_of(params, [gradient], **options)
    np.testing.assert_allclose(after["kernel"], [[3 - 0.2 * 2.5, 3 - 0.2 * 0.5]])
    np.testing.assert_allclose(after["bias"], [3, 2.8])
    options |= dict(optimizer_function=functools.partial(signs, twice=2.0))
    (after,) = steps_of(params, [gradient], **options)
    np.testing.assert_allclose(after["bias"], [3, 2.6])


def test_a_function_that_reads_no_decay_has_it_in_the_gradient_and_clipping_before_it():
    options = dict(optimizer_function=lambda rate: optax.sgd(rate), learning_rate=1.0)
    params, zero = {"kernel": jnp.full((1, 1), 3.0)}, {"kernel": jnp.zeros((1, 1))}
    (after,) = steps_of(params, [zero], weight_decay=0.5, **options)
    np.testing.assert_allclose(after["kernel"], 1.5)
    (after,) = steps_of(params, [{"kernel": zero["kernel"] + 4}], clip_norm=1.0, **options)
    np.testing.assert_allclose(after["kernel"], 2 - 3e-4, rtol=1e-6)


@pytest.mark.parametrize(
    "function, message",
    [
        ("lars", r"optim\.optimizer_function='lars' is no function; only a config file can set it"),
        (lambda rate, *, xi: None, r"optim\.optimizer_function reads optim\.xi, which the config"),
        (lambda rate: rate, r"optim\.optimizer_function returned .*; return an optax transforma"),
    ],
)
def test_functions_that_will_not_do(function, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(optim_config(optimizer_function=function), optax.constant_schedule(0.1))
