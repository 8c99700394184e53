"""From a config to everything a run needs, checked before anything is compiled."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import optax
from jax.sharding import Mesh

from segjax.data import checks, statistics
from segjax.data.augment import Augmentation
from segjax.data.classes import ClassTable
from segjax.data.datasets import class_table, make_source, spec_of
from segjax.data.pipeline import Canvas
from segjax.metrics import PROTOCOL
from segjax.models import build
from segjax.training import optim, parallel
from segjax.training.pretrained import (
    Initial,
    has_checkpoint,
    read_initial,
    start_from,
    with_normalization,
)
from segjax.training.state import TrainState, create_state
from segjax.training.step import Objective, make_eval_step, make_train_step


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run, ready to start: what the config's names stand for.

    Attributes:
      config: as given.
      classes: names and colours.
      model, optimizer, schedule, objective: see their modules.
      mesh: the devices.
      train, validation: the training split and the one that decides the best checkpoint.
      total_steps, eval_every: in steps.
      initial: the weights of `init_from`, for a run that starts.
    """

    config: Mapping[str, Any]
    classes: ClassTable
    model: nn.Module
    optimizer: optax.GradientTransformation
    schedule: optim.Schedule
    objective: Objective
    mesh: Mesh
    train: Canvas
    validation: Canvas
    total_steps: int
    eval_every: int
    initial: Initial | None = None

    @property
    def crop_size(self) -> tuple[int, int]:
        return self.objective.augmentation.crop_size

    def init_state(self) -> TrainState:
        """Draws the parameters, those of `init_from` apart; replicated over the mesh."""
        key = jax.random.fold_in(jax.random.key(self.config["seed"]), 0)
        state = jax.jit(self._create_state, out_shardings=parallel.replicated(self.mesh))(key)
        return start_from(state, self.initial) if self.initial else state

    def abstract_state(self) -> TrainState:
        """The state's structure with shardings, without computing it."""
        shapes = jax.eval_shape(self._create_state, jax.random.key(0))
        sharding = parallel.replicated(self.mesh)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
        )

    def _create_state(self, key):
        ema = self.objective.ema_decay > 0
        return create_state(self.model, self.optimizer, self.crop_size, key, ema=ema)

    def train_step(self):
        """The jitted training step; its state argument is given up to it."""
        key = jax.random.fold_in(jax.random.key(self.config["seed"]), 1)
        step = make_train_step(self.model, self.optimizer, self.schedule, self.objective, key)
        return jax.jit(step, donate_argnums=0)

    def eval_step(self):
        """The jitted evaluation step."""
        return jax.jit(make_eval_step(self.model, self.objective.mean, self.objective.std))


def prepare(config: Mapping[str, Any], workdir: str | pathlib.Path | None = None) -> Setup:
    """Builds and checks a run.

    Args:
      config: see configs/base.py.
      workdir: of the run, if it has one: where class statistics are kept, and where a checkpoint
        makes the weights of `init_from` superfluous.

    Raises:
      ValueError: naming the option or file that is wrong, what was found and what to do.
    """
    check_options(config)
    classes = class_table(config["data"])
    model = build(config["model"], len(classes), config["dtype"])
    initial = None if has_checkpoint(workdir) else read_initial(config, model)
    config = with_normalization(config, initial, workdir)
    train, data = config["train"], config["data"]
    rows = data["image_size"][0]
    mesh = parallel.make_mesh(config["parallel"], train["batch_size"], rows)
    if train["eval_batch_size"]:
        parallel.make_mesh(config["parallel"], train["eval_batch_size"], rows)
    source = make_source(data, data["train_split"], config["seed"])
    check_samples(source, data["train_split"], min_images=train["batch_size"])
    validation = make_canvas(config, data["val_split"])
    for split in data["eval_splits"]:
        if split != data["val_split"]:
            make_canvas(config, split)  # fails now rather than at the end
    total_steps = train["steps"] or math.ceil(train["epochs"] * len(source) / train["batch_size"])
    # A run of no steps has no use for a schedule, but the options are checked all the same.
    schedule = optim.make_schedule(
        config["optim"], total_steps or config["optim"]["warmup_steps"] + 1
    )
    augmentation = {k: v for k, v in config["augment"].items() if k != "crop_size"}
    objective = Objective(
        augmentation=Augmentation(
            crop_size=_or(config["augment"]["crop_size"], data["image_size"]),
            **{k: tuple(v) if isinstance(v, list | tuple) else v for k, v in augmentation.items()},
        ),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        class_weights=class_weights(config, source, classes, workdir),
        aux_weight=config["loss"]["aux_weight"],
        accumulate=train["accumulate"],
        ema_decay=train["ema_decay"],
    )
    return Setup(
        config=config,
        classes=classes,
        model=model,
        optimizer=optim.make_optimizer(config["optim"], schedule),
        schedule=schedule,
        objective=objective,
        mesh=mesh,
        train=Canvas(source, tuple(data["image_size"]), cache_mb=data["cache_mb"]),
        validation=validation,
        total_steps=total_steps,
        eval_every=train["eval_every"] or math.ceil(len(source) / train["batch_size"]),
        initial=initial,
    )


def check_samples(source: Any, split: str, min_images: int = 1) -> None:
    """Decodes up to 1000 samples of files (4 of a procedural source) and checks them."""
    limit = 1000 if hasattr(source, "image_paths") else 4
    checks.check_source(source, split, min_images=min_images, limit=limit)


def _or(size, fallback) -> tuple[int, int]:
    """A (height, width) option where (0, 0) means another one's value."""
    return tuple(size) if any(size) else tuple(fallback)


