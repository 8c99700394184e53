"""The host state of a run: reduce-on-plateau as Keras's, early stopping, the best score."""

import json
import math

import pytest

from segjax.training.run_state import RunState

RATE, FACTOR = 0.1, 0.2


def feed(scores, *, plateau=0, min_rate=0.0, stop=0, run_state=None):
    """Updates with the scores at steps 10, 20, ...; returns the run state and each lr_scale.

    `plateau` and `stop` are the two patiences.
    """
    optim = {
        "plateau_patience": plateau,
        "plateau_factor": FACTOR,
        "plateau_min_rate": min_rate,
        "learning_rate": RATE,
    }
    run_state, scales = run_state or RunState(), []
    for n, score in enumerate(scores, 1):
        run_state.update(10 * n, score, {"early_stop_patience": stop}, optim)
        scales.append(run_state.lr_scale)
    return run_state, scales


@pytest.mark.parametrize(
    "scores, options, scales",
    [
        #  best  1    2>cut  1    2>cut  best  1    best
        ([0.30, 0.30, 0.29, 0.28, 0.30, 0.31, 0.2, 0.4], {}, [1, 1, 0.2, 0.2] + [0.04] * 4),
        ([0.3, 0.30005, 0.30009], {}, [1, 1, 0.2]),  # Keras's min_delta is 1e-4
        ([0.3, 0.3002, 0.3004], {}, [1, 1, 1]),
        ([0.3] * 7, {"min_rate": 0.005}, [1, 1, 0.2, 0.2, 0.05, 0.05, 0.05]),
        ([0.3] * 9, {"min_rate": 0.5}, [1] * 9),  # a floor above the rate does not raise it
        ([math.nan, 0.2, math.nan, math.nan], {}, [1, 1, 1, 0.2]),
        ([0.5] + [0.1] * 20, {"plateau": 0}, [1] * 21),
    ],
)
def test_rate_falls_after_evaluations_without_a_better_score(scores, options, scales):
    assert feed(scores, **{"plateau": 2, **options})[1] == pytest.approx(scales)


def keras_plateau(scores, rate, factor, patience, min_rate, min_delta=1e-4):
    """`keras.callbacks.ReduceLROnPlateau(mode="max")`, line by line: the rate after each score."""
    best, wait, rates = -math.inf, 0, []
    for score in scores:
        if score > best + min_delta:
            best, wait = score, 0
        else:
            wait += 1
            if wait >= patience and rate > min_rate:
                rate, wait = max(rate * factor, min_rate), 0
        rates.append(rate)
    return rates


@pytest.mark.parametrize("patience, min_rate", [(1, 0.0), (2, 1e-3), (3, 5e-4)])
def test_equals_keras_on_a_long_sequence(patience, min_rate):
    scores = [((7 * n) % 13) / 20 + n / 200 for n in range(40)]
    _, scales = feed(scores, plateau=patience, min_rate=min_rate)
    expected = keras_plateau(scores, RATE, FACTOR, patience, min_rate)
    assert [RATE * scale for scale in scales] == pytest.approx(expected)
    assert len(set(expected)) > 2


@pytest.mark.parametrize(
    "scores, stops",
    [
        ([0.1, 0.2, 0.2, 0.19], False),
        ([0.1, 0.2, 0.2, 0.19, 0.2], True),  # an equal score is no better one
        ([0.1, 0.2, 0.2, 0.19, 0.2001], False),
        ([0.2, math.nan, math.nan, math.nan], True),
    ],
)
def test_run_stops_after_evaluations_without_a_better_score(scores, stops):
    run_state, _ = feed(scores, stop=3)
    assert run_state.stopped == ("no better val mIoU in 3 evaluations" if stops else "")
    assert feed(scores)[0].stopped == ""


@pytest.mark.parametrize(
    "scores, miou, step",
    [
        ([0.1, 0.4, 0.3, 0.4, 0.2], 0.4, 40),  # the later of equals
        ([0.0], 0.0, 10),
        ([math.nan, 0.2, math.nan], 0.2, 20),
        ([math.nan] * 3, -1, -1),
    ],
)
def test_the_best_score_and_its_step(scores, miou, step):
    run_state, _ = feed(scores)
    assert (run_state.best_miou, run_state.best_step) == (miou, step)


def test_json_round_trip_goes_on_where_it_was():
    scores, options = [0.3, 0.35, 0.2, 0.34, 0.1, 0.35, 0.2], {"plateau": 2, "stop": 5}
    at_once, scales = feed(scores, **options)
    first, _ = feed(scores[:4], **options)
    restored = RunState.from_json(json.loads(json.dumps(first.to_json())))
    assert restored == first
    rest, later_scales = feed(scores[4:], **options, run_state=restored)
    assert later_scales == scales[4:]
    for name in ("stopping", "plateau", "stopped"):
        assert getattr(rest, name) == getattr(at_once, name)
