"""From a config to everything a run needs, checked before anything is compiled."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import grain
import jax
import ml_collections
import optax

from segjax import config as configs
from segjax.data import sampling
from segjax.data.batches import batch_shapes
from segjax.data.classes import ClassTable
from segjax.data.doctor.findings import Finding
from segjax.data.fitted import FittedDataset
from segjax.data.scored import OWN, described_size, label_size, row_length
from segjax.data.splits import Splits
from segjax.data.weightings import WEIGHTINGS
from segjax.losses.terms import parse_aux_terms, parse_terms
from segjax.metrics.protocols import DEFAULT_PROTOCOL, Protocol
from segjax.models import build
from segjax.training import schedules
from segjax.training.class_weights import class_weights
from segjax.training.compiler_options import for_one_run
from segjax.training.evaluation import eval_batch_size
from segjax.training.head import SOFTMAX, Head, make_head
from segjax.training.inputs import Inputs, read_inputs
from segjax.training.mesh import Devices, make_devices
from segjax.training.options import check_memory, check_options
from segjax.training.parts import Parts, read_parts
from segjax.training.pretrained import (
    Initial,
    has_checkpoint,
    read_initial,
    start_from,
    with_normalization,
)
from segjax.training.shared_batch import norms_of_one_value
from segjax.training.state import TrainState, state_of
from segjax.training.step import Objective, make_eval_step, make_train_step
from segjax.transforms.augment import Augmentation
from segjax.transforms.normalize import Normalization
from segjax.weights.transfer import abstract_key, init_variables


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run, ready to start: the objects that its config names.

    Attributes:
      config: as given, with `data.mean` and `data.std` filled in.
      data: the splits of the data set; opens them when asked.
      classes: names and colours.
      model, optimizer, schedule, objective: see their modules.
      init: gives the model's variables for a key; jitted, and traced once.
      variables: their shapes.
      parts: how each of its parameters is trained.
      devices: see `mesh`.
      total_steps, eval_every: in steps; 0 = not known without the files.
      train, validation: the training split, and the split that decides the best checkpoint. None
        from `setup_programs`, which opens no files.
      initial: the weights of `init_from`, for a run that starts.
      order: endless indices of the training images; None = each once an epoch.
      findings: what the doctor's rules find in samples of the splits, the worst first.
      inputs: what a run in a workdir is made of.
    """

    config: Mapping[str, Any]
    data: Splits
    classes: ClassTable
    model: nn.Module
    init: Callable[[jax.Array], Mapping[str, Any]]
    variables: Mapping[str, Any]
    parts: Parts
    optimizer: optax.GradientTransformation
    schedule: schedules.Schedule
    objective: Objective
    devices: Devices
    total_steps: int
    eval_every: int
    train: FittedDataset | None = None
    validation: FittedDataset | None = None
    initial: Initial | None = None
    order: grain.MapDataset | None = None
    findings: Sequence[Finding] = ()
    inputs: Inputs | None = None

    @property
    def crop_size(self) -> tuple[int, int]:
        return self.objective.augmentation.crop_size

    def init_state(self, program: Callable[[jax.Array], TrainState] | None = None) -> TrainState:
        """The state at step 0, on the devices: random parameters, or those of `init_from`.

        Args:
          program: `init_program()`, where it is compiled already.
        """
        state = (program or self.init_program())(self.first_key())
        return start_from(state, self.initial) if self.initial else state

    def init_program(self) -> Callable[[jax.Array], TrainState]:
        """The compiled function that makes the state at step 0 of `first_key`."""
        shardings = jax.tree.map(lambda x: x.sharding, self.abstract_state())
        options = for_one_run(self.devices.platform)
        make = lambda key: self._state_of(self.init(key))  # noqa: E731
        return jax.jit(make, out_shardings=shardings, compiler_options=options)

    def first_key(self) -> jax.Array:
        """The key of the random parameters."""
        return jax.random.fold_in(jax.random.key(self.config["seed"]), 0)

    def abstract_state(self) -> TrainState:
        """The state's structure with shardings, without computing it."""
        shapes = self._state_shapes
        shardings = self.devices.state_shardings(shapes)
        return jax.tree.map(lambda x, sharding: x.update(sharding=sharding), shapes, shardings)

    @functools.cached_property
    def _state_shapes(self) -> TrainState:
        """Cached: a start needs them thrice."""
        return jax.eval_shape(self._state_of, self.variables)

    def _state_of(self, variables: Mapping[str, Any]) -> TrainState:
        return state_of(variables, self.optimizer, ema=self._ema)

    @property
    def _ema(self) -> bool:
        return self.objective.ema_decay > 0

    @property
    def padded_batch_size(self) -> int:
        """The rows of a training batch on the devices, padding included."""
        return self.devices.padded_size(*self._batch)

    @property
    def rows(self) -> slice:
        """The rows of a training batch that this process reads."""
        return self.devices.local_rows(*self._batch)

    @property
    def _batch(self) -> tuple[int, int]:
        """Examples of a training batch, and its micro-batches."""
        return self.config["train"]["batch_size"], self.objective.accumulate

    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """A training batch's structure with shardings, as the step takes it."""
        return self._abstract_batch(
            self.padded_batch_size, tuple(self.config["data"]["image_size"])
        )

    def abstract_eval_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """An evaluation batch's structure with shardings, as the step takes it."""
        rows = self.devices.padded_size(eval_batch_size(self.config))
        canvas, scored = tuple(self.config["data"]["image_size"]), label_size(self.config["data"])
        if scored is None:
            return self._abstract_batch(rows, canvas)
        # Without the files the labels' own size is not known; the canvas stands for it.
        pixels = math.prod(canvas if scored == OWN else scored)
        return self._abstract_batch(rows, (row_length(pixels),))

    def _abstract_batch(self, rows: int, label_shape: tuple[int, ...]):
        data = self.config["data"]
        shapes = batch_shapes(rows, tuple(data["image_size"]), label_shape, data["channels"])
        return self.devices.abstract(shapes)

    def evaluates_at(self, step: int) -> bool:
        """Whether the model is evaluated after `step` steps."""
        return step > 0 and (step % self.eval_every == 0 or step == self.total_steps)

    def warning(self) -> str:
        """What will not work as it looks, and what to do about it; "" if there is nothing.

        Batch normalisation over one value: PSPNet's pyramid or the image pooling of DeepLabV3 has a
        map of one bin, and a micro-batch of one image makes that one value.
        """
        train = self.config["train"]
        images = train["batch_size"] // train["accumulate"]
        if images > 1:
            return ""
        shape = (images, *self.crop_size, self.config["data"]["channels"])
        norms = norms_of_one_value(self.model, shape, self.parts.frozen.norms)
        if not norms:
            return ""
        fewer = f"fewer micro-batches than train.accumulate={train['accumulate']}, "
        return (
            f"warning: train.batch_size={train['batch_size']} leaves {', '.join(norms)} one value "
            "to normalise by: in training the output is the bias whatever the image shows, and the "
            f"gradient zero; use a batch of 2 or more, {fewer * (train['accumulate'] > 1)}or "
            "train.freeze=norm with the statistics of init_from"
        )

    def train_step(self):
        """The compiled training step; it donates the state it is given."""
        step = make_train_step(
            self.model,
            self.optimizer,
            self.schedule,
            self.objective,
            jax.random.fold_in(jax.random.key(self.config["seed"]), 1),
            self.devices.batch_placement(*self._batch),
        )
        return self.devices.compile_train(step, self.abstract_state())

    def eval_step(self):
        """The compiled evaluation step."""
        step = make_eval_step(self.model, self.objective.normalization, head=self.objective.head)
        return self.devices.compile_eval(step)


