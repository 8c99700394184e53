"""Writes losses.npz: values and gradients of losses as torch, segmentation_models.pytorch (run as
it is), and the formulas of mmsegmentation, CCNet and papers (written here with torch) have them.

Only this script needs torch; the tests read the file it leaves behind.

    pip install torch segmentation_models_pytorch==0.6.0 scipy
    python -m benchmarks.goldens.make_losses

  logits [2, 9, 11, 5], class_weights [5]; labels [2, 9, 11], a fifth of them 255, class 3 in none
    of the images and class 1 in the second one only; complete: the same without 255.
  cases: JSON, {"name", "loss", "options", "labels": which of the two, "weighted"} each.
  values [cases], gradients [cases, 2, 9, 11, 5]: with respect to the logits, float32 of float64
    (smp's Lovasz: float32).
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from segmentation_models_pytorch import losses as smp

PATH = Path(__file__).parents[2] / "tests" / "goldens" / "losses.npz"
IGNORE, K = 255, 5
RNG = np.random.default_rng(0)

LOGITS = RNG.normal(0, 2, (2, 9, 11, K)).astype(np.float32)
COMPLETE = RNG.choice([0, 1, 2, 4], (2, 3, 4)).repeat(3, 1).repeat(3, 2)[:, :, :11]
COMPLETE[0][COMPLETE[0] == 1] = 0
LABELS = np.where(RNG.random(COMPLETE.shape) < 0.2, IGNORE, COMPLETE)
WEIGHTS = np.array([0.5, 2.0, 1.0, 3.0, 0.25])

W = torch.tensor(WEIGHTS)


def flat(z, y):
    """The labelled pixels: logits [p, k] and labels [p]."""
    keep = y != IGNORE
    return z.movedim(1, -1)[keep], y[keep]


def nll(z, y, weights=None):
    """-w log p of each labelled pixel."""
    z, y = flat(z, y)
    loss = -torch.log_softmax(z, 1)[torch.arange(len(y)), y]
    return loss if weights is None else loss * weights[y]


def cross_entropy(**options):
    return lambda z, y: F.cross_entropy(z, y, ignore_index=IGNORE, **options)


def softmax_focal(gamma, weights=None):
    """Lin et al., equation 5, with the class's weight for alpha_t."""

    def loss(z, y):
        p = torch.exp(-nll(z, y))
        return ((1 - p) ** gamma * nll(z, y, weights)).mean()

    return loss


def mmseg_focal(gamma, alpha, weights=None):
    """A binary loss per class; the mean over classes and all pixels, ignored ones too."""

    def loss(z, y):
        size = y.numel() * K
        z, y = flat(z, y)
        t = F.one_hot(y, K).double()
        p = torch.sigmoid(z)
        p_t, alpha_t = p * t + (1 - p) * (1 - t), alpha * t + (1 - alpha) * (1 - t)
        each = -alpha_t * (1 - p_t) ** gamma * torch.log(p_t)
        return (each if weights is None else each * weights).sum() / size

    return loss


def per_image_and_class(score):
    """The mean over images and classes of 1 - score(p [p], t [p]) at labelled pixels."""

    def loss(z, y):
        losses = []
        for image, label in zip(z, y, strict=True):
            p, label = flat(image[None], label[None])
            p = torch.softmax(p, 1)
            losses += [1 - score(p[:, c], (label == c).double()) for c in range(K)]
        return torch.stack(losses).mean()

    return loss


def mmseg_dice(p, t):
    return (2 * (p * t).sum() + 1) / ((p**2).sum() + (t**2).sum() + 1)


def mmseg_tversky(p, t):
    tp, fp, fn = (p * t).sum(), (p * (1 - t)).sum(), ((1 - p) * t).sum()
    return (tp + 1) / (tp + 0.3 * fp + 0.7 * fn + 1)


