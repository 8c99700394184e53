"""Learning-rate schedules, against values worked out by hand and against torch's."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from segjax.training.schedules import SCHEDULES, make_schedule
from tests.conftest import GOLDENS

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
        # Both of the shares round to step 60.
        (dict(schedule="step", step_at=(0.6, 0.601), step_factor=0.1), {59: 0.2, 60: 0.002}),
        # Four cycles of 25, and three of 100/7 * (1, 2, 4).
        (dict(schedule="cosine_restarts"), {0: 0.2, 24: 0.2 * 0.0039426, 25: 0.2, 75: 0.2, 100: 0}),
        (
            dict(schedule="cosine_restarts", cycles=3, cycle_mult=2.0, end_factor=0.5),
            {0: 0.2, 7: 0.15, 14: 0.2, 43: 0.2, 100: 0.1},
        ),
        (
            dict(schedule="exponential", end_factor=0.01),
            {0: 0.2, 50: 0.02, 75: 0.2 * 10**-1.5, 100: 0.002, 120: 0.002},
        ),
        (
            dict(schedule="one_cycle", pct_start=0.4, div_factor=10.0, final_div_factor=50.0),
            {0: 0.02, 20: 0.11, 40: 0.2, 70: (0.2 + 0.0004) / 2, 100: 0.0004},
        ),
    ],
    ids=str,
)
def test_schedule(options, expected):
    assert rates(expected, **options) == pytest.approx([*expected.values()], rel=1e-6, abs=1e-8)


# What gives the same rates as the case of benchmarks/goldens/make_optim.py.
TORCH = {
    "poly": dict(schedule="poly", poly_power=0.9),
    "step": dict(schedule="step", step_at=(0.6, 0.85), step_factor=0.1),
    "cosine": dict(schedule="cosine", eta_min=0.01),
    "cosine_restarts": dict(schedule="cosine_restarts", cycles=3, cycle_mult=2.0, end_factor=0.05),
    "exponential": dict(schedule="exponential", end_factor=0.8**20),
    "one_cycle": dict(
        schedule="one_cycle", pct_start=0.25, div_factor=10.0, final_div_factor=100.0
    ),
    "linear_warmup": dict(schedule="poly", warmup_steps=5, warmup_start_factor=0.01),
    "constant_warmup": dict(
        schedule="poly", warmup_steps=5, warmup_start_factor=0.01, warmup_kind="constant"
    ),
}


@functools.cache
def golden():
    with np.load(GOLDENS / "optim.npz") as file:
        return {name: file[name] for name in file.files}


def test_each_golden_schedule_is_tested():
    assert {f"schedule/{name}" for name in TORCH} == {n for n in golden() if "schedule/" in n}


@pytest.mark.parametrize("name", TORCH)
def test_torchs_schedules(name):
    expected = golden()[f"schedule/{name}"]
    result = rates(range(len(expected)), total=len(expected), **TORCH[name])
    np.testing.assert_allclose(result, expected, rtol=2e-5, atol=1e-8)


def test_poly_with_a_floor_is_mmsegmentations():
    """mmcv's PolyLrUpdaterHook; and mmengine's PolyParamScheduler, which goes from rate to rate,
    over the run's steps less one."""
    steps, power, floor = 40, 0.9, 1e-3
    closed = [(0.2 - floor) * (1 - t / steps) ** power + floor for t in range(steps + 1)]
    chained = [0.2]
    for t in range(1, steps + 1):
        chained.append((chained[-1] - floor) * (1 - 1 / (steps - t + 1)) ** power + floor)
    options = dict(schedule="poly", poly_power=power, eta_min=floor)
    result = rates(range(steps + 1), total=steps, **options)
    np.testing.assert_allclose(result, closed, rtol=1e-5)
    np.testing.assert_allclose(result, chained, rtol=1e-5)


def test_a_floor_stays_where_the_rate_changes_and_a_share_does_not():
    for rate in (0.2, 0.4):
        options = dict(schedule="poly", learning_rate=rate)
        assert rates([100], **options, eta_min=0.02) == pytest.approx([0.02])
        assert rates([100], **options, end_factor=0.1) == pytest.approx([0.1 * rate])


@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name != "one_cycle"])
def test_warm_up_rises_from_zero_and_joins_the_schedule(schedule):
    options = dict(schedule=schedule, end_factor=0.1)
    result = rates([0, 5, 10, 11, 60, 109], total=110, warmup_steps=10, **options)
    # The schedule runs over the remaining 100 steps.
    alone = rates([0, 1, 50, 99], total=100, **options)
    assert result == pytest.approx([0, 0.1, *alone])


