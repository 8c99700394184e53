"""The training and evaluation steps: pure functions of (state, batch).

    train_step(state, batch) -> (state, metrics)
    eval_step(variables, batch) -> (outputs per image, sums over the batch)

All randomness of step t comes from fold_in(key, t), and that of example i from a further fold_in
with i: a resumed run, and a run on another number of devices, draws the same numbers. Padding rows
(index -1, labels 255) change nothing.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from segjax.layers import resize_bilinear
from segjax.losses.pixelwise import cross_entropy_sum
from segjax.metrics.confusion import confusion_matrix
from segjax.training.forward import logits_fn
from segjax.training.frozen import NOTHING, Frozen, joined
from segjax.training.mesh import ON_ONE_DEVICE, BatchPlacement
from segjax.training.remat import rematerialised
from segjax.training.shared_batch import shared_batch
from segjax.training.state import TrainState
from segjax.transforms.augment import Augmentation, augment
from segjax.transforms.normalize import Normalization

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss of a training step, and the preparation of its input.

    Attributes:
      augmentation: the random views.
      normalization: of the views.
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
    returns the new state and float32 scalars: `loss` (cross-entropy, mean over the labelled pixels,
    plus the weighted auxiliary loss), `accuracy`, `grad_norm`, `learning_rate`, `skipped` (0 or 1);
    and `confusion`, int32 [K, K] pixels of the views by label and prediction. All are those of the
    whole batch, on every device.

    Args:
      key: all randomness comes from it.
      placement: of the batch on the devices, see `mesh.Devices.batch_placement`.
    """
    loss_sum = make_loss_sum(model, objective, placement)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        view_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
        batch = jax.tree.map(placement.shard_batch_only, batch)
        images, labels = augmented(view_key, batch, objective)
        images, labels = map(placement.shard_batch_and_rows, (images, labels))

        sums, batch_stats = sum_over_microbatches(
            loss_sum,
            state,
            (images, labels, batch["index"]),
            dropout_key,
            count=objective.accumulate,
            num_classes=model.num_classes,
            frozen=objective.frozen,
        )
        sums = placement.sum_over_devices(sums)
        pixels = placement.sum_over_devices(jnp.sum(labels < model.num_classes))
        pixels = jnp.maximum(pixels, 1)
        gradients = jax.tree.map(lambda g: g / pixels, sums.gradients)

        new_state = updated(state, gradients, batch_stats, optimizer, objective)
        metrics = {
            "loss": sums.loss / pixels,
            "accuracy": jnp.trace(sums.confusion) / pixels,
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
    view_key: jax.Array, batch: Batch, objective: Objective
) -> tuple[Float[jax.Array, "n h w c"], Int[jax.Array, "n h w"]]:
    """The random views of a batch: normalised images, 0 outside the image, and int32 labels."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(view_key, batch["index"])
    images, labels, inside = jax.vmap(
        lambda key, image, label: augment(key, image, label, objective.augmentation)
    )(keys, batch["image"], batch["label"])
    return objective.normalization(images, inside), labels


def make_loss_sum(model: nn.Module, objective: Objective, placement: BatchPlacement) -> Callable:
    """Returns `loss_sum(params, batch_stats, images, labels, index, dropout_key)`: the loss of a
    micro-batch, summed over its labelled pixels, and (new batch_stats, confusion matrix)."""
    weights = None if objective.class_weights is None else jnp.array(objective.class_weights)

    def loss_sum(params, batch_stats, images, labels, index, dropout_key):
        with shared_batch(
            index,
            axis_name=placement.axis_name,
            padded=placement.padded,
            frozen_norms=objective.frozen.norms,
        ):
            outputs, variables = model.apply(
                {"params": params, "batch_stats": batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": dropout_key},
            )
        loss, _ = cross_entropy_sum(outputs["logits"], labels, weights)
        if "aux" in outputs:
            loss += objective.aux_weight * cross_entropy_sum(outputs["aux"], labels, weights)[0]
        predictions = jnp.argmax(outputs["logits"], -1)
        confusion = confusion_matrix(labels, predictions, model.num_classes)
        return loss, (variables["batch_stats"], confusion)

    return rematerialised(loss_sum, objective.remat)


class BatchSums(NamedTuple):
    """Sums over the labelled pixels of a batch: gradients of the loss (None for frozen
    parameters), the loss, the confusion matrix."""

    gradients: Any
    loss: jax.Array
    confusion: jax.Array


def sum_over_microbatches(
    loss_sum: Callable,
    state: TrainState,
    examples: tuple[jax.Array, jax.Array, jax.Array],
    dropout_key: jax.Array,
    *,
    count: int,
    num_classes: int,
    frozen: Frozen = NOTHING,
) -> tuple[BatchSums, Any]:
    """Differentiates `loss_sum` one micro-batch after the other.

    Args:
      loss_sum: see `make_loss_sum`.
      examples: images, labels and indices of the batch.
      count: of micro-batches.
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
        (loss, (batch_stats, confusion)), gradients = gradients_of(
            trained, batch_stats, *microbatch
        )
        gradients = jax.tree.map(jnp.add, sums.gradients, gradients)
        return BatchSums(gradients, sums.loss + loss, sums.confusion + confusion), batch_stats

    zeros = BatchSums(
        gradients=jax.tree.map(jnp.zeros_like, trained),
        loss=jnp.zeros(()),
        confusion=jnp.zeros((num_classes, num_classes), jnp.int32),
    )
    keys = jax.random.split(dropout_key, count)
    carry = zeros, state.batch_stats
    if count == 1:
        return add(carry, (*examples, keys[0]))
    parts = [microbatches(x, count) for x in examples]
    return jax.lax.scan(lambda carry, part: (add(carry, part), None), carry, (*parts, keys))[0]


def microbatches(x: jax.Array, count: int) -> jax.Array:
    """[n, ...] to [count, n / count, ...]: micro-batch i has the rows i, i + count, ..., so every
    device has a part of each micro-batch and keeps its rows."""
    return jnp.moveaxis(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 1, 0)


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
) -> Callable[[Any, Batch], tuple[dict[str, Any], dict[str, Any]]]:
    """Returns `eval_step`, to be jitted or pmapped.

    It takes variables and a batch of uint8 `image` [n, H, W, 3] and `label` [n, h, w]. It returns a
    dict of outputs per image, `confusion` [n, K, K], and a dict of sums over the batch, `loss_sum`
    (unweighted cross-entropy of the main head) and `pixels`. If the labels have another size than
    the images, the logits are resized to it; labels never are.

    Args:
      extra: `extra(logits, labels)`, at the labels' size, returns entries to add to each dict.
    """
    forward = logits_fn(model, normalization)

    def eval_step(variables, batch):
        labels = batch["label"].astype(jnp.int32)
        logits = resize_bilinear(forward(variables, batch["image"]), labels.shape[1:3])
        loss_sum, pixels = cross_entropy_sum(logits, labels)
        confusion = jax.vmap(confusion_matrix, (0, 0, None))(
            labels, jnp.argmax(logits, -1), model.num_classes
        )
        rows, sums = extra(logits, labels)
        return {"confusion": confusion, **rows}, {"loss_sum": loss_sum, "pixels": pixels, **sums}

    return eval_step
