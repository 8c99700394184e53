"""The training and evaluation steps: pure functions of (state, batch).

    train_step(state, batch) -> (state, metrics)
    eval_step(variables, batch) -> (outputs per image, sums over the batch)

All randomness of step t comes from fold_in(key, t) and, per example i, a further fold_in with i:
a resumed run, and a run on another number of devices, draws the same numbers. Rows of padding
(index -1, labels 255) change nothing.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from segjax.layers import resize_bilinear
from segjax.losses.pixelwise import cross_entropy_sum
from segjax.metrics.confusion import confusion_matrix
from segjax.training.remat import rematerialised
from segjax.training.rows import whole_batch
from segjax.training.state import TrainState
from segjax.transforms.augment import Augmentation, augment
from segjax.transforms.normalize import normalize

Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a step minimises and how it prepares its input.

    Attributes:
      augmentation: the random views.
      mean, std: of images in [0, 1], per channel.
      class_weights: one factor per class, or None.
      aux_weight: factor on the auxiliary head's loss.
      accumulate: micro-batches a step; the loss is that of the whole batch (batch normalisation
        sees one micro-batch at a time).
      ema_decay: of the running average of the weights; 0 = none.
      local_contrast: side of the window of local contrast normalisation; 0 = none.
      remat: what the backward pass computes again, see `training.remat`.
      skip_nonfinite: a step whose loss or gradient is not finite changes nothing but the step
        number.
    """

    augmentation: Augmentation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_weights: tuple[float, ...] | None = None
    aux_weight: float = 0.4
    accumulate: int = 1
    ema_decay: float = 0.0
    local_contrast: int = 0
    remat: str = "none"
    skip_nonfinite: bool = False


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    schedule: Callable[[Any], Any],
    objective: Objective,
    key: jax.Array,
    *,
    axis_name: str | None = None,
    padded: bool = False,
    rows_together: Callable[[jax.Array], jax.Array] = lambda x: x,
    rows_apart: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns `train_step`, to be jitted or pmapped.

    It takes a batch of uint8 `image` [n, H, W, 3], `label` [n, H, W] and `index` [n], and returns
    the new state and float32 scalars: `loss` (cross-entropy, mean over the labelled pixels, plus
    the weighted auxiliary loss), `accuracy`, `grad_norm`, `learning_rate`, `skipped` (0 or 1); and
    `confusion`, int32 [K, K] pixels of the views by label and prediction.

    Args:
      axis_name: of pmap, where a batch is a part of the whole one; what is returned is of the
        whole.
      padded: whether a batch may hold rows of padding.
      rows_together, rows_apart: where images and labels lie before and after augmentation, which
        moves rows about; see `parallel.Devices`.
    """
    weights = None if objective.class_weights is None else jnp.array(objective.class_weights)

    def over_devices(tree):
        return jax.lax.psum(tree, axis_name) if axis_name else tree

    def loss_terms(params, batch_stats, images, labels, index, dropout_key):
        """The loss summed over pixels; the new statistics and the confusion matrix."""
        with whole_batch(index, axis_name=axis_name, padded=padded):
            outputs, updated = model.apply(
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
        counts = confusion_matrix(labels, predictions, model.num_classes)
        return loss, (updated["batch_stats"], counts)

    loss_terms = rematerialised(loss_terms, objective.remat)

    def train_step(state: TrainState, batch: Batch):
        step_key = jax.random.fold_in(key, state.step)
        view_key, dropout_key = jax.random.split(step_key)
        batch = {name: rows_together(rows) for name, rows in batch.items()}
        images, labels = map(rows_apart, augmented(view_key, batch, objective))
        pixels = jnp.maximum(over_devices(jnp.sum(labels < model.num_classes)), 1)
        dropout_keys = jax.random.split(dropout_key, objective.accumulate)

        def add_microbatch(carry, micro):
            gradients, batch_stats, loss, confusion = carry
            (more_loss, (batch_stats, counts)), more = jax.value_and_grad(loss_terms, has_aux=True)(
                state.params, batch_stats, *micro
            )
            gradients = jax.tree.map(jnp.add, gradients, more)
            return (gradients, batch_stats, loss + more_loss, confusion + counts), None

        no_counts = jnp.zeros((model.num_classes,) * 2, jnp.int32)
        carry = (jax.tree.map(jnp.zeros_like, state.params), state.batch_stats, 0.0, no_counts)
        if objective.accumulate == 1:
            carry, _ = add_microbatch(carry, (images, labels, batch["index"], dropout_keys[0]))
        else:
            parts = [
                microbatches(x, objective.accumulate) for x in (images, labels, batch["index"])
            ]
            carry, _ = jax.lax.scan(add_microbatch, carry, (*parts, dropout_keys))
        gradients, batch_stats, loss, confusion = carry
        gradients, loss, confusion = over_devices((gradients, loss, confusion))
        gradients = jax.tree.map(lambda g: g / pixels, gradients)

        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        updates = jax.tree.map(lambda u: u * state.lr_scale, updates)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            now = {"params": params, "batch_stats": batch_stats}
            ema = optax.incremental_update(now, ema, 1 - objective.ema_decay)
        metrics = {
            "loss": loss / pixels,
            "accuracy": jnp.trace(confusion) / pixels,
            "grad_norm": optax.tree.norm(gradients),
            "learning_rate": schedule(state.step) * state.lr_scale,
            "skipped": jnp.zeros(()),
            "confusion": confusion,
        }
        after = state.replace(params=params, batch_stats=batch_stats, opt_state=opt_state, ema=ema)
        if objective.skip_nonfinite:
            finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
            after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)
            metrics["skipped"] = 1.0 - finite
        return after.replace(step=state.step + 1), metrics

    return train_step


def augmented(view_key: jax.Array, batch: Batch, objective: Objective):
    """The batch's random views: normalised float32 images [n, h, w, c], 0 where no image is,
    and int32 labels."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(view_key, batch["index"])
    images, labels, inside = jax.vmap(
        lambda key, image, label: augment(key, image, label, objective.augmentation)
    )(keys, batch["image"], batch["label"])
    images = normalize(images, objective.mean, objective.std, objective.local_contrast, inside)
    return images, labels


