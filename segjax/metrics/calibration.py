"""Calibration errors of probabilities, and risk against coverage.

The device counts each batch (`calibration_counts`, `uncertainty_counts`), the host adds the counts
in 64 bits (`add_counts`) and divides once (`summarize_calibration`, `summarize_risk`).
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

BINS = 15  # Guo et al.
UNCERTAINTY_BINS = 1000


def calibration_counts(
    logits: Float[Array, "*shape k"],
    labels: Integer[Array, "*shape"],
    bins: int = BINS,
    *,
    from_probabilities: bool = False,
) -> dict[str, Array]:
    """Counts for the calibration errors of one batch. Jittable with `bins` and the flag static.

    Args:
      logits: or probabilities that sum to 1 over the last axis; any float dtype.
      labels: ids 0..k-1; any other id (255 = ignore) does not count.
      bins: of equal width over the largest probability, ((b - 1)/bins, b/bins].
      from_probabilities: `logits` holds probabilities, for example the mean of an ensemble. Values
        below the smallest float32 (1.2e-38) are raised to it, so a pixel costs at most 87.3 nats.

    Returns:
      `pixels` int32 [bins]: labelled pixels; `hits` int32 [bins]: those whose likeliest class is
      right; `confidence` float32 [bins]: the sum of their largest probabilities; `nll` and `brier`
      float32: sums over the labelled pixels of the negative log-likelihood in nats and of the
      squared distance between probabilities and one-hot label. A batch may hold up to 2**31 - 1
      pixels.

    References: Guo et al., "On calibration of modern neural networks", ICML 2017; Brier,
    "Verification of forecasts expressed in terms of probability", 1950.
    """
    num_classes = logits.shape[-1]
    logits = logits.astype(jnp.float32)
    if from_probabilities:
        probabilities = logits
        log_probabilities = jnp.log(jnp.maximum(logits, jnp.finfo(jnp.float32).tiny))
    else:
        log_probabilities = jax.nn.log_softmax(logits)
        probabilities = jnp.exp(log_probabilities)
    labels = jnp.asarray(labels, jnp.int32)
    labelled = (labels >= 0) & (labels < num_classes)
    # A one-hot product is cheaper than a gather; an ignored pixel's row is all zeros.
    one_hot = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    nll = -jnp.sum(jnp.where(one_hot > 0, log_probabilities, 0), -1)
    brier = jnp.where(labelled, jnp.sum((probabilities - one_hot) ** 2, -1), 0)
    confidence = jnp.max(probabilities, -1)
    right = labelled & (jnp.argmax(logits, -1) == labels)
    index = jnp.clip(jnp.ceil(confidence * bins).astype(jnp.int32) - 1, 0, bins - 1)
    return {
        "pixels": _sums(index, labelled.astype(jnp.int32), bins),
        "hits": _sums(index, right.astype(jnp.int32), bins),
        "confidence": _sums(index, jnp.where(labelled, confidence, 0), bins),
        "nll": jnp.sum(nll),
        "brier": jnp.sum(brier),
    }


def _sums(index: Array, weights: Array, bins: int) -> Array:
    """Sums of the weights by bin: one masked sum a bin, because a scatter adds one by one."""
    own = index.reshape(-1, 1) == jnp.arange(bins)
    # Without the dtype JAX sums integers in 64 bits if those are enabled.
    return jnp.sum(jnp.where(own, weights.reshape(-1, 1), 0), 0, dtype=weights.dtype)


def add_counts(
    total: Mapping[str, np.ndarray] | None, counts: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Adds the counts of a batch on the host, in float64 and int64; the first `total` is None."""
    wide = {}
    for name, value in counts.items():
        value = np.asarray(value)
        kind = np.int64 if np.issubdtype(value.dtype, np.integer) else np.float64
        previous = 0 if total is None else total[name]
        wide[name] = np.asarray(value.astype(kind) + previous)  # a sum of scalars is no array
    return wide


