"""Findings about options that do not suit the data: a set-up that learns little or nothing."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from segjax.data.doctor.findings import ERROR, SHOWN, WARNING, Finding
from segjax.data.doctor.settings import Settings
from segjax.data.doctor.split import Split
from segjax.data.doctor.split_rules import advised_canvas, median_zoom

# A number before or numbers after the name, punctuation of CSV or JSON, words of a header.
_ROW = re.compile(
    r"^\d+[\s,;:]+\S|(\d+[\s,;:]+){2}\d+$|[;{}\t\"]|::|^__|"
    r"^(pixel value|(id|class|name|label)s?[ ,](name|r(ed)?)\b)",
    re.IGNORECASE,
)
_KEPT = 0.5  # share of the first weights in a running average that is worth a line


def one_class(splits: Mapping[str, Split], settings: Settings) -> Iterator[Finding]:
    """One class of a softmax, whose probability is 1 everywhere."""
    classes = next(iter(splits.values())).classes
    if settings.config is None or len(classes) > 1 or classes.multilabel:
        return
    yield Finding(
        "one-class",
        ERROR,
        f"there is one class ({classes.names[0]}), so there is nothing to tell apart",
        ("its probability is 1 everywhere, whatever is learned",),
        f"name the background as a class too: --config.data.classes=background,{classes.names[0]}; "
        "or --config.model.head=sigmoid --config.data.mask_format=bits",
    )


def class_names(splits: Mapping[str, Split], settings: Settings) -> Iterator[Finding]:
    """Names that look like a header or like whole rows of a class list in another form."""
    odd = [n for n in next(iter(splits.values())).classes.names if _ROW.search(n)]
    if odd:
        yield Finding(
            "class-names",
            WARNING,
            f"names of classes look like rows of another kind of file: {', '.join(odd[:SHOWN])}",
            tuple(odd[:SHOWN]),
            "check data.classes: with a header or a column too many, every id has the name of "
            "another class",
        )


def zero_weights(splits: Mapping[str, Split], settings: Settings) -> Iterator[Finding]:
    """Classes that occur and that `loss.class_weights` leaves out."""
    split, weights = splits.get(settings.train_split), _listed_weights(settings.config)
    if split is None or not split.decisive or len(weights) != len(split.classes):
        return
    pixels = split.usable_counts.class_pixels.tolist()
    used = list(zip(split.classes.names, pixels, weights, strict=True))
    out = [f"{name}: {count:,} pixels" for name, count, weight in used if count and not weight]
    if not out:
        return
    nothing = not any(count and weight for _, count, weight in used)
    yield split.finding(
        "zero-weight",
        ERROR if nothing else WARNING,
        "loss.class_weights is 0 for "
        + ("all classes that occur" if nothing else f"{len(out)} classes that occur"),
        out,
        "use weights above 0 for classes that are to be learned; data.class_map leaves a class out "
        "(its pixels are then ignored in the scores too)",
    )


def _listed_weights(config: Mapping[str, Any] | None) -> list[float]:
    option = "none" if config is None else config["loss"]["class_weights"]
    try:
        return [float(w) for w in (option.split(",") if isinstance(option, str) else option)]
    except (TypeError, ValueError):  # a name; what is no option, class_weights refuses
        return []


def frozen_at_random(splits: Mapping[str, Split], settings: Settings) -> Iterator[Finding]:
    """Parts that stay as they were drawn."""
    config = settings.config
    if config is None or not config["train"]["freeze"] or config["init_from"]:
        return
    freeze = config["train"]["freeze"]
    names = freeze if isinstance(freeze, str) else ",".join(freeze)
    yield Finding(
        "frozen-at-random",
        WARNING,
        f"train.freeze={names} keeps random weights",
        ("init_from is empty: no weights are loaded",),
        "use --config.init_from=imagenet, or another network's weights, or train all parts",
    )


def long_average(splits: Mapping[str, Split], settings: Settings) -> Iterator[Finding]:
    """A running average of weights that is longer than the run."""
    split, train = splits.get(settings.train_split), (settings.config or {}).get("train", {})
    decay = train.get("ema_decay", 0)
    if not decay or split is None or train["ema_warmup"]:
        return
    epochs_steps = train["epochs"] * split.numbers.images / train["batch_size"]
    steps = train["steps"] or epochs_steps
    kept = decay**steps
    if not steps or kept < _KEPT:
        return
    yield Finding(
        "long-average",
        WARNING,
        f"train.ema_decay={decay:g} over {steps:,.0f} steps: {kept:.0%} of the average that is "
        "evaluated are the first weights",
        (f"{decay:g} to the power of {steps:,.0f} is {kept:.2f}",),
        f"use --config.train.ema_warmup=True, or --config.train.ema_decay={1 - 10 / steps:.3g} or "
        "less",
    )


def toy_network(splits: Mapping[str, Split], settings: Settings) -> Iterator[Finding]:
    """The small networks and canvases of the street scenes, on one's own photos."""
    config, split = settings.config, splits.get(settings.train_split)
    if config is None or split is None or not split.numbers.sizes:
        return
    name, model = config["data"]["name"], config["model"]
    own = name in ("folder", "prepared") or name.startswith("tfds:")
    if not own or model.get("width", 1) >= 1 or median_zoom(split, settings) >= 0.5:
        return
    size = max(split.numbers.sizes.items(), key=lambda item: item[1])[0]
    canvas = advised_canvas(size)
    height, width = settings.image_size or (0, 0)
    options = ["--config.model.width=1", f"'--config.data.image_size={canvas}'"]
    if any(config["augment"]["crop_size"]):
        crop = tuple(min(side, 480) for side in canvas)
        options.append(f"'--config.augment.crop_size={crop}'")
    if not config["init_from"] and str(model.get("encoder", "")).startswith("resnet"):
        options.append("--config.init_from=imagenet")
    yield Finding(
        "toy-network",
        WARNING,
        f"model.width={model['width']:g} at {height}x{width} is made for the small drawn street "
        f"scenes; these images are {size[0]}x{size[1]}",
        ("a config file's first preset is a run of minutes that shows that all works",),
        f"for a real run: {' '.join(options)}, and more train.steps; or let `segjax init "
        f"{config['data']['root']}` write a config",
    )


RULES = (one_class, class_names, zero_weights, frozen_at_random, long_average, toy_network)