def lovasz_all(z, y):
    """Berman et al., algorithm 1, over all classes: absent ones too."""
    p, y = flat(z, y)
    p = torch.softmax(p, 1)
    losses = []
    for c in range(K):
        t = (y == c).double()
        errors, order = torch.sort((t - p[:, c]).abs(), descending=True)
        wrong = t[order]
        union = t.sum() + torch.cumsum(1 - wrong, 0)
        jaccard = 1 - (t.sum() - torch.cumsum(wrong, 0)) / union
        rise = torch.diff(jaccard, prepend=torch.zeros(1))
        losses.append((errors * rise).sum())
    return torch.stack(losses).mean()


def hardest(z, y, threshold, count):
    """Of the labelled pixels, those below the threshold or among the `count` hardest."""
    with torch.no_grad():
        p = torch.exp(-nll(z, y))
        return p <= max(threshold, torch.sort(p).values[count - 1].item())


def mmseg_ohem(threshold, min_kept, weights=None):
    """The sum over the pixels that are kept, over all pixels of the batch."""

    def loss(z, y):
        kept = hardest(z, y, threshold, min_kept * len(y))
        return nll(z, y, weights)[kept].sum() / y.numel()

    return loss


def ccnet_ohem(threshold, count, weights=None):
    """torch's own (weighted) mean over the pixels that are kept."""

    def loss(z, y):
        kept = hardest(z, y, threshold, count)
        z, y = flat(z, y)
        return F.cross_entropy(z[kept], y[kept], weight=weights)

    return loss


def boundary(w0, sigma, weights=None):
    """Ronneberger et al., equation 2, with the distance to the nearest boundary pixel."""

    def loss(z, y):
        maps = []
        for label in y.numpy():
            edge = np.zeros(label.shape, bool)
            for i, j in np.ndindex(label.shape):
                for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                    if 0 <= a < label.shape[0] and 0 <= b < label.shape[1]:
                        ids = label[i, j], label[a, b]
                        edge[i, j] |= ids[0] != ids[1] and IGNORE not in ids
            distance = ndimage.distance_transform_edt(~edge)
            maps.append(np.exp(-(distance**2) / (2 * sigma**2)) * (distance <= 4 * sigma))
        near = torch.tensor(np.stack(maps))[y != IGNORE]
        return (nll(z, y, weights) + w0 * near * nll(z, y)).mean()

    return loss


def smp_loss(kind, **options):
    return kind("multiclass", ignore_index=IGNORE, **options)


def smp_lovasz(**options):
    """Its code mixes float32 and float64."""
    return lambda z, y: smp_loss(smp.LovaszLoss, **options)(z.float(), y)