@pytest.mark.parametrize(
    "options, first",
    [
        (dict(warmup_start_factor=0.2), [0.04, 0.12]),  # rises
        (dict(warmup_start_factor=0.2, warmup_kind="constant"), [0.04, 0.04]),  # slow start
        (dict(warmup_start_factor=1.0), [0.2, 0.2]),
    ],
)
def test_slow_start_is_before_the_schedule(options, first):
    options = dict(schedule="poly", warmup_steps=10, **options)
    result = rates([0, 5, 10, 60], total=110, **options)
    assert result == pytest.approx([*first, *rates([0, 50], schedule="poly")])


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(schedule="exp"), r"optim\.schedule='exp' is unknown; known: constant, poly, cosine"),
        (dict(learning_rate=0.0), r"optim\.learning_rate=0\.0; use a number above 0"),
        (dict(warmup_steps=10), r"optim\.warmup_steps=10; use 0 \.\. 9 \(train\.steps-1\)"),
        (dict(warmup_steps=-1), r"optim\.warmup_steps=-1"),
        (dict(warmup_kind="cosine"), r"optim\.warmup_kind='cosine'; use linear, constant"),
        (
            dict(warmup_steps=2, warmup_kind="constant"),
            r"optim\.warmup_start_factor=0\.0 with optim\.warmup_kind='constant'",
        ),
        (dict(end_factor=1.5), r"optim\.end_factor=1\.5; use a number in \[0, 1\]"),
        (dict(schedule="step", step_at=(0.5, 60.0)), r"optim\.step_at=\(0\.5, 60\.0\); use rising"),
        (
            dict(schedule="poly", step_at=(0.9, 0.1)),  # also where no schedule reads it
            r"optim\.step_at=\(0\.9, 0\.1\); use rising shares in \(0, 1\)",
        ),
        (dict(schedule="step", step_at=(0.5, 0.5)), r"optim\.step_at=\(0\.5, 0\.5\)"),
        (dict(schedule="step", step_at=(0.0, 0.5)), r"optim\.step_at=\(0\.0, 0\.5\)"),
        (dict(poly_power=0.0), r"optim\.poly_power=0\.0; use a number above 0"),
        (
            dict(schedule="poly", end_factor=0.1, eta_min=0.01),
            r"optim\.end_factor=0\.1 and optim\.eta_min=0\.01 are both set",
        ),
        (
            dict(schedule="cosine", eta_min=0.3),
            r"optim\.eta_min=0\.3; use a rate of at most optim\.learning_rate=0\.2",
        ),
        (
            dict(schedule="exponential"),
            r"optim\.end_factor=0\.0 with optim\.schedule='exponential'",
        ),
        (
            dict(schedule="one_cycle", warmup_steps=2),
            r"optim\.warmup_steps=2 with optim\.schedule='one_cycle'",
        ),
        (
            dict(schedule="cosine_restarts", cycles=11),
            r"optim\.cycles=11 with optim\.cycle_mult=1\.0 leaves a cycle without a step, of 10",
        ),
    ],
    ids=str,
)
def test_errors_name_the_field(options, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(optim_config(**options), 10)


def halving(steps, *, learning_rate, cycles, power=0.5):
    return lambda step: learning_rate * power ** (step * cycles // steps)


def test_a_function_of_a_config_file_reads_the_options_that_it_names():
    options = dict(schedule_function=halving, cycles=2, schedule="cosine")
    assert rates([0, 49, 50, 99], **options) == pytest.approx([0.2, 0.2, 0.1, 0.1])
    options |= dict(warmup_steps=10)
    assert rates([0, 5, 10, 60], total=110, **options) == pytest.approx([0, 0.1, 0.2, 0.1])
    # A bound parameter is the function's own.
    options = dict(schedule_function=functools.partial(halving, learning_rate=1.0, power=0.1))
    assert rates([0, 25, 99], **options) == pytest.approx([1, 0.1, 0.001])


@pytest.mark.parametrize(
    "function, message",
    [
        ("halving, source 1a2b3c4d", r"optim\.schedule_function='halving, .* is no function; only"),
        (lambda steps, *, gamma: None, r"schedule_function reads optim\.gamma, which the config"),
        (lambda steps: 0.1, r"optim\.schedule_function returned 0\.1; return a function of the"),
        (lambda steps: lambda step: 0.1 - step, r"gives the rate -4\.9 at step 5; return 0 or mo"),
        (lambda steps: lambda step: float("nan"), r"gives the rate nan at step 0"),
    ],
)
def test_functions_that_will_not_do(function, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(optim_config(schedule_function=function), 10)