def make_canvas(config: Mapping[str, Any], split: str) -> Canvas:
    """A split for evaluation: images on the canvas, labels at the size that is scored.

    Raises:
      ValueError: as the data set's own checks.
    """
    data = config["data"]
    source = make_source(data, split, config["seed"])
    check_samples(source, split)
    label_size = _or(data["label_size"], data["image_size"])
    return Canvas(
        source, tuple(data["image_size"]), label_size=label_size, cache_mb=data["cache_mb"]
    )


def protocol(config: Mapping[str, Any]) -> str:
    """How the numbers of a run are made, in words."""
    height, width = config["data"]["image_size"]
    scored = "x".join(map(str, _or(config["data"]["label_size"], (height, width))))
    return f"{PROTOCOL}; images at {height}x{width}, scored at {scored}, single scale, no flip"


def class_weights(
    config: Mapping[str, Any],
    source: Any,
    classes: ClassTable,
    cache_dir: str | pathlib.Path | None,
) -> tuple[float, ...] | None:
    """The loss weights that `loss.class_weights` asks for; None = all equal.

    Raises:
      ValueError: for an unknown name or a list of the wrong length.
    """
    wanted = config["loss"]["class_weights"]
    if isinstance(wanted, str) and wanted == "none":
        return None
    if isinstance(wanted, str) and wanted == "published":
        return published_weights(config["data"])
    if isinstance(wanted, str) and wanted in statistics.WEIGHTINGS:
        cache = cache_dir and pathlib.Path(cache_dir) / "class_statistics.json"
        counts = statistics.class_statistics(source, cache)
        weights = statistics.WEIGHTINGS[wanted](counts["class_pixels"], counts["present_pixels"])
        return tuple(float(w) for w in weights)
    try:
        weights = tuple(
            float(w) for w in (wanted.split(",") if isinstance(wanted, str) else wanted)
        )
    except (ValueError, TypeError):
        weights = ()
    if len(weights) != len(classes) or not all(0 <= w < math.inf for w in weights):
        raise ValueError(
            f"loss.class_weights={wanted!r}; use none, published, "
            f"{', '.join(statistics.WEIGHTINGS)} or {len(classes)} numbers of 0 or more, one per "
            f"class ({', '.join(classes.names)})"
        )
    return weights


def published_weights(data: Mapping[str, Any]) -> tuple[float, ...]:
    """The class weights that came with a data set.

    Raises:
      ValueError: if none did.
    """
    spec = spec_of(data)
    weights = spec.weights.get(data["variant"] or next(iter(spec.variants), ""))
    if weights is None:
        raise ValueError(
            f"loss.class_weights='published', but no weights were published for {data['name']} "
            f"{data['variant']}; use {', '.join(statistics.WEIGHTINGS)} or numbers"
        )
    return weights


def check_options(config: Mapping[str, Any]) -> None:
    """Raises ValueError, naming the option, for numbers that no run can have."""
    data, train, augment = config["data"], config["train"], config["augment"]
    image_size = tuple(data["image_size"])
    for name, size in (
        ("data.image_size", image_size),
        ("data.label_size", tuple(data["label_size"])),
        ("augment.crop_size", tuple(augment["crop_size"])),
    ):
        unset = name != "data.image_size" and size == (0, 0)
        if len(size) != 2 or (min(size) < 16 and not unset):
            raise ValueError(f"{name}={size}; use (height, width), each 16 or more")
    height, width = _or(data["label_size"], image_size)
    if abs(height * image_size[1] - width * image_size[0]) > max(height, width):
        raise ValueError(
            f"data.label_size={(height, width)} has another shape than data.image_size="
            f"{image_size}; use a multiple of it, or (0, 0) for the same size"
        )
    for name, value, low in (
        ("train.steps", train["steps"], 0),
        ("train.epochs", train["epochs"], 0),
        ("train.batch_size", train["batch_size"], 1),
        ("train.eval_batch_size", train["eval_batch_size"], 0),
        ("train.accumulate", train["accumulate"], 1),
        ("train.eval_every", train["eval_every"], 0),
        ("train.save_every", train["save_every"], 0),
        ("train.early_stop_patience", train["early_stop_patience"], 0),
        ("train.log_every", train["log_every"], 1),
        ("data.workers", data["workers"], 0),
        ("loss.aux_weight", config["loss"]["aux_weight"], 0),
        ("report.samples", config["report"]["samples"], 1),
    ):
        if value < low:
            raise ValueError(f"{name}={value}; use {low} or more")
    if not train["steps"] and not train["epochs"] and not config["init_from"]:
        raise ValueError(
            "train.steps=0 and train.epochs=0; set one of them, or init_from to evaluate weights "
            "as they are"
        )
    if train["steps"] and train["epochs"]:
        raise ValueError(
            f"train.steps={train['steps']} and train.epochs={train['epochs']} are both set; "
            "set one of them to 0"
        )
    if train["batch_size"] % train["accumulate"]:
        raise ValueError(
            f"train.accumulate={train['accumulate']} does not divide "
            f"train.batch_size={train['batch_size']}"
        )
    if not 0 <= train["ema_decay"] < 1:
        raise ValueError(f"train.ema_decay={train['ema_decay']}; use a number in [0, 1)")
    lengths = len(data["mean"]), len(data["std"])
    if lengths not in ((0, 0), (3, 3)) or min(data["std"], default=1) <= 0:
        raise ValueError(
            "data.mean and data.std want 3 numbers each, data.std above 0; or none, for those of "
            "init_from's network or ImageNet's"
        )