# (where from, loss, options, function of logits [n, k, h, w] and labels, and where it differs:
# whether weighted, which labels)
CASES = [
    ("torch", "cross_entropy", {}, cross_entropy()),
    ("torch", "cross_entropy", {"divide_by": "weights"}, cross_entropy(weight=W), True),
    (
        "torch",
        "cross_entropy",
        {"divide_by": "none"},
        cross_entropy(weight=W, reduction="sum"),
        True,
    ),
    ("torch", "cross_entropy", {"label_smoothing": 0.1}, cross_entropy(label_smoothing=0.1)),
    (
        "torch",
        "cross_entropy",
        {"label_smoothing": 0.2, "divide_by": "weights"},
        cross_entropy(label_smoothing=0.2, weight=W),
        True,
    ),
    ("caffe", "cross_entropy", {}, lambda z, y: nll(z, y, W).mean(), True),
    (
        "mmsegmentation",
        "cross_entropy",
        {"divide_by": "all"},
        lambda z, y: nll(z, y, W).sum() / y.numel(),
        True,
    ),
    ("paper", "focal", {}, softmax_focal(2.0)),
    ("paper", "focal", {"gamma": 0.5}, softmax_focal(0.5, W), True),
    ("smp", "focal", {"activation": "sigmoid"}, smp_loss(smp.FocalLoss)),
    (
        "smp",
        "focal",
        {"activation": "sigmoid", "gamma": 1.5, "alpha": 0.25},
        smp_loss(smp.FocalLoss, gamma=1.5, alpha=0.25),
    ),
    (
        "mmsegmentation",
        "focal",
        {"activation": "sigmoid", "alpha": 0.5, "divide_by": "all"},
        mmseg_focal(2.0, 0.5, W),
        True,
    ),
    ("smp", "dice", {}, smp_loss(smp.DiceLoss)),
    # Its score is (both + smooth) / ((predicted + labelled) / 2 + smooth).
    ("smp", "dice", {"smooth": 4.0}, smp_loss(smp.DiceLoss, smooth=2.0)),
    (
        "mmsegmentation",
        "dice",
        {"smooth": 1.0, "squared": True, "per_image": True, "absent": "count"},
        per_image_and_class(mmseg_dice),
        False,
        "complete",
    ),
    ("smp", "jaccard", {}, smp_loss(smp.JaccardLoss)),
    ("smp", "jaccard", {"smooth": 2.0}, smp_loss(smp.JaccardLoss, smooth=2.0)),
    ("smp", "tversky", {}, smp_loss(smp.TverskyLoss)),
    (
        "smp",
        "tversky",
        {"alpha": 0.3, "beta": 0.7, "gamma": 1.5, "smooth": 1.0},
        smp_loss(smp.TverskyLoss, alpha=0.3, beta=0.7, gamma=1.5, smooth=1.0),
    ),
    (
        "mmsegmentation",
        "tversky",
        {"alpha": 0.3, "beta": 0.7, "smooth": 1.0, "per_image": True, "absent": "count"},
        per_image_and_class(mmseg_tversky),
    ),
    ("smp", "lovasz_softmax", {}, smp_lovasz()),
    ("smp", "lovasz_softmax", {"per_image": True}, smp_lovasz(per_image=True)),
    ("paper", "lovasz_softmax", {"classes": "all"}, lovasz_all),
    (
        "mmsegmentation",
        "ohem",
        {"threshold": 0.2, "min_kept": 40, "divide_by": "all"},
        mmseg_ohem(0.2, 40),
    ),
    (
        "mmsegmentation",
        "ohem",
        {"threshold": 0.7, "min_kept": 4, "divide_by": "all"},
        mmseg_ohem(0.7, 4, W),
        True,
    ),
    ("ccnet", "ohem", {"threshold": 0.7, "min_kept": 10}, ccnet_ohem(0.7, 20)),
    (
        "ccnet",
        "ohem",
        {"threshold": 0.1, "min_kept": 30, "divide_by": "weights"},
        ccnet_ohem(0.1, 60, W),
        True,
    ),
    ("paper", "boundary_cross_entropy", {"sigma": 1.5}, boundary(10.0, 1.5)),
    (
        "paper",
        "boundary_cross_entropy",
        {"edge_weight": 3.0, "sigma": 0.75},
        boundary(3.0, 0.75, W),
        True,
    ),
]


def main() -> None:
    cases, values, gradients = [], [], []
    for i, (source, loss, options, function, *rest) in enumerate(CASES):
        weighted, labels = (*rest, *(False, "labels")[len(rest) :])
        y = torch.tensor({"labels": LABELS, "complete": COMPLETE}[labels]).long()
        z = torch.tensor(LOGITS).double().movedim(-1, 1).requires_grad_()
        value = function(z, y)
        value.backward()
        cases.append(
            {
                "name": f"{i}-{loss}-{source}",
                "loss": loss,
                "options": options,
                "labels": labels,
                "weighted": weighted,
            }
        )
        values.append(value.item())
        gradients.append(z.grad.movedim(1, -1).numpy())
        print(cases[-1]["name"], options, value.item())
    np.savez_compressed(
        PATH,
        logits=LOGITS,
        labels=LABELS.astype(np.int32),
        complete=COMPLETE.astype(np.int32),
        class_weights=WEIGHTS.astype(np.float32),
        cases=json.dumps(cases),
        values=np.array(values, np.float32),
        gradients=np.array(gradients, np.float32),
    )


if __name__ == "__main__":
    main()
