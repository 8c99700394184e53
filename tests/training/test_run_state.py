import json
import math

import pytest

from segjax.training.run_state import Patience, RunState

OPTIM = {
    "plateau_patience": 2,
    "plateau_factor": 0.2,
    "plateau_min_rate": 0.0,
    "learning_rate": 0.1,
}
OFF = {**OPTIM, "plateau_patience": 0}


def feed(scores, optim=OFF, stop_patience=0, run_state=None):
    """Updates with the scores at steps 10, 20, ...; returns the run state and each lr_scale."""
    run_state = run_state or RunState()
    scales = []
    for n, score in enumerate(scores, 1):
        run_state.update(10 * n, score, {"early_stop_patience": stop_patience}, optim)
        scales.append(run_state.lr_scale)
    return run_state, scales


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


def test_rate_falls_after_patience_evaluations_without_a_better_score():
    #                 best  wait1 wait2>cut  1    2>cut  best  1   best
    _, scales = feed([0.30, 0.30, 0.29, 0.28, 0.30, 0.31, 0.2, 0.4], OPTIM)
    assert scales == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04, 0.04, 0.04])


def test_an_improvement_below_keras_min_delta_is_none_for_the_plateau():
    _, scales = feed([0.3, 0.30005, 0.30009], OPTIM)
    assert scales == pytest.approx([1, 1, 0.2])
    _, scales = feed([0.3, 0.3002, 0.3004], OPTIM)
    assert scales == pytest.approx([1, 1, 1])


def test_rate_never_falls_below_its_floor():
    optim = {**OPTIM, "plateau_min_rate": 0.005}
    _, scales = feed([0.3] * 9, optim)
    assert scales == pytest.approx([1, 1, 0.2, 0.2, 0.05, 0.05, 0.05, 0.05, 0.05])


def test_a_floor_above_the_rate_does_not_raise_it():
    # segnet's notebook floors at 1e-5; a user may set a rate below that.
    _, scales = feed([0.3] * 9, {**OPTIM, "plateau_min_rate": 0.5})
    assert scales == [1] * 9


@pytest.mark.parametrize("patience, min_rate", [(1, 0.0), (2, 1e-3), (3, 5e-4)])
def test_equals_keras_on_a_long_sequence(patience, min_rate):
    scores = [((7 * n) % 13) / 20 + n / 200 for n in range(40)]
    optim = {**OPTIM, "plateau_patience": patience, "plateau_min_rate": min_rate}
    _, scales = feed(scores, optim)
    expected = keras_plateau(scores, 0.1, 0.2, patience, min_rate)
    assert [0.1 * scale for scale in scales] == pytest.approx(expected)
    assert len(set(expected)) > 2


def test_run_stops_after_patience_evaluations_without_a_better_score():
    scores = [0.1, 0.2, 0.2, 0.19]
    run_state, _ = feed(scores, stop_patience=3)
    assert run_state.stopped == ""
    run_state, _ = feed([*scores, 0.2], stop_patience=3)  # an equal score is none better
    assert run_state.stopped == "no better val mIoU in 3 evaluations"
    run_state, _ = feed([*scores, 0.2001], stop_patience=3)
    assert run_state.stopped == ""


def test_both_off():
    run_state, scales = feed([0.5] + [0.1] * 20)
    assert run_state.stopped == ""
    assert scales == [1] * 21


def test_not_a_number_is_no_improvement():
    run_state, scales = feed([math.nan, 0.2, math.nan, math.nan], OPTIM, stop_patience=2)
    assert (run_state.best_miou, run_state.best_step) == (0.2, 20)
    assert run_state.stopped
    assert scales == pytest.approx([1, 1, 1, 0.2])
    run_state, _ = feed([math.nan] * 3)
    assert (run_state.best_miou, run_state.best_step) == (-1, -1)


def test_a_score_of_zero_is_better_than_none():
    run_state, _ = feed([0.0])
    assert (run_state.best_miou, run_state.best_step) == (0.0, 10)


def test_of_equal_scores_the_later_is_the_best():
    run_state, _ = feed([0.1, 0.4, 0.3, 0.4, 0.2])
    assert (run_state.best_miou, run_state.best_step) == (0.4, 40)


def test_patience_counts():
    patience = Patience(min_delta=0.1)
    assert [patience.update(s) for s in (0.5, 0.55, 0.6, 0.65, 0.66)] == [0, 1, 2, 0, 1]
    assert patience == Patience(min_delta=0.1, best=0.65, waited=1)


def test_json_round_trip_goes_on_where_it_was():
    scores = [0.3, 0.35, 0.2, 0.34, 0.1, 0.35, 0.2]
    whole, whole_scales = feed(scores, OPTIM, stop_patience=5)
    first, _ = feed(scores[:4], OPTIM, stop_patience=5)
    restored = RunState.from_json(json.loads(json.dumps(first.to_json())))
    assert restored == first
    assert isinstance(restored.plateau, Patience)
    rest, scales = feed(scores[4:], OPTIM, stop_patience=5, run_state=restored)
    assert scales == whole_scales[4:]
    assert (rest.stopping, rest.plateau, rest.stopped) == (
        whole.stopping,
        whole.plateau,
        whole.stopped,
    )
