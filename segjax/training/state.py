"""The training state: what a step reads and writes."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """The state of a run on the devices: one pytree, which a checkpoint saves and restores.

    Attributes:
      step: number of finished updates.
      params: the model's parameters.
      batch_stats: the model's batch-norm statistics; {} if it has none.
      opt_state: the optimiser's state.
      ema: running average of {"params", "batch_stats"}, or None.
      lr_scale: factor on the learning rate; 1 unless reduce-on-plateau or a rollback lowers it.
    """

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any
    lr_scale: Any

    def eval_variables(self) -> dict[str, Any]:
        """The variables to evaluate with: the running average if there is one."""
        return self.ema or {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    key: jax.Array,
    *,
    ema: bool = False,
) -> TrainState:
    """A state at step 0 with random parameters. Jittable; `jax.eval_shape` gives its structure.

    Args:
      model: called with images [1, H, W, C] to initialise it.
      optimizer: initialises its state for the parameters.
      image_shape: (H, W, C).
      key: seed of the parameters.
      ema: whether to keep a running average of the variables.
    """
    return state_of(model.init(key, jnp.zeros((1, *image_shape)), train=False), optimizer, ema=ema)


def state_of(
    variables: Mapping[str, Any], optimizer: optax.GradientTransformation, *, ema: bool = False
) -> TrainState:
    """A state at step 0 with given variables, "params" and, where there are any, "batch_stats"."""
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        ema={"params": params, "batch_stats": batch_stats} if ema else None,
        lr_scale=jnp.ones((), jnp.float32),
    )
