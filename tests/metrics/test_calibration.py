"""Calibration and risk against coverage, against slow arithmetic in 64 bits."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.metrics.calibration import (
    add_counts,
    calibration_counts,
    summarize_calibration,
    summarize_risk,
    uncertainty_counts,
)

# Compiled once per shape: most tests below share one.
counts_of = jax.jit(calibration_counts, static_argnames=("bins", "from_probabilities"))


def batch(seed: int, k: int = 5, shape=(2, 7, 9)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(*shape, k)).astype(np.float32) * 3
    labels = np.where(rng.random(shape) < 0.5, logits.argmax(-1), rng.integers(0, k, shape))
    return logits, np.where(rng.random(shape) < 0.2, 255, labels).astype(np.int32)


def slow(logits, labels, bins):
    """Plain loops: ece, mce, brier, nll and the bins' (pixels, confidence, accuracy)."""
    members = [[] for _ in range(bins)]
    brier, nll = [], []
    for row, label in zip(logits.reshape(-1, logits.shape[-1]), labels.ravel(), strict=True):
        if label == 255:
            continue
        powers = [math.exp(v) for v in row.astype(float)]
        p = [v / sum(powers) for v in powers]
        best = max(range(len(p)), key=p.__getitem__)
        b = next(b for b in range(bins) if p[best] <= (b + 1) / bins or b == bins - 1)
        members[b].append((p[best], best == label))
        nll.append(-math.log(p[label]))
        brier.append(sum((v - (c == label)) ** 2 for c, v in enumerate(p)))
    means = [np.mean(m, 0) if m else (math.nan, math.nan) for m in members]
    gaps = [abs(a - c) for c, a in means]
    shares = [len(m) / len(nll) for m in members]
    ece = sum(s * g for s, g in zip(shares, gaps, strict=True) if s)
    return ece, np.nanmax(gaps), np.mean(brier), np.mean(nll), members, means


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("bins", [1, 4, 15])
def test_equals_slow_arithmetic(seed, bins):
    logits, labels = batch(seed)
    ece, mce, brier, nll, members, means = slow(logits, labels, bins)
    found = summarize_calibration(counts_of(logits, labels, bins=bins))
    assert found["ece"] == pytest.approx(ece, abs=1e-6)
    assert found["mce"] == pytest.approx(mce, abs=1e-6)
    assert found["brier"] == pytest.approx(brier, rel=1e-5)
    assert found["nll"] == pytest.approx(nll, rel=1e-5)
    assert [b["pixels"] for b in found["bins"]] == [len(m) for m in members]
    np.testing.assert_allclose(
        [(b["confidence"], b["accuracy"]) for b in found["bins"]], means, rtol=1e-5
    )
    assert found["bins"][0]["low"] == 0
    assert found["bins"][-1]["high"] == 1


def test_by_hand():
    probabilities = jnp.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3]])
    labels = jnp.array([0, 1, 1, 255])
    found = summarize_calibration(counts_of(probabilities, labels, 2, from_probabilities=True))
    # Three pixels in (1/2, 1], mean confidence 2.3/3, two right.
    assert found["ece"] == found["mce"] == pytest.approx(2.3 / 3 - 2 / 3)
    assert found["nll"] == pytest.approx(-math.log(0.9 * 0.2 * 0.6) / 3)
    assert found["brier"] == pytest.approx(2 * (0.1**2 + 0.8**2 + 0.4**2) / 3)
    assert found["pixels"] == 3
    assert [b["pixels"] for b in found["bins"]] == [0, 3]


def test_probabilities_equal_logits():
    logits, labels = batch(3)
    one = counts_of(logits, labels)
    other = counts_of(jax.nn.softmax(logits), labels, from_probabilities=True)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5)


def test_certain_and_wrong_is_finite():
    probabilities, labels = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([1, 0])
    found = summarize_calibration(counts_of(probabilities, labels, from_probabilities=True))
    assert found["nll"] == pytest.approx(-math.log(1.17549435e-38) / 2, rel=1e-6)
    assert found["brier"] == 1
    assert found["ece"] == 0.5
    assert found["bins"][-1]["pixels"] == 2
    # From logits there is no floor.
    assert summarize_calibration(counts_of(jnp.array([[200.0, 0.0]]), jnp.array([1])))["nll"] == 200