def microbatches(x: jax.Array, count: int) -> jax.Array:
    """[n, ...] to [count, n / count, ...]: micro-batch i has the rows i, i + count, ..., so that
    each device has its share of every one, and keeps its rows."""
    return jnp.moveaxis(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 1, 0)


def make_eval_step(
    model: nn.Module,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    local_contrast: int = 0,
    more: Callable[[jax.Array, jax.Array], tuple[dict, dict]] = lambda logits, labels: ({}, {}),
) -> Callable[[Any, Batch], tuple[dict[str, Any], dict[str, Any]]]:
    """Returns `eval_step`, to be jitted or pmapped.

    It takes variables and a batch of uint8 `image` [n, H, W, 3] and `label` [n, h, w], and returns
    a dict of outputs per image, `confusion` [n, K, K], and one of sums over the batch, `loss_sum`
    (unweighted cross-entropy of the main head) and `pixels`; and what `more(logits, labels)` puts
    into either, at the labels' size. Labels of another size than the images are scored at theirs:
    the logits are resized, the labels never.
    """

    def eval_step(variables, batch):
        images = normalize(batch["image"].astype(jnp.float32) / 255, mean, std, local_contrast)
        labels = batch["label"].astype(jnp.int32)
        logits = model.apply(variables, images, train=False)["logits"]
        logits = resize_bilinear(logits, labels.shape[1:3])
        loss_sum, pixels = cross_entropy_sum(logits, labels)
        confusion = jax.vmap(confusion_matrix, (0, 0, None))(
            labels, jnp.argmax(logits, -1), model.num_classes
        )
        rows, sums = more(logits, labels)
        return {"confusion": confusion, **rows}, {"loss_sum": loss_sum, "pixels": pixels, **sums}

    return eval_step