def setup_run(config: Mapping[str, Any], workdir: str | pathlib.Path | None = None) -> Setup:
    """Builds and checks a run.

    Args:
      config: see configs/base.py.
      workdir: of the run, if it has one. It caches counts of the data. If it holds a checkpoint,
        the run resumes, and the weights of `init_from` are not read.

    Raises:
      ValueError: naming the option or file that is wrong, what is wrong with it and what to do.
    """
    check_options(config)
    check_memory(config)
    config, data = _with_image_options(config, workdir)
    inputs = read_inputs(config, data, workdir) if workdir else None
    head = make_head(config, data.classes)
    model = build(config["model"], len(data.classes), config["dtype"])
    initial = None if has_checkpoint(workdir) else read_initial(config, model)
    config = with_normalization(config, initial, workdir)
    devices = make_devices(config["parallel"], config["data"]["image_size"][0])
    # All splits now, rather than the last ones at the end of the training.
    data.check(*data.used, batch_size=config["train"]["batch_size"])
    train = data.training()
    length = config["train"]["steps"] or config["train"]["epochs"]
    findings = data.findings(config) if length else ()  # nothing is learned in no steps
    setup = _without_data(config, data, head, model, devices, len(train))
    weights = class_weights(config, data, workdir)
    return dataclasses.replace(
        setup,
        objective=dataclasses.replace(setup.objective, class_weights=weights),
        train=train,
        validation=data.fitted(config["data"]["val_split"]),
        initial=initial,
        order=sampling.make_order(config["data"], train.source, config["seed"], workdir),
        findings=findings,
        inputs=inputs,
    )


