"""The loss of a batch, of which a device, and a micro-batch, has only a part.

A loss that is a sum over pixels, divided by a number that the labels tell, is added up part by
part. Any other one is computed from the logits of the whole batch. Under jit a program has them.
The devices of pmap send them to each other. Micro-batches are first run forward, all of them, which
costs one more forward pass and the memory of a batch's logits and their gradient; then each goes
forward again, with the same dropout and statistics, and backward from its part of the gradient.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from segjax.losses.divisors import at_least_something
from segjax.losses.table import LOSSES
from segjax.losses.terms import CROSS_ENTROPY, Term, term_names

# Logits by the name of the head, of one class per channel: "logits", and "aux" if there is one.
Outputs = dict[str, jax.Array]
# Of the losses over pixels, those that share one apart, in the order of the terms.
Divisors = tuple[jax.Array, ...]


class WholeBatch(NamedTuple):
    """The losses of a whole batch, as its micro-batches take them over.

    Attributes:
      loss: [count], each micro-batch's share.
      values: of the main head's terms, likewise.
      gradients: of the loss, with respect to the outputs of each micro-batch, [count, n, ...].
    """

    loss: jax.Array
    values: dict[str, jax.Array]
    gradients: Outputs


class _Part(NamedTuple):
    """A term of a head."""

    head: str
    name: str  # of its value among the metrics; "" = none
    factor: float
    term: Term


@dataclasses.dataclass(frozen=True)
class BatchLoss:
    """The sum of the terms of all heads.

    Attributes:
      terms: of the main head.
      aux_terms: of the auxiliary head; () = the same.
      aux_weight: factor on the auxiliary head's loss.
      class_weights: one factor per class, or None, for the losses that take them.
      axis_name: pmap's axis, or None.
    """

    terms: tuple[Term, ...] = CROSS_ENTROPY
    aux_terms: tuple[Term, ...] = ()
    aux_weight: float = 0.4
    class_weights: tuple[float, ...] | None = None
    axis_name: str | None = None

    def divisors(self, labels: jax.Array, num_classes: int) -> Divisors:
        """What each loss over pixels is divided by, of a part of the batch; to be added up."""
        weights = self._weights()
        return tuple(
            divisor(labels, num_classes, weights, divide_by)
            for divisor, divide_by in self._distinct_divisors
        )

    def unit(self, divisors: Divisors) -> jax.Array | float:
        """What the sums of `part_of` are to be divided by in the end: the divisor of the first loss
        over pixels. The gradient of the most usual loss is then divided once, when it is summed."""
        return at_least_something(divisors[0]) if divisors else 1.0

    def part_of(
        self, outputs: Outputs, labels: jax.Array, divisors: Divisors, whole: WholeBatch | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """What a part of the batch adds to `unit` times the loss, and to `unit` times the value of
        each of the main head's terms (none if there is one term only).

        Args:
          outputs, labels: of a device's rows of a micro-batch.
          divisors: of the whole batch.
          whole: of this micro-batch; None = it is the whole batch, or no loss needs that.
        """
        unit, losses, values = self.unit(divisors), [], {}
        for part in self._parts:
            if part.head in outputs and _is_pixelwise(part.term):
                value = self._loss(part.term, outputs, part.head, labels, divide_by="none")
                number = self._distinct_divisors.index(_divisor(part.term))
                if number > 0:
                    value *= unit / at_least_something(divisors[number])
                losses.append(part.factor * value)
                values |= {part.name: value} if part.name else {}
        if self.needs_whole_batch:
            if whole is None:
                loss, own = self._shared_equally(outputs, labels)
            else:
                loss, own = _with_gradient(outputs, whole.loss, whole.gradients), whole.values
            losses.append(unit * loss)
            values |= {name: unit * value for name, value in own.items()}
        return functools.reduce(operator.add, losses), values

    @property
    def names(self) -> list[str]:
        """Of the main head's terms among the metrics; none where there is one term only."""
        names = [f"loss_{name}" for name in term_names(self.terms)]
        return names if len(names) > 1 else []

    @property
    def needs_whole_batch(self) -> bool:
        return not all(_is_pixelwise(part.term) for part in self._parts)

    def of_whole_batch(
        self,
        forward: Callable[..., tuple[Outputs, Any]],
        batch_stats: Any,
        examples: tuple[jax.Array, jax.Array, jax.Array],
        keys: jax.Array,
    ) -> WholeBatch:
        """Runs all micro-batches forward, and differentiates the losses of the whole batch with
        respect to their outputs.

        Args:
          forward: `(batch_stats, images, index, dropout_key) -> (outputs, batch_stats)`.
          examples: images, labels and indices of the batch.
          keys: one for each micro-batch's dropout.
        """
        count = len(keys)
        split = functools.partial(microbatches, count=count)
        images, labels, index = examples

        def step(batch_stats, microbatch):
            outputs, batch_stats = forward(batch_stats, *microbatch)
            return batch_stats, outputs

        outputs = jax.lax.scan(step, batch_stats, (split(images), split(index), keys))[1]
        (loss, values), gradients = jax.value_and_grad(self._shared_equally, has_aux=True)(
            jax.tree.map(from_microbatches, outputs), labels
        )
        loss, values = jax.tree.map(lambda x: jnp.full(count, x / count), (loss, values))
        return WholeBatch(loss, values, jax.tree.map(split, gradients))

    def _shared_equally(self, outputs, labels):
        """The losses that need the whole batch, divided by the number of devices that compute it:
        their sum is the loss, and the sum of the gradients that they send each other is its."""
        if self.axis_name:
            gather = functools.partial(
                jax.lax.all_gather, axis_name=self.axis_name, axis=0, tiled=True
            )
            outputs, labels = jax.tree.map(gather, (outputs, labels))
        share = 1 / jax.lax.axis_size(self.axis_name) if self.axis_name else 1.0
        losses, values = [], {}
        for part in self._parts:
            if part.head in outputs and not _is_pixelwise(part.term):
                value = share * self._loss(part.term, outputs, part.head, labels)
                losses.append(part.factor * value)
                values |= {part.name: value} if part.name else {}
        return functools.reduce(operator.add, losses, jnp.zeros(())), values

    def _loss(self, term, outputs, head, labels, **options):
        loss = LOSSES[term.name]
        weights = (self._weights(),) if loss.takes_class_weights else ()
        return loss.function(outputs[head], labels, *weights, **{**dict(term.options), **options})

    def _weights(self):
        return None if self.class_weights is None else jnp.array(self.class_weights)

    @property
    def _distinct_divisors(self) -> list[tuple[Callable[..., jax.Array], str]]:
        terms = [part.term for part in self._parts]
        return list(dict.fromkeys(_divisor(term) for term in terms if _is_pixelwise(term)))

    @property
    def _parts(self) -> list[_Part]:
        names = self.names or [""]
        parts = [_Part("logits", n, t.factor, t) for n, t in zip(names, self.terms, strict=True)]
        aux = self.aux_terms or self.terms
        return parts + [_Part("aux", "", self.aux_weight * t.factor, t) for t in aux]


def _is_pixelwise(term: Term) -> bool:
    return LOSSES[term.name].divisor is not None


def _divisor(term: Term) -> tuple[Callable[..., jax.Array], str]:
    """The divisor of a loss over pixels, and the option that it is called with."""
    divisor = LOSSES[term.name].divisor
    assert divisor is not None
    return divisor, term.option("divide_by")


def microbatches(x: jax.Array, count: int) -> jax.Array:
    """[n, ...] to [count, n / count, ...]: micro-batch i has the rows i, i + count, ..., so every
    device has a part of each micro-batch and keeps its rows."""
    return jnp.moveaxis(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 1, 0)


def from_microbatches(x: jax.Array) -> jax.Array:
    """The inverse of `microbatches`."""
    return jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])


@jax.custom_vjp
def _with_gradient(outputs: Outputs, loss: jax.Array, gradients: Outputs) -> jax.Array:
    """The loss, whose derivative with respect to the outputs is `gradients`."""
    return loss


def _keep(outputs, loss, gradients):
    return loss, gradients


def _scale(gradients, cotangent):
    return jax.tree.map(lambda g: cotangent * g, gradients), None, None


_with_gradient.defvjp(_keep, _scale)
