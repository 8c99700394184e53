"""Learning-rate schedules and optimisers, against values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from segjax.training.optim import (
    OPTIMIZERS,
    SCHEDULES,
    kernels_only,
    make_optimizer,
    make_schedule,
)

pytestmark = pytest.mark.versions


def optim_config(**options):
    optim = base.get_config().optim
    optim.update({"learning_rate": 0.2, "schedule": "constant", **options})
    return optim


def rates(steps, total=100, **options):
    schedule = make_schedule(optim_config(**options), total)
    return [float(schedule(jnp.int32(step))) for step in steps]


@pytest.mark.parametrize(
    "options, expected",
    [
        (dict(schedule="constant"), {0: 0.2, 50: 0.2, 100: 0.2}),
        (
            dict(schedule="poly", poly_power=0.9),
            {0: 0.2, 25: 0.2 * 0.75**0.9, 50: 0.2 * 0.5**0.9, 99: 0.2 * 0.01**0.9, 100: 0},
        ),
        (
            dict(schedule="poly", poly_power=2.0, end_factor=0.1),
            {0: 0.2, 50: 0.02 + 0.18 * 0.25, 100: 0.02, 120: 0.02},
        ),
        (dict(schedule="cosine"), {0: 0.2, 25: 0.1 * (1 + 0.5**0.5), 50: 0.1, 100: 0}),
        (dict(schedule="cosine", end_factor=0.5), {50: 0.15, 100: 0.1}),
        (
            dict(schedule="step", step_at=(0.6, 0.85), step_factor=0.1),
            {0: 0.2, 59: 0.2, 60: 0.02, 84: 0.02, 85: 0.002, 100: 0.002},
        ),
    ],
    ids=str,
)
def test_schedule(options, expected):
    assert rates(expected, **options) == pytest.approx([*expected.values()], abs=1e-8)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_rises_from_zero_and_joins_the_schedule(schedule):
    result = rates([0, 5, 10, 11, 60, 109], total=110, schedule=schedule, warmup_steps=10)
    # The schedule runs over the remaining 100 steps.
    alone = rates([0, 1, 50, 99], total=100, schedule=schedule)
    assert result == pytest.approx([0, 0.1, *alone])


def steps_of(params, gradients, decayed=kernels_only, **options):
    """The parameters after a step with each of the gradients."""
    config = optim_config(**options)
    optimizer = make_optimizer(config, make_schedule(config, 10), decayed)
    state, path = optimizer.init(params), []
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path


KERNEL, GRADIENTS = np.array([[2.0, -4.0]]), [np.array([[0.5, 0.25]]), np.array([[-1.0, 0.75]])]


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
    options = dict(name=name, weight_decay=0.5)
    decayed = None if everywhere else kernels_only
    (after,) = steps_of(params, [nothing], decayed, **options)
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
        (dict(schedule="exp"), r"optim\.schedule='exp' is unknown; known: constant, poly, cosine"),
        (dict(learning_rate=0.0), r"optim\.learning_rate=0\.0; use a number above 0"),
        (dict(warmup_steps=10), r"optim\.warmup_steps=10; use 0 \.\. 9 \(train\.steps-1\)"),
        (dict(warmup_steps=-1), r"optim\.warmup_steps=-1"),
        (dict(end_factor=1.5), r"optim\.end_factor=1\.5; use a share in \[0, 1\]"),
        (dict(step_at=(0.5, 60.0)), r"optim\.step_at=\(0\.5, 60\.0\); use shares in \(0, 1\)"),
        (dict(name="lamb"), r"optim\.name='lamb' is unknown; known: sgd, adam, adamw, adadelta"),
        (dict(weight_decay=-0.1), r"optim\.weight_decay=-0\.1; use 0 or more"),
        (dict(clip_norm=-1.0), r"optim\.clip_norm=-1\.0; use 0 \(off\) or more"),
    ],
    ids=str,
)
def test_errors_name_the_field(options, message):
    config = optim_config(**options)
    with pytest.raises(ValueError, match=message):
        make_optimizer(config, make_schedule(config, 10))
