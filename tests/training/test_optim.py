"""Learning-rate schedules and optimisers, against values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from segjax.training.optim import OPTIMIZERS, SCHEDULES, kernels_only, make_optimizer, make_schedule

pytestmark = pytest.mark.versions


def optim_config(**options):
    optim = base.get_config().optim
    optim.update({"learning_rate": 0.2, "schedule": "constant", **options})
    return optim


def rates(steps, total=100, **options):
    schedule = make_schedule(optim_config(**options), total)
    return [float(schedule(jnp.int32(step))) for step in steps]


def test_constant():
    assert rates([0, 50, 100]) == pytest.approx([0.2] * 3)


def test_poly_is_one_minus_the_share_to_the_power():
    result = rates([0, 25, 50, 99, 100], schedule="poly", poly_power=0.9)
    assert result == pytest.approx([0.2, 0.2 * 0.75**0.9, 0.2 * 0.5**0.9, 0.2 * 0.01**0.9, 0])
    result = rates([0, 50, 100, 120], schedule="poly", poly_power=2.0, end_factor=0.1)
    assert result == pytest.approx([0.2, 0.02 + 0.18 * 0.25, 0.02, 0.02])


def test_cosine_is_half_a_wave():
    result = rates([0, 25, 50, 100], schedule="cosine")
    assert result == pytest.approx([0.2, 0.1 * (1 + 0.5**0.5), 0.1, 0], abs=1e-8)
    assert rates([50, 100], schedule="cosine", end_factor=0.5) == pytest.approx([0.15, 0.1])


def test_step_multiplies_at_each_share():
    result = rates([0, 59, 60, 84, 85, 100], schedule="step", step_at=(0.6, 0.85), step_factor=0.1)
    assert result == pytest.approx([0.2, 0.2, 0.02, 0.02, 0.002, 0.002])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_rises_from_zero_and_joins_the_schedule(schedule):
    result = rates([0, 5, 10, 11], total=110, schedule=schedule, warmup_steps=10)
    assert result[:3] == pytest.approx([0, 0.1, 0.2])
    # The schedule then runs over the remaining 100 steps.
    alone = rates([0, 1, 50, 99], total=100, schedule=schedule)
    joined = rates([10, 11, 60, 109], total=110, schedule=schedule, warmup_steps=10)
    assert joined == pytest.approx(alone)


TARGET = {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([2.0, -1.0])}


def descend(config, steps, loss_of=None):
    """Parameters after each step on a quadratic (distance to TARGET), from zeros."""
    optimizer = make_optimizer(config, make_schedule(config, steps))
    params = jax.tree.map(jnp.zeros_like, TARGET)
    state, path = optimizer.init(params), [params]
    for _ in range(steps):
        gradients = jax.tree.map(jnp.subtract, params, TARGET)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path


def distance(params):
    return np.sqrt(sum(np.sum((params[k] - TARGET[k]) ** 2) for k in TARGET))


@pytest.mark.parametrize(
    "options",
    [
        dict(name="sgd", momentum=0.0),
        dict(name="sgd", momentum=0.5),
        dict(name="sgd", momentum=0.5, nesterov=True),
        dict(name="adam"),
        dict(name="adamw"),
        dict(name="adadelta", learning_rate=1.0, epsilon=1e-2),
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_every_optimizer_descends(options):
    path = descend(optim_config(**options), 30)
    assert distance(path[-1]) < 0.5 * distance(path[0])
    assert options["name"] in OPTIMIZERS


def test_sgd_is_torchs_rule():
    # torch.optim.SGD: g += wd * p; v = mu * v + g; p -= lr * (g + mu * v if nesterov else v).
    lr, mu, wd = 0.1, 0.9, 0.05
    for nesterov in (False, True):
        config = optim_config(
            name="sgd", learning_rate=lr, momentum=mu, weight_decay=wd, nesterov=nesterov
        )
        path = descend(config, 3)
        target = np.asarray(TARGET["kernel"], np.float64)
        p, v = np.zeros_like(target), np.zeros_like(target)
        for step in range(3):
            g = p - target + wd * p
            v = mu * v + g
            p = p - lr * (g + mu * v if nesterov else v)
            np.testing.assert_allclose(path[step + 1]["kernel"], p, rtol=1e-5)


def test_first_steps_of_adam_and_adamw_by_hand():
    # Adam's first step is lr * sign(g); adamw takes lr * wd * p off besides, adam adds it to g.
    params = {"kernel": jnp.array([[2.0, -4.0]])}
    gradients = {"kernel": jnp.array([[0.5, 0.25]])}
    for name, expected in (
        ("adamw", [[2 - 0.2 - 0.2 * 0.1 * 2, -4 - 0.2 + 0.2 * 0.1 * 4]]),
        ("adam", [[2 - 0.2, -4 + 0.2]]),  # -0.15 = 0.25 + 0.1 * -4: decay turns the sign
    ):
        config = optim_config(name=name, weight_decay=0.1)
        optimizer = make_optimizer(config, make_schedule(config, 10))
        updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        result = optax.apply_updates(params, updates)["kernel"]
        np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_is_for_kernels_unless_asked(name):
    params = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 3.0)}
    nothing = jax.tree.map(jnp.zeros_like, params)
    moved = {}
    for everywhere in (False, True):
        config = optim_config(name=name, weight_decay=0.5, decay_biases_and_norms=everywhere)
        optimizer = make_optimizer(config, make_schedule(config, 10))
        updates, _ = optimizer.update(nothing, optimizer.init(params), params)
        moved[everywhere] = {k: bool(np.any(u != 0)) for k, u in updates.items()}
        assert np.all(updates["kernel"] < 0)
    assert moved == {
        False: {"kernel": True, "bias": False},
        True: {"kernel": True, "bias": True},
    }
    assert kernels_only(params) == {"kernel": True, "bias": False}


def test_clipping_bounds_the_norm_over_all_parameters_before_the_rule():
    params = {"a": jnp.zeros((1, 1)), "b": jnp.zeros(1)}
    gradients = {"a": jnp.full((1, 1), 3.0), "b": jnp.full(1, 4.0)}
    config = optim_config(name="sgd", momentum=0.0, weight_decay=0.0, learning_rate=1.0)
    for clip, expected in ((1.0, (-0.6, -0.8)), (10.0, (-3, -4)), (0.0, (-3, -4))):
        config.clip_norm = clip
        optimizer = make_optimizer(config, make_schedule(config, 10))
        updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        result = float(updates["a"][0, 0]), float(updates["b"][0])
        assert result == pytest.approx(expected)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(schedule="exp"), r"optim\.schedule='exp' is unknown; known: constant, poly, cosine"),
        (dict(learning_rate=0.0), r"optim\.learning_rate=0\.0; use a number above 0"),
        (dict(warmup_steps=10), r"optim\.warmup_steps=10; use 0 \.\. 9 \(train\.steps-1\)"),
        (dict(warmup_steps=-1), r"optim\.warmup_steps=-1"),
        (dict(end_factor=1.5), r"optim\.end_factor=1\.5; use a share in \[0, 1\]"),
        (dict(step_at=(0.5, 60.0)), r"optim\.step_at=\(0\.5, 60\.0\); use shares in \(0, 1\)"),
    ],
)
def test_schedule_errors_name_the_field(options, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(optim_config(**options), 10)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(name="lamb"), r"optim\.name='lamb' is unknown; known: sgd, adam, adamw, adadelta"),
        (dict(weight_decay=-0.1), r"optim\.weight_decay=-0\.1; use 0 or more"),
        (dict(clip_norm=-1.0), r"optim\.clip_norm=-1\.0; use 0 \(off\) or more"),
    ],
)
def test_optimizer_errors_name_the_field(options, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(optim_config(**options), optax.constant_schedule(0.1))