def test_ignored_pixels_change_nothing():
    logits, labels = batch(4)
    ignored = (labels == 255)[..., None]
    one, other = (counts_of(x, labels) for x in (logits, np.where(ignored, -50, logits)))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_batches_add_up():
    logits, labels = batch(5, shape=(4, 7, 9))
    total = None
    for n in range(0, 4, 2):
        total = add_counts(total, counts_of(logits[n : n + 2], labels[n : n + 2]))
    assert total["pixels"].dtype == np.int64
    assert total["confidence"].dtype == total["nll"].dtype == np.float64
    ece, mce, brier, nll, members, _ = slow(logits, labels, 15)
    added = summarize_calibration(total)
    wanted = {"ece": ece, "mce": mce, "brier": brier, "nll": nll, "pixels": sum(map(len, members))}
    assert {name: added[name] for name in wanted} == pytest.approx(wanted, rel=1e-5)
    json.dumps(added)


def test_many_pixels_keep_their_digits():
    # A sum of float32 one by one would be off by some 1e-3 here.
    probabilities = jnp.broadcast_to(jnp.array([0.9, 0.1]), (2, 600, 800, 2))
    labels = jnp.zeros((2, 600, 800), jnp.int32)
    found = summarize_calibration(counts_of(probabilities, labels, from_probabilities=True))
    assert found["ece"] == pytest.approx(0.1, rel=1e-5)
    assert found["nll"] == pytest.approx(-math.log(0.9), rel=1e-5)
    assert found["brier"] == pytest.approx(0.02, rel=1e-5)


def test_nothing_labelled():
    logits, labels = batch(6)
    found = summarize_calibration(counts_of(logits, np.full_like(labels, 255)))
    assert all(math.isnan(found[name]) for name in ("ece", "mce", "brier", "nll"))
    assert found["pixels"] == 0
    risk = summarize_risk({"pixels": np.zeros(1000, int), "errors": np.zeros(1000, int)})
    assert math.isnan(risk["aurc"])
    assert len(risk["risk"]) == 100


def test_uncertainty_bins_by_hand():
    uncertainty = jnp.array([0.0, 0.24, 0.25, 0.99, 1.0, -0.5, 7.0, math.nan, 0.5])
    correct = jnp.array([1, 0, 1, 0, 1, 1, 0, 0, 0], bool)
    labelled = jnp.array([1, 1, 1, 1, 1, 1, 1, 1, 0], bool)
    counts = jax.jit(functools.partial(uncertainty_counts, bins=4))(uncertainty, correct, labelled)
    np.testing.assert_array_equal(counts["pixels"], [3, 1, 0, 4])
    np.testing.assert_array_equal(counts["errors"], [1, 0, 0, 3])


def test_risk_by_hand():
    # 90 certain pixels with 9 errors, 10 uncertain ones with 5.
    found = summarize_risk({"pixels": np.array([90, 0, 10]), "errors": np.array([9, 0, 5])})
    assert found["accuracy_most_certain_90"] == pytest.approx(0.9)
    assert found["error_rate"] == pytest.approx(0.14)
    assert found["coverage"][89] == pytest.approx(0.9)
    assert found["risk"][89] == pytest.approx(0.1)
    assert found["risk"][94] == pytest.approx((9 + 2.5) / 95)
    assert found["risk"][99] == pytest.approx(0.14)
    # Up to coverage 0.9 the risk is 0.1; then (9 + (x - 90)/2)/x for x pixels.
    tail = 0.5 * 10 + (9 - 45) * math.log(100 / 90)
    assert found["aurc"] == pytest.approx((0.1 * 90 + tail) / 100)
    assert found["pixels"] == 100


def test_aurc_equals_sorting():
    rng = np.random.default_rng(0)
    uncertainty = rng.random(20_000)
    correct = rng.random(20_000) > uncertainty**2
    counts = jax.jit(uncertainty_counts)(uncertainty, correct, np.ones(20_000, bool))
    found = summarize_risk(counts)
    wrong = np.cumsum(~correct[np.argsort(uncertainty)])
    assert found["aurc"] == pytest.approx(np.mean(wrong / np.arange(1, 20_001)), abs=2e-4)
    assert found["accuracy_most_certain_90"] == pytest.approx(1 - wrong[17_999] / 18_000, abs=1e-4)


def test_order_of_errors_sets_the_area():
    counts = {"pixels": np.full(1000, 10), "errors": np.zeros(1000, int)}
    counts["errors"][-200:] = 10
    best = summarize_risk(counts)
    assert best["excess_aurc"] == pytest.approx(0, abs=1e-9)
    assert best["aurc"] == pytest.approx(0.2 + 0.8 * math.log(0.8))
    counts["errors"] = np.full(1000, 2)  # tells nothing
    blind = summarize_risk(counts)
    assert blind["aurc"] == pytest.approx(blind["error_rate"]) == pytest.approx(0.2)
    counts["errors"] = counts["pixels"]
    assert summarize_risk(counts)["excess_aurc"] == pytest.approx(0)