def summarize_calibration(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Calibration errors from the sum of `calibration_counts`, as plain types.

    Returns:
      `ece`: mean over pixels of |accuracy - confidence| of their bin; `mce`: the largest over the
      bins that hold pixels; `brier`: mean squared distance, in [0, 2]; `nll`: mean negative
      log-likelihood in nats; `pixels`; `bins`: a list of {`low`, `high`, `pixels`, `confidence`,
      `accuracy`} for the reliability diagram, the last two NaN in an empty bin. All NaN without a
      labelled pixel.
    """
    pixels = np.asarray(counts["pixels"], np.int64)
    total = int(pixels.sum())
    bins = []
    for b, (n, confidence, hits) in enumerate(
        zip(pixels.tolist(), counts["confidence"], counts["hits"], strict=True)
    ):
        bins.append(
            {
                "low": b / len(pixels),
                "high": (b + 1) / len(pixels),
                "pixels": n,
                "confidence": float(confidence) / n if n else math.nan,
                "accuracy": float(hits) / n if n else math.nan,
            }
        )
    gaps = [(b["pixels"], abs(b["accuracy"] - b["confidence"])) for b in bins if b["pixels"]]
    return {
        "ece": math.fsum(n * gap for n, gap in gaps) / total if total else math.nan,
        "mce": max((gap for _, gap in gaps), default=math.nan),
        "brier": float(counts["brier"]) / total if total else math.nan,
        "nll": float(counts["nll"]) / total if total else math.nan,
        "pixels": total,
        "bins": bins,
    }


def uncertainty_counts(
    uncertainty: Float[Array, "*shape"],
    correct: Bool[Array, "*shape"],
    labelled: Bool[Array, "*shape"],
    bins: int = UNCERTAINTY_BINS,
) -> dict[str, Array]:
    """Histograms of uncertainty: labelled pixels and wrong ones. Jittable with `bins` static.

    Args:
      uncertainty: in [0, 1], 0 = certain (1 - largest probability, or entropy / log k). Values
        outside are clipped, NaN counts as 1.
      correct: where the prediction is right; any value on unlabelled pixels.
      labelled: which pixels count.
      bins: of equal width, [b/bins, (b + 1)/bins), 1 in the last.

    Returns:
      `pixels` and `errors`, int32 [bins]; a batch may hold up to 2**31 - 1 pixels.
    """
    uncertainty = jnp.nan_to_num(uncertainty.astype(jnp.float32), nan=1.0)
    index = (jnp.clip(uncertainty, 0, 1) * bins).astype(jnp.int32)
    index = jnp.minimum(index, bins - 1)
    labelled = jnp.asarray(labelled, bool)
    wrong = labelled & ~jnp.asarray(correct, bool)
    index, zeros = index.reshape(-1), jnp.zeros(bins, jnp.int32)
    return {
        "pixels": zeros.at[index].add(labelled.reshape(-1).astype(jnp.int32)),
        "errors": zeros.at[index].add(wrong.reshape(-1).astype(jnp.int32)),
    }


def summarize_risk(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Risk against coverage from the sum of `uncertainty_counts`, as plain types.

    Coverage is the share of pixels kept, the most certain first; risk is the share of wrong pixels
    among them. Within a bin errors are taken as spread evenly, as in a random order.

    Returns:
      `coverage`, `risk`: lists of 100, at coverages 0.01, 0.02, ..., 1; `aurc`: the area under
      that curve, integrated over the bins instead of the 100 points; `excess_aurc`: `aurc` minus
      the area of the best order at the same error rate r, r + (1 - r) log(1 - r); `error_rate`,
      which is also the area of a random order; `accuracy_most_certain_90`: share of right pixels
      among the most certain 90 %; `pixels`. Without a labelled pixel all but `coverage` and
      `pixels` are NaN.

    References: Geifman and El-Yaniv, "Selective classification for deep neural networks", NeurIPS
    2017; Geifman et al., "Bias-reduced uncertainty estimation", ICLR 2019 (excess).
    """
    pixels = np.asarray(counts["pixels"], np.float64)
    errors = np.asarray(counts["errors"], np.float64)[pixels > 0]
    pixels = pixels[pixels > 0]
    coverage = [n / 100 for n in range(1, 101)]
    total = pixels.sum()
    if not total:
        names = ("aurc", "excess_aurc", "error_rate", "accuracy_most_certain_90")
        return {
            "coverage": coverage,
            "risk": [math.nan] * 100,
            **dict.fromkeys(names, math.nan),
            "pixels": 0,
        }
    kept = np.concatenate([[0], np.cumsum(pixels)])
    wrong = np.concatenate([[0], np.cumsum(errors)])

    def risk(share):
        return np.interp(share * total, kept, wrong) / (share * total)

    # Within a bin, x pixels kept hold a + s x wrong ones. Risk is a / x + s, whose integral is
    # s x + a log x. The first bin has a = 0.
    slope = errors / pixels
    constant = wrong[:-1] - slope * kept[:-1]
    log_growth = np.log(kept[1:] / np.maximum(kept[:-1], 1))
    log_growth[0] = 0
    aurc = float((slope * pixels + constant * log_growth).sum() / total)
    rate = float(wrong[-1] / total)
    best = rate + (1 - rate) * math.log1p(-rate) if rate < 1 else 1.0
    return {
        "coverage": coverage,
        "risk": [float(r) for r in risk(np.array(coverage))],
        "aurc": aurc,
        "excess_aurc": aurc - best,
        "error_rate": rate,
        "accuracy_most_certain_90": float(1 - risk(0.9)),
        "pixels": int(total),
    }