def _with_image_options(
    config: Mapping[str, Any], workdir: str | pathlib.Path | None
) -> tuple[Mapping[str, Any], Splits]:
    """The config with `data.value_range` and `data.exif` as found over the training split, or by
    the run that is resumed; and its splits."""
    config = ml_collections.ConfigDict(config).copy_and_resolve_references()
    with config.unlocked():
        if has_checkpoint(workdir):
            saved = configs.load(workdir)["data"]
            for name in ("value_range", "exif"):
                if not config.data[name] or "auto" in config.data[name]:
                    config.data[name] = saved[name]
        data = Splits(config["data"], config["seed"])
        for name, value in data.image_options.values.items():
            config.data[name] = value
    return config, data


def setup_programs(config: Mapping[str, Any], devices: Sequence[jax.Device] | None = None) -> Setup:
    """Builds a run without its data, to lower and compile its programs.

    It opens class lists that the config names, and no file of the data set. Numbers from the data
    do not change the shape of a program; they are replaced: counted class weights are 1 each, and
    the mean and deviation of `init_from`'s network are ImageNet's.

    Args:
      config: see configs/base.py.
      devices: to compile for, as `mesh.make_devices` takes them.

    Raises:
      ValueError: naming the option that is wrong, or the option to set where only files tell the
        classes or sizes.
    """
    check_options(config)
    data = Splits(config["data"], config["seed"])
    head = make_head(config, data.classes)
    model = build(config["model"], len(data.classes), config["dtype"])
    config = with_normalization(config, None, None)
    devices = make_devices(config["parallel"], config["data"]["image_size"][0], devices)
    setup = _without_data(config, data, head, model, devices)
    counted = config["loss"]["class_weights"] in WEIGHTINGS
    weights = (1.0,) * len(data.classes) if counted else class_weights(config, data, None)
    objective = dataclasses.replace(setup.objective, class_weights=weights)
    return dataclasses.replace(setup, objective=objective)


def _without_data(
    config: Mapping[str, Any],
    splits: Splits,
    head: Head,
    model: nn.Module,
    devices: Devices,
    images: int = 0,
) -> Setup:
    """The parts of a run that depend on no more of the data than the number of training images."""
    train = config["train"]
    devices.check_batch_size(train["batch_size"], train["accumulate"])
    total_steps = steps_of(train, images)
    if total_steps >= 2**31:  # of which the step is counted on the device
        raise ValueError(
            f"train.epochs={train['epochs']} of {images} images are {total_steps} steps; use fewer"
        )
    # A run of no steps needs no schedule; the options are checked all the same.
    schedule = schedules.make_schedule(
        config["optim"], total_steps or config["optim"]["warmup_steps"] + 10**6
    )
    init = jax.jit(functools.partial(init_variables, model, config["data"]["channels"]))
    variables = dict(jax.eval_shape(init, abstract_key()))
    parts = read_parts(config, model, variables)
    objective = Objective(
        augmentation=Augmentation.from_config(config),
        normalization=Normalization.from_config(config["data"]),
        head=head,
        terms=parse_terms(config["loss"]["terms"], head=head.name),
        aux_terms=parse_aux_terms(config["loss"]["aux_terms"], head=head.name),
        aux_weight=config["loss"]["aux_weight"],
        accumulate=train["accumulate"],
        ema_decay=train["ema_decay"],
        ema_warmup=train["ema_warmup"],
        remat=train["remat"],
        skip_nonfinite=train["on_nonfinite"] == "skip",
        frozen=parts.frozen,
    )
    return Setup(
        config=config,
        data=splits,
        classes=splits.classes,
        model=model,
        init=init,
        variables=variables,
        parts=parts,
        optimizer=parts.make_optimizer(config["optim"], schedule),
        schedule=schedule,
        objective=objective,
        devices=devices,
        total_steps=total_steps,
        eval_every=train["eval_every"] or math.ceil(images / train["batch_size"]),
    )


def steps_of(train: Mapping[str, Any], images: int) -> int:
    """The steps of a run of `config.train` on so many training images."""
    return train["steps"] or math.ceil(train["epochs"] * images / train["batch_size"])


def describe_protocol(
    config: Mapping[str, Any], protocol: Protocol = DEFAULT_PROTOCOL, head: Head = SOFTMAX
) -> str:
    """How the numbers of a run are made, in words: the protocol, the decisions, the sizes it
    applies to, and the views, which evaluate keeps in the config of its results."""
    described = f"{protocol.description}{'; ' * bool(head.rule)}{head.rule}"
    height, width = canvas = config["data"]["image_size"]
    scored = described_size(label_size(config["data"]), tuple(canvas))
    sizes, views = f"images at {height}x{width}, scored at {scored}", "single scale, no flip"
    if chosen := config.get("views"):
        scales = [f"{scale:g}" for scale in chosen["scales"]]
        views = f"scale{'s' * (len(scales) > 1)} {', '.join(scales)}"
        views += ", mirrored too" * chosen["flip"]
    return f"{described}; {sizes}, {views}"
