"""The training and evaluation steps: pure functions of (state, batch).

    train_step(state, batch) -> (state, metrics)
    eval_step(variables, batch) -> (outputs per image, sums over the batch)

All randomness of step t comes from fold_in(key, t), and that of example i from a further fold_in
with i: a resumed run, and a run on another number of devices, draws the same numbers. Padding rows
(index -1, labels 255) change nothing.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from segjax.losses.terms import Term, parse_terms
from segjax.training.batch_loss import BatchLoss, WholeBatch, microbatches
from segjax.training.forward import Forward, logits_fn
from segjax.training.frozen import NOTHING, Frozen, joined
from segjax.training.head import SOFTMAX, Head
from segjax.training.mesh import ON_ONE_DEVICE, BatchPlacement
from segjax.training.remat import rematerialised
from segjax.training.scored_pixels import measure_pixels
from segjax.training.shared_batch import shared_batch
from segjax.training.state import TrainState
from segjax.transforms.augment import Augmentation, augment_batch
from segjax.transforms.normalize import Normalization

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss of a training step, and the preparation of its input.

    Attributes:
      augmentation: the random views.
      normalization: of the views.
      head: what the logits mean.
      terms: the losses that are added up, see `losses.terms`; () = the head's cross-entropy.
      aux_terms: those of the auxiliary head; () = the same.
      class_weights: one factor per class, or None.
      aux_weight: factor on the auxiliary head's loss.
      accumulate: micro-batches per step; the loss is that of the whole batch, but batch
        normalisation sees one micro-batch at a time.
      ema_decay: of the running average of the weights; 0 = none.
      ema_warmup: whether the decay grows up to `ema_decay` in the first steps.
      remat: what the backward pass computes again, see `training.remat`.
      frozen: the parameters and statistics that a step leaves as they are.
      skip_nonfinite: whether a step whose loss or gradient is not finite leaves all of the state
        as it was, the step number apart.
    """

    augmentation: Augmentation
    normalization: Normalization
    head: Head = SOFTMAX
    terms: tuple[Term, ...] = ()
    aux_terms: tuple[Term, ...] = ()
    class_weights: tuple[float, ...] | None = None
    aux_weight: float = 0.4
    accumulate: int = 1
    ema_decay: float = 0.0
    ema_warmup: bool = False
    remat: str = "none"
    frozen: Frozen = NOTHING
    skip_nonfinite: bool = False

    def ema_decay_at(self, step: jax.Array) -> float | jax.Array:
        """The decay of the running average in the update after `step` others.

        With `ema_warmup` it is min(ema_decay, (1 + t) / (10 + t)) at the t-th update, as TensorFlow
        (ExponentialMovingAverage with num_updates) and torch_ema have it: the average forgets the
        random weights of the start.
        """
        if not self.ema_warmup:
            return self.ema_decay
        updates = step + 1
        return jnp.minimum(self.ema_decay, (1 + updates) / (10 + updates))


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    schedule: Callable[[Any], Any],
    objective: Objective,
    key: jax.Array,
    placement: BatchPlacement = ON_ONE_DEVICE,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns `train_step`, to be jitted or pmapped.

    It takes a batch of uint8 `image` [n, H, W, 3], `label` [n, H, W] and int32 `index` [n], and
    returns the new state and float32 scalars: `loss` (the sum of the terms, plus the weighted
    auxiliary loss), of several terms `loss_NAME` of each one of the main head (without its factor),
    `accuracy`, `grad_norm`, `learning_rate`, `skipped` (0 or 1); and `confusion`, int32 pixels of
    the views by label and prediction, of the head's `counts_shape`. All are those of the whole
    batch, on every device.

    Args:
      key: all randomness comes from it.
      placement: of the batch on the devices, see `mesh.Devices.batch_placement`.
    """
    batch_loss = BatchLoss(
        objective.terms or parse_terms("cross_entropy", head=objective.head.name),
        objective.aux_terms,
        objective.aux_weight,
        objective.class_weights,
        placement.axis_name,
    )
    forward = make_forward(model, placement, objective.frozen)
    head, counts_shape = objective.head, objective.head.counts_shape(model.num_classes)
    loss_sum = make_loss_sum(forward, batch_loss, head, model.num_classes, objective.remat)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        view_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
        batch = jax.tree.map(placement.shard_batch_only, batch)
        images, labels = augmented(view_key, batch, objective, placement.axis_name)
        images, labels = map(placement.shard_batch_and_rows, (images, labels))
        if placement.padded:
            labels = jnp.where(batch["index"][:, None, None] < 0, -1, labels)

        examples = images, labels, batch["index"]
        keys = jax.random.split(dropout_key, objective.accumulate)

        divisors = placement.sum_over_devices(batch_loss.divisors(labels, model.num_classes))
        whole = None
        if objective.accumulate > 1 and batch_loss.needs_whole_batch:
            run = functools.partial(forward, state.params)
            whole = batch_loss.of_whole_batch(run, state.batch_stats, examples, keys)
        sums, batch_stats = sum_over_microbatches(
            loss_sum,
            state,
            examples,
            keys,
            whole,
            divisors,
            batch_loss.names,
            counts_shape,
            objective.frozen,
        )
        sums = placement.sum_over_devices(sums)
        unit = batch_loss.unit(divisors)
        gradients = jax.tree.map(lambda g: g / unit, sums.gradients)
        labelled = head.labelled(labels, model.num_classes)
        pixels = placement.sum_over_devices(jnp.sum(labelled))

        new_state = updated(state, gradients, batch_stats, optimizer, objective)
        metrics = {
            "loss": sums.loss / unit,
            **{name: value / unit for name, value in sums.terms.items()},
            "accuracy": head.right(sums.confusion) / jnp.maximum(pixels, 1),
            "grad_norm": optax.tree.norm(gradients),
            "learning_rate": schedule(state.step) * state.lr_scale,
            "skipped": jnp.zeros(()),
            "confusion": sums.confusion,
        }
        if objective.skip_nonfinite:
            finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
            new_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new_state, state)
            metrics["skipped"] = 1.0 - finite
        return new_state.replace(step=state.step + 1), metrics

    return train_step


def augmented(
    view_key: jax.Array, batch: Batch, objective: Objective, axis_name: str | None = None
) -> tuple[Float[jax.Array, "n h w c"], Int[jax.Array, "n h w"]]:
    """The random views of a batch: normalised images, 0 where they show nothing, and int32 labels.

    `axis_name` is pmap's, over which views take pixels from those of other devices.
    """
    images, labels, inside = augment_batch(
        view_key,
        batch["image"],
        batch["label"],
        batch["index"],
        objective.augmentation,
        axis_name,
    )
    return objective.normalization(images, inside), labels


def make_forward(model: nn.Module, placement: BatchPlacement, frozen: Frozen = NOTHING) -> Callable:
    """Returns `forward(params, batch_stats, images, index, dropout_key)`: the outputs for a
    micro-batch in training, and the new batch_stats."""

    def forward(params, batch_stats, images, index, dropout_key):
        with shared_batch(
            index,
            axis_name=placement.axis_name,
            padded=placement.padded,
            frozen_norms=frozen.norms,
        ):
            outputs, variables = model.apply(
                {"params": params, "batch_stats": batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": dropout_key},
            )
        return outputs, variables["batch_stats"]

    return forward


def make_loss_sum(
    forward: Callable, batch_loss: BatchLoss, head: Head, num_classes: int, remat: str
) -> Callable:
    """Returns `loss_sum(params, batch_stats, images, labels, index, dropout_key, whole, divisors)`:
    what a micro-batch adds to the loss (see `BatchLoss.part_of`), and (new batch_stats, what it
    adds to each term, confusion matrix)."""

    def loss_sum(params, batch_stats, images, labels, index, dropout_key, whole, divisors):
        outputs, batch_stats = forward(params, batch_stats, images, index, dropout_key)
        loss, terms = batch_loss.part_of(outputs, labels, divisors, whole)
        counts = head.counts(labels, head.predict(outputs["logits"]), num_classes)
        return loss, (batch_stats, terms, counts)

    return rematerialised(loss_sum, remat)


class BatchSums(NamedTuple):
    """Sums over a batch: gradients of the loss (None for frozen parameters), the loss, its terms
    and the confusion matrix."""

    gradients: Any
    loss: jax.Array
    terms: dict[str, jax.Array]
    confusion: jax.Array


def sum_over_microbatches(
    loss_sum: Callable,
    state: TrainState,
    examples: tuple[jax.Array, jax.Array, jax.Array],
    keys: jax.Array,
    whole: WholeBatch | None,
    divisors: tuple[jax.Array, ...],
    terms: Sequence[str],
    counts_shape: tuple[int, ...],
    frozen: Frozen = NOTHING,
) -> tuple[BatchSums, Any]:
    """Differentiates `loss_sum` one micro-batch after the other.

    Args:
      loss_sum: see `make_loss_sum`.
      examples: images, labels and indices of the batch.
      keys: one for each micro-batch's dropout.
      whole, divisors: see `BatchLoss.part_of`.
      terms: names of the loss's terms.
      counts_shape: of the confusion matrix.
      frozen: the parameters to differentiate by none of.

    Returns:
      The sums, and the running statistics after the last micro-batch.
    """
    trained, rest = frozen.split(state.params)

    def loss_of_trained(trained, *arguments):
        return loss_sum(joined(trained, rest), *arguments)

    gradients_of = jax.value_and_grad(loss_of_trained, has_aux=True)

    def add(carry, microbatch):
        sums, batch_stats = carry
        (loss, (batch_stats, values, confusion)), gradients = gradients_of(
            trained, batch_stats, *microbatch, divisors
        )
        added = BatchSums(gradients, loss, values, confusion)
        return jax.tree.map(jnp.add, sums, added), batch_stats

    zeros = BatchSums(
        gradients=jax.tree.map(jnp.zeros_like, trained),
        loss=jnp.zeros(()),
        terms={name: jnp.zeros(()) for name in terms},
        confusion=jnp.zeros(counts_shape, jnp.int32),
    )
    carry = zeros, state.batch_stats
    if len(keys) == 1:
        return add(carry, (*examples, keys[0], whole))
    parts = (*(microbatches(x, len(keys)) for x in examples), keys, whole)
    return jax.lax.scan(lambda carry, part: (add(carry, part), None), carry, parts)[0]


def updated(
    state: TrainState,
    gradients: Any,
    batch_stats: Any,
    optimizer: optax.GradientTransformation,
    objective: Objective,
) -> TrainState:
    """The state after the optimiser's update and the running average's; `step` stays."""
    gradients = jax.tree.map(
        lambda p, g: jnp.zeros_like(p) if g is None else g, state.params, gradients
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    updates = jax.tree.map(lambda u: u * state.lr_scale, updates)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema is not None:
        variables = {"params": params, "batch_stats": batch_stats}
        average = optax.incremental_update(variables, ema, 1 - objective.ema_decay_at(state.step))
        # The average of equal numbers is not quite that number.
        ema = objective.frozen.keep(average, ema)
    return state.replace(params=params, batch_stats=batch_stats, opt_state=opt_state, ema=ema)


def make_eval_step(
    model: nn.Module,
    normalization: Normalization,
    extra: Callable[[jax.Array, jax.Array], tuple[dict, dict]] = lambda logits, labels: ({}, {}),
    head: Head = SOFTMAX,
    views: Callable[[Forward], Forward] = lambda forward: forward,
) -> Callable[[Any, Batch], tuple[dict[str, Any], dict[str, Any]]]:
    """Returns `eval_step`, to be jitted or pmapped.

    It takes variables and a batch of uint8 `image` [n, H, W, 3] and `label` [n, H, W]; or of flat
    labels of other sizes, see `scored.ScoredDataset`, to which logits are resized by
    `scored_pixels`. It returns a dict of outputs per image, `confusion` ([n, K, K], or
    [n, *head.counts_shape(K)]), and a dict of sums over the batch, `loss_sum` (unweighted loss of
    the main head) and `pixels`.

    Args:
      extra: `extra(logits, labels)`, at the labels' size, returns entries to add to each dict; to
        the first one maps of the labels' shape.
      head: what the logits mean.
      views: makes the forward pass that is measured out of that of the network.
    """
    forward = views(logits_fn(model, normalization))

    def measure(logits, labels):
        """(sums per image and over the batch, maps)"""
        loss_sum, pixels = head.loss_sum(logits, labels)
        confusion = jax.vmap(head.counts, (0, 0, None))(
            labels, head.predict(logits), model.num_classes
        )
        maps, sums = extra(logits, labels)
        return ({"confusion": confusion}, {"loss_sum": loss_sum, "pixels": pixels, **sums}), maps

    def eval_step(variables, batch):
        logits, labels = forward(variables, batch["image"]), batch["label"]
        if "sizes" in batch:
            (rows, sums), maps = measure_pixels(measure, logits, labels, batch["sizes"])
        else:
            (rows, sums), maps = measure(logits, labels.astype(jnp.int32))
        return {**rows, **maps}, sums

    return eval_step
